package cli_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// snapshotOf is the folder of a snapshot.
func snapshotOf(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "collect", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

const docker20 = "20.10.24-published-port"

func TestExplain(t *testing.T) {
	dir, host := t.TempDir(), snapshotOf(t, docker20)
	rules := filepath.Join(host, "iptables-save.txt")
	write(t, dir, "policy.yaml", "version: 1\ninbound: [{allow: ssh}]\n")
	write(t, dir, "bad.yaml", "version: 1\ninbound: [{alow: ssh}]\n")
	for name, test := range map[string]struct {
		args           []string
		status         int
		stdout, stderr []string
	}{
		"internet to a published port": {[]string{"--snapshot", host, "tcp 203.0.113.2 -> 203.0.113.1:8080"}, 0, []string{"Let through, answered.", "container c1",
			"203.0.113.1:8080, rewritten to 172.17.0.2:80", "rule 1 of ip filter DOCKER lets it through", "✓ DOCKER 2: ! -i docker0", "dnat to 172.17.0.2:80", "Answer", "Taken for granted"}, nil},
		"to an unpublished port": {[]string{"--snapshot", host, "tcp 203.0.113.2 -> 172.17.0.2:81"}, 0, []string{"Dropped.", "policy of ip filter FORWARD", "destination port is 81, not 80", "Publish the port"}, nil},
		"container to internet":  {[]string{"--snapshot", host, "tcp -> 203.0.113.2:9000 from container c1"}, 0, []string{"isn't known here", "masquerade to 203.0.113.1", "FORWARD 5"}, nil},
		"reply to a container": {[]string{"--snapshot", host, "--in", "eth0", "--state", "established", "tcp 203.0.113.2:9000 -> 172.17.0.2:40000"}, 0,
			[]string{"RELATED,ESTABLISHED -j ACCEPT", "Let through"}, nil},
		"container to a published port": {[]string{"--snapshot", host, "tcp -> 203.0.113.1:8080 from container c1"}, 0, []string{"through docker-proxy", "Proxy's request"}, nil},
		"a dump of rules alone":         {[]string{"--rules", rules, "tcp -> 203.0.113.1:8080"}, 0, []string{"Let through", "rule 1 of ip filter DOCKER", "the host's addresses are not known"}, nil},
		"with a policy":                 {[]string{"--snapshot", host, "--policy", "policy.yaml", "tcp 203.0.113.2 -> 203.0.113.1:8080"}, 0, []string{"Dropped.", "inet quaywall", "8080/tcp"}, nil},
		"what the policy lets in":       {[]string{"--snapshot", host, "--policy", "policy.yaml", "tcp 203.0.113.2 -> 203.0.113.1:22"}, 0, []string{"Let through", "policy.yaml:2"}, nil},
		"all rules":                     {[]string{"-v", "--snapshot", host, "tcp 203.0.113.2 -> 203.0.113.1:22"}, 0, []string{"· DOCKER 1: -i docker0 -j RETURN", "in by is eth0, not docker0"}, nil},
		"a wrong packet":                {[]string{"--snapshot", host, "tpc -> 203.0.113.1:22"}, 2, nil, []string{`"tpc" is no IP protocol`, "see quaywall explain --help"}},
		"no packet":                     {[]string{"--snapshot", host}, 2, nil, []string{"name a packet"}},
		"no such container":             {[]string{"--snapshot", host, "tcp -> 203.0.113.1:22 from container c9"}, 2, nil, []string{"there is no container c9"}},
		"no snapshot":                   {[]string{"--snapshot", dir, "tcp -> 203.0.113.1:22"}, 1, nil, []string{"reading the snapshot"}},
		"no rules":                      {[]string{"--rules", "nothing", "tcp -> 203.0.113.1:22"}, 2, nil, []string{"reading nothing"}},
		"a wrong policy":                {[]string{"--snapshot", host, "--policy", "bad.yaml", "tcp -> 203.0.113.1:22"}, 2, nil, []string{"bad.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, dir, append([]string{"explain"}, test.args...)...).expect(t, test.status, test.stdout, test.stderr)
		})
	}
}

// TestExplainMany: one JSON object for each line, in order, and for what is no packet as well.
func TestExplainMany(t *testing.T) {
	host := snapshotOf(t, docker20)
	var lines []string
	for range 600 {
		lines = append(lines, "tcp 203.0.113.2 -> 203.0.113.1:8080", "nonsense", "", "tcp 203.0.113.2 -> 172.17.0.2:81")
	}
	r := runAs(t, t.TempDir(), func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(strings.Join(lines, "\n")) }, "explain", "--snapshot", host, "-")
	want := []string{"accept true container rule 1 of DOCKER", "unknown null none ", "drop false none rule 0 of FORWARD"}
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	for i := 0; ; i++ {
		var got struct {
			Verdict   string
			Reachable *bool
			Delivered struct{ Kind string } `json:"delivered_to"`
			Decided   *struct {
				Chain string
				Rule  int
			} `json:"decided_by"`
			Path []any
			Why  string
		}
		err := dec.Decode(&got)
		if errors.Is(err, io.EOF) {
			if i != 1800 {
				t.Errorf("%d answers", i)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(got.Reachable)
		told := got.Verdict + " " + string(text) + " " + got.Delivered.Kind + " "
		if got.Decided != nil {
			told += "rule " + string(rune('0'+got.Decided.Rule)) + " of " + got.Decided.Chain
		}
		if told != want[i%3] || got.Why == "" || got.Path == nil {
			t.Fatalf("answer %d: %s, want %s", i, told, want[i%3])
		}
	}
}

// TestExplainNoRules: a text that isn't read is not taken for a host without rules.
func TestExplainNoRules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"nft.txt": "table inet t { chain c { type filter hook input priority 0; policy drop; } }\n",
		"script.sh": "#!/bin/sh\niptables -P INPUT DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "explain", "--rules", "nft.txt", "tcp 192.0.2.7 -> 192.0.2.1:22").expect(t, 2, nil, []string{"there are no rules in nft.txt", "nft -j list ruleset"})
	run(t, dir, "explain", "--rules", "script.sh", "tcp 192.0.2.7 -> 192.0.2.1:22").expect(t, 0, []string{"INPUT 1: -p tcp --dport 22 -j ACCEPT"}, nil)
	run(t, dir, "explain", "--rules", "script.sh", "tcp 192.0.2.7 -> 192.0.2.1:23").expect(t, 0, []string{"Dropped. The policy of ip filter INPUT"}, nil)
}

// TestExplainEmpty: what holds nothing is no host without rules; what nft prints on one is.
func TestExplainEmpty(t *testing.T) {
	const head = "# Generated by iptables-save v1.8.9 (nf_tables) on Sat Nov 21 05:57:30 2026\n"
	for text, status := range map[string]int{"": 2, "\x00\x00\x00": 2, " \n": 2, "\ufeff": 2, "{\"nftables\": []}": 2, "{}": 2, "# nothing\n": 2, head: 2,
		`{"nftables": [{"metainfo": {"version": "1.1.3"}}]}`:                                                          0,
		`{"nftables": [{"metainfo": {"version": "1.1.3"}}, {"table": {"family": "inet", "name": "t", "handle": 1}}]}`: 0,
		head + "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n":                                                               0} {
		for _, args := range [][]string{{"explain", "--rules", "-", "tcp 192.0.2.7 -> 192.0.2.1:22"}, {"audit", "--rules", "-"}} {
			r := runAs(t, t.TempDir(), func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(text) }, args...)
			if told := strings.Contains(r.stderr, "there are no rules in -"); r.status != status || told != (status == 2) {
				t.Errorf("%s of %q: %d %s %s", args[0], text, r.status, r.stdout, r.stderr)
			}
		}
	}
}

// TestExplainPasted: what web pages and other systems put into a text is read as what it stands for.
func TestExplainPasted(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"spaces":   "iptables\u00a0-P INPUT DROP\niptables -A\u00a0INPUT -p\u00a0tcp --dport 22\u00a0-j ACCEPT\n",
		"bom":      "\ufeffiptables -P INPUT DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT\n",
		"cr":       "iptables -P INPUT DROP\riptables -A INPUT -p tcp --dport 22 -j ACCEPT\r",
		"crlf":     "iptables -P INPUT DROP\r\niptables -A INPUT -p tcp \\\r\n --dport 22 -j ACCEPT\r\n",
		"nft.json": "\ufeff{\"nftables\": [{\"metainfo\": {\"version\": \"1.1.3\"}}]}",
	} {
		write(t, dir, name, text)
		args := []string{"explain", "--rules", name}
		run(t, dir, append(args, "tcp 192.0.2.7 -> 192.0.2.1:22")...).expect(t, 0, []string{"Let through"}, nil)
		if name != "nft.json" {
			run(t, dir, append(args, "tcp 192.0.2.7 -> 192.0.2.1:23")...).expect(t, 0, []string{"Dropped. The policy of ip filter INPUT"}, nil)
		}
	}
	packets := "\ufefftcp 192.0.2.7 -> 192.0.2.1:22\rtcp\u00a0192.0.2.7 ->\u00a0192.0.2.1:22\r\ntcp 192.0.2.7 -> 192.0.2.1:22"
	r := runAs(t, dir, func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(packets) }, "explain", "--rules", "spaces", "-")
	if n := strings.Count(r.stdout, `"verdict":"accept","reachable"`); n != 3 || strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("%s %s", r.stdout, r.stderr)
	}
}

func TestExplainDraws(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "explain", "--snapshot", snapshotOf(t, docker20), "--graph", "way.svg", "tcp 203.0.113.2 -> 203.0.113.1:8080").expect(t, 0, nil, nil)
	text, err := os.ReadFile(filepath.Join(dir, "way.svg"))
	if err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(strings.NewReader(string(text)))
	for {
		_, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, word := range []string{"<svg", "prerouting", "DOCKER 1", "172.17.0.2:80"} {
		if !strings.Contains(string(text), word) {
			t.Errorf("the drawing has no %q", word)
		}
	}
}

// TestExplainLongWays: chains that jump to each other again and again, or very deep, are answered, and in short.
func TestExplainLongWays(t *testing.T) {
	dir := t.TempDir()
	ladder := func(name string, chains, jumps int, last string) {
		text := "*filter\n:INPUT DROP [0:0]\n-A INPUT -j C1\n"
		for i := range chains {
			text += fmt.Sprintf(":C%d - [0:0]\n", i+1)
		}
		for i := 1; i < chains; i++ {
			text += strings.Repeat(fmt.Sprintf("-A C%d -j C%d\n", i, i+1), jumps)
		}
		write(t, dir, name, text+fmt.Sprintf("-A C%d -j %s\nCOMMIT\n", chains, last))
	}
	ladder("wide.txt", 24, 2, "RETURN")
	ladder("deep.txt", 3000, 1, "ACCEPT")
	for file, want := range map[string]string{"wide.txt": "A million rules were looked at", "deep.txt": "C3000 1: -j ACCEPT"} {
		r := run(t, dir, "explain", "--rules", file, "tcp 192.0.2.7 -> 192.0.2.1:22")
		if n := strings.Count(r.stdout, "\n"); r.status != 0 || !strings.Contains(r.stdout, want) || !strings.Contains(r.stdout, " in between (--verbose") || n > 300 {
			t.Errorf("%s: status %d, %d lines, %s%s", file, r.status, n, firstLines(r.stdout, 3), r.stderr)
		}
	}
}

// TestWarningsInJSON: what isn't understood of a file is told in JSON as it is in text.
func TestWarningsInJSON(t *testing.T) {
	dir := t.TempDir()
	must(t, os.CopyFS(filepath.Join(dir, "host"), os.DirFS(snapshotOf(t, docker20))))
	write(t, dir, "host/ip-rule.txt", "nonsense\n")
	write(t, dir, "cut.txt", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\n")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"explain", "--rules", "cut.txt", "tcp -> 192.0.2.1:22"}, "cut short"},
		{[]string{"explain", "--snapshot", "host", "tcp -> 203.0.113.1:22"}, "this is no rule of routing"},
		{[]string{"audit", "--snapshot", "host"}, "this is no rule of routing"},
		{[]string{"audit", "--rules", "cut.txt"}, "cut short"},
	} {
		var got struct{ Warnings []string }
		r := run(t, dir, append(tt.args, "--json")...)
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || len(got.Warnings) == 0 || !strings.Contains(got.Warnings[0], tt.want) {
			t.Errorf("%s: %v, %q", tt.args, err, got.Warnings)
		}
	}
	if r := run(t, dir, "audit", "--snapshot", snapshotOf(t, docker20), "--json"); strings.Contains(r.stdout, `"warnings"`) {
		t.Error("warnings of a whole snapshot")
	}
}

func firstLines(text string, n int) string {
	return strings.Join(strings.SplitAfterN(text, "\n", n+1)[:min(n, strings.Count(text, "\n"))], "")
}
