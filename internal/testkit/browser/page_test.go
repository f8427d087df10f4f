//go:build browser

package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/cli"
	"quaywall/internal/testkit/netns"
)

func TestMain(m *testing.M) {
	netns.Isolate()
	os.Exit(m.Run())
}

const snapshot = "../../collect/testdata/20.10.24-published-port"

// quaywall runs a command and gives what it prints.
func quaywall(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, err bytes.Buffer
	env := cli.Env{Version: "test", Program: "quaywall", Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err, Getenv: func(string) string { return "" }}
	if status := cli.Run(context.Background(), env, args); status != 0 {
		t.Fatalf("%v: status %d\n%s", args, status, &err)
	}
	return out.Bytes()
}

// TestAuditPage: the page has all that audit found, sorts by each column and filters, and asks nobody for anything.
func TestAuditPage(t *testing.T) {
	w, page := open(t), filepath.Join(t.TempDir(), "page.html")
	var answer struct{ Endpoints []any }
	if err := json.Unmarshal(quaywall(t, "audit", "--snapshot", snapshot, "--json", "--html", page), &answer); err != nil {
		t.Fatal(err)
	}
	w.visit(page)
	if got := len(rows(w)); got != len(answer.Endpoints) || got < 5 {
		t.Fatalf("%d rows, audit has %d endpoints", got, len(answer.Endpoints))
	}
	for column := range 7 {
		head := fmt.Sprintf("th:nth-child(%d) button", column+1)
		before := rows(w)
		w.click(head)
		up := cells(w, column)
		w.click(head)
		down := cells(w, column)
		if !slices.IsSortedFunc(up, natural) || !slices.IsSortedFunc(down, func(a, b string) int { return natural(b, a) }) {
			t.Errorf("column %d sorts to %q, then to %q", column, up, down)
		}
		after := rows(w)
		slices.Sort(before)
		slices.Sort(after)
		if !slices.Equal(before, after) {
			t.Errorf("sorting by column %d makes of\n%q\nthis:\n%q", column, before, after)
		}
		var order string
		w.eval(&order, `return document.querySelector("th:nth-child(%d)").ariaSort`, column+1)
		if order != "descending" {
			t.Errorf("column %d is said to be %s", column, order)
		}
	}
	w.write("input", "8080 PROXY")
	left := rows(w)
	if len(left) != 2 || !strings.Contains(left[0], "8080/tcp") || !strings.Contains(left[0], "proxy") {
		t.Errorf("the filter leaves %q", left)
	}
	var asked int
	if w.eval(&asked, `return performance.getEntriesByType("resource").length`); asked != 0 {
		t.Errorf("the page asks for %d other files", asked)
	}
	if all := w.complaints(); all != nil {
		t.Error(all)
	}
}

// rows are the rows that can be seen.
func rows(w *window) (all []string) {
	w.eval(&all, `return [...document.querySelectorAll("tbody tr")].filter(r => r.offsetHeight > 0).map(r => r.innerText)`)
	return all
}

// cells are what a column is sorted by.
func cells(w *window, column int) (all []string) {
	w.eval(&all, `return [...document.querySelectorAll("tbody tr")].map(r => r.cells[%d].dataset.key ?? r.cells[%[1]d].innerText)`, column)
	return all
}

// natural compares texts as people do, numbers by what they are. All of the columns' numbers are whole columns.
func natural(a, b string) int {
	m, err1 := strconv.Atoi(a)
	n, err2 := strconv.Atoi(b)
	if err1 == nil && err2 == nil {
		return m - n
	}
	return strings.Compare(strings.ToLower(a), strings.ToLower(b))
}

// TestDrawing: what decides is seen, the way is lit as far as the packet came, and nothing is drawn beyond the edge.
func TestDrawing(t *testing.T) {
	w := open(t)
	for packet, want := range map[string]struct {
		lit     []string
		stop    string
		decides string
	}{
		"tcp 203.0.113.2 -> 203.0.113.1:8080":          {[]string{"arrives", "prerouting", "routing", "forward", "postrouting", "leaves"}, "", "DOCKER 1:"},
		"tcp 172.17.0.5 -> 172.17.0.1:8080 in docker0": {[]string{"arrives", "prerouting", "routing", "input", "this host"}, "", "ip filter INPUT"},
		"tcp 203.0.113.2 -> 172.17.0.2:81":             {[]string{"arrives", "prerouting", "routing"}, "forward", "ip filter FORWARD"},
	} {
		file := filepath.Join(t.TempDir(), "way.svg")
		quaywall(t, "explain", "--snapshot", snapshot, "--graph", file, packet)
		w.visit(file)
		var got struct {
			Lit, Stop, Decides, Beyond []string
		}
		w.eval(&got, `
			const first = [...document.querySelectorAll(".node")].slice(0, 9), texts = all => all.map(n => n.textContent);
			const marks = [...document.querySelectorAll("text")], at = marks.findIndex(m => m.textContent === "decides");
			const edge = document.documentElement.viewBox.baseVal;
			return {
				Lit: texts(first.filter(n => n.classList.contains("lit"))), Stop: texts(first.filter(n => n.classList.contains("stop"))),
				Decides: at < 0 ? [] : texts([marks[at + 1]]),
				Beyond: texts(marks.filter(m => { const b = m.getBBox(); return b.x < 0 || b.x + b.width > edge.width || b.y + b.height > edge.height })),
			}`)
		slices.Sort(got.Lit)
		slices.Sort(want.lit)
		if !slices.Equal(got.Lit, want.lit) || strings.Join(got.Stop, " ") != want.stop || len(got.Beyond) > 0 ||
			len(got.Decides) != 1 || !strings.HasPrefix(strings.TrimSpace(got.Decides[0]), want.decides) {
			t.Errorf("%s: %+v, want %+v", packet, got, want)
		}
		if all := w.complaints(); all != nil {
			t.Error(packet, all)
		}
	}
}
