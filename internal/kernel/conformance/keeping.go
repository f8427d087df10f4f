package conformance

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// refusals are changes of Sample that no backend can put in force.
var refusals = map[string]func(*ruleset.Table){
	"a match that is not understood": func(t *ruleset.Table) {
		t.Chains[1].Rules[0].Matches = one(ruleset.Opaque{Text: "xt match quota"})
	},
	"a chain that is missing": func(t *ruleset.Table) {
		t.Chains[1].Rules[0].Verdict = ruleset.Verdict{Kind: ruleset.Goto, Chain: "nowhere"}
	},
	"a chain that leads back to itself": func(t *ruleset.Table) {
		t.Chains[1].Rules[0].Verdict = ruleset.Verdict{Kind: ruleset.Jump, Chain: "round"}
		back := ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "web"}}
		t.Chains = append(t.Chains, ruleset.Chain{Name: "round", Rules: []ruleset.Rule{back}})
	},
	"a set that is missing": func(t *ruleset.Table) {
		t.Chains[1].Rules[0].Matches = one(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "nowhere"})
	},
	"a map that is missing": func(t *ruleset.Table) {
		t.Chains[0].Rules[2].Lookup = &ruleset.Lookup{By: ruleset.DstPort, Map: "nowhere"}
	},
	"ports of no protocol": func(t *ruleset.Table) {
		t.Chains[1].Rules[0].Matches = one(ruleset.PortMatch{Field: ruleset.DstPort, Ports: ports(1, 1)})
	},
	"a verdict that a map can't hold": func(t *ruleset.Table) {
		t.Maps[0].Elements[0].Verdict = ruleset.Verdict{Kind: ruleset.TCPReset}
	},
	"a name of an interface that is too long": func(t *ruleset.Table) {
		t.Sets[0].Ifaces = []string{"sixteen-letters-"}
	},
}

// testRefused: what is refused changes nothing, whether the backend refuses it or the kernel; on an empty host nothing is
// left behind.
func testRefused(t *testing.T, s Subject) {
	busy, empty := netns.New(t), netns.New(t)
	s.commit(t, busy, Sample())
	before := s.read(t, busy)
	for name, spoil := range refusals {
		t.Run(name, func(t *testing.T) {
			rs := Sample()
			spoil(&rs.Tables[0])
			for _, host := range []*netns.NS{busy, empty} {
				host.Do(t, func() {
					if err := s.Backend.Commit(context.Background(), rs); err == nil {
						t.Error("Commit took it")
					} else {
						t.Log(err)
					}
				})
			}
			netns.Run(t, func() {
				if _, err := s.Backend.Preflight(context.Background(), rs); err == nil {
					t.Error("Preflight took it")
				}
			})
			if diff := compare(before, s.read(t, busy)); diff != "" {
				t.Errorf("what was in force (-) has changed (+):\n%s", diff)
			}
			if l := s.read(t, empty); l.Present {
				t.Errorf("something is in force now: %v", l.Rules)
			}
		})
	}
}

// testScratch: what is tried in a namespace that leads somewhere would be in force there.
func testScratch(t *testing.T, s Subject) {
	a, b := netns.New(t), netns.New(t)
	netns.Veth(t, a, "eth0", b, "eth0")
	a.Do(t, func() {
		_, err := s.Backend.Preflight(context.Background(), Sample())
		if err == nil || !strings.Contains(err.Error(), "eth0 is up in it") {
			t.Errorf("got %v", err)
		}
	})
	if l := s.read(t, a); l.Present {
		t.Errorf("something is in force: %v", l.Rules)
	}
}

// commonForeign are rules as other programs make them, before quaywall comes.
const commonForeign = `
nft -f - <<'END'
table inet firewalld {
	chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state { established, related } accept; }
	chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
}
table inet netavark {
	map ports { type inet_service : verdict; elements = { 80 : accept, 443 : drop }; }
	chain INPUT { type filter hook prerouting priority -149; policy accept; tcp dport vmap @ports; }
}
table ip crowdsec {
	set crowdsec-blacklists { type ipv4_addr; flags timeout; elements = { 203.0.113.66 timeout 4h }; }
	chain crowdsec-chain { type filter hook input priority filter - 10; policy accept; ip saddr @crowdsec-blacklists drop; }
}
table inet quaywall2 {
	chain gate { type filter hook prerouting priority -149; policy accept; }
}
END
iptables-nft-restore <<'END'
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*mangle
-A PREROUTING -i wg0 -j MARK --set-xmark 0x100/0x100
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
END
ip6tables-nft-restore <<'END'
*filter
-A FORWARD -p ipv6-icmp -j ACCEPT
COMMIT
END
ipset create f2b-sshd hash:ip timeout 600
ipset add f2b-sshd 198.51.100.9 timeout 0
ipset create QUAY hash:ip
`

// snapshotTools print all rules there are.
var snapshotTools = [][]string{
	{"nft", "-s", "list", "ruleset"}, {"iptables-nft-save"}, {"ip6tables-nft-save"}, {"iptables-legacy-save"},
	{"ip6tables-legacy-save"}, {"ipset", "save"},
}

// volatile is what changes by itself: counters, dates, time that is left.
var volatile = regexp.MustCompile(`\[\d+:\d+\]|(?m:^#.*$)|expires [0-9a-z]+`)

// snapshot is all rules there are, by tool, without their counters.
func snapshot(t *testing.T, ns *netns.NS) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, tool := range snapshotTools {
		out := volatile.ReplaceAllString(ns.Output(t, tool[0], tool[1:]...), "")
		all[tool[0]] = slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
	}
	return all
}

// testForeign: rules of others are the same, byte for byte, whatever is committed and removed (traps 4, 22, 24).
func testForeign(t *testing.T, s Subject) {
	for _, tool := range snapshotTools {
		netns.Tool(t, tool[0])
	}
	host := netns.New(t)
	host.Output(t, "sh", "-ec", commonForeign)
	for _, commands := range s.Foreign {
		host.Output(t, "sh", "-ec", commands)
	}
	snapshot(t, host) // the tools make tables of their own by looking
	before := snapshot(t, host)
	small := Sample()
	small.Tables[0].Chains[0].Rules = small.Tables[0].Chains[0].Rules[3:]
	for i, rs := range []*ruleset.Ruleset{Sample(), Sample(), small, Sample()} {
		s.commit(t, host, rs)
		for tool, after := range snapshot(t, host) {
			if lost := missing(before[tool], after); lost != "" {
				t.Errorf("commit %d: %s prints %q no more, or elsewhere:\n%s", i+1, tool, lost, strings.Join(after, "\n"))
			}
		}
	}
	s.remove(t, host)
	for tool, after := range snapshot(t, host) {
		after = slices.DeleteFunc(after, func(line string) bool {
			return !slices.Contains(before[tool], line) && slices.ContainsFunc(s.Leftover, func(p string) bool { return regexp.MustCompile(p).MatchString(line) })
		})
		if !slices.Equal(before[tool], after) {
			t.Errorf("after Remove %s prints\n%s\nwhere it printed\n%s", tool, strings.Join(after, "\n"), strings.Join(before[tool], "\n"))
		}
	}
}

// missing is the first line of before that is not in after, behind the lines before it; "" if all are there.
func missing(before, after []string) string {
	for _, line := range before {
		i := slices.Index(after, line)
		if i < 0 {
			return line
		}
		after = after[i+1:]
	}
	return ""
}

// testDrift: what somebody else does to the rules is seen, and mended by the next commit (trap 35).
func testDrift(t *testing.T, s Subject) {
	for _, d := range s.Drift {
		t.Run(d.Name, func(t *testing.T) {
			host := netns.New(t)
			s.commit(t, host, Sample())
			planned := s.read(t, host)
			host.Output(t, "sh", "-ec", d.Commands)
			if compare(planned, s.read(t, host)) == "" {
				t.Error("is not seen")
			}
			s.commit(t, host, Sample())
			s.inForce(t, host, planned)
		})
	}
	if len(s.Drift) == 0 {
		t.Error("the subject names no drift")
	}
}

// Replacement: how often the rules are exchanged under traffic.
const exchanges = 200

// testReplace exchanges rules while packets come in: never is one judged by neither the old rules nor the new ones.
func testReplace(t *testing.T, s Subject) {
	w := newWorld(t)
	var leaked, arrived atomic.Int64
	count(t, w.host, ":4001", &leaked)
	count(t, w.host, ":4002", &arrived)
	s.commit(t, w.host, exchanged(0))
	stop, sent := make(chan struct{}), make(chan int64)
	go flood(w, stop, sent)
	w.host.Do(t, func() {
		for i := range exchanges {
			if err := s.Backend.Commit(context.Background(), exchanged(i%2)); err != nil {
				t.Fatal(err)
			}
		}
	})
	close(stop)
	total := <-sent
	for deadline := time.Now().Add(2 * time.Second); arrived.Load() < total && time.Now().Before(deadline); {
		time.Sleep(settle)
	}
	t.Logf("%d packets of each kind during %d exchanges", total, exchanges)
	if n := leaked.Load(); n > 0 || total == 0 {
		t.Errorf("%d of %d forbidden packets got in", n, total)
	}
	if n := arrived.Load(); n != total {
		t.Errorf("%d of %d allowed packets arrived", n, total)
	}
}

// exchanged is Sample with rules on UDP ports 4001, which is closed, and 4002, which is open to the client. Whichever n, they
// say the same by a map and by sets whose contents are others: it must not show that these are exchanged too. What is
// closed is rejected by one and dropped by the other, for which a backend may have to do quite different things.
func exchanged(n int) *ruleset.Ruleset {
	rs := Sample()
	table := &rs.Tables[0]
	line := ruleset.Origin{Line: fmt.Sprint("policy.yaml:", n)}
	closed, opened := ruleset.Verdict{Kind: ruleset.Goto, Chain: "closed"}, ruleset.Verdict{Kind: ruleset.Goto, Chain: "opened"}
	ends := ruleset.Verdict{Kind: []ruleset.Kind{ruleset.Drop, ruleset.Unreachable}[n]}
	table.Chains = append(table.Chains, ruleset.Chain{Name: "closed", Rules: []ruleset.Rule{{Counter: true, Verdict: ends, Origin: line}}})
	table.Maps = append(table.Maps, ruleset.Map{Name: "exchanged-ports", Key: ruleset.Port, Elements: []ruleset.Element{
		{Ports: ports(4001, 4001)[0], Verdict: closed, Origin: line},
		{Ports: ports(4002, 4002)[0], Verdict: opened, Origin: line},
		{Ports: ports(5000, uint16(5001+n))[0], Verdict: opened, Origin: line},
	}})
	chain := ruleset.Chain{Name: "opened"}
	for _, f := range []struct {
		family ruleset.Family
		key    ruleset.Key
		source string
	}{{ruleset.IPv4, ruleset.Addr4, "198.18.0.0/15 100.64.0.%d"}, {ruleset.IPv6, ruleset.Addr6, "2001:db8:c000::/36 fd64::%d"}} {
		name := fmt.Sprint("exchanged-", f.family)
		table.Sets = append(table.Sets, ruleset.Set{Name: name, Key: f.key, Addrs: netset.MustParse(fmt.Sprintf(f.source, n))})
		m := ruleset.AddrMatch{Field: ruleset.Src, Family: f.family, Set: name}
		chain.Rules = append(chain.Rules, ruleset.Rule{Matches: one(m), Verdict: ruleset.Verdict{Kind: ruleset.Accept}, Origin: line})
	}
	chain.Rules = append(chain.Rules, ruleset.Rule{Counter: true, Verdict: closed, Origin: line})
	table.Chains = append(table.Chains, chain)
	gate := &table.Chains[0]
	gate.Rules = append([]ruleset.Rule{{
		Matches: one(ruleset.ProtoMatch{Proto: 17}), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "exchanged-ports"}, Origin: line,
	}}, gate.Rules...)
	return rs
}

// count counts the datagrams that arrive at an address.
func count(t *testing.T, ns *netns.NS, address string, n *atomic.Int64) {
	t.Helper()
	ns.Do(t, func() {
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		// A queue that is full would look like a packet that was dropped.
		if err := conn.(*net.UDPConn).SetReadBuffer(8 << 20); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				if _, _, err := conn.ReadFrom(buf); err != nil {
					return
				}
				n.Add(1)
			}
		}()
	})
}

// flood sends pairs of packets, one that is forbidden and one that is allowed, until it is told to stop, and tells how many.
func flood(w *world, stop chan struct{}, sent chan int64) {
	pairs := [][2][]byte{}
	for _, v6 := range []bool{false, true} {
		var pair [2][]byte
		for i, port := range []uint16{4001, 4002} {
			p := udp(port)
			p.v6 = v6
			p = p.complete(w, 1, i)
			pair[i] = p.frame(p.way(w.mac["eth0"]))
		}
		pairs = append(pairs, pair)
	}
	for n := int64(0); ; n++ {
		select {
		case <-stop:
			sent <- n
			return
		default:
		}
		for _, f := range pairs[n%2] {
			if w.outside.write(f) != nil {
				sent <- 0
				return
			}
		}
		if n%20 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// testInterrupted: what is read while others change rules is of one piece, or an error.
func testInterrupted(t *testing.T, s Subject) {
	host := netns.New(t)
	s.commit(t, host, Sample())
	planned := s.read(t, host)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		host.Do(t, func() {
			for ctx.Err() == nil {
				// What becomes of these is not the question.
				_, _ = sysexec.Run(ctx, sysexec.Command{Path: "nft", Args: []string{"add", "table", "ip", "busy"}})
				_, _ = sysexec.Run(ctx, sysexec.Command{Path: "nft", Args: []string{"delete", "table", "ip", "busy"}})
			}
		})
	}()
	for range 50 {
		var l *kernel.Listing
		var err error
		host.Do(t, func() { l, err = s.Backend.Read(context.Background()) })
		if err != nil {
			t.Log(err)
		} else if diff := compare(planned, l); diff != "" {
			t.Errorf("read otherwise:\n%s", diff)
		}
	}
	host.Do(t, func() {
		for range 10 {
			if err := s.Backend.Commit(context.Background(), Sample()); err != nil {
				t.Error("Commit beside others: ", err)
			}
		}
	})
	cancel()
	<-done
	s.inForce(t, host, planned)
}
