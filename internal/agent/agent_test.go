package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/store"
)

func TestStart(t *testing.T) {
	of := func(hash string, thisBoot bool) InForce {
		return InForce{ThisBoot: thisBoot, Record: &store.Record{ID: hash, Hash: hash, File: "/etc/quaywall/policy.yaml", Backend: "nft"}}
	}
	undone := of("one", false)
	undone.Undone = "two"
	for _, c := range []struct {
		name     string
		record   InForce
		file     string
		explicit bool
		did      []string
		said     string
	}{
		{"booted since, with mistakes", of("one", false), "bad", false, []string{"apply one"}, "one is in force"},
		{"booted since, and taken back before", undone, "two", false, []string{"apply one"}, "the policy is in force"},
		{"nothing in force", InForce{}, "one", false, []string{"apply one"}, "the policy is in force"},
		{"booted since", of("one", false), "two", false, []string{"apply two"}, "the policy is in force"},
		{"in force", of("one", true), "one", false, []string{"apply one"}, ""},
		{"edited or rolled back meanwhile", of("one", true), "two", false, nil, "quaywall apply puts it in force"},
		{"edited, and named by the person", of("one", true), "two", true, nil, "quaywall apply puts it in force"},
		{"stopped", InForce{Stopped: true}, "one", false, nil, "quaywall was stopped"},
		{"taken back", InForce{Undone: "two"}, "two", false, nil, "quaywall apply puts it in force"},
		{"with mistakes", InForce{}, "bad", false, nil, "the policy has errors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.record, w.file, w.explicit = c.record, c.file, c.explicit
			w.start()
			w.pass(3 * time.Second)
			w.expect("start", c.did...)
			if c.said != "" {
				w.expectSaid(1, c.said)
			}
			if !slices.Contains(w.notified, "READY=1") {
				t.Errorf("the service manager was told %q", w.notified)
			}
		})
	}
}

// TestAnotherPolicyNamed: an agent that is told a policy by the person puts that one in force.
func TestAnotherPolicyNamed(t *testing.T) {
	w := newWorld(t)
	w.puts("other")
	w.record.Record.File = "/srv/other.yaml"
	w.explicit = true
	w.start()
	w.pass(time.Second)
	w.expect("start", "apply one")
}

// TestStorm: a hundred containers in a second, each with a handful of events.
func TestStorm(t *testing.T) {
	w := newWorld(t)
	w.begin()
	for i := range 500 {
		w.listing = listingOf("bridge", "n"+string(rune('a'+i/20)))
		w.tell(Docker|Links|Tables, "iptables (process 7)")
		w.pass(2 * time.Millisecond)
	}
	w.pass(5 * time.Second)
	if len(w.did) < 1 || len(w.did) > 3 || w.lists > 3 {
		t.Errorf("the agent listed %d times and did %q", w.lists, w.did)
	}
	if last := w.applied[len(w.applied)-1]; len(last.Networks) != 2 || last.Networks[1].Name != "ny" {
		t.Errorf("the last inventory has %+v", last.Networks)
	}
}

// TestIdle: nothing is heard, and nothing is done but to tell the service manager, and to look at everything every ten
// minutes.
func TestIdle(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.notified = nil
	w.pass(time.Hour)
	if len(w.notified) != 120 || w.lists != 6 || len(w.did) != 6 {
		t.Errorf("in an hour: told %d times, listed %d times, did %q", len(w.notified), w.lists, w.did)
	}
}

// TestVethsDontMatter: what comes and goes with containers alone is no reason to apply.
func TestVethsDontMatter(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.listing.Links = append(w.listing.Links, inventory.Interface{Name: "veth12", Kind: "veth", Master: "br-bridge", Up: true})
	w.listing.Links[0].Up = true
	w.hints(Links)
	w.expect("a container's interface")
	w.listing.Links = append(w.listing.Links, inventory.Interface{Name: "wg0", Kind: "wireguard"})
	w.hints(Links)
	w.expect("a new interface", "apply one")
}

func TestPolicyFiles(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.file = "bad"
	for range 5 {
		w.hints(Files)
	}
	w.expect("a policy with mistakes")
	w.expectSaid(1, "what is in force stays")
	w.hints(Docker | Links)
	w.file = "one"
	w.hints(Files)
	w.expectSaid(1, "no errors any more")
	w.expect("the policy as it was", "apply one")
	w.file = "two"
	w.hints(Files)
	w.expect("another policy", "apply two")
	w.hints(Files)
	w.expect("touched")
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.file, w.refuses = "two", &apply.RefusedError{Because: "somebody is logged in by them"}
	for range 5 {
		w.hints(Files | Docker)
	}
	w.expect("a policy that locks out", "refused")
	w.expectSaid(1, "the policy was not put in force")
	w.pass(longRetry)
	w.expect("a minute later", "refused")
	w.refuses = nil
	w.pass(longRetry)
	w.expect("nobody is logged in any more", "apply two")
	w.file, w.refuses = "three", &apply.RefusedError{Because: "somebody is logged in by them"}
	w.hints(Files)
	w.expect("another policy that locks out", "refused")
	w.file, w.refuses = "four", nil
	w.hints(Files)
	w.expect("one that doesn't, within the minute", "apply four")
}

// TestSetFiles: what became of the entries is logged, warnings are, and a set that was emptied is not followed.
func TestSetFiles(t *testing.T) {
	w := newWorld(t)
	w.entries, w.written = 100, "text"
	w.begin()
	w.file, w.entries = "two", 98
	w.hints(Files)
	w.expect("a set file", "apply two")
	w.expectSaid(1, `entries="banned 100 -> 98"`)
	w.file, w.entries, w.refuses = "three", 0, &apply.EmptiedError{Sets: []string{"banned (it had 98)"}}
	for range 5 {
		w.hints(Files)
	}
	w.pass(resync / 2)
	w.expect("an empty set file", "refused")
	w.expectSaid(1, "banned (it had 98)")
	w.file, w.entries, w.refuses = "four", 99, nil
	w.warnings = diag.List{{Severity: diag.Warning, Message: "no address is in other"}}
	w.hints(Files)
	w.expect("it is filled again", "apply four")
	w.expectSaid(1, "no address is in other")
}

// TestSettling: a policy that was edited is left to whoever edited it, for a while; a set file is not.
func TestSettling(t *testing.T) {
	w := newWorld(t)
	w.written = "text"
	w.begin()
	w.file = "another list"
	w.tell(Files, "")
	w.pass(300 * time.Millisecond)
	w.expect("a set file", "apply another list")
	for _, file := range []string{"half", "edited"} {
		w.file, w.written = file, file
		w.tell(Files, "")
		w.pass(settling)
		w.expect("the policy, just edited")
	}
	w.pass(time.Second)
	w.expect("nobody applied it", "apply edited")
	w.file, w.written = "applied", "applied"
	w.tell(Files, "")
	w.pass(time.Second)
	w.puts("applied")
	w.tell(Record, "")
	w.pass(time.Minute)
	w.expect("somebody applied it", "apply applied") // for what may have changed on the host meanwhile
	w.file, w.written = "back and forth", "back and forth"
	w.tell(Files, "")
	w.pass(time.Second)
	w.file, w.written = "applied", "applied"
	w.hints(Files)
	w.expect("edited, and back", "apply applied")
}

// TestEditedWhilePending: what is edited while a change waits for its confirmation waits too.
func TestEditedWhilePending(t *testing.T) {
	for what, confirmed := range map[string]bool{"confirmed": true, "taken back": false} {
		w := newWorld(t)
		w.begin()
		w.file = "two"
		w.puts("two")
		w.record.Pending, w.record.Left = true, time.Minute
		w.hints(Files | Record)
		w.file, w.did = "three", nil
		w.hints(Files | Docker)
		w.pass(10 * time.Second)
		w.expect("while it waits")
		if confirmed {
			w.record.Pending = false
			w.hints(Record)
			w.expect(what, "apply three")
			continue
		}
		w.puts("one")
		w.record.Undone = "two"
		w.hints(Record)
		w.expect(what)
		w.expectSaid(1, "quaywall apply puts it in force")
	}
}

// TestFailures are tried again, ever more slowly.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.file, w.refuses = "two", errors.New("another quaywall is changing this host")
	w.tell(Files, "")
	w.pass(5 * time.Minute)
	if n := len(w.did); n < 5 || n > 12 {
		t.Errorf("tried %d times in five minutes", n)
	}
	w.expectSaid(1, "another quaywall is changing this host")
	w.did, w.refuses = nil, nil
	w.pass(longRetry)
	w.expect("afterwards", "apply two")
}

func TestDrift(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.flushed = true
	w.tell(Own|Tables, "ufw (process 99)")
	w.pass(50 * time.Millisecond)
	w.expect("a flush", "mend")
	w.expectSaid(1, `by="ufw (process 99)"`)
	w.hints(Own)
	w.expect("the events of the mending itself")
}

// TestIPTablesDrift: with the iptables backends the tables of all are quaywall's too.
func TestIPTablesDrift(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.flushed = true
	w.hints(Tables)
	w.expect("nft")
	w.Agent.inForce.Record.Backend = "iptables-legacy"
	w.hints(Tables)
	w.expect("iptables-legacy", "mend")
}

// TestFight: somebody flushes in a loop. It is named, and not fought for ever; once it ends, all is well.
func TestFight(t *testing.T) {
	w := newWorld(t)
	w.begin()
	for range 10 * 60 * 10 { // ten minutes
		w.flushed = true
		w.tell(Own, "badfirewall (process 5)")
		w.pass(100 * time.Millisecond)
	}
	if n := len(w.did); n < 10 || n > 25 {
		t.Errorf("mended %d times in ten minutes of flushes", n)
	}
	w.expectSaid(7, "again and again") // each time that the wait gets longer
	w.did = nil
	w.pass(longRest)
	w.expect("the last flush", "mend")
	w.pass(peace + time.Minute)
	w.did, w.flushed = nil, true
	w.tell(Own, "")
	w.pass(50 * time.Millisecond)
	w.expect("peace, and then a single flush", "mend")
}

// TestHungDocker: mending goes on while Docker gives no answer.
func TestHungDocker(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.hung = true
	w.tell(Docker, "")
	w.pass(time.Second)
	w.flushed = true
	w.tell(Own, "")
	w.pass(50 * time.Millisecond)
	w.expect("a flush", "mend")
	w.hung = false
}

// TestDockerGone: its networks stay what they were, and that is said once; an interface that comes is followed.
func TestDockerGone(t *testing.T) {
	w := newWorld(t)
	w.begin()
	for range 3 {
		w.listing = gone(w.listing)
		w.hints(Docker)
	}
	w.expect("the engine is gone")
	w.expectSaid(1, "Docker gives no answer")
	w.listing.Links = append(w.listing.Links, inventory.Interface{Name: "wg0"})
	w.hints(Links)
	w.expect("an interface came", "apply one")
	if last := w.applied[len(w.applied)-1]; len(last.Networks) != 1 || last.Networks[0].Name != "bridge" {
		t.Errorf("its networks are %+v", last.Networks)
	}
	w.listing = listingOf("bridge", "back")
	w.hints(Docker)
	w.expect("it is back, with one network more", "apply one")
	w.expectSaid(1, "Docker answers")
}

// TestDockerNeverAnswered: what was in force before this agent was made with Docker's answer, and stays.
func TestDockerNeverAnswered(t *testing.T) {
	w := newWorld(t)
	w.puts("one")
	w.listing = gone(w.listing)
	w.start()
	w.pass(time.Minute)
	w.expect("start")
	w.file = "two"
	w.hints(Files)
	w.expect("a new policy", "apply two")
}

// TestOthers: what another quaywall does is taken up, and left so.
func TestOthers(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.record = InForce{Stopped: true}
	w.flushed = true
	w.hints(Record | Own)
	w.file = "two"
	w.hints(Files | Links | Docker)
	w.pass(2 * resync)
	w.expect("after a stop")
	w.expectSaid(1, "quaywall was stopped")
	w.puts("two")
	w.tell(Own|Record, "") // flushed before the agent knows that it is in force
	w.pass(3 * time.Second)
	w.expect("after an apply", "mend", "apply two")
	w.puts("one")
	w.hints(Record)
	w.pass(2 * resync)
	w.expect("after a rollback")
	w.expectSaid(1, "quaywall apply puts it in force")
	w.file = "three"
	w.hints(Files)
	w.expect("the file was changed", "apply three")
}

// TestDamaged: what is recorded can't be read any more. That is no stop: it is recorded anew, and what somebody flushes
// meanwhile is put back.
func TestDamaged(t *testing.T) {
	for what, c := range map[string]struct {
		nothing bool
		err     error
		said    string
	}{
		"the record":        {false, errors.New("records/x is damaged"), "records/x is damaged"},
		"the state":         {true, errors.New("state.json is damaged"), "state.json is damaged"},
		"the state is gone": {true, nil, "it is gone"},
	} {
		for _, flushed := range []bool{false, true} {
			w := newWorld(t)
			if flushed {
				w.listing = gone(w.listing) // Docker never answered
			}
			w.begin()
			w.damaged, w.nothing, w.flushed = c.err, c.nothing, flushed
			w.hints(Record | Own)
			w.expect(what, "apply one")
			w.expectSaid(1, c.said)
			w.expectSaid(0, "quaywall was stopped")
			w.flushed = true
			w.hints(Own)
			w.expect(what+", and a flush afterwards", "mend")
		}
	}
}

// TestDamagedAndEdited: the policy file holds something else than what is in force, which this agent remembers.
func TestDamagedAndEdited(t *testing.T) {
	w := newWorld(t)
	w.puts("one")
	w.file = "two"
	w.begin()
	w.expectSaid(0, "can't be read")
	w.damaged, w.flushed = errors.New("records/x is damaged"), true
	w.hints(Record | Own)
	w.expect("a damaged record, and a flush", "apply one")
	w.pass(2 * resync)
	w.expect("afterwards")
	w.file = "three"
	w.hints(Files)
	w.expect("the file was changed", "apply three")
}

// TestObserved: what is observed stays so, through edits and damage, until somebody enforces it.
func TestObserved(t *testing.T) {
	w := newWorld(t)
	w.puts("one")
	w.record.Record.Observed = true
	w.begin()
	w.file = "two"
	w.hints(Files)
	w.pass(settling)
	w.expect("the file was changed", "observe two")
	w.expectSaid(1, "the policy is observed, and denies nothing")
	w.damaged, w.flushed = errors.New("records/x is damaged"), true
	w.hints(Record | Own)
	w.expect("a damaged record, and a flush", "observe two")
	w.puts("three")
	w.file = "three"
	w.hints(Record | Files)
	w.expect("somebody enforces another", "apply three")
	w.expectSaid(1, "the policy is in force")
}

// TestDamagedForLong: the disk takes nothing. It is told once, and tried again and again, but not as fast as can be.
func TestDamagedForLong(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.damaged, w.nothing, w.refuses = errors.New("input/output error"), true, errors.New("read-only file system")
	w.hints(Record)
	w.pass(5 * time.Minute)
	if n := len(w.did); n < 5 || n > 12 {
		t.Errorf("tried %d times in five minutes", n)
	}
	w.expectSaid(1, "input/output error")
	w.did, w.refuses, w.flushed = nil, nil, true
	w.pass(longRetry)
	w.expect("the disk works again", "apply one")
}

// TestDamagedAfterStop: what was stopped stays so, whatever becomes of the record, until somebody applies a policy.
func TestDamagedAfterStop(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.record = InForce{Stopped: true}
	w.hints(Record)
	for _, err := range []error{errors.New("state.json is damaged"), nil} {
		w.damaged, w.nothing = err, true
		w.hints(Record | Own)
		w.pass(2 * resync)
		w.expect("a damaged state after a stop")
	}
	w.puts("one")
	w.damaged = errors.New("records/x is damaged")
	w.hints(Record)
	w.expect("an apply whose record is damaged", "apply one")
}

// TestDamagedAtStart: an agent that can't tell what is in force puts the policy in force.
func TestDamagedAtStart(t *testing.T) {
	for _, nothing := range []bool{false, true} {
		w := newWorld(t)
		w.puts("one")
		w.damaged, w.nothing = errors.New("damaged"), nothing
		w.start()
		w.pass(3 * time.Second)
		w.expect("start", "apply one")
	}
}

// TestOvertaken: the file was changed, and a moment later somebody stopped quaywall.
func TestOvertaken(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.file = "two"
	w.tell(Files, "")
	w.pass(150 * time.Millisecond)
	w.record = InForce{Stopped: true}
	w.tell(Record, "")
	w.pass(60 * time.Millisecond)
	w.pass(time.Second)
	w.expect("a stop")
	w.expectSaid(1, "quaywall was stopped")
}

// TestTakenBack: a change that nobody confirmed is not put in force again by the agent, and another one is.
func TestTakenBack(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.file = "two"
	w.puts("two")
	w.record.Pending, w.record.Left = true, time.Minute
	w.hints(Files | Record)
	w.did = nil
	w.puts("one")
	w.record.Undone = "two"
	w.hints(Record)
	w.hints(Files | Docker)
	w.expect("taken back")
	w.file = "three"
	w.hints(Files)
	w.expect("another policy", "apply three")
}

// TestPending: an unconfirmed change whose process died is looked after when its time is over.
func TestPending(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.puts("two")
	w.file = "two"
	w.record.Pending, w.record.Left = true, time.Minute
	looked := 0
	mend := w.host.Mend
	w.host.Mend = func(ctx context.Context, found func()) (*apply.Mended, error) { looked++; return mend(ctx, found) }
	w.tell(Record, "")
	w.pass(3 * time.Second)
	looked = 0
	w.pass(time.Minute - 4*time.Second)
	if looked != 0 {
		t.Error("looked too early")
	}
	w.pass(10 * time.Second)
	if looked != 1 {
		t.Errorf("looked %d times when the time was over, want once", looked)
	}
}

// TestListingFails: what is in force stays, and it is tried again.
func TestListingFails(t *testing.T) {
	w := newWorld(t)
	w.begin()
	list := w.host.List
	w.host.List = func(context.Context) (Listing, error) { return Listing{}, errors.New("no buffer space") }
	w.hints(Links)
	w.host.List = list
	w.listing = listingOf("bridge", "back")
	w.pass(5 * time.Second)
	w.expect("afterwards", "apply one")
	w.expectSaid(1, "no buffer space")
}

// TestSourceFails: after each failure everything of its kinds is listed, and it is left alone longer and longer.
func TestSourceFails(t *testing.T) {
	now := began
	var pauses []time.Duration
	c := clock{now: func() time.Time { return now }, sleep: func(_ context.Context, d time.Duration) bool {
		pauses = append(pauses, d)
		now = now.Add(d)
		return len(pauses) < 12
	}}
	tries := 0
	var log bytes.Buffer
	s := Source{Name: "Docker", Kinds: Docker | Links, Means: "nothing is noticed", Watch: func(_ context.Context, hint func(Hint, string)) error {
		if tries++; tries == 10 { // it is there, for a minute
			hint(Docker|Links, "")
			hint(Docker, "")
			now = now.Add(time.Minute)
		}
		if tries == 1 {
			return nil // nothing to watch yet
		}
		return errors.New("connection refused")
	}}
	var hints []Hint
	var told []string
	s.follow(t.Context(), c, slog.New(slog.NewTextHandler(&log, nil)), func(h Hint, _ string) { hints = append(hints, h) },
		func(err error) { told = append(told, fmt.Sprint(err)) })
	refused := slices.Repeat([]string{"connection refused"}, 12)
	refused[0] = "not there"
	if want := slices.Insert(refused, 9, "<nil>"); !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	for text, times := range map[string]int{`"Docker can't be followed: nothing is noticed" error="connection refused"`: 2, "can be followed again": 1} {
		if n := strings.Count(log.String(), text); n != times {
			t.Errorf("%s is logged %d times, want %d:\n%s", text, n, times, log.String())
		}
	}
	if want := []Hint{Docker | Links, Docker, Docker | Links}; !slices.Equal(hints, want) {
		t.Errorf("hints %v, want %v", hints, want)
	}
	ms := time.Millisecond
	want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, longPause, longPause, 100 * ms, 200 * ms, 400 * ms}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses %v, want %v", pauses, want)
	}
}

// TestRun: the loop as it is, with its goroutines: hints from many at a time arrive, and it ends.
func TestRun(t *testing.T) {
	w := newWorld(t)
	w.host.Now = time.Now
	done := make(chan struct{})
	applied := 0
	w.host.Apply = func(_ context.Context, to Target, over string, inv *inventory.Inventory) (*apply.Result, error) {
		if applied++; applied == 1 {
			close(done)
		}
		return w.apply(to, over, inv)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sources []Source
	for range 4 {
		sources = append(sources, Source{Kinds: All, Watch: func(ctx context.Context, hint func(Hint, string)) error {
			for range 1000 {
				hint(All, "somebody")
			}
			<-ctx.Done()
			return ctx.Err()
		}})
	}
	w.listing = listingOf("bridge", "back")
	ended := make(chan error)
	go func() { ended <- w.Run(ctx, sources) }()
	<-done
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !slices.Contains(w.notified, "STOPPING=1") {
		t.Errorf("told %q", w.notified)
	}
}
