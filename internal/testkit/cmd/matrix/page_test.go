package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// output is what `go test -json` prints, as far as it is read.
func output(t *testing.T, events ...event) string {
	t.Helper()
	var b strings.Builder
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func TestPage(t *testing.T) {
	leak := func(number, config, before, after string) event {
		return event{Action: "output", Test: "TestLeaks/nft/" + config,
			Output: `    leaks_test.go:9: matrix: {"leak":` + number + `,"what":"way ` + number + `","engine":"` + config + `","before":` + before + `,"after":` + after + "}\n"}
	}
	life := func(name, held, noticed string) event {
		return event{Action: "output", Test: "TestLife/nft/proxy=true",
			Output: `    life_test.go:9: matrix: {"event":"` + name + `","engine":"proxy=true","works":true,"held":` + held + `,"noticed":` + noticed + "}\n"}
	}
	text := output(t,
		leak("10", "proxy=true", "true", "false"), leak("10", "proxy=false", "true", "false"),
		leak("2", "proxy=true", "true", "false"), leak("2", "proxy=false", "false", "false"),
		leak("3", "proxy=true", "true", "true"), leak("3", "proxy=false", "true", "false"),
		life("quiet", "true", "false"), life("flush", "false", "true"), life("silent flush", "false", "false"),
		event{Action: "pass", Test: "TestS1/nft"}, event{Action: "fail", Test: "TestS2/nft"}, event{Action: "skip", Test: "TestS7/nft"}, event{Action: "pass", Test: "TestS3/iptables-legacy"},
		event{Action: "pass", Test: "TestLeaks/nft/proxy=true"}, event{Action: "pass", Test: "TestS1"})
	r := result{engine: engine{version: "26.1.5"}, passed: map[[2]string]bool{}}
	if err := r.read(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if !r.failed {
		t.Error("a test failed and another was skipped, and the run counts as good")
	}
	page := page([]result{r, {engine: engine{version: "29.0.0", backend: "nftables"}}})
	for _, want := range []string{
		"| 26.1.5 | iptables-nft | nftables | ok | FAILED | – | – | FAILED | – | – |\n",
		"| 2 | way 2 | open with docker-proxy → closed | – |\n| 3 | way 3 | open → open with docker-proxy | – |\n| 10 | way 10 | open → closed | – |\n",
		"| what happens | 26.1.5 | 29.0.0 (nftables) |\n|---|---|---|\n| quiet | goes on; closed | – |\n" +
			"| flush | goes on; told, closed by apply | – |\n| silent flush | OPEN | – |\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks\n%s\nit is\n%s", want, page)
		}
	}
}
