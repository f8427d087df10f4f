package compile_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/compile"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulewalk"
)

// denyAny is a rule of the kind that is judged early.
func denyAny(line int, from policy.Addresses) policy.Rule {
	return policy.Rule{Pos: at(line), Verb: policy.Deny, What: []policy.Traffic{{}}, From: from}
}

func fromSet(names ...string) policy.Addresses { return policy.Addresses{Given: true, Sets: names} }

func fromList(list string) policy.Addresses {
	return policy.Addresses{Given: true, Inline: netset.MustParse(list)}
}

// banning is a policy with these rules before those of S1.
func banning(rules ...policy.Rule) *policy.Policy {
	p := s1()
	p.Sets = append(p.Sets,
		policy.Set{Name: "banned", Pos: at(40), Addrs: netset.MustParse("198.51.100.0/24 2001:db8:bad::/48")},
		policy.Set{Name: "feed", Pos: at(41), File: "/etc/quaywall/feed.txt"},
		policy.Set{Name: "nobody", Pos: at(42)})
	p.Inbound = append(rules, p.Inbound...)
	return p
}

func TestWhichRulesAreJudgedEarly(t *testing.T) {
	with := func(r policy.Rule, change func(*policy.Rule)) policy.Rule {
		change(&r)
		return r
	}
	banned := denyAny(20, fromSet("banned"))
	later := denyAny(21, fromList("192.0.2.66"))
	for _, c := range []struct {
		what  string
		rules []policy.Rule
		want  string // their lines
	}{
		{"none", nil, ""},
		{"a set", []policy.Rule{banned}, "20"},
		{"a set and an address", []policy.Rule{banned, later}, "20 21"},
		{"addresses of one family", []policy.Rule{later}, "21"},
		{"a set that a file will fill", []policy.Rule{denyAny(20, fromSet("feed"))}, "20"},
		{"a set that is empty for good", []policy.Rule{denyAny(20, fromSet("nobody")), later}, "21"},
		{"nothing but that", []policy.Rule{denyAny(20, fromSet("nobody"))}, ""},
		{"everybody but a set", []policy.Rule{denyAny(20, policy.Addresses{Given: true, Not: true, Sets: []string{"cluster"}})}, "20"},
		{"by an interface", []policy.Rule{with(banned, func(r *policy.Rule) { r.On = []string{"eth0"} }), later}, "20 21"},
		{"logged", []policy.Rule{with(banned, func(r *policy.Rule) { r.Log = true })}, "20"},
		{"behind one that is about a network", []policy.Rule{
			{Pos: at(19), Verb: policy.Allow, What: []policy.Traffic{{}}, To: policy.Addresses{Given: true, Network: "shop"}}, banned}, "20"},
		{"from anywhere", []policy.Rule{denyAny(20, policy.Addresses{}), later}, ""},
		{"rejects", []policy.Rule{with(banned, func(r *policy.Rule) { r.Verb = policy.Reject }), later}, ""},
		{"allows", []policy.Rule{with(banned, func(r *policy.Rule) { r.Verb = policy.Allow }), later}, ""},
		{"to an address", []policy.Rule{with(banned, func(r *policy.Rule) { r.To = fromList("192.0.2.1") }), later}, ""},
		{"ports of a network", []policy.Rule{with(banned, func(r *policy.Rule) { r.Networks = []string{"shop"} }), later}, ""},
		{"a port", []policy.Rule{with(banned, func(r *policy.Rule) { r.What = []policy.Traffic{port(tcp, 22)} }), later}, ""},
		{"everything and published ports", []policy.Rule{with(banned, func(r *policy.Rule) {
			r.What = []policy.Traffic{{Published: true}, {}}
		}), later}, ""},
		{"everything and a port", []policy.Rule{with(banned, func(r *policy.Rule) { r.What = []policy.Traffic{port(tcp, 22), {}} })}, "20"},
		{"before and behind an allow", []policy.Rule{banned, with(later, func(r *policy.Rule) { r.Verb = policy.Allow }), denyAny(22, fromSet("feed"))}, "20"},
		{"many", manyRules(8, func(i int) policy.Rule { return denyAny(0, fromAddr(2*i)) }), "10 11 12 13 14 15 16 17"},
	} {
		rs, list := compile.Compile(banning(c.rules...), testHost(), compile.Options{})
		if list.HasErrors() {
			t.Fatal(list)
		}
		if err := rs.Validate(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got := earlyLines(&rs.Tables[0]); got != c.want {
			t.Errorf("%s: lines %q are judged early, want %q\n%s", c.what, got, c.want, rs)
		}
		if has := strings.Contains(rs.String(), "chain early"); has != (c.want != "") {
			t.Errorf("%s: a chain early: %v", c.what, has)
		}
	}
}

// earlyLines are the numbers of the lines that count in the chains in front of connection tracking.
func earlyLines(t *ruleset.Table) string {
	var lines []string
	note := func(o ruleset.Origin) {
		if n := strings.TrimPrefix(o.Line, "policy.yaml:"); n != "" && !slices.Contains(lines, n) {
			lines = append(lines, n)
		}
	}
	for _, ch := range t.Chains {
		for _, r := range ch.Rules {
			if !strings.HasPrefix(ch.Name, "early") {
				continue
			}
			if r.Counter {
				note(r.Origin)
			}
			for _, m := range t.Maps {
				if r.Lookup != nil && r.Lookup.Map == m.Name {
					for _, e := range m.Elements {
						note(e.Origin)
					}
				}
			}
		}
	}
	return strings.Join(lines, " ")
}

// earlyRow is a packet, and whether it gets past the chain in front of connection tracking.
type earlyRow struct {
	what   string
	packet packet.Packet
	early  bool // dropped there, otherwise judged by the gate
	want   ruleset.Kind
	line   string
}

func checkEarly(t *testing.T, p *policy.Policy, rows []earlyRow) {
	t.Helper()
	inv := testHost()
	rs, _ := compile.Compile(p, inv, compile.Options{LogGroup: 86})
	for _, r := range rows {
		got, err := walk(&rs.Tables[0], inv, r.packet)
		if err != nil {
			t.Fatal(err)
		}
		early := !slices.Contains(got.Path, "gate")
		if early != r.early || got.Kind != r.want || strings.Join(got.Lines, " ") != r.line {
			t.Errorf("%s: early %t, %s by %q, want early %t, %s by %q; it went %v", r.what, early, got.Kind, got.Lines, r.early, r.want, r.line, got.Path)
		}
		if msg := compare(&rs.Tables[0], p, inv, r.packet); msg != "" {
			t.Errorf("%s: %s", r.what, msg)
		}
	}
}

func inState(p packet.Packet, s packet.State) packet.Packet {
	p.State = s
	return p
}

func icmpOf(p packet.Packet, kind uint8) packet.Packet {
	p.ICMPType = kind
	return p
}

const bad, bad6, host4, host6 = "198.51.100.9", "2001:db8:bad::9", "192.0.2.1", "2001:db8::1"

func TestEarly(t *testing.T) {
	p := banning(denyAny(20, fromSet("banned")))
	p.Trusted = []string{"wg*"}
	const line = "policy.yaml:20"
	syn := pk(tcp, "eth0", bad, host4, 22)
	ping := icmpOf(pk(policy.ICMP, "eth0", bad, host4, 0), 8)
	ping6 := icmpOf(pk(policy.ICMPv6, "eth0", bad6, host6, 0), 128)
	rows := []earlyRow{
		{"a SYN", syn, true, drop, line},
		{"IPv6", pk(tcp, "eth0", bad6, host6, 22), true, drop, line},
		{"to a published port", pk(tcp, "eth0", bad, host4, 443), true, drop, line},
		{"to a broadcast address", pk(tcp, "eth0", bad, "192.0.2.255", 22), false, drop, line},
		{"that was sent twice", inState(syn, packet.Established), true, drop, line},
		{"a ping", ping, true, drop, line},
		{"a ping, IPv6", ping6, true, drop, line},
		{"a SYN of somebody else", pk(tcp, "eth0", "203.0.113.9", host4, 22), false, accept, "policy.yaml:5"},

		{"a SYN ACK that answers", inState(flags(syn, packet.SYN|packet.ACK), packet.Established), false, accept, ""},
		{"one out of nowhere", inState(flags(syn, packet.SYN|packet.ACK), packet.Invalid), false, drop, ""},
		{"an ACK", inState(flags(syn, packet.ACK), packet.Established), false, accept, ""},
		{"a datagram that answers", inState(pk(policy.UDP, "eth0", bad, host4, 40_000), packet.Established), false, accept, ""},
		{"a datagram that doesn't", pk(policy.UDP, "eth0", bad, host4, 53), false, drop, line},
		{"an answer to a ping", inState(icmpOf(ping, 0), packet.Established), false, accept, ""},
		{"an answer to a ping, IPv6", inState(icmpOf(ping6, 129), packet.Established), false, accept, ""},
		{"an error", inState(icmpOf(ping, 3), packet.Related), false, accept, ""},
		{"neighbour discovery", icmpOf(ping6, 135), false, accept, ""},
		{"ESP", pk(50, "eth0", bad, host4, 0), false, drop, line},
		{"flags that begin nothing", flags(syn, packet.SYN|packet.FIN), false, drop, ""},

		{"over the loopback interface", pk(tcp, "lo", bad, host4, 22), false, accept, ""},
		{"a trusted interface", pk(tcp, "wg0", bad, host4, 22), false, accept, ""},
		{"from a container", pk(tcp, "docker0", bad, host4, 22), false, accept, ""},
		{"routed", pk(tcp, "eth0", bad, "203.0.113.77", 22), false, accept, ""},
		{"to a container's own address", pk(tcp, "eth0", bad, "172.17.0.2", 22), false, drop, ""},
	}
	checkEarly(t, p, rows)
	p.Keep = true
	for i, r := range rows {
		if strings.HasPrefix(r.what, "a ping") {
			rows[i].early = false
		}
	}
	live := earlyRow{"a later request of a ping", inState(ping, packet.Established), false, accept, ""}
	checkEarly(t, p, append(rows, live))
	live.early, live.want, live.line, p.Keep = true, drop, line, false
	checkEarly(t, p, []earlyRow{live})
}

// Rules by interface, with a log, and many of them: each packet counts for the line that the policy says.
func TestEarlyOfManyRules(t *testing.T) {
	rules := []policy.Rule{denyAny(20, fromSet("banned")), denyAny(21, fromSet("banned", "feed")), denyAny(22, fromList("203.0.113.5"))}
	rules[0].On, rules[1].Log = []string{"eth1"}, true
	for i := range 6 {
		rules = append(rules, denyAny(30+i, fromAddr(2*i)))
	}
	p := banning(rules...)
	p.Log = rate.Rate{Count: 10, Per: time.Second, Burst: 5}
	checkEarly(t, p, []earlyRow{
		{"by the first", pk(tcp, "eth1", bad, host4, 22), true, drop, "policy.yaml:20"},
		{"by the second", pk(tcp, "eth0", bad, host4, 22), true, drop, "policy.yaml:21"},
		{"by an address", pk(tcp, "eth0", "203.0.113.5", host4, 22), true, drop, "policy.yaml:22"},
		{"far down", pk(tcp, "eth0", addrN(10).String(), host4, 22), true, drop, "policy.yaml:35"},
		{"by none", pk(tcp, "eth0", addrN(11).String(), host4, 22), false, accept, "policy.yaml:5"},
		{"by none, IPv6", pk(tcp, "eth0", "2001:db8::9", host6, 22), false, accept, "policy.yaml:5"},
	})
	rs, _ := compile.Compile(p, testHost(), compile.Options{LogGroup: 86})
	for src, want := range map[string]string{bad: "quaywall deny policy.yaml:21", "203.0.113.5": "quaywall denied"} {
		got, err := walk(&rs.Tables[0], testHost(), pk(tcp, "eth0", src, host4, 22))
		if err != nil || !slices.Equal(got.Logs, []string{want}) {
			t.Errorf("%s is logged as %q, error %v, want %q", src, got.Logs, err, want)
		}
	}
}

// What goes on meets few rules, however many sources are denied.
func TestEarlyIsShort(t *testing.T) {
	p := banning(manyRules(1000, func(i int) policy.Rule { return denyAny(0, fromAddr(2*i)) })...)
	rs, _ := compile.Compile(p, testHost(), compile.Options{})
	table := rs.Tables[0]
	table.Chains = slices.DeleteFunc(slices.Clone(table.Chains), func(c ruleset.Chain) bool { return c.Name == "gate" })
	for _, c := range []struct {
		what   string
		packet packet.Packet
		most   int
	}{
		{"of a connection", flags(pk(tcp, "eth0", "203.0.113.9", host4, 22), packet.ACK), 1},
		{"a datagram", pk(policy.UDP, "eth0", "203.0.113.9", host4, 22), 2},
		{"a SYN", pk(tcp, "eth0", "203.0.113.9", host4, 22), 5},
		{"a SYN, IPv6", pk(tcp, "eth0", "2001:db8::9", host6, 22), 5},
		{"ESP", pk(50, "eth0", "203.0.113.9", host4, 22), 5},
	} {
		host := rulewalk.Host{AddrType: func(a netip.Addr) ruleset.AddrType { return addrType(testHost(), a, c.packet.In) }}
		got, err := rulewalk.Walk(&table, ruleset.Prerouting, c.packet, host)
		if err != nil || got.Rules > c.most {
			t.Errorf("%s: %d rules, want at most %d; error %v", c.what, got.Rules, c.most, err)
		}
	}
}
