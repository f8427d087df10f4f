package analyze

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/dockerhost"
)

// tangle is random rules of table mangle on what is forwarded: few values, so that rules cover each other.
func (r rules) tangle() string {
	var body strings.Builder
	chains := []string{"FORWARD", "A", "B", "C"}
	for i, c := range chains {
		for range 2 + r.IntN(7) {
			fmt.Fprintf(&body, "-A %s %s %s\n", c, r.tangledMatches(), r.tangledTarget(chains[i+1:]))
		}
	}
	return fmt.Sprintf("*mangle\n:FORWARD %s [0:0]\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\n%sCOMMIT\n", pick(r, "ACCEPT", "DROP"), body.String())
}

func (r rules) tangledMatches() string {
	var words []string
	add := func(one int, format string, args ...any) {
		if r.IntN(one) == 0 {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	not := func() string { return pick(r, "", "", "! ") }
	add(3, "%s-s %s", not(), pick(r, "198.51.100.0/24", "198.51.100.0/25", "198.51.100.128/25", "198.51.100.7/32", "198.51.0.0/16"))
	add(4, "%s-d %s", not(), pick(r, "172.17.0.2/32", "172.17.0.0/24", "172.17.0.0/30"))
	add(5, "%s-i %s", not(), pick(r, "eth0", "eth+", "docker0"))
	switch r.IntN(4) {
	case 0:
		words = append(words, fmt.Sprintf("-p tcp -m tcp %s--dport %s", not(), pick(r, "80", "0:80", "81:65535", "443")))
	case 1:
		words = append(words, "-p "+pick(r, "tcp", "udp"))
	}
	add(5, "-m conntrack %s--ctstate %s", not(), pick(r, "NEW", "ESTABLISHED,RELATED", "NEW,ESTABLISHED"))
	add(5, "-m mark %s--mark %s", not(), pick(r, "0x1/0x1", "0x0/0x1", "0x2/0x2", "0x3"))
	add(25, "-m limit --limit 1/sec")
	if len(words) == 0 && r.IntN(3) > 0 {
		words = append(words, "-p udp -s "+pick(r, "198.51.100.0/25", "8.8.8.0/24"))
	}
	return strings.Join(words, " ")
}

func (r rules) tangledTarget(chains []string) string {
	all := []string{"-j ACCEPT", "-j DROP", "-j ACCEPT", "-j DROP", "-j RETURN", "-j MARK --set-xmark " + pick(r, "0x1/0x1", "0x0/0x1", "0x2/0xffffffff", "0x1/0x0"), "-j LOG"}
	for _, c := range chains {
		all = append(all, "-j "+c, "-j "+c, "-g "+c)
	}
	return pick(r, all...)
}

// query is a packet that this host forwards, of values at which random rules change.
func (r rules) query() packet.Query {
	return packet.Query{Packet: packet.Packet{Proto: pick[uint8](r, 6, 6, 17), Src: netip.MustParseAddr(pick(r, "198.51.100.7", "198.51.100.9", "198.51.100.200", "198.51.1.1", "8.8.8.8")),
		SrcPort: 40000, Dst: netip.MustParseAddr(pick(r, "172.17.0.2", "172.17.0.9", "172.17.3.3")), DstPort: pick[uint16](r, 0, 79, 80, 81, 443, 444), Flags: packet.SYN, In: "eth0",
		State: pick(r, packet.New, packet.New, packet.Invalid)}}
}

// simulable is the packets of a query.
func (w *flow) simulable() bdd.Set {
	one := func(f netfilter.Field, n uint64) bdd.Set { return w.Equal(w.field(f), bdd.Small(n)) }
	state := w.Or(one(netfilter.CtState, uint64(packet.New)), one(netfilter.CtState, uint64(packet.Invalid)))
	set := w.And(state, w.And(one(netfilter.Mark, 0), one(netfilter.FragmentOffset, 0)))
	set = w.And(set, w.And(w.names(netfilter.InIface, []string{"eth0"}), w.names(netfilter.OutIface, []string{"docker0"})))
	set = w.And(set, w.addrs(netfilter.Src, netset.MustParse("198.51.0.0/16 8.8.8.0/24")))
	set = w.And(set, w.addrs(netfilter.Dst, netset.MustParse("172.17.0.2-172.17.200.0")))
	return w.And(set, w.protos(6, 17))
}

// queryOf is a packet of a set.
func (w *flow) queryOf(set bdd.Set) packet.Query {
	asked := []netfilter.Field{netfilter.Dst, netfilter.DstPort, netfilter.Proto, netfilter.Src, netfilter.SrcPort, netfilter.CtState}
	var at []bdd.Field
	for _, f := range asked {
		at = append(at, w.field(f))
	}
	v := w.Witness(set, at)
	return packet.Query{Packet: packet.Packet{Proto: uint8(v[2].Lo), Src: w.address(v[3]), SrcPort: uint16(v[4].Lo), Dst: w.address(v[0]), DstPort: uint16(v[1].Lo), Flags: packet.SYN,
		In: "eth0", State: packet.State(v[5].Lo)}}
}

// matched are the rules of table mangle that a packet met, by chain and number; unsure those of which it isn't known.
func matched(t *testing.T, s *sim.Sim, q packet.Query) (verdict sim.Verdict, all, unsure map[string]bool) {
	t.Helper()
	trace, err := s.Explain(q, sim.Options{All: true})
	if err != nil {
		t.Fatal(err)
	}
	all, unsure = map[string]bool{}, map[string]bool{}
	for _, step := range trace.Path {
		for _, rule := range step.Rules {
			if step.Table == "ip mangle" && step.Leg == sim.Request && rule.Matched != "no" {
				all[fmt.Sprint(rule.Chain, " ", rule.Rule)] = true
				unsure[fmt.Sprint(rule.Chain, " ", rule.Rule)] = rule.Matched == "unknown"
			}
		}
	}
	return trace.Verdict, all, unsure
}

// TestUselessAgainstSimulator asks the simulator, which shares no code with this: what is useless meets no packet, or changes
// nothing if it is gone, and each rule that isn't useless meets the packet that the sets give for it.
func TestUselessAgainstSimulator(t *testing.T) {
	t.Parallel()
	seed, hosts := seedOf(t)
	seen := map[Uselessness]int{}
	met, all := 0, 0
	for i := range uint64(hosts) {
		r := rules{rand.New(rand.NewPCG(seed+i, 2))}
		text := r.tangle()
		tables, problems := iptsave.Parse(text, iptsave.Options{Family: netfilter.IPv4})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		table := tables[0]
		found, unsorted := findUseless(t, &netfilter.Rules{Tables: tables})
		if len(unsorted) > 0 {
			t.Fatal(unsorted)
		}
		useless := map[string]Uselessness{}
		for _, u := range found {
			useless[fmt.Sprint(u.Chain.Name, " ", u.Rule.Number)] = u.Why
			seen[u.Why]++
		}
		var queries []packet.Query
		s := sim.New(hostWith(tables))
		w := newFlow(context.Background(), table, netfilter.IPv4, interfacesIn([]string{"eth0", "docker0"}, &netfilter.Rules{Tables: tables}))
		chains, _ := sorted(table)
		w.only = w.simulable()
		w.all(chains)
		for _, c := range chains {
			for _, rule := range c.Rules {
				name := fmt.Sprint(c.Name, " ", rule.Number)
				all++
				if w.hits[rule] == bdd.None {
					continue
				}
				q := w.queryOf(w.hits[rule])
				queries = append(queries, q)
				met++
				if useless[name] == Dead || useless[name] == Shadowed {
					t.Fatalf("seed %d: %s is said to be %s, and the sets give %s for it\n%s", seed+i, name, useless[name], q, text)
				}
				if _, rules, unsure := matched(t, s, q); !rules[name] && len(unsure) == 0 {
					t.Fatalf("seed %d: %s was to be met by %s\n%s", seed+i, name, q, text)
				}
			}
		}
		for range 40 {
			queries = append(queries, r.query())
		}
		some := slices.DeleteFunc(slices.Clone(found), func(Useless) bool { return r.IntN(2) == 0 })
		one := found[min(len(found), r.IntN(len(found)+1)):]
		less := []*sim.Sim{sim.New(hostWith(taken(table, found))), sim.New(hostWith(taken(table, some))), sim.New(hostWith(taken(table, one[:min(1, len(one))])))}
		for _, q := range queries {
			verdict, rules, _ := matched(t, s, q)
			for name := range rules {
				if useless[name] == Dead || useless[name] == Shadowed {
					t.Fatalf("seed %d: %s is said to be %s, and %s meets it\n%s", seed+i, name, useless[name], q, text)
				}
			}
			for n, without := range less {
				if then, _, _ := matched(t, without, q); then != verdict {
					t.Fatalf("seed %d: %s: %s with all rules, %s without those of %v that are useless\n%v\n%s", seed+i, q, verdict, then, []string{"all", "some", "one"}[n], useless, text)
				}
			}
		}
	}
	t.Logf("%v; %d of %d rules were met", seen, met, all)
	if hosts >= 20 && (seen[Dead] < hosts/10 || seen[Shadowed] < hosts || seen[Redundant] < hosts/4 || met < all/4) {
		t.Errorf("too few were found for this to say much: %v, %d of %d met", seen, met, all)
	}
}

func hostWith(tables []*netfilter.Table) *snapshot.Host {
	h := dockerhost.Make(1, 2)
	h.Host.Rules.Tables = tables
	return &h.Host
}

// taken is a table without its useless rules.
func taken(t *netfilter.Table, useless []Useless) []*netfilter.Table {
	less := *t
	less.Chains = nil
	for _, c := range t.Chains {
		kept := *c
		kept.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r *netfilter.Rule) bool {
			return slices.ContainsFunc(useless, func(u Useless) bool { return u.Rule == r })
		})
		less.Chains = append(less.Chains, &kept)
	}
	return []*netfilter.Table{&less}
}
