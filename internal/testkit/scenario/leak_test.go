package scenario

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

// TestAgentLeaks: after 10,000 events (addresses, somebody else's rules, quaywall's own, the policy's file, Docker's networks) the
// agent has no more memory, descriptors and goroutines than it had, and still does its work.
func TestAgentLeaks(t *testing.T) {
	t.Parallel()
	w := oneHost(t, variants[0], lab.Engine{})
	if err := w.fw.Write(lines("version: 1", "inbound:", "  - allow: 2222")); err != nil {
		t.Fatal(err)
	}
	a := agentOf(w, "the policy is in force")
	w.events(a, 500)
	memory, descriptors := w.resident(a), w.descriptors(a)
	w.events(a, 10_000)
	if grown := w.resident(a) - memory; grown > 8<<10 {
		t.Errorf("the agent grew from %d KiB by %d", memory, grown)
	}
	if is := w.descriptors(a); is > descriptors+5 {
		t.Errorf("the agent had %d descriptors and has %d", descriptors, is)
	}
	t.Logf("%d KiB, %d descriptors", w.resident(a), w.descriptors(a))
	// This is what makes a Go program print its goroutines.
	if err := a.End(t.Context(), "QUIT"); err == nil {
		t.Error("the agent ended without a word")
	}
	if n := strings.Count(a.Log(), "\ngoroutine "); n < 5 || n > 60 {
		t.Errorf("the agent has %d goroutines", n)
	}
}

// events makes so many, and waits until the agent has mended the last.
func (w *world) events(a *firewall.Agent, n int) {
	w.Helper()
	err := w.host.Inside(func() error {
		conn, err := nftables.New()
		lo, err2 := netlink.LinkByName("lo")
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		for i := range n / 4 {
			addr := &netlink.Addr{IPNet: netlink.NewIPNet(net.IPv4(198, 18, byte(i>>8), byte(i)))}
			table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "stranger"})
			err := errors.Join(netlink.AddrAdd(lo, addr), conn.Flush())
			conn.DelTable(table)
			if err := errors.Join(err, netlink.AddrDel(lo, addr), conn.Flush()); err != nil {
				return fmt.Errorf("event %d: %w", 4*i, err)
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	for i := range n / 1000 {
		replace(w, lines("version: 1", "inbound:", fmt.Sprintf("  - allow: %d", 3000+i)))
		name := fmt.Sprintf("n%d-%d", n, i)
		w.network(lab.Network{Name: name})
		if err := w.host.RemoveNetwork(w.Context(), name); err != nil {
			w.Fatal(err)
		}
	}
	before := strings.Count(a.Log(), "somebody changed quaywall's rules")
	w.host.MustExec(w.T, "nft", "delete", "table", "inet", "quaywall")
	w.until("a mend", func() bool { return strings.Count(a.Log(), "somebody changed quaywall's rules") > before && w.mended() })
}

// descriptors is how many the agent has open.
func (w *world) descriptors(a *firewall.Agent) int {
	w.Helper()
	pid, err := a.PID()
	if err != nil {
		w.Fatal(err)
	}
	return len(strings.Fields(w.host.MustExec(w.T, "ls", fmt.Sprintf("/proc/%d/fd", pid))))
}
