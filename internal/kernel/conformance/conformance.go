// Package conformance is what every kernel.Backend must do, as one suite of tests that runs on each of them.
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Subject{Backend: New(), Tools: []string{"nft"}, …})
//	}
//
// Every match of package ruleset is tried with packets that it holds for and packets that it doesn't, in both families;
// every verdict is tried by what comes back. The frames are built by hand and sent from a namespace behind a veth pair,
// and what they met is told by the counters that the backend reads. A test fails for a match or a verdict that has no case.
//
// Be aware: all of it runs in namespaces of its own and needs root. Nothing here knows a backend's language: what other
// tools do to its rules, the Subject brings along.
package conformance

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/kernel"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// Subject is a backend with what the suite must know of it.
type Subject struct {
	Backend kernel.Backend
	Tools   []string // programs without which the tests can't run
	Drift   []Drift  // at least: a rule deleted, rules in another order, an element added, an element deleted

	// Foreign are shell commands that make rules of other programs, which must stay as they are; common ones are made
	// anyway.
	Foreign []string

	// Leftover are patterns of lines that can't be taken away again, such as tables that the kernel keeps.
	Leftover []string
}

// Drift is what somebody else does to the rules of Sample: shell commands.
type Drift struct {
	Name     string
	Commands string
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	for _, tool := range append([]string{"sh", "ip"}, s.Tools...) {
		netns.Tool(t, tool)
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, Subject)
	}{
		{"Probe", testProbe},
		{"Scratch", testScratch},
		{"Nothing", testNothing},
		{"Sample", testSample},
		{"Matches", testMatches},
		{"Verdicts", testVerdicts},
		{"Flow", testFlow},
		{"Lookups", testLookups},
		{"Log", testLog},
		{"Flows", testFlows},
		{"Refused", testRefused},
		{"Foreign", testForeign},
		{"Drift", testDrift},
		{"Replace", testReplace},
		{"Interrupted", testInterrupted},
		{"Large", testLarge},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, s) })
	}
}

// preflight gives the listing that is planned, from a namespace of its own.
func (s Subject) preflight(t *testing.T, rs *ruleset.Ruleset) *kernel.Listing {
	t.Helper()
	var planned *kernel.Listing
	var err error
	netns.Run(t, func() { planned, err = s.Backend.Preflight(context.Background(), rs) })
	if err != nil {
		t.Fatal("Preflight: ", err)
	}
	return planned
}

// commit puts rules in force in a namespace and demands that they are read back as planned.
func (s Subject) commit(t *testing.T, host *netns.NS, rs *ruleset.Ruleset) {
	t.Helper()
	if err := rs.Validate(); err != nil {
		t.Fatal("not a valid ruleset: ", err)
	}
	planned := s.preflight(t, rs)
	host.Do(t, func() {
		if err := s.Backend.Commit(context.Background(), rs); err != nil {
			t.Fatal("Commit: ", err)
		}
	})
	s.inForce(t, host, planned)
}

// inForce demands that what is planned is what is in the kernel.
func (s Subject) inForce(t *testing.T, host *netns.NS, planned *kernel.Listing) {
	t.Helper()
	if diff := compare(planned, s.read(t, host)); diff != "" {
		t.Errorf("planned (-) and in the kernel (+):\n%s", diff)
	}
}

// compare compares listings, counters aside.
func compare(a, b *kernel.Listing) string {
	return cmp.Diff(a, b, cmpopts.IgnoreFields(kernel.Listing{}, "Counters"), cmpopts.EquateEmpty())
}

func (s Subject) read(t *testing.T, host *netns.NS) *kernel.Listing {
	t.Helper()
	var listing *kernel.Listing
	host.Do(t, func() {
		var err error
		if listing, err = s.Backend.Read(context.Background()); err != nil {
			t.Fatal("Read: ", err)
		}
	})
	return listing
}

func (s Subject) remove(t *testing.T, host *netns.NS) {
	t.Helper()
	host.Do(t, func() {
		if err := s.Backend.Remove(context.Background()); err != nil {
			t.Fatal("Remove: ", err)
		}
	})
}

func testProbe(t *testing.T, s Subject) {
	netns.Run(t, func() {
		if err := s.Backend.Probe(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// testNothing: where nothing of quaywall's is, nothing is found and nothing need be removed.
func testNothing(t *testing.T, s Subject) {
	host := netns.New(t)
	for range 2 {
		if l := s.read(t, host); l.Present || len(l.Rules)+len(l.Sets)+len(l.Counters) > 0 {
			t.Errorf("read %+v", l)
		}
		s.remove(t, host)
	}
}

// testSample: what is committed is what is read, again and again, and a change is a change.
func testSample(t *testing.T, s Subject) {
	host, rs := netns.New(t), Sample()
	for range 3 {
		s.commit(t, host, rs)
	}
	small := Sample()
	small.Tables[0].Chains = small.Tables[0].Chains[:1]
	small.Tables[0].Chains[0].Rules = small.Tables[0].Chains[0].Rules[:1]
	small.Tables[0].Sets, small.Tables[0].Maps = small.Tables[0].Sets[:1], nil
	for _, next := range []*ruleset.Ruleset{small, rs, small} {
		s.commit(t, host, next)
	}
	s.remove(t, host)
	if l := s.read(t, host); l.Present {
		t.Errorf("still there after Remove: %+v", l)
	}
}
