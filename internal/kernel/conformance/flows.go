package conformance

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// flowCases: the protocol, the server's address and port, and the client's address count, the client's port doesn't.
func flowCases() []func(self) matchCase {
	of := func(server netip.Addr, client netip.Addr) []ruleset.Flow {
		var all []ruleset.Flow
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE} {
			all = append(all, ruleset.Flow{Proto: proto, Server: netip.AddrPortFrom(server, 80), Client: client})
		}
		return all
	}
	set := func(name string, k ruleset.Key, flows []ruleset.Flow) []ruleset.Set {
		return []ruleset.Set{{Name: name, Key: k, Flows: flows, Timeout: time.Hour}}
	}
	raw := func(p uint8, dport uint16) probe { return probe{proto: p, dport: dport} }
	return []func(self) matchCase{
		func(me self) matchCase {
			a, b := me.v4(1), me.v4(2)
			return matchCase{name: "to the server of a flow 4", sets: set("to4", ruleset.Flow4, of(host4, a)),
				matches: one(ruleset.FlowMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "to4"}),
				hits:    []probe{udp(80).from(a), udp(80).from(a).fromPort(9), tcp(80).from(a), raw(132, 80).from(a), raw(136, 80).from(a)},
				misses:  []probe{udp(81).from(a), tcp(81).from(a), udp(80).from(b), udp(80).from(a).to("172.17.0.1"), raw(33, 80).from(a), icmp4(8, 0).from(a), udp(80).in6()}}
		},
		func(me self) matchCase {
			a, b := me.v6(0, 1), me.v6(0, 2)
			return matchCase{name: "to the server of a flow 6", sets: set("to6", ruleset.Flow6, of(host6, a)),
				matches: one(ruleset.FlowMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Set: "to6"}),
				hits:    []probe{udp(80).from(a), tcp(80).from(a), raw(132, 80).from(a)},
				misses:  []probe{udp(81).from(a), udp(80).from(b), icmp6(128, 0).from(a), udp(80)}}
		},
		func(me self) matchCase {
			a, b := me.v4(1), me.v4(2)
			return matchCase{name: "from the server of a flow 4", sets: set("from4", ruleset.Flow4, of(a, host4)),
				matches: one(ruleset.FlowMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "from4"}),
				hits:    []probe{udp(9).from(a).fromPort(80), tcp(9).from(a).fromPort(80)},
				misses:  []probe{udp(80).from(a).fromPort(81), udp(9).from(b).fromPort(80), udp(9).from(a).fromPort(80).to("172.17.0.1")}}
		},
		func(me self) matchCase {
			a, b := me.v6(0, 1), me.v6(0, 2)
			return matchCase{name: "from the server of a flow 6", sets: set("from6", ruleset.Flow6, of(a, host6)),
				matches: one(ruleset.FlowMatch{Field: ruleset.Src, Family: ruleset.IPv6, Set: "from6"}),
				hits:    []probe{udp(9).from(a).fromPort(80), tcp(9).from(a).fromPort(80)},
				misses:  []probe{udp(80).from(a).fromPort(81), udp(9).from(b).fromPort(80), udp(9).fromPort(80)}}
		},
	}
}

// testFlows: what a set of flows holds is no part of a listing; flows are added while it is in force, the same ruleset
// committed once more leaves them there, and one with another set does not.
func testFlows(t *testing.T, s Subject) {
	host := netns.New(t)
	flow := func(port uint16, v6 bool) ruleset.Flow {
		f := ruleset.Flow{Proto: unix.IPPROTO_TCP, Server: netip.AddrPortFrom(host4, port), Client: client4}
		if v6 {
			f.Server, f.Client = netip.AddrPortFrom(host6, port), client6
		}
		return f
	}
	ruleset4 := func(name string, flows ...ruleset.Flow) *ruleset.Ruleset {
		rs := Sample()
		tab := &rs.Tables[0]
		for _, set := range []struct {
			name   string
			key    ruleset.Key
			family ruleset.Family
		}{{name + "-4", ruleset.Flow4, ruleset.IPv4}, {name + "-6", ruleset.Flow6, ruleset.IPv6}} {
			made := ruleset.Set{Name: set.name, Key: set.key, Timeout: time.Hour}
			for _, f := range flows {
				if f.Client.Is4() == (set.family == ruleset.IPv4) {
					made.Flows = append(made.Flows, f)
				}
			}
			tab.Sets = append(tab.Sets, made)
			tab.Chains[0].Rules = append(tab.Chains[0].Rules, ruleset.Rule{
				Matches: one(ruleset.FlowMatch{Field: ruleset.Dst, Family: set.family, Set: set.name}), Verdict: ruleset.Verdict{Kind: ruleset.Drop}})
		}
		return rs
	}
	sets := func(rs *ruleset.Ruleset) []ruleset.Set { n := len(rs.Tables[0].Sets); return rs.Tables[0].Sets[n-2:] }
	holds := func(when string, want ...ruleset.Flow) {
		t.Helper()
		host.Do(t, func() {
			got, err := s.Backend.Flows(context.Background())
			byText := func(a, b ruleset.Flow) int { return a.Server.Compare(b.Server) }
			slices.SortFunc(got, byText)
			slices.SortFunc(want, byText)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s it holds %v, %v; want %v", when, got, err, want)
			}
		})
	}
	holds("without rules")
	s.commit(t, host, ruleset4("one", flow(1, false), flow(1, true)))
	holds("at first", flow(1, false), flow(1, true))
	host.Do(t, func() {
		if err := s.Backend.AddFlows(context.Background(), sets(ruleset4("one", flow(1, false), flow(2, false), flow(2, true)))); err != nil {
			t.Error(err)
		}
	})
	holds("with more", flow(1, false), flow(2, false), flow(1, true), flow(2, true))
	s.commit(t, host, ruleset4("one"))
	holds("committed once more", flow(1, false), flow(2, false), flow(1, true), flow(2, true))
	s.commit(t, host, ruleset4("two", flow(3, true)))
	holds("with another set", flow(3, true))
	s.remove(t, host)
	holds("removed")
}
