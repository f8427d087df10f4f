package compile_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"go4.org/netipx"

	"quaywall/internal/compile"
	"quaywall/internal/diag"
	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulewalk"
)

// TestFirstMatchWins leads random packets, aimed at the bounds of what the rules name, through the compiled rules of
// random policies: verdict and counted policy line are those that package eval finds by reading the policy.
// QUAYWALL_SEED repeats a run, QUAYWALL_POLICIES makes it longer.
func TestFirstMatchWins(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("QUAYWALL_SEED"), 10, 64); err == nil {
		seed = s
	}
	policies := 300
	if n, err := strconv.Atoi(os.Getenv("QUAYWALL_POLICIES")); err == nil {
		policies = n
	}
	for i := range policies {
		s := seed + uint64(i)
		if !t.Run(fmt.Sprint(s), func(t *testing.T) { onePolicy(t, s) }) {
			t.Fatalf("QUAYWALL_SEED=%d repeats it", s)
		}
	}
}

func onePolicy(t *testing.T, seed uint64) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), inv: testHost()}
	g.inv.Docker.Reachable = !g.oneIn(4)
	p := g.policy()
	rs, list := compile.Compile(p, g.inv, compile.Options{LogGroup: 86})
	if list.HasErrors() {
		t.Fatal(list)
	}
	if err := rs.Validate(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		pk := g.packet()
		if msg := compare(&rs.Tables[0], p, g.inv, pk); msg != "" {
			t.Fatalf("%s\n%s", msg, describe(p, eval.Evaluate(p, g.inv, pk).Section))
		}
	}
}

// compare says how the walk and the evaluation of a packet differ, "" where they don't.
func compare(table *ruleset.Table, p *policy.Policy, inv *inventory.Inventory, pk packet.Packet) string {
	want := eval.Evaluate(p, inv, pk)
	got, err := walk(table, inv, pk)
	if err != nil {
		return err.Error()
	}
	kind := ruleset.Accept
	var lines []string
	switch {
	case want.Verb == policy.Deny:
		kind = ruleset.Drop
	case want.Verb == policy.Reject && pk.Proto == policy.TCP:
		kind = ruleset.TCPReset
	case want.Verb == policy.Reject:
		kind = ruleset.Unreachable
	}
	if want.Origin != "" {
		lines = []string{want.Origin}
	}
	if unrestricted(p, want.Section) {
		lines = nil
	}
	if got.Kind != kind || !slices.Equal(got.Lines, lines) {
		return fmt.Sprintf("packet %+v\nevaluated: %s %v (%s)\nwalked: %s %v by %v", pk, kind, lines, want.Why, got.Kind, got.Lines, got.Path)
	}
	return ""
}

// unrestricted sections other than inbound have no rules in the kernel.
func unrestricted(p *policy.Policy, s policy.Section) bool {
	return s != policy.Inbound && p.Default(s).Verb == policy.Allow &&
		!slices.ContainsFunc(p.Rules(s), func(r policy.Rule) bool { return r.Verb != policy.Allow || r.Log || !r.Limit.IsZero() })
}

// walk leads a packet through all hooks that it passes.
func walk(table *ruleset.Table, inv *inventory.Inventory, pk packet.Packet) (rulewalk.Result, error) {
	return walkOver(table, inv, pk, false)
}

// walkOver does so for a source that is, or is not, over every limit.
func walkOver(table *ruleset.Table, inv *inventory.Inventory, pk packet.Packet, over bool) (rulewalk.Result, error) {
	host := rulewalk.Host{AddrType: func(a netip.Addr) ruleset.AddrType { return addrType(inv, a, pk.In) }, Over: over}
	if pk.In == "" {
		return rulewalk.Walk(table, ruleset.Output, pk, host)
	}
	r, err := rulewalk.Walk(table, ruleset.Prerouting, pk, host)
	switch {
	case err != nil || r.Kind != ruleset.Accept || pk.In == "lo":
		return r, err
	case host.AddrType(pk.Dst) != 0:
		return goOn(r, table, ruleset.Input, pk, host)
	}
	pk.Out = "eth0"
	for _, n := range inv.Networks {
		if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(pk.Dst) }) {
			pk.Out = n.Bridge
		}
	}
	return goOn(r, table, ruleset.Forward, pk, host)
}

// goOn leads a packet that an earlier hook accepted through another one.
func goOn(before rulewalk.Result, table *ruleset.Table, hook ruleset.Hook, pk packet.Packet, host rulewalk.Host) (rulewalk.Result, error) {
	r, err := rulewalk.Walk(table, hook, pk, host)
	r.Lines, r.Logs, r.Path = append(before.Lines, r.Lines...), append(before.Logs, r.Logs...), append(before.Path, r.Path...)
	return r, err
}

// addrType is what the kernel's routing says of an address of a packet that comes in by an interface.
func addrType(inv *inventory.Inventory, a netip.Addr, in string) ruleset.AddrType {
	var all ruleset.AddrType
	if a.IsMulticast() {
		all |= ruleset.TypeMulticast
	}
	if a.IsLoopback() {
		all |= ruleset.TypeLocal
	}
	if zero := a.Is4() && a.As4()[0] == 0; zero || a == netip.MustParseAddr("255.255.255.255") {
		all |= ruleset.TypeBroadcast
	}
	for _, i := range inv.Interfaces {
		for _, p := range i.Addrs {
			switch {
			case a.Is6() && a.IsLinkLocalUnicast() && in != "" && in != i.Name: // another link's
			case p.Addr() == a:
				all |= ruleset.TypeLocal
			case a.Is4() && p.Addr().Is4() && netipx.PrefixLastIP(p) == a:
				all |= ruleset.TypeBroadcast
			case a.Is6() && p.Addr().Is6() && p.Masked().Addr() == a:
				all |= ruleset.TypeAnycast
			}
		}
	}
	return all
}

func testHost() *inventory.Inventory {
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, p := range list {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	addr := netip.MustParseAddr
	return &inventory.Inventory{
		Docker: inventory.Docker{Reachable: true, Version: "28.5.2"},
		Interfaces: []inventory.Interface{
			{Name: "br-0123456789ab", Kind: "bridge", Addrs: prefixes("172.18.0.1/16", "fd00:18::1/64")},
			{Name: "docker0", Kind: "bridge", Addrs: prefixes("172.17.0.1/16")},
			{Name: "eth0", Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64")},
			{Name: "eth1", Addrs: prefixes("10.1.0.1/24")},
			{Name: "lo", Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "wg0", Addrs: prefixes("10.9.0.1/24")},
		},
		Networks: []inventory.Network{
			{Name: "bridge", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16")},
			{Name: "shop", Bridge: "br-0123456789ab", Subnets: prefixes("172.18.0.0/16", "fd00:18::/64"), Mode4: "routed"},
		},
		Published: []inventory.Published{
			{Addr: addr("0.0.0.0"), Proto: policy.TCP, Port: 80, Networks: []string{"bridge"}},
			{Addr: addr("::"), Proto: policy.TCP, Port: 80, Networks: []string{"bridge"}},
			{Addr: addr("192.0.2.1"), Proto: policy.TCP, Port: 443, Networks: []string{"shop"}},
			{Addr: addr("10.1.0.1"), Proto: policy.TCP, Port: 443, Networks: []string{"bridge", "shop"}},
			{Addr: addr("0.0.0.0"), Proto: policy.UDP, Port: 53, Networks: []string{"shop"}},
			{Addr: addr("::"), Proto: policy.SCTP, Port: 80, Networks: []string{"shop"}},
		},
	}
}

// generator makes policies and packets that hit each other often: few ports, few addresses, many overlaps.
type generator struct {
	*rand.Rand
	inv  *inventory.Inventory
	line int
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

func (g *generator) oneIn(n int) bool { return g.IntN(n) == 0 }

func (g *generator) policy() *policy.Policy {
	p := &policy.Policy{
		Sets: []policy.Set{
			{Name: "a", Addrs: g.addrs()}, {Name: "b", Addrs: g.addrs()},
			{Name: "files", File: "/etc/quaywall/files.txt", Addrs: g.addrs()},
			{Name: "large", Addrs: g.large()}, {Name: "none"},
		},
		Defaults: policy.Defaults{Inbound: policy.Verdict{Verb: g.verb()}, Egress: policy.Verdict{Verb: g.verb()},
			Outbound: policy.Verdict{Verb: g.verb()}},
		Hygiene: g.oneIn(2),
		Keep:    g.oneIn(4),
	}
	if g.oneIn(2) {
		p.Trusted = []string{"wg*"}
	}
	if g.oneIn(2) {
		p.Log = rate.Rate{Count: 10, Per: time.Second, Burst: 5}
	}
	p.Inbound, p.Egress, p.Outbound = g.rules(policy.Inbound), g.rules(policy.Egress), g.rules(policy.Outbound)
	return p
}

func (g *generator) verb() policy.Verb { return pick(g, policy.Deny, policy.Reject, policy.Allow) }

// rules makes long runs of like rules often, since these are what becomes maps.
func (g *generator) rules(s policy.Section) []policy.Rule {
	var rules []policy.Rule
	if s == policy.Inbound && g.oneIn(2) {
		rules = g.banned()
	}
	for n := len(rules) + g.IntN(12); len(rules) < n; {
		r := g.rule(s)
		rules = append(rules, r)
		if g.oneIn(4) {
			for range g.IntN(12) {
				g.line++
				r.Pos.Line, r.Verb = g.line, g.verb()
				r.Limit = rate.Rate{}
				if s == policy.Inbound {
					r.From = g.addresses(s, false)
				} else {
					r.To = g.addresses(s, true)
				}
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// banned makes rules that are judged in front of connection tracking where they come first, as most of these do.
func (g *generator) banned() (rules []policy.Rule) {
	for range 1 + g.IntN(4)*g.IntN(4) {
		g.line++
		r := policy.Rule{Pos: diag.Pos{File: "policy.yaml", Line: g.line}, What: []policy.Traffic{{}}, From: g.addresses(policy.Inbound, false)}
		if g.oneIn(4) {
			r.On = pick(g, []string{"eth*"}, []string{"eth1", "docker0"})
		}
		r.Log = g.oneIn(8)
		rules = append(rules, r)
	}
	return rules
}

func (g *generator) rule(s policy.Section) policy.Rule {
	g.line++
	r := policy.Rule{Pos: diag.Pos{File: "policy.yaml", Line: g.line}, Verb: g.verb(), From: g.addresses(s, false)}
	if g.oneIn(3) {
		r.To = g.addresses(s, true)
	}
	for range 1 + g.IntN(3) {
		r.What = append(r.What, g.traffic(s))
	}
	if g.oneIn(6) {
		r.On = pick(g, []string{"eth*"}, []string{"eth1", "docker0"}, []string{"nothing0"})
	}
	if s != policy.Outbound && g.oneIn(5) {
		r.Networks = pick(g, []string{"shop"}, []string{"bridge", "shop"}, []string{"unknown"})
	}
	if r.Verb == policy.Allow && g.oneIn(8) {
		r.Limit = rate.Rate{Count: 10, Per: time.Minute, Burst: 5}
	}
	r.Log = g.oneIn(8)
	return r
}

func (g *generator) traffic(s policy.Section) policy.Traffic {
	if g.oneIn(5) {
		return policy.Traffic{}
	}
	if s == policy.Inbound && g.oneIn(5) {
		return policy.Traffic{Published: true}
	}
	t := policy.Traffic{Proto: g.proto()}
	switch {
	case policy.HasPorts(t.Proto):
		t.Ports = netset.AllPorts
		if !g.oneIn(6) {
			t.Ports.First = g.port()
			t.Ports.Last = max(t.Ports.First, pick(g, t.Ports.First, g.port()))
		}
	case (t.Proto == policy.ICMP || t.Proto == policy.ICMPv6) && !g.oneIn(3):
		t.ICMP = policy.ICMPMatch{HasType: true, Type: g.icmpType()}
		if g.oneIn(3) {
			t.ICMP.HasCode, t.ICMP.Code = true, uint8(g.IntN(3))
		}
	}
	return t
}

func (g *generator) proto() uint8 {
	return pick[uint8](g, policy.TCP, policy.TCP, policy.TCP, policy.UDP, policy.UDP, policy.ICMP, policy.ICMPv6, policy.SCTP, 50, 2)
}

func (g *generator) port() uint16 {
	return pick[uint16](g, 0, 22, 53, 67, 68, 79, 80, 81, 443, 546, 8000, 8100, 65535)
}

func (g *generator) icmpType() uint8 { return pick[uint8](g, 0, 3, 8, 13, 128, 129, 135, 137, 255) }

func (g *generator) addresses(s policy.Section, dst bool) policy.Addresses {
	switch {
	case g.oneIn(4):
		return policy.Addresses{}
	case dst && s == policy.Inbound && g.oneIn(4):
		return policy.Addresses{Given: true, Network: pick(g, "shop", "bridge", "unknown")}
	case dst && s != policy.Inbound && g.oneIn(4):
		return policy.Addresses{Given: true, Host: true}
	}
	a := policy.Addresses{Given: true, Not: g.oneIn(4)}
	for _, name := range []string{"a", "b", "files", "large", "none"} {
		if g.oneIn(6) {
			a.Sets = append(a.Sets, name)
		}
	}
	if len(a.Sets) == 0 || g.oneIn(3) {
		a.Inline = g.addrs()
	}
	return a
}

// bounds are the addresses that everything is near to.
var bounds = []string{"0.0.0.0", "10.1.0.1", "10.1.0.255", "127.0.0.1", "172.17.0.1", "172.17.0.2", "172.17.255.255", "172.18.0.2",
	"192.0.2.1", "192.0.2.9", "192.0.2.255", "198.51.100.7", "224.0.0.5", "255.255.255.255",
	"::", "::1", "2001:db8::", "2001:db8::1", "2001:db8::9", "fd00:18::", "fd00:18::1", "fd00:18::2", "fe80::1", "ff02::1",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}

// near is an address at or next to a bound.
func (g *generator) near() netip.Addr {
	a := netip.MustParseAddr(pick(g, bounds...))
	if next := a.Next(); g.oneIn(5) && next.IsValid() {
		return next
	}
	if prev := a.Prev(); g.oneIn(5) && prev.IsValid() {
		return prev
	}
	return a
}

func (g *generator) addrs() netset.Set {
	var b netset.Builder
	for range 1 + g.IntN(4)*g.IntN(4) {
		switch from := g.near(); g.IntN(4) {
		case 0:
			b.AddPrefix(netip.PrefixFrom(from, g.IntN(from.BitLen()+1)).Masked())
		case 1:
			if to := g.near(); from.Less(to) && from.Is4() == to.Is4() {
				b.Add(netipx.IPRangeFrom(from, to))
			}
		default:
			b.AddAddr(from)
		}
	}
	s, _ := b.Set()
	return s
}

// large is a set that is too large to be resolved into maps.
func (g *generator) large() netset.Set {
	var b netset.Builder
	for a := netip.MustParseAddr("192.0.0.1"); a.Less(netip.MustParseAddr("192.0.9.1")); a = a.Next().Next() {
		b.AddAddr(a)
	}
	s, _ := b.Set()
	return s
}

func (g *generator) packet() packet.Packet {
	pk := packet.Packet{Proto: g.proto(), Src: g.near(), SrcPort: g.port(), DstPort: g.port(), ICMPType: g.icmpType(),
		ICMPCode: uint8(g.IntN(3)), State: pick(g, packet.New, packet.New, packet.New, packet.New, packet.Established, packet.Related, packet.Invalid, packet.Untracked)}
	for pk.Dst = g.near(); pk.Dst.Is4() != pk.Src.Is4(); pk.Dst = g.near() {
	}
	if pk.Proto == policy.TCP {
		pk.Flags = packet.SYN
		if g.oneIn(4) {
			pk.Flags = uint8(g.IntN(64))
		}
	}
	pk.In = pick(g, "eth0", "eth0", "eth1", "docker0", "br-0123456789ab", "wg0", "lo", "")
	if pk.In == "" {
		pk.Out = pick(g, "eth0", "eth0", "eth1", "docker0", "br-0123456789ab", "wg0", "lo")
	}
	pk.Socket = g.oneIn(8)
	return pk
}

// describe lists a policy for a failed test.
func describe(p *policy.Policy, section policy.Section) string {
	s := fmt.Sprintf("defaults %+v, trusted %v, hygiene %t, log %s\n", p.Defaults, p.Trusted, p.Hygiene, p.Log)
	for _, set := range p.Sets {
		if set.Name != "large" {
			s += fmt.Sprintf("set %s: %s\n", set.Name, set.Addrs)
		}
	}
	for _, r := range p.Rules(section) {
		s += fmt.Sprintf("%s %d: %s %v from %+v to %+v on %v networks %v limit %s\n", section, r.Pos.Line, r.Verb, r.What, r.From, r.To, r.On, r.Networks, r.Limit)
	}
	return s
}

// A ruleset is kept on disk: what is read back is what was compiled.
func TestJSONKeepsRulesets(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), inv: testHost()}
		rs, _ := compile.Compile(g.policy(), g.inv, compile.Options{PickUp: g.oneIn(2), LogGroup: 86})
		text, err := json.Marshal(rs)
		if err != nil {
			t.Fatal(err)
		}
		var back ruleset.Ruleset
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(back); string(again) != string(text) || back.String() != rs.String() {
			t.Fatalf("seed %d: read back as\n%s\nwas\n%s", seed, back.String(), rs)
		}
	}
}

// TestFirstMatchWinsInPacks does so where there are more ports than chains for them.
func TestFirstMatchWinsInPacks(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), inv: testHost()}
	p := g.policy()
	p.Inbound = nil
	for i := range 3000 {
		r := g.rule(policy.Inbound)
		r.What = []policy.Traffic{port(policy.TCP, uint16(2*i/3))}
		r.Networks, r.Limit, r.Log = nil, rate.Rate{}, false
		p.Inbound = append(p.Inbound, r)
	}
	rs, _ := compile.Compile(p, g.inv, compile.Options{LogGroup: 86})
	if n := len(rs.Tables[0].Chains); n > 1500 {
		t.Errorf("seed %d: %d chains", seed, n)
	}
	for range 500 {
		pk := g.packet()
		pk.Proto, pk.Flags, pk.DstPort = policy.TCP, packet.SYN, uint16(g.IntN(2100))
		if msg := compare(&rs.Tables[0], p, g.inv, pk); msg != "" {
			t.Fatalf("seed %d: %s", seed, msg)
		}
	}
}
