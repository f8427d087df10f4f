package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/labstate"
)

// makeNamespace makes an empty network namespace with a name that `ip netns` knows too.
func makeNamespace(name string) error {
	if err := os.MkdirAll(labstate.NetnsDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(labstate.NetnsDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making network namespace %s: %w", name, err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keeping network namespace %s: %w", name, err)
		}
		return nil
	})
}

// onOwnThread runs f on an operating system thread that ends afterwards, in whatever namespace f left it. It is never the
// main thread, whose namespace is what /proc/self/ns/net tells everybody else.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onOwnThread(f) // held here meanwhile, the main thread can't get f again
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// Inside runs f on a thread in the machine's network namespace. What f starts as a goroutine is not inside.
func (n *Node) Inside(f func() error) error {
	return onOwnThread(func() error {
		if err := n.lab.refuseRoot(n.netnsPath()); err != nil {
			return err
		}
		ns, err := netns.GetFromPath(n.netnsPath())
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

// rootNetns is the namespace that this process was started in, as /proc/self/ns/net reads: "net:[4026531840]".
func rootNetns() (string, error) {
	return os.Readlink("/proc/self/ns/net")
}

// refuseRoot is the safety rule: a namespace that is the machine's own, or can't be told from it, is never entered.
func (l *Lab) refuseRoot(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("can't tell which network namespace %s is, so it is not entered: %w", path, err)
	}
	if l.root == "" || l.root == fmt.Sprintf("net:[%d]", st.Ino) {
		return fmt.Errorf("%s is the machine's own network namespace, so it is not entered", path)
	}
	return nil
}

// wire joins the nodes by bridges in the switch's namespace.
func (l *Lab) wire(t Topology) error {
	if err := l.sw.Inside(func() error { return makeBridges(t.segments()) }); err != nil {
		return fmt.Errorf("making the switch: %w", err)
	}
	for _, spec := range t.Nodes {
		n := l.nodes[spec.Name]
		if err := n.Inside(quietIPv6); err != nil {
			return fmt.Errorf("%s: %w", spec.Name, err)
		}
		for _, link := range spec.Links {
			if err := l.connect(n, link); err != nil {
				return fmt.Errorf("%s: link %s: %w", spec.Name, link.Name, err)
			}
		}
		if err := n.Inside(func() error { return configure(n, spec) }); err != nil {
			return fmt.Errorf("%s: %w", spec.Name, err)
		}
	}
	return nil
}

// Plug gives a running machine one more interface. Its segment is made where there is none of that name.
func (n *Node) Plug(link Link) error {
	err := n.lab.sw.Inside(func() error {
		if _, err := netlink.LinkByName(link.Segment); err == nil {
			return nil
		}
		return makeBridges([]string{link.Segment})
	})
	if err == nil {
		err = n.lab.connect(n, link)
	}
	if err == nil {
		err = n.Inside(func() error { return n.raise(link) })
	}
	if err != nil {
		return fmt.Errorf("%s: link %s: %w", n.Name, link.Name, err)
	}
	n.spec.Links = append(n.spec.Links, link)
	return nil
}

func makeBridges(segments []string) error {
	for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		err := os.WriteFile("/proc/sys/net/bridge/"+key, []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := quietIPv6(); err != nil {
		return err
	}
	for _, name := range segments {
		no := false
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &no}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			return err
		}
	}
	return nil
}

// quietIPv6 has addresses of interfaces that come afterwards usable at once, without looking for duplicates first: a
// machine whose link-local address isn't ready yet dials link-local neighbours from another one.
func quietIPv6() error {
	for _, key := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+key+"/accept_dad", []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// connect makes one link: a veth pair with one end in the node and the other in the bridge of the segment.
func (l *Lab) connect(n *Node, link Link) error {
	ns, err := netns.GetFromPath(n.netnsPath())
	if err != nil {
		return err
	}
	defer ns.Close()
	return l.sw.Inside(func() error {
		bridge, err := netlink.LinkByName(link.Segment)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		l.ports++
		attrs.Name, attrs.MasterIndex = fmt.Sprintf("p%d", l.ports), bridge.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: link.Name, PeerNamespace: netlink.NsFd(ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
}

// configure sets up the node's side, in the node's namespace: sysctls, addresses, routes. What a new namespace takes
// over from the machine (IPv4's forwarding and reverse path filter) is set to the kernel's own defaults first.
func configure(n *Node, spec NodeSpec) error {
	sysctls := map[string]string{"net.ipv4.ip_forward": "0", "net.ipv4.conf.all.rp_filter": "0",
		"net.ipv4.conf.default.rp_filter": "0", "net.ipv4.conf.all.route_localnet": "0", "net.ipv4.conf.default.route_localnet": "0"}
	if spec.Forward {
		sysctls["net.ipv4.ip_forward"], sysctls["net.ipv6.conf.all.forwarding"] = "1", "1"
	}
	if err := setSysctls(sysctls); err != nil {
		return err
	}
	if !spec.NoLo {
		if err := n.raise(Link{Name: "lo"}); err != nil {
			return err
		}
	}
	for _, link := range spec.Links {
		if err := n.raise(link); err != nil {
			return err
		}
	}
	if err := setSysctls(spec.Sysctls); err != nil {
		return err
	}
	for _, r := range spec.Routes {
		if err := addRoute(r); err != nil {
			return fmt.Errorf("route to %v: %w", r.To, err)
		}
	}
	return nil
}

func setSysctls(values map[string]string) error {
	for key, value := range values {
		path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// raise gives an interface its addresses and starts it, in the node's namespace.
func (n *Node) raise(link Link) error {
	dev, err := netlink.LinkByName(link.Name)
	if err != nil {
		return err
	}
	for _, prefix := range link.Addrs {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(dev, addr); err != nil {
			return fmt.Errorf("address %v: %w", prefix, err)
		}
	}
	n.macs[link.Name] = dev.Attrs().HardwareAddr
	return netlink.LinkSetUp(dev)
}

func addRoute(r Route) error {
	route := &netlink.Route{Dst: ipNet(r.To.Masked())}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	}
	if r.Dev != "" {
		dev, err := netlink.LinkByName(r.Dev)
		if err != nil {
			return err
		}
		route.LinkIndex = dev.Attrs().Index
	}
	return netlink.RouteAdd(route)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
