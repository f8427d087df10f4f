package netns

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vishnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Veth joins two namespaces by a pair of interfaces, both up. Names have at most 15 characters.
func Veth(t testing.TB, a *NS, nameA string, b *NS, nameB string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	a.link(t, "adding the pair "+nameA+" "+nameB, func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.Fd())})
	})
	a.Up(t, nameA)
	b.Up(t, nameB)
}

// Bridge makes a bridge and puts interfaces that are there already into it, all up. One without ports is an interface
// that leads nowhere.
func (n *NS) Bridge(t testing.TB, name string, ports ...string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	n.link(t, "adding the bridge "+name, func(h *netlink.Handle) error { return h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}) })
	for _, port := range ports {
		n.link(t, "putting "+port+" into "+name, func(h *netlink.Handle) error {
			link, err := h.LinkByName(port)
			if err != nil {
				return err
			}
			bridge, err := h.LinkByName(name)
			if err != nil {
				return err
			}
			return h.LinkSetMaster(link, bridge)
		})
		n.Up(t, port)
	}
	n.Up(t, name)
}

// Up starts an interface.
func (n *NS) Up(t testing.TB, iface string) {
	t.Helper()
	n.link(t, "starting "+iface, func(h *netlink.Handle) error {
		link, err := h.LinkByName(iface)
		if err != nil {
			return err
		}
		return h.LinkSetUp(link)
	})
}

// Addr gives an interface addresses, each with the length of its prefix; IPv6 ones are usable at once.
func (n *NS) Addr(t testing.TB, iface string, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		addr, err := netlink.ParseAddr(p)
		if err != nil {
			t.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		n.link(t, "giving "+iface+" "+p, func(h *netlink.Handle) error {
			link, err := h.LinkByName(iface)
			if err != nil {
				return err
			}
			if err := h.AddrAdd(link, addr); err != nil {
				return err
			}
			return waitForAddr(h, addr.IP)
		})
	}
}

// waitForAddr waits until the host takes an address for its own: for IPv6 the kernel makes the route some time later.
func waitForAddr(h *netlink.Handle, ip net.IP) error {
	for range 200 {
		routes, err := h.RouteGet(ip)
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the address does not come up")
}

// Route sends a prefix by way of a gateway; "default" is 0.0.0.0/0 or ::/0, whichever the gateway's family is.
func (n *NS) Route(t testing.TB, prefix, gateway string) {
	t.Helper()
	via, err := netip.ParseAddr(gateway)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case prefix == "default" && via.Is4():
		prefix = "0.0.0.0/0"
	case prefix == "default":
		prefix = "::/0"
	}
	_, dst, err := net.ParseCIDR(prefix)
	if err != nil {
		t.Fatal(err)
	}
	n.link(t, "routing "+prefix+" by "+gateway, func(h *netlink.Handle) error {
		return h.RouteAdd(&netlink.Route{Dst: dst, Gw: via.AsSlice()})
	})
}

// link runs f with a rtnetlink handle of the namespace. Failing fails the test.
func (n *NS) link(t testing.TB, what string, f func(*netlink.Handle) error) {
	t.Helper()
	h, err := netlink.NewHandleAt(vishnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal("netns: ", err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		t.Fatalf("netns: %s: %v", what, err)
	}
}
