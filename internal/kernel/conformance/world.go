package conformance

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// world is a host between a client, on eth0, and a container, on docker0. Both families, every packet is forwarded.
type world struct {
	client, host, container *netns.NS
	mac                     map[string]net.HardwareAddr // of the host's interfaces
	outside, inside         wire                        // from the client, from the container
}

// The addresses.
var (
	client4, host4   = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")
	client6, host6   = netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8:1::1")
	inside4, inside6 = netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("fd17::2")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{client: netns.New(t), host: netns.New(t), container: netns.New(t), mac: map[string]net.HardwareAddr{}}
	netns.Veth(t, w.host, "eth0", w.client, "eth0")
	netns.Veth(t, w.host, "docker0", w.container, "eth0")
	w.host.Addr(t, "eth0", "192.0.2.1/24", "2001:db8:1::1/64")
	w.host.Addr(t, "docker0", "172.17.0.1/16", "fd17::1/64")
	w.client.Addr(t, "eth0", "192.0.2.2/24", "2001:db8:1::2/64")
	w.container.Addr(t, "eth0", "172.17.0.2/16", "fd17::2/64")
	w.client.Route(t, "default", "192.0.2.1")
	w.client.Route(t, "default", "2001:db8:1::1")
	w.container.Route(t, "default", "172.17.0.1")
	w.container.Route(t, "default", "fd17::1")
	// Where the cases' packets claim to come from.
	w.host.Route(t, "198.18.0.0/15", "192.0.2.2")
	w.host.Route(t, "2001:db8:c000::/36", "2001:db8:1::2")
	w.host.Sysctl(t, "net.ipv4.ip_forward", "1")
	w.host.Sysctl(t, "net.ipv6.conf.all.forwarding", "1")
	w.outside, w.inside = newWire(t, w.client), newWire(t, w.container)
	w.host.Do(t, func() {
		for _, name := range []string{"eth0", "docker0"} {
			link, err := net.InterfaceByName(name)
			if err != nil {
				t.Fatal(err)
			}
			w.mac[name] = link.HardwareAddr
		}
	})
	return w
}

// wire sends frames by an interface of a namespace.
type wire struct{ fd, iface int }

// newWire opens the eth0 of a namespace. It stays open for the whole test: to close such a socket takes milliseconds.
func newWire(t *testing.T, from *netns.NS) (w wire) {
	t.Helper()
	from.Do(t, func() {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		w.iface = link.Index
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(w.fd) })
	})
	return w
}

func (w wire) send(t *testing.T, f []byte) {
	t.Helper()
	if err := w.write(f); err != nil {
		t.Fatal(err)
	}
}

func (w wire) write(f []byte) error {
	return unix.Sendto(w.fd, f, 0, &unix.SockaddrLinklayer{Ifindex: w.iface})
}

// settle is how long a packet may take until it is answered.
const settle = 20 * time.Millisecond

// noise accepts what hosts say to each other unasked, uncounted.
var noise = []ruleset.Rule{{
	Matches: []ruleset.Match{ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{130, 131, 132, 133, 134, 135, 136, 143}}},
	Verdict: ruleset.Verdict{Kind: ruleset.Accept},
}}
