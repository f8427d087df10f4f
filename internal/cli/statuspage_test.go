package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/agent"
	"quaywall/internal/apply"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/store"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "in the future", 0: "0 s", 59 * time.Second: "59 s", 90 * time.Second: "1 min", 59 * time.Minute: "59 min",
		90 * time.Minute: "1 h 30 min", 24 * time.Hour: "1 day 0 h", 50*time.Hour + 59*time.Minute: "2 days 2 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// TestStatusPage: what there is to know is told, in a line each.
func TestStatusPage(t *testing.T) {
	now := time.Now()
	inForce := func() *StatusAnswer {
		return &StatusAnswer{Status: &apply.Status{InForce: true, Backend: "nft", File: "/etc/quaywall/policy.yaml", Hash: "75821bad258f99",
			Since: now.Add(-90 * time.Minute), Changed: now.Add(-90 * time.Minute),
			Counters: []apply.Counter{{Line: "default", Verb: "deny", Packets: 12}, {Line: "policy.yaml:4", Verb: "allow", Packets: 340},
				{Line: "policy.yaml:5", Verb: "reject", Packets: 3}, {Line: "policy.yaml:6", Verb: "allow"}},
			Sources: policy.Sources{"/etc/quaywall/policy.yaml": []byte("version: 1\n\ninbound:\n  - allow: http\n  - reject: 81/tcp\n  - allow: ping\n")},
		}}
	}
	running := func() *StatusAnswer {
		st := inForce()
		st.Agent = agent.Status{Running: true, Report: agent.Report{PID: 812, Ready: true, Since: now.Add(-26 * time.Hour),
			Follows: []agent.Followed{{Name: "rules"}, {Name: "files"}}}}
		return st
	}
	own := agent.Repair{When: now.Add(-10 * time.Minute), Rules: "quaywall", Missing: 76, Took: 6 * time.Millisecond, By: "ufw (process 99)"}
	dockers := agent.Repair{When: now.Add(-3 * time.Hour), Rules: "Docker", Mended: 1, TakenOut: 2, Took: 210 * time.Millisecond}
	for _, test := range []struct {
		name   string
		st     *StatusAnswer
		change func(*StatusAnswer)
		has    []string
		hasNot []string
	}{
		{"nothing", &StatusAnswer{Status: &apply.Status{}}, nil, []string{"none in force", "does not run"}, []string{"history", "packets", "PACKETS"}},
		{"in force", inForce(), nil, []string{"(75821bad258f): in force since ", "(1 h 30 min)", "drift    none", "does not run: what others change is not put back",
			"15 denied, 340 let in, since ", "340      0      allow    policy.yaml:4  - allow: http", "reject", "1 line more", "history  quaywall rollback --list"},
			[]string{"policy.yaml:6", "repaired", "ended", "waiting", "taken back", "journalctl"}},
		{"no packets", inForce(), func(st *StatusAnswer) { st.Counters = st.Counters[3:] },
			[]string{"0 denied, 0 let in", "no line of the policy has decided on a packet since"}, []string{"PACKETS"}},
		{"a record of an earlier version", inForce(), func(st *StatusAnswer) { st.Counters[0].Verb = "" }, []string{"340      0"}, []string{"denied,"}},
		{"lines that do both", inForce(), func(st *StatusAnswer) { st.Counters[0].Verb = "deny, allow" }, []string{"3 denied, 340 let in, 12 by lines that deny and allow"}, nil},
		{"observed", inForce(), func(st *StatusAnswer) {
			st.InForce, st.Observed = false, true
			st.Counters = []apply.Counter{{Line: "always", Verb: "would deny", Packets: 7}, {Line: "default", Verb: "would deny", Packets: 12},
				{Line: "policy.yaml:4", Verb: "allow", Packets: 340}, {Line: "policy.yaml:5", Verb: "would reject", Packets: 3}}
		}, []string{"(75821bad258f): observed, not enforced: nothing is denied, since ", "22 would have been denied, 340 let in, since ",
			"VERDICT       LINE\n  12       0      would deny    default        what no rule matches\n  7        0      would deny    always         what always holds\n" +
				"  3        0      would reject  policy.yaml:5  - reject: 81/tcp\n  340      0      allow         policy.yaml:4"}, []string{"in force", "22 denied"}},
		{"waiting", inForce(), func(st *StatusAnswer) { st.Pending = &apply.PendingStatus{SecsLeft: 42} },
			[]string{"waiting", "Not confirmed yet. 42 s left: at ", "the policy of before comes back, unless you run quaywall confirm"}, nil},
		{"overdue", inForce(), func(st *StatusAnswer) { st.Pending = &apply.PendingStatus{Overdue: true} }, []string{"its time is over"}, []string{"s left"}},
		{"taken back", inForce(), func(st *StatusAnswer) { st.Undone = &store.Undone{File: "x.yaml", Why: "it was declined"} }, []string{"taken back  x.yaml at ", ": it was declined"}, nil},
		{"ended", inForce(), func(st *StatusAnswer) {
			st.Ended = &apply.LastEnded{Hash: st.Hash, Ended: &apply.Ended{Connections: 3, Lines: []apply.EndedLine{{Line: "policy.yaml:7", Connections: 2}, {Connections: 1}}}}
		}, []string{"3 connections that the policy denies", "(policy.yaml:7 2, what always holds 1)"}, nil},
		{"ended by another policy", inForce(), func(st *StatusAnswer) {
			st.Ended = &apply.LastEnded{Hash: "another", Ended: &apply.Ended{Connections: 3}}
		}, nil, []string{"ended"}},
		{"agent", running(), nil, []string{"runs since ", "(1 day 2 h), process 812", "follows rules, files", "journalctl -u quaywall-agent"}, []string{"just begun"}},
		{"agent that just began", running(), func(st *StatusAnswer) { st.Agent.Ready = false }, []string{"just begun"}, nil},
		{"agent with troubles", running(), func(st *StatusAnswer) { st.Agent.Troubles = []string{"the policy has errors"} }, []string{"\n           the policy has errors\n"}, nil},
		{"agent without Docker", running(), func(st *StatusAnswer) { st.Agent.Follows[0] = agent.Followed{Name: "Docker", Problem: "not there"} },
			[]string{"none here", "follows files"}, []string{"does not hear"}},
		{"agent that doesn't hear", running(), func(st *StatusAnswer) { st.Agent.Follows[0].Problem = "no buffer space" }, []string{"does not hear of rules (no buffer space)"}, nil},
		{"Docker came back", running(), func(st *StatusAnswer) {
			st.Docker = inventory.Docker{Reachable: true, Version: "20.10"}
			st.Agent.Docker = agent.DockerSeen{Docker: st.Docker, Since: now}
		}, []string{"20.10: answers, since "}, nil},
		{"Docker was there all the time", running(), func(st *StatusAnswer) {
			st.Docker = inventory.Docker{Reachable: true, Version: "20.10"}
			st.Agent.Docker = agent.DockerSeen{Docker: st.Docker, Since: st.Agent.Since.Add(time.Second)}
		}, []string{"20.10: answers\n"}, nil},
		{"repairs", running(), func(st *StatusAnswer) { st.Agent.Repairs = []agent.Repair{own, dockers} },
			[]string{", 10 min ago: 76 rules of quaywall's missing; mended in 6ms, after ufw (process 99)", ", 3 h 0 min ago: 1 rule of Docker's missing, 2 too many; mended in 210ms\n",
				"let in, since " + own.When.Format(time.DateTime)}, []string{"repairs in"}},
		{"many repairs, of an agent that is gone", inForce(), func(st *StatusAnswer) { st.Agent.Repairs = []agent.Repair{own, own, own} },
			[]string{"does not run", "76 rules", "3 repairs in the last 24 hours"}, nil},
		{"as many repairs as are told", inForce(), func(st *StatusAnswer) { st.Agent.Repairs = slices.Repeat([]agent.Repair{own}, agent.ReportedRepairs) },
			[]string{"50 repairs or more"}, nil},
		{"drift", inForce(), func(st *StatusAnswer) { st.Drift = &apply.Difference{Missing: strings.Fields("a b c d e f g h i")} },
			[]string{"the kernel does not hold", "- a", "- f", "… 3 more"}, []string{"- g"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.change != nil {
				test.change(test.st)
			}
			var page bytes.Buffer
			a := newApp(Env{Getenv: func(string) string { return "" }})
			a.showStatus(&page, style{}, test.st)
			for _, want := range test.has {
				if !strings.Contains(page.String(), want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			for _, not := range test.hasNot {
				if strings.Contains(page.String(), not) {
					t.Errorf("the page has %q", not)
				}
			}
			if n := strings.Count(page.String(), "\n"); n > 24 {
				t.Errorf("the page has %d lines", n)
			}
			if t.Failed() {
				t.Log("\n" + page.String())
			}
		})
	}
}

// TestScreen: looks are written over each other, cut to what fits, and nothing is left on the screen but the last.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := &screen{keys: &typed{keys: []string{"x", "q"}}, to: &out, size: func() (int, int) { return 80, 6 }}
	for _, page := range []string{"1\n2\n3\n", "1\n2\n3\n4\n5\n6\n7\n"} {
		if err := s.show(page); err != nil {
			t.Fatal(err)
		}
	}
	if s.wait(t.Context()) {
		t.Error("q does not end it")
	}
	s.leave()
	first, rest, _ := strings.Cut(out.String(), "\x1b[J")
	second, last, _ := strings.Cut(rest, "\x1b[J")
	if !strings.HasPrefix(first, enterScreen+"\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\n\x1b[K\n") || strings.Contains(first, "more") {
		t.Errorf("first %q", first)
	}
	if !strings.HasPrefix(second, "\x1b[H1\x1b[K\n") || !strings.Contains(second, "3\x1b[K\n  … 4 lines more than fit here") || strings.Count(second, "\n") != 5 {
		t.Errorf("second %q", second)
	}
	if last != leaveScreen+"1\n2\n3\n4\n5\n6\n7\n" {
		t.Errorf("last %q", last)
	}
}

func TestWatchEnds(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		keys string
	}{{"q", t.Context(), "q"}, {"Q", t.Context(), "Q"}, {"Ctrl-D", t.Context(), "\x04"}, {"the terminal goes", t.Context(), "hup"}, {"Ctrl-C", ended, ""}} {
		s := &screen{keys: &typed{keys: strings.Fields(c.keys)}, size: func() (int, int) { return 80, 24 }}
		if s.wait(c.ctx) {
			t.Errorf("%s does not end it", c.name)
		}
	}
	if (&blocks{}).wait(ended) {
		t.Error("without a terminal a signal does not end it")
	}
	broken := errors.New("broken pipe")
	if err := (&blocks{to: failing{broken}}).show("x"); !errors.Is(err, broken) {
		t.Errorf("nobody reads: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
