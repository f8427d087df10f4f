package trace

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quaywall/internal/packet"
	"quaywall/internal/sim"
	"quaywall/internal/testkit/netns"
)

// host is a namespace with an address of each family beside that of lo, and rules that a program loads.
func host(t *testing.T) *netns.NS {
	t.Helper()
	ns := netns.New(t)
	ns.Addr(t, "lo", "192.0.2.1/32", "2001:db8::1/128")
	return ns
}

// traced traces what is sent once packets are marked, until there were n packets.
func traced(t *testing.T, ns *netns.NS, filter string, n int, send func()) (all []*Packet, summary Summary) {
	t.Helper()
	f, err := packet.ParseFilter(filter)
	if err != nil {
		t.Fatal(err)
	}
	ns.Do(t, func() {
		summary, err = Run(context.Background(), Options{Filter: f, For: time.Minute, Packets: n, RunDir: t.TempDir(),
			DockerHost: "unix://" + filepath.Join(t.TempDir(), "none.sock"), Ready: send, Note: func(text string) { t.Error("noted: ", text) }},
			func(p *Packet) error { all = append(all, p); return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, summary
}

// datagrams sends n datagrams to an address. It is called in the namespace.
func datagrams(t *testing.T, to string, n int) func() {
	return func() {
		conn, err := net.Dial("udp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for range n {
			_, _ = conn.Write([]byte("hello, hello, hello")) // that nobody listens is told by an error later on
		}
	}
}

// short writes a packet's way in short, a line for each step in which something matched.
func short(p *Packet) string {
	var b strings.Builder
	for _, s := range p.Path {
		if s.Chain != "" && len(s.Rules) == 0 {
			continue
		}
		if s.Chain == "" {
			fmt.Fprintf(&b, "%s", s.Text)
		} else {
			fmt.Fprintf(&b, "%s %s %s %s: %s", s.Hook, s.Dialect, s.Table, s.Chain, s.Verdict)
		}
		for _, r := range s.Rules {
			fmt.Fprintf(&b, " [%s %d %s]", r.Chain, r.Rule, r.Did)
		}
		b.WriteString("\n")
	}
	return b.String() + p.Verdict
}

const docker = `*filter
:INPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A INPUT -p udp -m udp --dport 53 -j DOCKER-USER
-A INPUT -p udp -m udp --dport 54 -j DOCKER-USER
-A DOCKER-USER -p udp -m udp --dport 54 -j RETURN
-A DOCKER-USER -p udp -m udp --dport 55 -j DROP
-A DOCKER-USER -j DROP
COMMIT
*nat
:OUTPUT ACCEPT [0:0]
-A OUTPUT -p udp -m udp --dport 5353 -j REDIRECT --to-ports 53
COMMIT
`

// TestIPTables: both variants, both families, rewriting, jumps, and policies.
func TestIPTables(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		for _, family := range []struct{ name, addr string }{{"", "192.0.2.1"}, {"6", "2001:db8::1"}} {
			t.Run(variant+family.name, func(t *testing.T) {
				ns := host(t)
				ns.Feed(t, docker, "ip"+family.name+"tables-"+variant+"-restore")
				table := "ip" + family.name
				end := func(port string) string { return net.JoinHostPort(family.addr, port) }
				all, _ := traced(t, ns, "udp -> "+end("5353"), 1, datagrams(t, end("5353"), 1))
				want := fmt.Sprintf(`sent by this host, out by lo
output iptables-%[1]s %[2]s nat OUTPUT: redirect [OUTPUT 1 redirect]
routing: to this host itself
input iptables-%[1]s %[2]s filter INPUT: drop [INPUT 1 jump DOCKER-USER] [DOCKER-USER 3 drop]
drop`, variant, table)
				if got := short(all[0]); got != want {
					t.Errorf("the way is\n%s\nwant\n%s", got, want)
				}
				if d := all[0].DecidedBy; d == nil || d.Table != table+" filter" || d.Chain != "DOCKER-USER" || d.Rule != 3 || d.Text != "-j DROP" {
					t.Errorf("decided by %+v", d)
				}
				if r := all[0].Path[1].Rules[0]; !strings.HasSuffix(r.Before, end("5353")) || !strings.Contains(r.After, ":53") || r.Before == r.After {
					t.Errorf("rewritten from %s to %s", r.Before, r.After)
				}
				all, _ = traced(t, ns, "udp -> "+end("54"), 1, datagrams(t, end("54"), 1))
				want = fmt.Sprintf("input iptables-%s %s filter INPUT: policy accept [INPUT 2 jump DOCKER-USER] [DOCKER-USER 1 return]\naccept", variant, table)
				if got := short(all[0]); !strings.HasSuffix(got, want) {
					t.Errorf("the way is\n%s\nwant it to end in\n%s", got, want)
				}
			})
		}
	}
}

// TestPolicyLine: what quaywall's rules decide by a map has the line of the map's element.
func TestPolicyLine(t *testing.T) {
	ns := host(t)
	ns.Feed(t, `table inet quaywall {
		map ports { type inet_service : verdict; flags interval; elements = { 53 comment "policy.yaml:7" : goto denied, 54 comment "policy.yaml:8" : accept } }
		chain gate { type filter hook prerouting priority -149; udp dport vmap @ports; }
		chain denied { counter drop; }
	}`, "nft", "-f", "-")
	for _, to := range []string{"192.0.2.1:53", "[2001:db8::1]:53"} {
		all, _ := traced(t, ns, "udp -> "+to+" from host", 1, datagrams(t, to, 1))
		p := all[0]
		if p.Verdict != string(sim.Drop) || p.DecidedBy == nil || p.DecidedBy.PolicyLine != "policy.yaml:7" || !strings.HasPrefix(p.Why, "Policy.yaml:7") {
			t.Errorf("%s: %s, decided by %+v: %s\n%s", to, p.Verdict, p.DecidedBy, p.Why, short(p))
		}
		if !strings.HasPrefix(p.Packet, "udp ") || !strings.HasSuffix(p.Packet, " from host") || !strings.Contains(p.Packet, "-> "+to) {
			t.Errorf("the packet is told as %q", p.Packet)
		}
	}
}

// TestFilter: only what the filter means is followed.
func TestFilter(t *testing.T) {
	ns := host(t)
	ns.Feed(t, "table ip t { chain c { type filter hook input priority 0; drop; }; }", "nft", "-f", "-")
	for _, test := range []struct{ filter, packet string }{
		{"udp -> :8", "-> 192.0.2.1:8"}, {"192.0.2.1 -> 127.0.0.0/8", "-> 127.0.0.1:7"}, {"udp -> 192.0.2.1:9 in lo", "-> 192.0.2.1:9 in lo"},
		{"udp -> 192.0.2.1:10 state new from host", "-> 192.0.2.1:10 from host"},
	} {
		all, _ := traced(t, ns, test.filter, 1, func() {
			for _, to := range []string{"127.0.0.1:7", "192.0.2.1:7", "192.0.2.1:8", "192.0.2.1:9", "192.0.2.1:10"} {
				if local := strings.HasPrefix(to, "127"); local {
					conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7})
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = conn.Write([]byte("x"))
					conn.Close()
					continue
				}
				datagrams(t, to, 1)()
			}
		})
		if !strings.Contains(all[0].Packet+" ", test.packet+" ") {
			t.Errorf("%q shows %s, not %s", test.filter, all[0].Packet, test.packet)
		}
	}
}

// TestFlood: of a flood no more are marked than the kernel lets through, what is shown is bounded, and then the rules are what
// they were.
func TestFlood(t *testing.T) {
	ns := host(t)
	ns.Feed(t, "table ip t { chain c { type filter hook input priority 0; udp dport 9 drop; }; }", "nft", "-f", "-")
	before := ns.Output(t, "nft", "-a", "list", "ruleset")
	all, summary := traced(t, ns, "udp -> :9 from host", perSecond, datagrams(t, "192.0.2.1:9", 5000))
	if len(all) != perSecond || summary.Packets != perSecond || !strings.Contains(summary.Ended, "50 packets") || summary.Lost != 0 {
		t.Errorf("%d packets were shown: %+v", len(all), summary)
	}
	for _, p := range all {
		if p.Verdict != string(sim.Drop) {
			t.Fatalf("of a flood, one got another verdict:\n%s\n%s", short(p), p.Why)
		}
	}
	if after := ns.Output(t, "nft", "-a", "list", "ruleset"); after != before {
		t.Errorf("the rules were\n%s\nand are\n%s", before, after)
	}
}
