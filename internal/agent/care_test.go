package agent

import (
	"slices"
	"testing"
	"time"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

// settled is a world in which Docker has been there for a while.
func settled(t *testing.T) *world {
	w := newWorld(t)
	w.start()
	w.tell(Docker|Engine, "")
	w.pass(10 * time.Second)
	w.did = nil
	w.log.Reset()
	return w
}

// TestDockersRules: what is missing for a moment and Docker is at rest, is mended within half a second, once.
func TestDockersRules(t *testing.T) {
	w := settled(t)
	w.problems = []string{"nat DOCKER has no rule for port 8080/tcp of web"}
	w.tell(Tables, "ufw (process 99)")
	w.pass(100 * time.Millisecond)
	w.expect("at once")
	w.pass(300 * time.Millisecond)
	w.expect("a moment later", "mend Docker's")
	w.expectSaid(1, `by="ufw (process 99)"`)
	w.hints(Tables)
	w.expect("the events of the mending itself")
}

// TestRulesMissSinceTheirChange: the time that rules have to be missing begins with the last change that was heard of.
func TestRulesMissSinceTheirChange(t *testing.T) {
	w := settled(t)
	w.problems = []string{"nat has no chain DOCKER"}
	w.tell(Tables, "ufw (process 99)")
	w.pass(lasts - 10*time.Millisecond)
	w.expect("not yet")
	w.pass(20 * time.Millisecond)
	w.expect("missing for long enough", "mend Docker's")
}

// TestMendingIsNobodyElse: somebody flushed everything. What the mending of quaywall's own rules changes is heard after it, and
// Docker gets no more time for that; but what somebody else changes meanwhile counts, and rules are listed no more often than
// they have to be.
func TestMendingIsNobodyElse(t *testing.T) {
	const noticed, mending = 5 * time.Millisecond, 100 * time.Millisecond
	for meanwhile, wait := range map[string]time.Duration{"nothing": lasts, "another problem": noticed + mending + lasts} {
		w := settled(t)
		w.problems, w.flushed, w.lists = []string{"nat has no chain DOCKER"}, true, 0
		for len(w.checks) > 0 {
			<-w.checks
		}
		w.mending = func() {
			select {
			case <-w.checks:
			case <-time.After(10 * time.Second):
				t.Fatal("nobody looks at Docker's rules beside the mending")
			}
			w.now = w.now.Add(mending)
			w.box.put(Own|Tables, "")
			if meanwhile != "nothing" {
				w.problems = append(w.problems, meanwhile)
			}
		}
		w.tell(Own|Tables, "ufw (process 99)")
		flushed := w.now
		w.now = w.now.Add(noticed)
		w.work(t.Context())
		w.take()
		w.pass(flushed.Add(wait - time.Millisecond).Sub(w.now))
		w.expect(meanwhile+": not yet", "mend")
		w.pass(20 * time.Millisecond)
		w.expect(meanwhile+": for long enough", "mend Docker's")
		if meanwhile == "nothing" && w.lists != 1 {
			t.Errorf("listed %d times", w.lists)
		}
	}
}

// TestGlanceKnowsTheHost: what was listed before something of Docker's changed says nothing of its rules.
func TestGlanceKnowsTheHost(t *testing.T) {
	for what, change := range map[string]func(*world){
		"an event of Docker's":  func(w *world) { w.tell(Docker, "") },
		"another interface":     func(w *world) { w.tell(Links, "") },
		"an engine far away":    func(w *world) { w.last.Docker.Local = false },
		"no engine":             func(w *world) { w.last = gone(w.last) },
		"a Docker that starts":  func(w *world) { w.care.heard(Engine, w.now) },
		"nobody looks after it": func(w *world) { w.policy.Policy.Repair = policy.RepairOff },
	} {
		w := settled(t)
		if !w.mayGlance() {
			t.Fatal("a host at rest can't be judged")
		}
		if change(w); w.mayGlance() {
			t.Errorf("%s: what was listed before still counts", what)
		}
	}
}

// TestDockerAtWork: a container starts, and its rules are not all there yet.
func TestDockerAtWork(t *testing.T) {
	w := settled(t)
	w.problems = []string{"nat DOCKER has no rule for port 8080/tcp of web"}
	for range 5 {
		w.tell(Docker|Tables, "iptables (process 7)")
		w.pass(500 * time.Millisecond)
	}
	w.problems = nil
	w.pass(5 * time.Second)
	w.expect("Docker wrote them itself")
}

// TestContainersRules: what is missing of a single container, and what is too much, has to stay so for longer.
func TestContainersRules(t *testing.T) {
	for stays, set := range map[time.Duration]func(*world){lingers: func(w *world) { w.single = true }, stale: func(w *world) { w.stale = true }} {
		w := settled(t)
		set(w)
		w.problems = []string{"nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"}
		w.tell(Tables, "iptables (process 7)")
		w.pass(stays - 100*time.Millisecond)
		w.expect("it may be at work")
		w.pass(time.Second)
		w.expect("it isn't", "mend Docker's")
		if w.stale {
			w.expectSaid(0, "they are back")
			w.expectSaid(1, `they were taken out" rules=1 were="ip nat -A DOCKER -j DNAT"`)
		}
	}
}

// TestForeignEngine: an engine that is asked over the network may be another host's, whatever its bridges are called.
func TestForeignEngine(t *testing.T) {
	w := newWorld(t)
	w.listing.Docker.Local = false
	w.problems = []string{"nat has no chain DOCKER"}
	w.start()
	w.tell(Docker|Engine, "")
	w.pass(time.Minute)
	for range 5 {
		w.hints(Tables)
	}
	w.expect("rules of another host", "apply one")
	w.expectSaid(1, "Docker is asked over the network")
}

// TestFacts: what is here and not of this engine, and what it lists and is not here, is told to be others'.
func TestFacts(t *testing.T) {
	l := listingOf("bridge", "back")
	l.Links = slices.DeleteFunc(l.Links, func(i inventory.Interface) bool { return i.Name == "br-back" })
	l.Links = append(l.Links, inventory.Interface{Name: "br-other", Kind: "bridge"})
	f := factsOf(l)
	var others []string
	for _, i := range f.Others {
		others = append(others, i.Name)
	}
	if want := []string{"eth0", "br-other", "br-back"}; !slices.Equal(others, want) || len(f.Networks) != 1 {
		t.Errorf("others are %q, want %q; networks %+v", others, want, f.Networks)
	}
}

// TestDockerStarts: a Docker that starts writes all of its rules.
func TestDockerStarts(t *testing.T) {
	w := settled(t)
	answers := w.listing
	w.listing = gone(w.listing)
	w.problems = []string{"nat has no chain DOCKER"}
	w.hints(Docker | Tables)
	w.pass(time.Minute)
	w.expect("Docker is gone")
	w.listing = answers
	w.tell(Engine|Docker, "")
	w.pass(settles - 100*time.Millisecond)
	w.expect("it has just started")
	w.problems = nil
	w.pass(time.Minute)
	w.expect("it wrote them itself")
	w.expectSaid(0, "Docker's rules")
}

func TestRepairModes(t *testing.T) {
	for mode, said := range map[policy.Repair]int{policy.RepairTell: 1, policy.RepairOff: 0} {
		w := newWorld(t)
		w.repair = mode
		w.start()
		w.pass(10 * time.Second)
		w.did = nil
		w.problems = []string{"nat has no chain DOCKER"}
		for range 5 {
			w.hints(Tables)
		}
		w.expect(mode.String())
		w.expectSaid(said, "are not what they were")
		w.problems = nil
		w.hints(Tables)
		w.expectSaid(said, "whole again")
	}
}

// TestNotMendable: without a snapshot it is told, once.
func TestNotMendable(t *testing.T) {
	w := settled(t)
	w.problems, w.stays = []string{"nat has no chain DOCKER"}, true
	for range 5 {
		w.hints(Tables)
	}
	w.expect("no snapshot")
	w.expectSaid(1, "were not seen whole before")
}

// TestStoppedRepairsNothing: who stopped quaywall wants nothing of it.
func TestStoppedRepairsNothing(t *testing.T) {
	w := settled(t)
	w.record = InForce{Stopped: true}
	w.hints(Record)
	w.problems = []string{"nat has no chain DOCKER"}
	w.hints(Tables)
	w.expect("after a stop")
}

// TestDockersRulesFight: somebody takes them away in a loop.
func TestDockersRulesFight(t *testing.T) {
	w := settled(t)
	for range 60 * 10 {
		w.problems = []string{"nat has no chain DOCKER"}
		w.tell(Tables, "badfirewall (process 5)")
		w.pass(time.Second)
	}
	if n := len(w.did); n < 10 || n > 35 {
		t.Errorf("mended %d times in ten minutes", n)
	}
	if n := len(w.care.fight.mends); n > boutMends+1 {
		t.Errorf("remembers %d mends", n)
	}
}
