package apply_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/netns"
)

// mac is the link address of an interface of a node.
func mac(t *testing.T, n node, iface string) net.HardwareAddr {
	t.Helper()
	var addr net.HardwareAddr
	n.Do(t, func() {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			t.Fatal(err)
		}
		addr = i.HardwareAddr
	})
	return addr
}

// wire is a packet socket on an interface of a node.
type wire struct {
	fd   int
	addr unix.SockaddrLinklayer
}

func newWire(t *testing.T, n node, iface string) wire {
	t.Helper()
	var w wire
	n.Do(t, func() {
		i, err := net.InterfaceByName(iface)
		if err == nil {
			w.addr = unix.SockaddrLinklayer{Ifindex: i.Index}
			w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

func (w wire) send(t *testing.T, data []byte) {
	t.Helper()
	if err := unix.Sendto(w.fd, data, 0, &w.addr); err != nil {
		t.Error(err)
	}
}

// listen serves TCP connections on a node.
func listen(t *testing.T, n node, addr string) {
	t.Helper()
	keepOpen(open(t, n, "tcp", addr))
}

// open makes a listener on a node, closed when the test is over.
func open(t *testing.T, n node, network, addr string) (l net.Listener) {
	t.Helper()
	n.Do(t, func() {
		var err error
		if l, err = net.Listen(network, addr); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// keepOpen accepts connections and leaves each open until its client closes it.
func keepOpen(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
}

// Trap 38, the other side of it: what keeps old flows alive lets nobody in. A stranger sends a packet that looks like one
// of an old flow, then dials from the same port.
func TestNobodySlipsInAsAnOldFlow(t *testing.T) {
	t.Parallel()
	openers := map[string][]uint8{
		"ACK": {frame.ACK}, "FIN": {frame.FIN}, "FIN ACK": {frame.FIN | frame.ACK}, "RST": {frame.RST}, "PSH ACK": {frame.PSH | frame.ACK},
		"SYN ACK": {frame.SYN | frame.ACK}, "no flags": {0}, "ACK twice": {frame.ACK, frame.ACK}, "SYN FIN": {frame.SYN | frame.FIN},
	}
	onEachBackend(t, func(t *testing.T, backend string) {
		for _, loose := range []string{"1", "0"} {
			t.Run("tcp_loose="+loose, func(t *testing.T) {
				s := newStreet(t)
				s.host.Sysctl(t, "net.netfilter.nf_conntrack_tcp_loose", loose)
				targets := map[string]netip.AddrPort{}
				for _, v6 := range []bool{false, true} {
					family := map[bool]string{false: "IPv4", true: "IPv6"}[v6]
					listen(t, s.host, net.JoinHostPort(s.host.addr(v6), "2222"))
					targets[family+" listener on one address"] = netip.MustParseAddrPort(net.JoinHostPort(s.host.addr(v6), "2222"))
					targets[family+" listener"] = netip.MustParseAddrPort(net.JoinHostPort(s.host.addr(v6), "3333"))
					targets[family+" container's own address"] = netip.MustParseAddrPort(net.JoinHostPort(s.container.addr(v6), "80"))
				}
				listen(t, s.host, ":3333")
				listen(t, s.container, ":80")
				s.host.Do(t, func() { applyText(t, local(t, t.TempDir()), backend, livePolicy) })
				s.attack(t, targets, openers)
			})
		}
	})
}

// attack tries each opener on each target, all at a time.
func (s street) attack(t *testing.T, targets map[string]netip.AddrPort, openers map[string][]uint8) {
	t.Helper()
	out := newWire(t, s.client, "eth0")
	from, to := mac(t, s.client, "eth0"), mac(t, s.host, "eth0")
	port := uint16(20000)
	var tries sync.WaitGroup
	for where, target := range targets {
		for how, flags := range openers {
			port++
			source := netip.AddrPortFrom(netip.MustParseAddr(s.client.addr(target.Addr().Is6())), port)
			tries.Add(1)
			go func() {
				defer tries.Done()
				way := frame.Way{SrcMAC: from, DstMAC: to, Src: source, Dst: target}
				for i, f := range flags {
					out.send(t, way.TCPAt(f, 999+uint32(i), 5000))
				}
				if err := s.dialFrom(t, source, target); err == nil {
					t.Errorf("%s: in by %s, then SYN", where, how)
				}
			}()
		}
	}
	tries.Wait()
}

// dialFrom dials from the client, from a port that was used for something else a moment before.
func (s street) dialFrom(t *testing.T, source, target netip.AddrPort) error {
	var conn net.Conn
	var err error
	s.client.Do(t, func() {
		dialer := net.Dialer{Timeout: 1200 * time.Millisecond, LocalAddr: net.TCPAddrFromAddrPort(source)}
		conn, err = dialer.Dial("tcp", target.String())
	})
	if err == nil {
		conn.Close()
	}
	return err
}

// The test above proves something only if its targets can be reached where no policy is.
func TestTargetsAnswerWithoutAPolicy(t *testing.T) {
	s := newStreet(t)
	listen(t, s.host, ":3333")
	listen(t, s.container, ":80")
	for i, target := range []string{"203.0.113.1:3333", "[2001:db8:1::1]:3333", "172.17.0.2:80", "[2001:db8:17::2]:80"} {
		to := netip.MustParseAddrPort(target)
		source := netip.AddrPortFrom(netip.MustParseAddr(s.client.addr(to.Addr().Is6())), uint16(20000+i))
		if err := s.dialFrom(t, source, to); err != nil {
			t.Errorf("%s: %v", fmt.Sprint(to), err)
		}
	}
}

// Trap 39, its other side: to Docker's DNAT the link-local address of any interface is this host's, that of its own bridge
// for one, which is fe80::1 everywhere. A neighbour that sends packets there must meet the policy.
func TestLinkLocalAddressOfABridge(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"ip", "ip6tables-nft", "ip6tables-legacy"} {
		netns.Tool(t, tool)
	}
	onEachBackend(t, func(t *testing.T, backend string) {
		s := newStreet(t)
		docker := "ip6tables-nft"
		if backend == "iptables-legacy" {
			docker = "ip6tables-legacy"
		}
		s.host.Addr(t, "docker0", "fe80::1/64")
		s.client.Output(t, "ip", "-6", "neigh", "add", "fe80::1", "lladdr", mac(t, s.host, "eth0").String(), "dev", "eth0")
		s.host.Output(t, docker, "-t", "nat", "-N", "DOCKER")
		s.host.Output(t, docker, "-t", "nat", "-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DOCKER")
		s.host.Output(t, docker, "-t", "nat", "-A", "DOCKER", "!", "-s", "fe80::/10", "!", "-i", "docker0", "-p", "tcp", "--dport", "8080",
			"-j", "DNAT", "--to-destination", "["+s.container.v6+"]:80")
		listen(t, s.container, ":80")
		port := uint16(20000)
		dial := func(to string) error {
			port++
			return s.dialFrom(t, netip.AddrPortFrom(netip.MustParseAddr(s.client.v6), port), netip.MustParseAddrPort(to))
		}
		h := local(t, t.TempDir())
		for _, step := range []struct {
			policy string
			open   bool
		}{{"", true}, {"inbound: [{allow: ssh}]", false}, {"inbound: [{allow: 8080}]", true}} {
			if step.policy != "" {
				s.host.Do(t, func() { applyText(t, h, backend, "version: 1\n"+step.policy+"\n") })
			}
			for _, to := range []string{"[fe80::1%eth0]:8080", "[2001:db8:1::1]:8080"} {
				if err := dial(to); (err == nil) != step.open {
					t.Errorf("%q: %s: %v, want open: %v", step.policy, to, err, step.open)
				}
			}
		}
	})
}
