package judge

import (
	"net/netip"
	"testing"

	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

// worldSnapshot is the host as a snapshot, without its rules.
func worldSnapshot() *snapshot.Host {
	h := &snapshot.Host{Inventory: *inventoryOf(), Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1",
		"net.bridge.bridge-nf-call-iptables": "1", "net.bridge.bridge-nf-call-ip6tables": "1", "net.ipv4.conf.all.rp_filter": "0",
		"net.ipv4.conf.all.accept_local": "1", "net.ipv4.conf.all.route_localnet": "1"}}
	h.Inventory.Interfaces = nil
	for _, c := range cards {
		i := inventory.Interface{Name: c.name, Up: true, Addrs: prefixes(c.addrs...)}
		if c.port != "" {
			i.Kind = "bridge"
		}
		h.Inventory.Interfaces = append(h.Inventory.Interfaces, i)
		for _, p := range i.Addrs {
			h.Routes = append(h.Routes, host(p.Addr(), 2, c.name), snapshot.Route{Table: "main", Type: 1, Dst: p.Masked(), Dev: c.name, Src: p.Addr()})
		}
		for _, p := range prefixes(c.behind...) {
			h.Routes = append(h.Routes, snapshot.Route{Table: "main", Type: 1, Dst: p, Dev: c.name})
		}
		if len(c.addrs) > 0 {
			h.Routes = append(h.Routes, host(netip.MustParseAddr("fe80::"), 4, c.name))
		}
	}
	h.Inventory.Interfaces = append(h.Inventory.Interfaces, inventory.Interface{Name: "lo", Up: true, Addrs: prefixes("127.0.0.1/8", "::1/128")})
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		h.Routes = append(h.Routes, snapshot.Route{Table: "main", Type: 1, Dst: netip.MustParsePrefix(p), Dev: "eth1"})
	}
	for _, p := range []string{"127.0.0.0/8", "::1/128"} {
		h.Routes = append(h.Routes, snapshot.Route{Table: "local", Type: 2, Dst: netip.MustParsePrefix(p), Dev: "lo"})
	}
	for _, a := range directed {
		h.Routes = append(h.Routes, host(netip.MustParseAddr(a), 3, ""))
	}
	for _, a := range anycast6[:len(anycast6)-1] {
		h.Routes = append(h.Routes, host(netip.MustParseAddr(a), 4, ""))
	}
	for _, text := range socketAddrs {
		k := snapshot.Socket{Proto: policy.TCP, Addr: netip.IPv6Unspecified(), Both: true, Port: 7001}
		if a, err := netip.ParseAddrPort(text); err == nil {
			k.Addr, k.Both, k.Port = a.Addr(), false, a.Port()
		}
		h.Sockets = append(h.Sockets, k)
	}
	return h
}

// host is a route of the table local.
func host(a netip.Addr, kind int, dev string) snapshot.Route {
	return snapshot.Route{Table: "local", Type: kind, Dst: netip.PrefixFrom(a, a.BitLen()), Dev: dev}
}

// policiesForSim is how many policies the simulator and the evaluator read.
const policiesForSim = 150

// TestSimulatorReadsPolicies: on what the compiler makes of a policy, the simulator's verdict is the evaluator's.
func TestSimulatorReadsPolicies(t *testing.T) {
	first := *seed
	if first == 0 {
		first = 4711
	}
	n := max(*policies, policiesForSim)
	judged := 0
	for i := range n {
		c, err := newCase(first+uint64(i), packetsEach)
		if err != nil {
			t.Fatal(err)
		}
		h := worldSnapshot()
		h.Rules.Tables = append(netfilter.Of(c.rules), dnatTables()...)
		s := sim.New(h)
		for _, p := range c.probes {
			if p.flood > 0 || p.narrow || p.lost() || p.pieces > 1 || p.badSum || p.isFlooded() || p.pk.State == packet.Untracked || isToMany(p.pk.Dst) || isIn(linked6, p.pk.Dst) {
				continue
			}
			tr, err := s.Explain(packet.Query{Packet: p.pk, FromHost: p.pk.In == ""}, sim.Options{})
			if err != nil {
				t.Fatalf("seed %d: %s: %v", c.Seed, p.pk, err)
			}
			judged++
			want := map[policy.Verb]sim.Verdict{policy.Allow: sim.Accept, policy.Deny: sim.Drop, policy.Reject: sim.Reject}[p.want.Verb]
			if tr.Verdict != want {
				t.Errorf("seed %d: %s (%s): the simulator says %s: %s\nthe evaluator %s: %s\n%s", c.Seed, p.pk, p.kind, tr.Verdict, tr.Why, want, p.want.Why, c.doc.text())
				break
			}
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d packets", judged)
}

// dnatTables are the world's translations, as Docker would make them.
func dnatTables() []*netfilter.Table {
	number := func(f netfilter.Field, n uint64) netfilter.Match {
		return netfilter.Compare{Field: f, Values: netfilter.Values{Numbers: []netfilter.Range{{First: n, Last: n}}}}
	}
	byFamily := map[bool]*netfilter.Table{}
	for is4, family := range map[bool]netfilter.Family{true: netfilter.IPv4, false: netfilter.IPv6} {
		byFamily[is4] = &netfilter.Table{Family: family, Name: "docker", Chains: []*netfilter.Chain{{Name: "prerouting",
			Base: &netfilter.Base{Type: netfilter.NAT, Hook: netfilter.Prerouting, Priority: -100, Policy: netfilter.Accept}}}}
	}
	for _, p := range published {
		if p.dnat == "" {
			continue
		}
		r := &netfilter.Rule{Matches: []netfilter.Match{number(netfilter.DstType, 2), number(netfilter.Proto, uint64(p.Proto)), number(netfilter.DstPort, uint64(p.Port))}}
		if !p.Addr.IsUnspecified() {
			r.Matches = append(r.Matches, netfilter.Compare{Field: netfilter.Dst, Values: netfilter.Values{Addrs: netset.OfAddrs(p.Addr)}})
		}
		to := netip.MustParseAddrPort(p.dnat)
		r.Actions = []netfilter.Action{netfilter.Translate{Kind: netfilter.DNAT, Addrs: netfilter.Values{Addrs: netset.OfAddrs(to.Addr())},
			Ports: []netfilter.Range{{First: uint64(to.Port()), Last: uint64(to.Port())}}}}
		c := byFamily[p.Addr.Is4()].Chains[0]
		c.Rules = append(c.Rules, r)
	}
	return []*netfilter.Table{byFamily[true], byFamily[false]}
}
