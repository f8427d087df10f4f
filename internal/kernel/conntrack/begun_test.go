package conntrack_test

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/recheck"
	"quaywall/internal/testkit/netns"
)

// adopt makes that many flows known, the first of them being number begin.
func adopt(t *testing.T, begin, n int) {
	t.Helper()
	var flows []conntrack.Flow
	for i := begin; i < begin+n; i++ {
		client := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		flows = append(flows, conntrack.Flow{Proto: unix.IPPROTO_TCP, Local: netip.AddrPortFrom(client, 4000), Remote: netip.MustParseAddrPort("203.0.113.1:80")})
	}
	if made, err := conntrack.Adopt(flows); err != nil || made != n {
		t.Fatalf("%d of %d flows are known: %v", made, n, err)
	}
}

// What was listed and what is heard is all there is; a flow that is heard of can be forgotten as one that is listed.
func TestBegun(t *testing.T) {
	netns.New(t).Do(t, func() {
		adopt(t, 0, 10)
		begun := conntrack.Listen()
		defer begun.Close()
		before, err := conntrack.List()
		if err != nil {
			t.Fatal(err)
		}
		if flows, ok := begun.Flows(); !ok || len(flows) != 0 {
			t.Errorf("heard of %+v, %v", flows, ok)
		}
		adopt(t, 10, 20)
		heard, ok := begun.Flows()
		after, err := conntrack.List()
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		for _, f := range after {
			same := func(o recheck.Flow) bool {
				return o.ID == f.ID && o.Orig == f.Orig && o.Reply == f.Reply && string(o.Key) == string(f.Key)
			}
			if !slices.ContainsFunc(slices.Concat(before, heard), same) {
				t.Errorf("not heard of %+v", f)
			}
		}
		if len(heard) != 20 {
			t.Errorf("heard of %d, want 20", len(heard))
		}
		if err := conntrack.Forget(heard); err != nil {
			t.Error(err)
		}
		if left, err := conntrack.List(); err != nil || len(left) != len(before) {
			t.Errorf("%d are left, %v", len(left), err)
		}
	})
}

// Where something was lost, or nothing can be heard, nobody is told that nothing began.
func TestBegunIsNotKnown(t *testing.T) {
	ns := netns.New(t)
	ns.Do(t, func() {
		if conntrack.Listen() != nil {
			t.Error("a table that is empty is listened to")
		}
		adopt(t, 0, 1)
		begun := conntrack.Listen()
		defer begun.Close()
		adopt(t, 1, 20_000) // more than the socket's queue takes
		if flows, ok := begun.Flows(); ok {
			t.Errorf("%d flows are taken for all that began", len(flows))
		}
	})
	ns.Sysctl(t, "net.netfilter.nf_conntrack_events", "0")
	ns.Do(t, func() {
		begun := conntrack.Listen()
		if _, ok := begun.Flows(); begun != nil || ok {
			t.Error("a kernel that tells nothing is listened to")
		}
	})
}
