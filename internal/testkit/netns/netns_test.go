package netns_test

import (
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"quaywall/internal/testkit/netns"
)

func here(t testing.TB) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestGuardRefusesHome(t *testing.T) {
	err := netns.Guard()
	if err == nil || !strings.Contains(err.Error(), "refusing to change it") {
		t.Errorf("at home: %v", err)
	}
	netns.Run(t, func() {
		if err := netns.Guard(); err != nil {
			t.Errorf("in a namespace of the test: %v", err)
		}
	})
}

func TestDoReturns(t *testing.T) {
	a, b, start := netns.New(t), netns.New(t), here(t)
	seen := map[string]bool{start: true}
	a.Do(t, func() {
		inA := here(t)
		seen[inA] = true
		b.Do(t, func() { seen[here(t)] = true })
		if now := here(t); now != inA {
			t.Errorf("after a nested Do: in %s, want %s", now, inA)
		}
	})
	if len(seen) != 3 {
		t.Errorf("namespaces seen: %v, want 3", seen)
	}
	if now := here(t); now != start {
		t.Errorf("after Do: in %s, want %s", now, start)
	}
}

// A test that gives up inside (t.FailNow and t.SkipNow end its goroutine) must not leave its thread behind in the namespace.
func TestDoReturnsFromGivingUp(t *testing.T) {
	start, ns := here(t), netns.New(t)
	done := make(chan string)
	go func() {
		defer func() { done <- here(t) }()
		ns.Do(t, runtime.Goexit)
	}()
	if now := <-done; now != start {
		t.Errorf("afterwards: in %s, want %s", now, start)
	}
}

func TestProgramsRunInside(t *testing.T) {
	ns := netns.New(t)
	ns.Bridge(t, "bridge7")
	if out := ns.Output(t, "ip", "-brief", "link"); !strings.Contains(out, "bridge7") {
		t.Errorf("ip link inside: %s", out)
	}
	if got := ns.Feed(t, "read", "cat"); got != "read" {
		t.Errorf("cat printed %q", got)
	}
}

func TestSysctl(t *testing.T) {
	a, b := netns.New(t), netns.New(t)
	a.Sysctl(t, "net.ipv4.ip_forward", "1")
	b.Sysctl(t, "net/ipv4/ip_forward", "0")
	for ns, want := range map[*netns.NS]string{a: "1\n", b: "0\n"} {
		ns.Do(t, func() {
			if got, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || string(got) != want {
				t.Errorf("ip_forward: %q %v, want %q", got, err, want)
			}
		})
	}
}

// client - router (a bridge, then a routed veth) - server, both families.
func TestPacketsFlow(t *testing.T) {
	client, router, server := netns.New(t), netns.New(t), netns.New(t)
	netns.Veth(t, router, "port0", client, "eth0")
	netns.Veth(t, router, "eth1", server, "eth0")
	router.Bridge(t, "br0", "port0")
	router.Addr(t, "br0", "192.0.2.1/24", "2001:db8:1::1/64")
	router.Addr(t, "eth1", "198.51.100.1/24", "2001:db8:2::1/64")
	client.Addr(t, "eth0", "192.0.2.2/24", "2001:db8:1::2/64")
	server.Addr(t, "eth0", "198.51.100.2/24", "2001:db8:2::2/64")
	router.Sysctl(t, "net.ipv4.ip_forward", "1")
	router.Sysctl(t, "net.ipv6.conf.all.forwarding", "1")
	client.Route(t, "default", "192.0.2.1")
	client.Route(t, "default", "2001:db8:1::1")
	server.Route(t, "192.0.2.0/24", "198.51.100.1")
	server.Route(t, "2001:db8:1::/64", "2001:db8:2::1")
	for _, address := range []string{"198.51.100.2:80", "[2001:db8:2::2]:80"} {
		greet(t, server, client, address)
	}
}

func greet(t *testing.T, server, client *netns.NS, address string) {
	t.Helper()
	var l net.Listener
	var err error
	server.Do(t, func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	client.Do(t, func() {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("%s: read %q, %v", address, got, err)
		}
	})
}
