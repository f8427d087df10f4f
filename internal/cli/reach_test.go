package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/diag"
	"quaywall/internal/exposure"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
	"quaywall/internal/watch/sockets"
)

func listener(proto uint8, at string, inode uint64) sockets.Socket {
	return sockets.Socket{Proto: proto, Local: netip.MustParseAddrPort(at), Listening: true, Inode: inode}
}

// say names endpoints shortly.
func say(all []exposure.Endpoint) []string {
	var words []string
	for _, e := range all {
		owner := e.Owner
		if e.Container {
			owner = "container " + owner
		}
		addr := "*"
		if e.Addr.IsValid() {
			addr = e.Addr.String()
		}
		words = append(words, strings.TrimSpace(addr+" "+Reach{row: exposure.Row{Endpoint: exposure.Endpoint{Proto: e.Proto, Port: e.Port}}}.port()+" "+owner))
	}
	return words
}

func TestMergeEndpoints(t *testing.T) {
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	published := []inventory.Published{
		{Addr: v4, Proto: policy.TCP, Port: 80, Container: "web"},
		{Addr: v6, Proto: policy.TCP, Port: 80, Container: "web"},
		{Addr: v4, Proto: policy.TCP, Port: 81, Container: "four"},
		{Addr: netip.MustParseAddr("192.0.2.1"), Proto: policy.UDP, Port: 53, Container: "dns"},
	}
	socks := []sockets.Socket{
		listener(policy.TCP, "0.0.0.0:80", 1), // docker-proxy's
		listener(policy.TCP, "[::]:80", 2),
		listener(policy.TCP, "0.0.0.0:22", 3), // two sockets of sshd
		listener(policy.TCP, "[::]:22", 3),
		listener(policy.TCP, "[::]:81", 4), // IPv6 beside a port published over IPv4
		listener(policy.TCP, "[::]:443", 5),
		listener(policy.TCP, "0.0.0.0:25", 6),
		listener(policy.UDP, "0.0.0.0:51820", 0),
		listener(policy.TCP, "192.168.0.1:6379", 7),
	}
	owners := map[uint64]sockets.Process{3: {Name: "sshd"}, 4: {Name: "six"}, 5: {Name: "nginx"}, 6: {Name: "smtpd"}, 7: {Name: "redis"}}
	got := say(mergeEndpoints(published, socks, owners))
	want := []string{
		"* 22/tcp sshd", "0.0.0.0 25/tcp smtpd", "* 80/tcp container web", ":: 81/tcp six", "0.0.0.0 81/tcp container four",
		"* 443/tcp nginx", "192.168.0.1 6379/tcp redis", "192.0.2.1 53/udp container dns", "0.0.0.0 51820/udp", "* ping",
	}
	if d := cmp.Diff(sorted(want), sorted(got)); d != "" {
		t.Error(d)
	}
}

func sorted(words []string) map[string]int {
	set := map[string]int{}
	for _, w := range words {
		set[w]++
	}
	return set
}

func TestClientsAreNoListeners(t *testing.T) {
	for _, test := range []struct {
		s    sockets.Socket
		want bool
	}{
		{listener(policy.UDP, "0.0.0.0:40000", 9), true},
		{listener(policy.UDP, "0.0.0.0:40000", 0), false}, // the kernel's own: WireGuard
		{listener(policy.UDP, "0.0.0.0:53", 9), false},
		{listener(policy.TCP, "0.0.0.0:40000", 9), false},
	} {
		if got := isClient(test.s, sockets.PortRange{First: 32768, Last: 60999}); got != test.want {
			t.Errorf("isClient(%+v) = %v", test.s, got)
		}
	}
}

func TestWriteReach(t *testing.T) {
	p := &policy.Policy{Inbound: []policy.Rule{
		{Pos: diag.Pos{File: "p.yaml", Line: 3}, From: policy.Addresses{Given: true, Sets: []string{"office"}, Inline: netset.MustParse("192.0.2.1")}},
		{Pos: diag.Pos{File: "p.yaml", Line: 4}, Limit: rate.Rate{Count: 9}},
		{Pos: diag.Pos{File: "p.yaml", Line: 5}, From: policy.Addresses{Given: true, Not: true, Inline: netset.MustParse("192.0.2.1 192.0.2.3 192.0.2.5 192.0.2.7")}},
	}}
	rows := []exposure.Row{
		{Endpoint: exposure.Endpoint{Proto: policy.TCP, Port: 22, Owner: "sshd"}, Reachable: true, Open: []exposure.Opening{
			{Rule: 0, Origin: "p.yaml:3", IPv4: true}, {Rule: 1, Origin: "p.yaml:4", IPv4: true, IPv6: true, Limited: true, Ifaces: []string{"eth1"}}}},
		{Endpoint: exposure.Endpoint{Proto: policy.TCP, Addr: netip.MustParseAddr("2001:db8::1"), Port: 80, Owner: "web", Container: true},
			Reachable: true, Open: []exposure.Opening{{Rule: 2, Origin: "p.yaml:5", IPv6: true}}},
		{Endpoint: exposure.Endpoint{Proto: policy.TCP, Port: 5432, Owner: "postgres"}, Reachable: true, Others: "default"},
		{Endpoint: exposure.Endpoint{Proto: policy.TCP, Port: 1}},
		{Endpoint: exposure.Endpoint{Proto: policy.ICMP}, Reachable: true, Open: []exposure.Opening{{Rule: -1, Origin: "default", IPv4: true, IPv6: true}}},
	}
	var b strings.Builder
	writeReach(&b, style{}, reach(p, rows))
	want := `
  PORT                  WHAT           OPEN TO                           BY
  22/tcp                sshd           office, 192.0.2.1 (IPv4)          p.yaml:3
                                       anyone on eth1, 9/second burst 0  p.yaml:4
  [2001:db8::1]:80/tcp  container web  not 4 ranges                      p.yaml:5
  5432/tcp              postgres       nobody                            default
  ping                                 anyone                            default
`
	if d := cmp.Diff(strings.TrimPrefix(want, "\n"), b.String()); d != "" {
		t.Error(d)
	}
}

func TestColour(t *testing.T) {
	for _, test := range []struct {
		tty  bool
		env  map[string]string
		want bool
	}{
		{true, nil, true},
		{false, nil, false},
		{true, map[string]string{"NO_COLOR": "1"}, false},
		{true, map[string]string{"TERM": "dumb"}, false},
	} {
		a := newApp(Env{StdoutTTY: test.tty, Getenv: func(k string) string { return test.env[k] }})
		if got := a.onStdout().on; got != test.want {
			t.Errorf("tty %v, %v: colour %v", test.tty, test.env, got)
		}
	}
}
