package nft

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/kernel/conformance"
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// A set that is too large to be read element by element is known by its digest and the kernel's count. What others do to
// it is seen where the kernel counts, and mended.
func TestLargeSetDrift(t *testing.T) {
	if !kernelCounts(t) {
		t.Skip("this kernel is older than Linux 6.17: it does not tell how many elements a set has")
	}
	for _, end := range []string{"", " 255.255.255.252/30"} { // the last address ends no interval
		rs := withSet(listLimit, 2)
		big := &rs.Tables[0].Sets[2]
		big.Addrs = big.Addrs.Union(netset.MustParse("0.0.0.9" + end))
		driftAndMend(t, rs)
	}
}

// kernelCounts tells whether the kernel says how many elements a set has.
func kernelCounts(t *testing.T) (counts bool) {
	t.Helper()
	netns.Run(t, func() {
		if err := New().Commit(context.Background(), conformance.Sample()); err != nil {
			t.Fatal(err)
		}
		s, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		st, err := s.readTable(context.Background(), tableName)
		if err != nil {
			t.Fatal(err)
		}
		counts = st.table.Sets[0].Count >= 0
	})
	return counts
}

func driftAndMend(t *testing.T, rs *ruleset.Ruleset) {
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
	for _, command := range []string{"add", "delete"} {
		element := map[string]string{"add": "{ 1.2.3.4 }", "delete": "{ 0.0.0.9 }"}[command]
		// What replaced the set has another name.
		ns.Output(t, "sh", "-ec", "big=$(nft -t list sets inet | sed -n 's/.*set \\(big[^ ]*\\) {/\\1/p'); nft "+command+" element inet quaywall $big '"+element+"'")
		if got := listing(); got.Sets["big"] == planned.Sets["big"] {
			t.Errorf("nft %s element is not seen: %v", command, got.Sets["big"])
		}
		commit()
		if diff := cmp.Diff(planned, listing()); diff != "" {
			t.Errorf("after nft %s element and another commit: %s", command, diff)
		}
	}
}
