package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/lock"
	"quaywall/internal/policy"
	"quaywall/internal/store"
	"quaywall/internal/watch/changes"
)

// lastReport is what status would read.
func (w *world) lastReport() Report { return w.host.Published() }

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name     string
		what     func(w *world)
		troubles []string
	}{
		{"all is well", func(*world) {}, nil},
		{"a policy with mistakes", func(w *world) { w.file = "bad"; w.hints(Files) },
			[]string{"the policy has errors: what is in force stays (policy.yaml:3:5: a rule has no verb)"}},
		{"a policy without them again", func(w *world) { w.file = "bad"; w.hints(Files); w.file = "one"; w.hints(Files) }, nil},
		{"refused", func(w *world) {
			cut := guard.Cut{Ways: []guard.Way{{PID: 812, Process: "sshd", Proto: policy.TCP, Local: netip.MustParseAddrPort("203.0.113.1:22"),
				Peer: netip.MustParseAddrPort("198.51.100.7:50000")}}, Why: "the default denies it", Add: "- allow: ssh"}
			w.file, w.refuses = "two", &apply.RefusedError{Because: "somebody is logged in by them", Cuts: []guard.Cut{cut, cut}}
			w.hints(Files)
		}, []string{"the policy was not put in force: what is in force stays (refused, since the policy would cut connections that may be the way in " +
			"(somebody is logged in by them): sshd (process 812), port 22/tcp, from 198.51.100.7: the default denies it; add to inbound: - allow: ssh …)"}},
		{"stopped", func(w *world) { w.record = InForce{Stopped: true}; w.hints(Record) },
			[]string{"quaywall was stopped: nothing is kept in force until somebody applies a policy"}},
		{"rolled back", func(w *world) { w.puts("two"); w.hints(Record) },
			[]string{"the policy file holds something else than what is in force: quaywall apply puts it in force"}},
		{"a fight", func(w *world) {
			for range 20 {
				w.flushed = true
				w.tell(Own, "badfirewall (process 5)")
				w.pass(100 * time.Millisecond)
			}
			w.did = nil
		}, []string{"quaywall's rules are taken away again and again, last by badfirewall (process 5): mending waits 2s before it goes on"}},
		{"Docker gone", func(w *world) { w.listing = gone(w.listing); w.hints(Docker) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			c.what(w)
			r := w.lastReport()
			if !slices.Equal(r.Troubles, c.troubles) {
				t.Errorf("troubles %q, want %q", r.Troubles, c.troubles)
			}
			if !r.Ready || !r.Since.Equal(began) {
				t.Errorf("report %+v", r)
			}
		})
	}
}

// TestReportOfDocker: it says since when Docker is as it is.
func TestReportOfDocker(t *testing.T) {
	w := newWorld(t)
	w.begin()
	since := w.lastReport().Docker.Since
	w.hints(Docker)
	if d := w.lastReport().Docker; d.Version != "20.10.24" || !d.Since.Equal(since) || since.IsZero() {
		t.Errorf("answering: %+v", d)
	}
	w.listing = gone(w.listing)
	w.hints(Docker)
	if d := w.lastReport().Docker; d.Reachable || d.Problem != "Docker is not running" || !d.Since.After(since) {
		t.Errorf("gone: %+v", d)
	}
}

// TestReportOfRepairs: what was mended, how long it took, and by whom it was taken away; the next agent tells it too.
func TestReportOfRepairs(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.flushed = true
	w.tell(Own, "ufw (process 99)")
	w.pass(50 * time.Millisecond)
	w.pass(time.Minute)
	w.problems = []string{"nat has no chain DOCKER"}
	w.hints(Tables)
	next := newWorld(t)
	next.reports = []Report{w.lastReport()}
	next.begin()
	for _, r := range []Report{w.lastReport(), next.lastReport()} {
		if len(r.Repairs) != 2 {
			t.Fatalf("repairs %+v", r.Repairs)
		}
		if m := r.Repairs[0]; m.Rules != "Docker" || m.Mended != 7 || m.Took < lasts || m.Took > 3*time.Second {
			t.Errorf("Docker's: %+v", m)
		}
		if m := r.Repairs[1]; m.Rules != "quaywall" || m.Missing != 3 || m.By != "ufw (process 99)" || m.Took <= 0 || m.Took > 50*time.Millisecond {
			t.Errorf("quaywall's: %+v", m)
		}
	}
	w.pass(time.Minute)
	w.flushed = true
	w.hints(Own)
	if m := w.lastReport().Repairs[0]; m.By != "" {
		t.Errorf("by nobody knows whom: %+v", m)
	}
	for range 2 * ReportedRepairs {
		w.repaired(Repair{}, w.now)
	}
	if n := len(w.repairs); n != ReportedRepairs {
		t.Errorf("%d repairs are told", n)
	}
}

// TestReportOfSources: what can't be followed is told with the reason, until it can be.
func TestReportOfSources(t *testing.T) {
	w := newWorld(t)
	w.sources = []string{"files", "Docker"}
	w.begin()
	w.box.tell("Docker", errors.New("connection refused"))
	w.hints(0)
	if got := w.lastReport().Follows; len(got) != 2 || got[0] != (Followed{Name: "files"}) || got[1] != (Followed{"Docker", "connection refused"}) {
		t.Errorf("follows %+v", got)
	}
	w.box.tell("Docker", nil)
	w.hints(0)
	if got := w.lastReport().Follows; got[1].Problem != "" {
		t.Errorf("follows %+v", got)
	}
}

// TestReportIsWrittenOnce: nothing is written while nothing changes.
func TestReportIsWrittenOnce(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.hints(Own | Docker)
	n := len(w.reports)
	w.hints(Own | Docker | Files)
	w.pass(time.Hour)
	if len(w.reports) != n {
		t.Errorf("%d reports more, the last two are\n%+v\n%+v", len(w.reports)-n, w.reports[len(w.reports)-2], w.reports[len(w.reports)-1])
	}
	w.host.Publish = func(Report) error { return errors.New("no space") }
	w.flushed = true
	w.hints(Own)
	w.pass(time.Hour)
	w.expectSaid(1, "no space")
}

// TestReadStatus: what an agent told that is gone by now is not so any more, except for what it repaired.
func TestReadStatus(t *testing.T) {
	s, runDir := store.Open(t.TempDir()), t.TempDir()
	read := func() Status {
		t.Helper()
		st, err := ReadStatus(s, runDir)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := read(); st.Running || st.Repairs != nil {
		t.Errorf("never: %+v", st)
	}
	told := Report{PID: os.Getpid(), Since: began, Ready: true, Troubles: []string{"none"}, Repairs: []Repair{{Rules: "Docker", When: began}}}
	if err := s.Note(reportName, told); err != nil {
		t.Fatal(err)
	}
	if st := read(); st.Running || st.PID != 0 || st.Ready || st.Troubles != nil || len(st.Repairs) != 1 {
		t.Errorf("dead: %+v", st)
	}
	held, err := lock.Single(runDir, "agent")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if st := read(); !st.Running || !st.Since.Equal(began) || !st.Ready || len(st.Troubles) != 1 || len(st.Repairs) != 1 {
		t.Errorf("alive: %+v", st)
	}
	told.PID++
	if err := s.Note(reportName, told); err != nil {
		t.Fatal(err)
	}
	if st := read(); !st.Running || st.PID != os.Getpid() || st.Ready || st.Since.Equal(began) || st.Since.IsZero() || len(st.Repairs) != 1 {
		t.Errorf("alive, and another one told: %+v", st)
	}
}

// A repair names who changed those rules, and not who changed others at the time: with iptables nobody knows who it was for
// quaywall's, and Docker adds to its own all the time.
func TestRepairsNameNoBystander(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.inForce.Record.Backend = "iptables-nft"
	w.flushed = true
	w.tell(Tables, "iptables (process 7)")
	w.pass(time.Second)
	if all := w.lastReport().Repairs; len(all) != 1 || all[0].Rules != "quaywall" || all[0].By != "" {
		t.Errorf("repairs %+v", all)
	}
	var heard []string
	note := func(h Hint, by string) { heard = append(heard, fmt.Sprint(h, by)) }
	hintAt(changes.Change{Tables: true, By: "iptables"}, note)
	hintAt(changes.Change{Tables: true, Taken: true, By: "ufw"}, note)
	hintAt(changes.Change{Own: true, Tables: true, By: "nft"}, note)
	if want := []string{fmt.Sprint(Tables, ""), fmt.Sprint(Tables, "ufw"), fmt.Sprint(Own, "nft"), fmt.Sprint(Tables, "")}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}
