package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// What a client sees of a verdict.
const (
	isOpen    = "open"
	isRefused = "refused"
	isSilent  = "silent"
)

// patience is how long a client waits for an answer before it calls the other side silent: longer than until TCP sends its
// SYN again, since a refusal that comes while the first one is being sent is passed over.
const patience = 1500 * time.Millisecond

// ending is a verdict with what TCP and UDP clients see of it, "" where it is not for them. Each has a port of its own.
type ending struct {
	verdict  ruleset.Verdict
	tcp, udp string
}

var endings = []ending{
	{ruleset.Verdict{Kind: ruleset.Drop}, isSilent, isSilent},
	{ruleset.Verdict{Kind: ruleset.TCPReset}, isRefused, ""},
	{ruleset.Verdict{Kind: ruleset.Unreachable}, isRefused, isRefused},
	{ruleset.Verdict{Kind: ruleset.Accept}, isOpen, isOpen},
}

const firstPort = 3001

// marking are rules of others that give each packet and each connection another mark, before anybody filters: those of
// wg-quick and of hosts with several uplinks do it.
const marking = `table inet marking {
	chain prerouting { type filter hook prerouting priority -140; meta mark set 7; ct mark set 7; }
	chain input { type filter hook input priority -140; meta mark set ct mark; }
	chain forward { type filter hook forward priority -5; meta mark set ct mark; }
	chain output { type filter hook output priority -140; meta mark set 7; ct mark set 7; }
}`

// testVerdicts lets clients meet every verdict that ends a packet's way, at each hook, in both families.
func testVerdicts(t *testing.T, s Subject) {
	w := newWorld(t)
	w.host.Feed(t, marking, "nft", "-f", "-")
	for i := range endings {
		serve(t, w.host, firstPort+i)
		serve(t, w.container, firstPort+i)
		serve(t, w.client, firstPort+i)
	}
	for _, part := range []struct {
		hook     ruleset.Hook
		from     *netns.NS
		to4, to6 netip.Addr
	}{
		{ruleset.Prerouting, w.client, host4, host6},
		{ruleset.Forward, w.client, inside4, inside6},
		{ruleset.Output, w.host, client4, client6},
	} {
		t.Run(part.hook.String(), func(t *testing.T) {
			s.commit(t, w.host, endingRules(part.hook))
			var all sync.WaitGroup
			for i, e := range endings {
				for _, to := range []netip.Addr{part.to4, part.to6} {
					address := netip.AddrPortFrom(to, uint16(firstPort+i)).String()
					for network, want := range map[string]string{"tcp": e.tcp, "udp": e.udp} {
						all.Add(1)
						go func() {
							defer all.Done()
							if got := dial(t, part.from, network, address); want != "" && got != want {
								t.Errorf("%s: %s %s is %s, want %s", e.verdict.Kind, network, address, got, want)
							}
						}()
					}
				}
			}
			all.Wait()
		})
	}
	tried := map[ruleset.Kind]bool{ruleset.Continue: true, ruleset.Return: true, ruleset.Jump: true, ruleset.Goto: true} // testFlow's
	for _, e := range endings {
		tried[e.verdict.Kind] = true
	}
	for k := ruleset.Drop; ; k++ {
		if _, err := k.MarshalText(); err != nil {
			break
		}
		if !tried[k] {
			t.Errorf("the verdict %q has no case", k)
		}
	}
}

func endingRules(hook ruleset.Hook) *ruleset.Ruleset {
	chain := ruleset.Chain{Name: "gate", Base: &ruleset.Base{Hook: hook, Priority: matchPriority[hook]}, Rules: noise}
	for i, e := range endings {
		for _, proto := range []uint8{6, 17} {
			port := ruleset.PortMatch{Field: ruleset.DstPort, Ports: ports(uint16(firstPort+i), uint16(firstPort+i))}
			chain.Rules = append(chain.Rules[:len(chain.Rules):len(chain.Rules)], ruleset.Rule{
				Matches: one(ruleset.ProtoMatch{Proto: proto}, port), Counter: true, Verdict: e.verdict,
				Origin: ruleset.Origin{Line: fmt.Sprintf("verdicts:%d", i)},
			})
		}
	}
	return &ruleset.Ruleset{Tables: []ruleset.Table{{Name: "quaywall", Chains: []ruleset.Chain{chain}}}}
}

// serve answers TCP and UDP on a port of a namespace.
func serve(t *testing.T, ns *netns.NS, port int) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	ns.Do(t, func() {
		var err1, err2 error
		l, err1 = net.Listen("tcp", fmt.Sprint(":", port))
		p, err2 = net.ListenPacket("udp", fmt.Sprint(":", port))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			// A client that is gone is none of the server's business.
			_, _ = p.WriteTo(buf[:n], from)
		}
	}()
}

// dial tells what a client sees.
func dial(t *testing.T, from *netns.NS, network, address string) (seen string) {
	from.Do(t, func() {
		conn, err := net.DialTimeout(network, address, patience)
		if err == nil {
			defer conn.Close()
			err = talk(conn)
		}
		seen = outcome(err)
	})
	return seen
}

func talk(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	// A host whose own packet is dropped is told EPERM; what the answer is shows afterwards.
	if _, err := conn.Write([]byte("hello")); err != nil && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if _, err := conn.Read(make([]byte, 5)); err != nil && err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

func outcome(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return isOpen
	case errors.Is(err, syscall.ECONNREFUSED):
		return isRefused
	case errors.As(err, &timeout) && timeout.Timeout():
		return isSilent
	}
	return err.Error()
}

// flowRules counts what becomes of packets that are sent from chain to chain.
func flowRules() *ruleset.Ruleset {
	to := func(port uint16) []ruleset.Match {
		return one(ruleset.ProtoMatch{Proto: 17}, ruleset.PortMatch{Field: ruleset.DstPort, Ports: ports(port, port)})
	}
	from := func(port uint16) []ruleset.Match {
		return one(ruleset.ProtoMatch{Proto: 17}, ruleset.PortMatch{Field: ruleset.SrcPort, Ports: ports(port, port)})
	}
	rule := func(n int, m []ruleset.Match, kind ruleset.Kind, chain string) ruleset.Rule {
		return ruleset.Rule{Matches: m, Counter: true, Verdict: ruleset.Verdict{Kind: kind, Chain: chain}, Origin: ruleset.Origin{Line: fmt.Sprint("flow:", n)}}
	}
	gate := append(noise[:len(noise):len(noise)],
		rule(1, to(1), ruleset.Continue, ""),
		rule(2, to(2), ruleset.Jump, "aside"),
		rule(3, to(2), ruleset.Continue, ""),
		rule(4, to(3), ruleset.Goto, "away"),
		rule(5, to(3), ruleset.Drop, ""),
		rule(6, nil, ruleset.Accept, ""),
		rule(7, nil, ruleset.Drop, ""))
	aside := []ruleset.Rule{rule(8, from(5), ruleset.Return, ""), rule(9, nil, ruleset.Continue, "")}
	away := []ruleset.Rule{rule(10, from(5), ruleset.Goto, "farther"), rule(11, nil, ruleset.Continue, "")}
	farther := []ruleset.Rule{rule(12, nil, ruleset.Return, ""), rule(13, nil, ruleset.Drop, "")}
	return &ruleset.Ruleset{Tables: []ruleset.Table{{Name: "quaywall", Chains: []ruleset.Chain{
		{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: gate},
		{Name: "aside", Rules: aside}, {Name: "away", Rules: away}, {Name: "farther", Rules: farther},
	}}}}
}

// testFlow is about verdicts that lead elsewhere.
func testFlow(t *testing.T, s Subject) {
	w := newWorld(t)
	s.commit(t, w.host, flowRules())
	want := map[string]uint64{}
	count := func(p probe, lines ...int) {
		for _, p := range both(p) {
			p.send(t, w, 1, len(want))
			for _, n := range lines {
				want[fmt.Sprint("flow:", n)]++
			}
		}
	}
	for _, n := range []int{5, 7, 13} {
		want[fmt.Sprint("flow:", n)] = 0
	}
	count(udp(1).fromPort(4), 1, 6)
	count(udp(2).fromPort(4), 2, 9, 3, 6)
	count(udp(2).fromPort(5), 2, 8, 3, 6)
	count(udp(3).fromPort(4), 4, 11)
	count(udp(3).fromPort(5), 4, 10, 12)
	count(udp(9).fromPort(5), 6)
	s.expect(t, w.host, want)
}

// expect demands counters.
func (s Subject) expect(t *testing.T, host *netns.NS, want map[string]uint64) {
	t.Helper()
	got := s.countersUntil(t, host, want)
	for line, n := range want {
		if got[line].Packets != n {
			t.Errorf("%s: %d packets, want %d", line, got[line].Packets, n)
		}
	}
}

// lookupCase is a verdict map with packets and the lines that count them; "" is where those go that it doesn't hold.
type lookupCase struct {
	name     string
	by       ruleset.Field
	key      ruleset.Key
	elements []ruleset.Element
	packets  map[string][]probe
}

func lookupCases() []lookupCase {
	accept, drop := ruleset.Verdict{Kind: ruleset.Accept}, ruleset.Verdict{Kind: ruleset.Drop}
	away, aside := ruleset.Verdict{Kind: ruleset.Goto, Chain: "away"}, ruleset.Verdict{Kind: ruleset.Jump, Chain: "aside"}
	port := func(first, last uint16, v ruleset.Verdict, line string) ruleset.Element {
		return ruleset.Element{Ports: netset.Ports{First: first, Last: last}, Verdict: v, Origin: ruleset.Origin{Line: line, Note: "a note"}}
	}
	addr := func(text string, v ruleset.Verdict, line string) ruleset.Element {
		return ruleset.Element{Addrs: addrRange(text), Verdict: v, Origin: ruleset.Origin{Line: line}}
	}
	me := self(1)
	return []lookupCase{
		{"single ports", ruleset.DstPort, ruleset.Port,
			[]ruleset.Element{port(22, 22, accept, "p:1"), port(53, 53, drop, "p:2"), port(80, 80, away, "p:3"), port(443, 443, aside, "p:4")},
			map[string][]probe{"p:1": both(udp(22)), "p:2": both(udp(53)), "p:3": both(udp(80)), "p:4": both(udp(443)), "": both(udp(21), udp(23))}},
		{"ranges of ports", ruleset.DstPort, ruleset.Port,
			[]ruleset.Element{port(0, 0, drop, "p:1"), port(1, 1023, accept, "p:2"), port(1024, 1024, away, "p:3"), port(5000, 5999, drop, "p:4"), port(60000, 65535, drop, "p:5")},
			map[string][]probe{"p:1": both(udp(0)), "p:2": both(udp(1), udp(1023)), "p:3": both(udp(1024)), "p:4": both(udp(5000), udp(5999)),
				"p:5": both(udp(60000), udp(65535)), "": both(udp(1025), udp(4999), udp(6000), udp(59999))}},
		{"IPv4 sources", ruleset.Src, ruleset.Addr4,
			[]ruleset.Element{addr(me.v4(1).String(), drop, "a:1"), addr(me.v4(2).String()+"-"+me.v4(31).String(), away, "a:2"),
				addr(me.v4(32).String()+"/27", drop, "a:3"), addr("203.0.113.0-255.255.255.255", drop, "a:4")},
			map[string][]probe{"a:1": {udp(1)}, "a:2": {udp(1).from(me.v4(2)), udp(1).from(me.v4(31))}, "a:3": {udp(1).from(me.v4(32)), udp(1).from(me.v4(63))},
				"": {udp(1).from(me.v4(0)), udp(1).from(me.v4(64)), udp(1).in6()}}},
		{"IPv6 sources", ruleset.Src, ruleset.Addr6,
			[]ruleset.Element{addr(me.v6(0, 1).String(), drop, "a:1"), addr(me.v6(0, 2).String()+"-"+me.v6(0, 31).String(), accept, "a:2"), addr(me.v6(4, 0).String()+"/64", aside, "a:3")},
			map[string][]probe{"a:1": {udp(1).in6()}, "a:2": {udp(1).from(me.v6(0, 2)), udp(1).from(me.v6(0, 31))}, "a:3": {udp(1).from(me.v6(4, 77))},
				"": {udp(1).from(me.v6(0, 32)), udp(1).from(me.v6(5, 0)), udp(1)}}},
		{"IPv4 destinations", ruleset.Dst, ruleset.Addr4,
			[]ruleset.Element{addr("0.0.0.0-172.17.0.0", drop, "a:1"), addr("192.0.2.1", drop, "a:2"), addr("192.0.2.2-255.255.255.255", away, "a:3")},
			map[string][]probe{"a:2": {udp(1)}, "a:3": {udp(1).to("192.0.2.2"), udp(1).to("255.255.255.255")}, "": {udp(1).to("172.17.0.1"), udp(1).in6()}}},
		{"IPv6 destinations", ruleset.Dst, ruleset.Addr6,
			[]ruleset.Element{addr("::-2001:db8:1::", drop, "a:1"), addr("2001:db8:1::2-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", drop, "a:2")},
			map[string][]probe{"a:1": {udp(1).to("2001:db8:1::")}, "a:2": {udp(1).to("2001:db8:1::2"), udp(1).to("ff02::1")}, "": {udp(1).in6(), udp(1)}}},
	}
}

func addrRange(text string) netipx.IPRange {
	r, err := netset.ParseRange(text)
	if err != nil {
		panic(err) // a mistake in a table of the tests
	}
	return r
}

// testLookups: each element has its verdict and its counter; packets that a map doesn't hold go on to the next rule.
func testLookups(t *testing.T, s Subject) {
	w := newWorld(t)
	for _, c := range lookupCases() {
		t.Run(c.name, func(t *testing.T) {
			s.commit(t, w.host, c.rules())
			want := map[string]uint64{"rest:1": 0, "rest:2": 0, "rest:3": 0}
			for i, e := range c.elements {
				want[e.Origin.Line] = 0
				for _, p := range c.packets[e.Origin.Line] {
					p.send(t, w, 1, i)
					want[e.Origin.Line]++
					switch e.Verdict.Kind {
					case ruleset.Goto:
						want["rest:2"]++
					case ruleset.Jump:
						want["rest:3"]++
						want["rest:1"]++
					}
				}
			}
			for i, p := range c.packets[""] {
				p.send(t, w, 1, 100+i)
				want["rest:1"]++
			}
			s.expect(t, w.host, want)
		})
	}
}

func (c lookupCase) rules() *ruleset.Ruleset {
	count := func(n int, kind ruleset.Kind) ruleset.Rule {
		return ruleset.Rule{Counter: true, Verdict: ruleset.Verdict{Kind: kind}, Origin: ruleset.Origin{Line: fmt.Sprint("rest:", n)}}
	}
	look := ruleset.Rule{Matches: one(ruleset.ProtoMatch{Proto: 17}), Lookup: &ruleset.Lookup{By: c.by, Map: "verdicts"}}
	gate := append(noise[:len(noise):len(noise)], look, count(1, ruleset.Drop))
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name: "quaywall",
		Chains: []ruleset.Chain{
			{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: gate},
			{Name: "away", Rules: []ruleset.Rule{count(2, ruleset.Drop)}},
			{Name: "aside", Rules: []ruleset.Rule{count(3, ruleset.Continue)}},
		},
		Maps: []ruleset.Map{{Name: "verdicts", Key: c.key, Elements: c.elements}},
	}}}
}
