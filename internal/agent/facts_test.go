package agent

import (
	"net/netip"
	"testing"
	"time"
)

// TestDeniedIsJudged: denied packets are judged by what is in force, whatever the file holds by now, and by the inventory that it is
// in force for.
func TestDeniedIsJudged(t *testing.T) {
	w := newWorld(t)
	w.listing.Docker.Addrs = map[string][]netip.Addr{"web": {netip.MustParseAddr("172.17.0.2")}}
	expect := func(when, hash string) {
		t.Helper()
		switch p := w.facts.Policy; {
		case p == nil && hash != "":
			t.Errorf("%s: no policy is known, want %s", when, hash)
		case p != nil && p.Hash != hash:
			t.Errorf("%s: the policy is %s, want %q", when, p.Hash, hash)
		}
		if inv := w.facts.Inventory; inv == nil || inv != w.Agent.applied && inv != w.Agent.inv {
			t.Errorf("%s: the inventory is %+v", when, inv)
		}
		if len(w.facts.Addrs["web"]) != 1 {
			t.Errorf("%s: the containers are %v", when, w.facts.Addrs)
		}
	}
	w.puts("zero")
	w.begin()
	expect("at first, where the file holds another one than what is in force", "kept zero")
	w.file = "one"
	w.puts("one")
	w.hints(Record | Files)
	expect("after somebody put in force what it holds", "one")
	w.file = "bad"
	w.hints(Files)
	expect("with mistakes in the file", "one")
	w.puts("two")
	w.hints(Record)
	expect("after somebody put in force what the file doesn't hold", "kept two")
	w.file = "two"
	w.hints(Files)
	expect("as the file holds it too", "kept two")
	w.file = "three"
	w.hints(Files)
	expect("after a change of the file", "three")
	w.record = InForce{Stopped: true}
	w.hints(Record)
	expect("after a stop", "")
	w.pass(time.Minute)
}
