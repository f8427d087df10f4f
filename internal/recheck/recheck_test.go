package recheck_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/recheck"
	"quaywall/internal/ruleset"
)

func host() *inventory.Inventory {
	p := netip.MustParsePrefix
	return &inventory.Inventory{
		Interfaces: []inventory.Interface{
			{Name: "docker0", Up: true, Addrs: []netip.Prefix{p("172.17.0.1/16"), p("fe80::1/64")}},
			{Name: "eth0", Up: true, Addrs: []netip.Prefix{p("203.0.113.1/24"), p("2001:db8:1::1/64"), p("fe80::10/64")}},
			{Name: "lo", Up: true, Addrs: []netip.Prefix{p("127.0.0.1/8"), p("::1/128")}},
			{Name: "wg0", Up: true, Addrs: []netip.Prefix{p("10.8.0.1/24")}},
		},
		Networks:  []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{p("172.17.0.0/16")}}},
		Published: []inventory.Published{{Addr: netip.IPv4Unspecified(), Proto: 6, Port: 8080, Container: "web", Networks: []string{"bridge"}, Target: 80}},
	}
}

// judge makes a Judge of a policy. On the host something listens on 22 and 7001.
func judge(t *testing.T, text string) *recheck.Judge {
	t.Helper()
	p, list := policy.Parse("policy.yaml", []byte("version: 1\n"+text))
	if list.HasErrors() {
		t.Fatal(list)
	}
	return recheck.New(p, host(), recheck.Host{
		Routes: []recheck.Route{
			{To: netip.MustParsePrefix("0.0.0.0/0"), Iface: "eth0"}, {To: netip.MustParsePrefix("10.8.0.0/24"), Iface: "wg0"},
			{To: netip.MustParsePrefix("::/0"), Iface: "eth0"}, {To: netip.MustParsePrefix("198.51.100.0/24"), Iface: "wg0"},
		},
		Listens:   func(proto uint8, at netip.AddrPort) bool { return at.Port() == 22 || at.Port() == 7001 },
		Ephemeral: func(port uint16) bool { return port >= 32768 && port <= 60999 },
	})
}

// flow is "from to", and what the server really is where that was rewritten.
func flow(proto uint8, from, to string, server ...string) recheck.Flow {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	f := recheck.Flow{Orig: recheck.Tuple{Proto: proto, Src: src, Dst: dst}}
	f.Reply = f.Orig.Reversed()
	for _, s := range server {
		f.Reply.Src = netip.MustParseAddrPort(s)
	}
	return f
}

func midStream(f recheck.Flow) recheck.Flow {
	f.MidStream = true
	return f
}

func TestJudge(t *testing.T) {
	const tcp, udp = 6, 17
	denied := func(line string) recheck.Verdict { return recheck.Verdict{Denied: true, Line: line} }
	var allowed recheck.Verdict
	uncertain := recheck.Verdict{Uncertain: true}
	for _, c := range []struct {
		name, policy string
		flow         recheck.Flow
		want         recheck.Verdict
	}{
		{"an allowed port", "inbound: [{allow: ssh}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:22"), allowed},
		{"a denied port", "inbound: [{allow: ssh}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:80"), denied("default")},
		{"by a line", "inbound:\n  - deny: http\n    from: 192.0.2.0/24\n  - allow: any\n", flow(tcp, "192.0.2.9:40000", "203.0.113.1:80"), denied("policy.yaml:3")},
		{"IPv6", "inbound: [{allow: ssh}]", flow(tcp, "[2001:db8::9]:40000", "[2001:db8:1::1]:80"), denied("default")},
		{"link-local", "inbound: [{allow: ssh}]", flow(tcp, "[fe80::2]:40000", "[fe80::10]:80"), denied("default")},
		{"link-local, where interfaces count", "trusted: [wg0]\ninbound: [{allow: ssh}]", flow(tcp, "[fe80::2]:40000", "[fe80::10]:80"), denied("default")},
		{"link-local, by a trusted interface", "trusted: [eth0]\ninbound: [{allow: ssh}]", flow(tcp, "[fe80::2]:40000", "[fe80::10]:80"), allowed},
		{"link-local, of a container", "inbound: [{allow: ssh}]", flow(tcp, "[fe80::2]:40000", "[fe80::1]:80"), allowed},
		{"the dialled port of a container counts", "inbound: [{allow: 80}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:8080", "172.17.0.2:80"), denied("default")},
		{"an allowed published port", "inbound: [{allow: 8080}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:8080", "172.17.0.2:80"), allowed},
		{"a container's own address", "inbound: [{allow: any}]", flow(tcp, "192.0.2.9:40000", "172.17.0.2:80"), denied("")},
		{"a container to outside", "egress: [{deny: http}]", flow(tcp, "172.17.0.2:40000", "192.0.2.9:80"), denied("policy.yaml:2")},
		{"a container to outside, allowed", "inbound: []", flow(tcp, "172.17.0.2:40000", "192.0.2.9:80"), allowed},
		{"the host to outside", "outbound: [{deny: http}]", flow(tcp, "203.0.113.1:40000", "192.0.2.9:80"), denied("policy.yaml:2")},
		{"the host to outside, allowed", "inbound: []", flow(udp, "203.0.113.1:40000", "192.0.2.9:53"), allowed},
		{"the host to a container", "defaults: {outbound: deny}", flow(tcp, "172.17.0.1:40000", "172.17.0.2:80"), allowed},
		{"the host to itself", "defaults: {outbound: deny}", flow(tcp, "203.0.113.1:40000", "203.0.113.1:80"), allowed},
		{"routed traffic of others", "inbound: []", flow(tcp, "192.0.2.9:40000", "192.0.2.77:80"), allowed},
		{"hygiene judges no connection that runs", "inbound: [{allow: ssh}]", flow(tcp, "172.17.0.1:40000", "203.0.113.1:22"), allowed},
		{"a limit", "inbound: [{allow: ssh, limit: 1/hour}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:22"), allowed},

		{"an interface that the route leads by", "inbound: [{allow: 80, on: eth0}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:80"), allowed},
		{"another interface than the route leads by", "inbound: [{allow: 80, on: wg0}]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:80"), denied("default")},
		{"two routes, one of them allowed", "inbound: [{allow: 80, on: wg0}]", flow(tcp, "198.51.100.9:40000", "203.0.113.1:80"), uncertain},
		{"two routes, one of them trusted", "trusted: [wg0]", flow(tcp, "10.8.0.9:40000", "10.8.0.1:80"), uncertain},
		{"trusted, and no way there", "trusted: [wg0]", flow(tcp, "192.0.2.9:40000", "203.0.113.1:80"), denied("default")},

		{"mid-stream, to what listens", "inbound: []", midStream(flow(tcp, "192.0.2.9:40000", "203.0.113.1:7001")), denied("default")},
		{"mid-stream, from what listens", "inbound: []", midStream(flow(tcp, "203.0.113.1:7001", "192.0.2.9:40000")), denied("default")},
		{"mid-stream, the server of a dialled one speaks first", "inbound: []", midStream(flow(tcp, "192.0.2.9:443", "203.0.113.1:40000")), allowed},
		{"mid-stream, dialled by the host", "inbound: []", midStream(flow(tcp, "203.0.113.1:40000", "192.0.2.9:443")), allowed},
		{"mid-stream, dialled by a container", "inbound: []", midStream(flow(tcp, "192.0.2.9:443", "172.17.0.2:40000")), allowed},
		{"mid-stream, nobody can tell", "inbound: []", midStream(flow(tcp, "192.0.2.9:443", "203.0.113.1:9")), uncertain},
		{"related to an allowed one", "inbound: [{allow: 21}]", related(flow(tcp, "192.0.2.9:40001", "203.0.113.1:30000"), 21), allowed},
		{"related to a denied one", "inbound: [{allow: 30000}]", related(flow(tcp, "192.0.2.9:40001", "203.0.113.1:30000"), 21), denied("default")},
	} {
		if got := judge(t, c.policy).Judge(c.flow); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// related is a connection that one to a port of the host brought about.
func related(f recheck.Flow, port uint16) recheck.Flow {
	f.Master = f.Orig
	f.Master.Dst = netip.AddrPortFrom(f.Orig.Dst.Addr(), port)
	return f
}

func TestCut(t *testing.T) {
	const tcp, udp, icmp = 6, 17, 1
	one := func(proto uint8, server, client string) ruleset.Flow {
		return ruleset.Flow{Proto: proto, Server: netip.MustParseAddrPort(server), Client: netip.MustParseAddr(client)}
	}
	for _, c := range []struct {
		name string
		flow recheck.Flow
		want []ruleset.Flow
	}{
		{"to the host", flow(tcp, "192.0.2.9:40000", "203.0.113.1:80"), []ruleset.Flow{one(tcp, "203.0.113.1:80", "192.0.2.9")}},
		{"to a container", flow(tcp, "192.0.2.9:40000", "203.0.113.1:8080", "172.17.0.2:80"),
			[]ruleset.Flow{one(tcp, "203.0.113.1:8080", "192.0.2.9"), one(tcp, "172.17.0.2:80", "192.0.2.9")}},
		{"picked up the other way round", midStream(flow(tcp, "203.0.113.1:7001", "192.0.2.9:40000")), []ruleset.Flow{one(tcp, "203.0.113.1:7001", "192.0.2.9")}},
		{"a datagram to the host", flow(udp, "192.0.2.9:40000", "203.0.113.1:514"), []ruleset.Flow{one(udp, "203.0.113.1:514", "192.0.2.9")}},
		{"a datagram to outside", flow(udp, "172.17.0.2:40000", "192.0.2.9:53"), nil},
		{"one port at both ends", flow(udp, "192.0.2.9:500", "203.0.113.1:500"), nil},
		{"a port that a client chose, perhaps", flow(udp, "192.0.2.9:40000", "203.0.113.1:51820"), nil},
		{"no ports", flow(icmp, "192.0.2.9:0", "203.0.113.1:0"), nil},
	} {
		j := judge(t, "inbound: []")
		if got := j.Cut([]recheck.Flow{c.flow, c.flow}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestStillDenied(t *testing.T) {
	dialled := ruleset.Flow{Proto: 6, Server: netip.MustParseAddrPort("203.0.113.1:8080"), Client: netip.MustParseAddr("192.0.2.9")}
	inside := ruleset.Flow{Proto: 6, Server: netip.MustParseAddrPort("172.17.0.2:80"), Client: netip.MustParseAddr("192.0.2.9")}
	both := []ruleset.Flow{dialled, inside}
	for text, want := range map[string][]ruleset.Flow{"inbound: []": both, "inbound: [{allow: 8080}]": nil} {
		if got := judge(t, text).StillDenied(both); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	for _, rules := range []int{10, 1000} {
		b.Run(fmt.Sprint(rules, " rules"), func(b *testing.B) {
			text := "version: 1\ninbound:\n"
			for i := range rules {
				text += fmt.Sprintf("  - {allow: %d, from: 10.%d.%d.0/24}\n", 1000+i, i/250, i%250)
			}
			p, _ := policy.Parse("policy.yaml", []byte(text))
			var flows []recheck.Flow
			for i := range 100_000 {
				f := flow(6, "192.0.2.9:40000", "203.0.113.1:80")
				f.Orig.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 40000)
				flows = append(flows, f)
			}
			for b.Loop() {
				j := recheck.New(p, host(), recheck.Host{})
				for i := range flows {
					j.Judge(flows[i])
				}
			}
		})
	}
}
