package nft

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/kernel/conformance"
	"quaywall/internal/netset"
	render "quaywall/internal/render/nft"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// A set that is too large to be read element by element is known by its digest and the kernel's count. What others do to
// it is seen and mended; where the kernel doesn't count (before Linux 6.17), only that nothing is left of it.
func TestLargeSetDrift(t *testing.T) {
	changes := []string{"flush set inet quaywall $big"}
	if kernelCounts(t) {
		changes = append(changes, "add element inet quaywall $big '{ 1.2.3.4 }'", "delete element inet quaywall $big '{ 0.0.0.9 }'")
	}
	for _, end := range []string{"", " 255.255.255.252/30"} { // the last address ends no interval
		rs := withSet(listLimit, 2)
		big := &rs.Tables[0].Sets[2]
		big.Addrs = big.Addrs.Union(netset.MustParse("0.0.0.9" + end))
		driftAndMend(t, rs, changes)
	}
}

// kernelCounts tells whether the kernel says how many elements a set has.
func kernelCounts(t *testing.T) (counts bool) {
	t.Helper()
	netns.Run(t, func() {
		if err := New().Commit(context.Background(), conformance.Sample()); err != nil {
			t.Fatal(err)
		}
		counts = setsHere(t)[0].Count >= 0
	})
	return counts
}

// setsHere are the sets of quaywall's table in the namespace of the calling thread.
func setsHere(t *testing.T) []render.Set {
	t.Helper()
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	st, err := s.readTable(context.Background(), tableName)
	if err != nil {
		t.Fatal(err)
	}
	return st.table.Sets
}

func driftAndMend(t *testing.T, rs *ruleset.Ruleset, changes []string) {
	t.Helper()
	ctx, backend, ns := context.Background(), New(), netns.New(t)
	listing := func() (l *kernel.Listing) {
		ns.Do(t, func() {
			var err error
			if l, err = backend.Read(ctx); err != nil {
				t.Fatal(err)
			}
		})
		return l
	}
	commit := func() {
		ns.Do(t, func() {
			if err := backend.Commit(ctx, rs); err != nil {
				t.Fatal(err)
			}
		})
	}
	commit()
	planned := listing()
	for _, change := range changes {
		// What replaced the set has another name.
		ns.Output(t, "sh", "-ec", "big=$(nft -t list sets inet | sed -n 's/.*set \\(big[^ ]*\\) {/\\1/p'); nft "+change)
		if got := listing(); got.Sets["big"] == planned.Sets["big"] {
			t.Errorf("nft %s is not seen: %v", change, got.Sets["big"])
		}
		commit()
		if diff := cmp.Diff(planned, listing()); diff != "" {
			t.Errorf("after nft %s and another commit: %s", change, diff)
		}
	}
}

// A set that somebody flushed is told from a full one without being read whole.
func TestIsFlushed(t *testing.T) {
	netns.Run(t, func() {
		rs := withSet(listLimit, 2)
		if err := New().Commit(context.Background(), rs); err != nil {
			t.Fatal(err)
		}
		sets := setsHere(t)
		i := slices.IndexFunc(sets, func(s render.Set) bool { return strings.HasPrefix(s.Name, "big") })
		name := sets[i].Name
		flush := sysexec.Command{Path: "nft", Args: []string{"flush", "set", "inet", tableName, name}}
		for _, want := range []bool{false, true} {
			if got, err := isFlushed(tableName, name); got != want || err != nil {
				t.Errorf("%v, %v, want %v", got, err, want)
			}
			if _, err := sysexec.Run(context.Background(), flush); err != nil {
				t.Fatal(err)
			}
		}
	})
}
