package exposure

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
)

func host() *inventory.Inventory {
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, p := range list {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	return &inventory.Inventory{
		Interfaces: []inventory.Interface{
			{Name: "docker0", Kind: "bridge", Addrs: prefixes("172.17.0.1/16")},
			{Name: "eth0", Addrs: prefixes("203.0.113.10/24", "2001:db8:1::10/64", "fe80::10/64")},
			{Name: "eth1", Addrs: prefixes("192.168.0.1/24")},
			{Name: "lo", Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "veth1", Kind: "veth", Master: "docker0"},
			{Name: "wg0", Kind: "wireguard", Addrs: prefixes("10.9.0.1/24")},
		},
		Networks: []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16")}},
		Published: []inventory.Published{
			{Addr: netip.IPv4Unspecified(), Proto: policy.TCP, Port: 8080, Container: "web", Networks: []string{"bridge"}, Target: 80},
		},
	}
}

// say writes a row as "what opens it | who turns the rest away".
func say(r Row) string {
	if !r.Reachable {
		return "unreachable"
	}
	var words []string
	for _, o := range r.Open {
		word := o.Origin
		if o.IPv4 != o.IPv6 {
			word += map[bool]string{true: " v4", false: " v6"}[o.IPv4]
		}
		if o.Ifaces != nil {
			word += fmt.Sprint(" on ", o.Ifaces)
		}
		if o.Limited {
			word += " limited"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ") + " | " + r.Others
}

func TestRows(t *testing.T) {
	at := func(line int, r policy.Rule) policy.Rule {
		r.Pos = diag.Pos{File: "/etc/p.yaml", Line: line}
		return r
	}
	port := func(p uint16) []policy.Traffic {
		return []policy.Traffic{{Proto: policy.TCP, Ports: netset.Ports{First: p, Last: p}}}
	}
	from := func(list string) policy.Addresses {
		return policy.Addresses{Given: true, Inline: netset.MustParse(list)}
	}
	sets := func(names ...string) policy.Addresses { return policy.Addresses{Given: true, Sets: names} }
	p := &policy.Policy{
		Hygiene: true,
		Trusted: []string{"wg*"},
		Sets: []policy.Set{
			{Name: "banned", Addrs: netset.MustParse("198.51.100.0/24 2001:db8:bad::/48")},
			{Name: "office", Addrs: netset.MustParse("198.51.100.0/25 192.0.2.0/24")},
		},
		Inbound: []policy.Rule{
			at(1, policy.Rule{Verb: policy.Deny, What: []policy.Traffic{{}}, From: sets("banned")}),
			at(2, policy.Rule{Verb: policy.Allow, What: port(22), From: sets("office")}),
			at(3, policy.Rule{Verb: policy.Allow, What: port(80)}),
			at(4, policy.Rule{Verb: policy.Allow, What: port(81), From: from("198.51.100.7")}),
			at(5, policy.Rule{Verb: policy.Allow, What: port(82), On: []string{"eth1"}, Limit: rate.Rate{Count: 1}}),
			at(6, policy.Rule{Verb: policy.Allow, What: port(83), From: policy.Addresses{Given: true, Not: true, Sets: []string{"office"}}}),
			at(7, policy.Rule{Verb: policy.Reject, What: port(84)}),
			at(8, policy.Rule{Verb: policy.Allow, What: []policy.Traffic{{Published: true}}, From: from("192.0.2.1")}),
			at(9, policy.Rule{Verb: policy.Allow, What: port(85), To: from("203.0.113.10")}),
			at(10, policy.Rule{Verb: policy.Allow, What: []policy.Traffic{{Proto: policy.ICMPv6, ICMP: policy.ICMPMatch{HasType: true, Type: 128}}}}),
		},
	}
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for _, test := range []struct {
		name string
		e    Endpoint
		want string
	}{
		{"a set, part of it denied before", Endpoint{Proto: policy.TCP, Port: 22}, "p.yaml:2 v4 | default"},
		{"anyone, both families", Endpoint{Proto: policy.TCP, Port: 80}, "p.yaml:3 | "},
		{"anyone, on an IPv6 socket", Endpoint{Proto: policy.TCP, Addr: any6, Port: 80}, "p.yaml:3 v6 | "},
		{"a denied address opens nothing", Endpoint{Proto: policy.TCP, Port: 81}, " | default"},
		{"one interface, with a limit", Endpoint{Proto: policy.TCP, Port: 82}, "p.yaml:5 v4 on [eth1] limited | default"},
		{"not a set", Endpoint{Proto: policy.TCP, Addr: any4, Port: 83}, "p.yaml:6 v4 | "},
		{"rejected", Endpoint{Proto: policy.TCP, Port: 84}, " | p.yaml:7"},
		{"published", Endpoint{Proto: policy.TCP, Addr: any4, Port: 8080, Owner: "web", Container: true}, "p.yaml:8 v4 | default"},
		{"one local address, by every interface", Endpoint{Proto: policy.TCP, Addr: any4, Port: 85}, "p.yaml:9 v4 | default"},
		{"ping", Endpoint{Proto: policy.ICMP}, "p.yaml:10 v6 | default"},
		{"loopback", Endpoint{Proto: policy.TCP, Addr: netip.MustParseAddr("127.0.0.1"), Port: 80}, "unreachable"},
		{"nothing is said of it", Endpoint{Proto: policy.UDP, Port: 53}, " | default"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := say(Rows(p, host(), []Endpoint{test.e})[0]); got != test.want {
				t.Errorf("%+v:\n got %s\nwant %s", test.e, got, test.want)
			}
		})
	}
}

// TestDefaultAllow: a default that allows is an opening like any other.
func TestDefaultAllow(t *testing.T) {
	p := &policy.Policy{Defaults: policy.Defaults{Inbound: policy.Verdict{Verb: policy.Allow, Pos: diag.Pos{File: "p.yaml", Line: 2}}}}
	row := Rows(p, host(), []Endpoint{{Proto: policy.TCP, Port: 9}})[0]
	if got, want := say(row), "p.yaml:2 | "; got != want || row.Open[0].Rule != -1 {
		t.Errorf("got %s by rule %d, want %s by the default", got, row.Open[0].Rule, want)
	}
}

// TestNothingKnown: a host without interfaces is reached by nobody.
func TestNothingKnown(t *testing.T) {
	if got := say(Rows(&policy.Policy{}, &inventory.Inventory{}, []Endpoint{{Proto: policy.TCP, Port: 9}})[0]); got != "unreachable" {
		t.Error(got)
	}
}

// TestDialOpensConnections: the evaluator would let an ACK pass for other reasons.
func TestDialOpensConnections(t *testing.T) {
	w := way{"eth0", netip.MustParseAddr("203.0.113.10")}
	if pk := dial(Endpoint{Proto: policy.TCP, Port: 1}, w, netip.MustParseAddr("192.0.2.1")); !pk.OpensTCP() || pk.State != packet.New {
		t.Errorf("%+v does not open a connection", pk)
	}
}
