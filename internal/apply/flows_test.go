package apply_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"quaywall/internal/testkit/netns"
)

// node is a namespace with addresses.
type node struct {
	*netns.NS
	v4, v6 string
}

func (n node) addr(v6 bool) string {
	if v6 {
		return n.v6
	}
	return n.v4
}

// street is a host with a client on a link, and a container behind a bridge of the host, all routed.
type street struct{ host, client, container node }

func newStreet(t testing.TB) street {
	t.Helper()
	s := street{
		host:      node{netns.New(t), "203.0.113.1", "2001:db8:1::1"},
		client:    node{netns.New(t), "203.0.113.2", "2001:db8:1::2"},
		container: node{netns.New(t), "172.17.0.2", "2001:db8:17::2"},
	}
	netns.Veth(t, s.host.NS, "eth0", s.client.NS, "eth0")
	netns.Veth(t, s.host.NS, "veth1", s.container.NS, "eth0")
	s.host.Bridge(t, "docker0", "veth1")
	s.host.Addr(t, "eth0", "203.0.113.1/24", "2001:db8:1::1/64")
	s.host.Addr(t, "docker0", "172.17.0.1/16", "2001:db8:17::1/64")
	s.client.Addr(t, "eth0", "203.0.113.2/24", "2001:db8:1::2/64")
	s.container.Addr(t, "eth0", "172.17.0.2/16", "2001:db8:17::2/64")
	s.client.Route(t, "default", "203.0.113.1")
	s.client.Route(t, "default", "2001:db8:1::1")
	s.container.Route(t, "default", "172.17.0.1")
	s.container.Route(t, "default", "2001:db8:17::1")
	s.host.Sysctl(t, "net.ipv4.ip_forward", "1")
	s.host.Sysctl(t, "net.ipv6.conf.all.forwarding", "1")
	return s
}

// talk is what happens on a connection after the policy came.
type talk int

const (
	active        talk = iota // both sides speak in turn, all the time
	dialledSpeaks             // idle until the side that was dialled speaks
	dialerSpeaks              // idle until the side that dialled speaks
	download                  // the dialled side sends all the time
	upload                    // the dialling side sends all the time
)

func (k talk) String() string {
	return [...]string{"active", "idle, the dialled side speaks", "idle, the dialling side speaks", "download", "upload"}[k]
}

// flow is one connection that ran before the policy.
type flow struct {
	name     string
	talk     talk
	from, to net.Conn     // the side that dialled, the side that was dialled
	moved    atomic.Int64 // messages that arrived
	failed   atomic.Value // an error
}

const patience = 4 * time.Second

// dialIn makes a connection from a node to an address that a node listens on.
func dialIn(t *testing.T, network string, from, to node, listen, dial string) (near, far net.Conn) {
	t.Helper()
	if network == "udp" {
		return dialUDP(t, from, to, listen, dial)
	}
	l := open(t, to, network, listen)
	defer l.Close()
	return dialTo(t, from, l, dial)
}

// dialTo joins a node to a listener, by an address of the listener's node.
func dialTo(t *testing.T, from node, l net.Listener, dial string) (near, far net.Conn) {
	t.Helper()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	from.Do(t, func() {
		var err error
		if near, err = net.DialTimeout("tcp", net.JoinHostPort(dial, port), patience); err != nil {
			t.Fatal(err)
		}
	})
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// dialUDP joins two sockets that are both connected, as QUIC and VPN daemons do.
func dialUDP(t *testing.T, from, to node, listen, dial string) (near, far net.Conn) {
	t.Helper()
	bind := func(n node, addr string) *net.UDPAddr {
		var local *net.UDPAddr
		n.Do(t, func() {
			c, err := net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
			if err != nil {
				t.Fatal(err)
			}
			local = c.LocalAddr().(*net.UDPAddr)
			c.Close()
		})
		return local
	}
	connect := func(n node, a, b *net.UDPAddr) (c net.Conn) {
		n.Do(t, func() {
			var err error
			if c, err = net.DialUDP("udp", a, b); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { c.Close() })
		return c
	}
	host, _, _ := net.SplitHostPort(listen)
	if host == "" {
		host = dial
	}
	isV6 := netip.MustParseAddr(dial).Is6()
	there, here := bind(to, host), bind(from, from.addr(isV6))
	return connect(from, here, there), connect(to, there, here)
}

// begin lets the connection run for a moment.
func (f *flow) begin(t *testing.T) {
	t.Helper()
	for range 2 {
		if err := errors.Join(f.say(f.from, f.to), f.say(f.to, f.from)); err != nil {
			t.Fatalf("%s: before the policy: %v", f.name, err)
		}
	}
	switch f.talk {
	case active:
		go f.run(func() error { return errors.Join(f.say(f.from, f.to), f.say(f.to, f.from)) })
	case download:
		go f.run(func() error { return f.say(f.to, f.from) })
	case upload:
		go f.run(func() error { return f.say(f.from, f.to) })
	}
}

// say sends a message from one end to the other. A datagram that is lost is sent again, as programs do; on a flow that
// is dead all are lost.
func (f *flow) say(from, to net.Conn) error {
	const text = "hello"
	deadline := time.Now().Add(patience)
	for {
		if _, err := from.Write([]byte(text)); err != nil {
			return err
		}
		wait := deadline
		if _, udp := from.(*net.UDPConn); udp {
			wait = time.Now().Add(200 * time.Millisecond)
		}
		to.SetReadDeadline(wait)
		_, err := io.ReadFull(to, make([]byte, len(text)))
		if err == nil {
			f.moved.Add(1)
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// run repeats until something fails or the connections are closed.
func (f *flow) run(once func() error) {
	for {
		if err := once(); err != nil {
			f.failed.CompareAndSwap(nil, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// lives tells whether the connection goes on.
func (f *flow) lives() error {
	switch f.talk {
	case dialledSpeaks:
		return errors.Join(f.say(f.to, f.from), f.say(f.from, f.to))
	case dialerSpeaks:
		return errors.Join(f.say(f.from, f.to), f.say(f.to, f.from))
	}
	before := f.moved.Load()
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if f.moved.Load() >= before+20 {
			return nil
		}
	}
	err, _ := f.failed.Load().(error)
	return errors.Join(fmt.Errorf("%d messages", f.moved.Load()-before), err)
}
