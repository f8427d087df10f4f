package judge

import (
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// fault is a mistake that a compiler or a renderer could make. plant puts it into a ruleset on its way to a backend, and
// tells whether there was a place for it.
type fault struct {
	name  string
	plant func(*ruleset.Table) bool

	// hidden tells that a walk through the ruleset doesn't show it: how hooks are ordered, and what limits count.
	hidden bool
	// nftOnly tells that iptables can't have it: its tables have places of their own, and it rejects by protocol.
	nftOnly bool
}

// faults are in the order of the chains that packets come to.
var faults = []fault{
	{name: "what answers a SYN is dropped early", plant: inChain("early", func(r *ruleset.Rule) bool {
		for i, m := range r.Matches {
			if f, ok := m.(ruleset.TCPFlagsMatch); ok {
				f.Mask &^= packet.ACK
				r.Matches[i] = f
				return true
			}
		}
		return false
	})},
	{name: "datagrams are dropped early", plant: inChain("early", func(r *ruleset.Rule) bool {
		was := slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool { return m == ruleset.ProtoMatch{Proto: policy.UDP} })
		if was {
			r.Verdict = ruleset.Verdict{Kind: ruleset.Goto, Chain: "early-source"}
		}
		return was
	})},
	{name: "the denied sources are forgotten", plant: inChain("early-source", func(r *ruleset.Rule) bool {
		had := len(r.Matches) > 0
		r.Matches = nil
		return had
	})},
	{name: "containers are judged early", plant: inChain("early-host", without[ruleset.IfaceMatch])},
	{name: "what is routed is dropped early", plant: inChain("early-host", without[ruleset.AddrTypeMatch])},
	{name: "the loopback rule is forgotten", plant: dropRule(noted("loopback address from outside"))},
	{name: "a glob is taken for a name", plant: eachMatch(func(m ruleset.IfaceMatch) (ruleset.Match, bool) {
		i := slices.IndexFunc(m.Names, func(n string) bool { return strings.HasSuffix(n, "*") && n != "br-*" })
		if i < 0 {
			return m, false
		}
		m.Names = slices.Clone(m.Names)
		m.Names[i] = strings.TrimSuffix(m.Names[i], "*")
		return m, true
	})},
	{name: "the established rule is forgotten", plant: dropRule(noted("established"))},
	{name: "related is not established", plant: eachMatch(func(m ruleset.CtStateMatch) (ruleset.Match, bool) {
		had := m.States&ruleset.StateRelated != 0
		m.States &^= ruleset.StateRelated
		return m, had
	})},
	{name: "a bridge is missing from the set of bridges", plant: eachSet(func(s *ruleset.Set) bool {
		if s.Key != ruleset.Iface || len(s.Ifaces) < 2 {
			return false
		}
		s.Ifaces = s.Ifaces[1:]
		return true
	})},
	{name: "a container reaches the host within its network", plant: func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			i := slices.IndexFunc(r.Matches, isType[ruleset.AddrTypeMatch])
			if r.Origin.Note != "within one network" || i < 0 {
				return false
			}
			r.Matches = slices.Delete(slices.Clone(r.Matches), i, i+1)
			return true
		})
	}},
	{name: "a type of ICMP is missing from a list", plant: eachMatch(func(m ruleset.ICMPTypeMatch) (ruleset.Match, bool) {
		if len(m.Types) < 2 {
			return m, false
		}
		m.Types = m.Types[1:]
		return m, true
	})},
	{name: "a code of ICMP is ignored", plant: eachMatch(func(m ruleset.ICMPTypeMatch) (ruleset.Match, bool) {
		had := m.Code != nil
		m.Code = nil
		return m, had
	})},
	{name: "sockets that were there before are forgotten", plant: dropRule(noted("running before"))},
	{name: "broadcast isn't for the host", plant: withoutType(ruleset.TypeBroadcast)},
	{name: "multicast isn't for the host", plant: withoutType(ruleset.TypeMulticast)},
	{name: "anycast isn't for the host", plant: withoutType(ruleset.TypeAnycast)},
	{name: "hygiene forgets invalid packets", plant: dropRule(noted("invalid state"))},
	{name: "hygiene forgets flags that connection tracking knows", plant: func(t *ruleset.Table) bool {
		return dropRule(noted("SYN with FIN"))(t) && dropRule(noted("FIN without ACK"))(t) && dropRule(noted("no TCP flags"))(t)
	}},
	{name: "hygiene forgets flags that connection tracking lets pass", plant: dropRule(noted("PSH without ACK"))},
	{name: "hygiene takes a SYN for no SYN", plant: eachMatch(func(m ruleset.TCPFlagsMatch) (ruleset.Match, bool) {
		was := m.Mask == packet.SYN|packet.ACK && m.Value == packet.SYN && m.Not
		m.Not = m.Not && !was
		return m, was
	})},
	{name: "hygiene forgets the host's own addresses", plant: func(t *ruleset.Table) bool {
		return dropFirst(t, func(r ruleset.Rule) bool {
			return r.Origin.Note == "spoofed source" && slices.ContainsFunc(r.Matches, isType[ruleset.AddrTypeMatch])
		})
	}},
	{name: "a port is one too high", plant: eachElement(func(e *ruleset.Element) bool {
		if e.Ports.First == 0 || e.Ports.Last >= 65534 || e.Ports.First == e.Ports.Last {
			return false
		}
		e.Ports.Last--
		return true
	})},
	{name: "a port is missing from a map", plant: func(t *ruleset.Table) bool {
		for i := range t.Maps {
			if m := &t.Maps[i]; m.Key == ruleset.Port && len(m.Elements) > 1 {
				m.Elements = m.Elements[1:]
				return true
			}
		}
		return false
	}},
	{name: "two ports lead to each other's rules", plant: func(t *ruleset.Table) bool {
		for i := range t.Maps {
			e := t.Maps[i].Elements
			for j := 1; j < len(e); j++ {
				if e[j].Verdict != e[j-1].Verdict {
					e[j].Verdict, e[j-1].Verdict = e[j-1].Verdict, e[j].Verdict
					return true
				}
			}
		}
		return false
	}},
	{name: "TCP is taken for UDP", plant: eachMatch(func(m ruleset.ProtoMatch) (ruleset.Match, bool) {
		was := m.Proto == policy.TCP
		m.Proto = policy.UDP
		return m, was
	})},
	{name: "two rules are swapped", plant: swapRules},
	{name: "a source is taken for a destination", plant: inRules(func(m ruleset.AddrMatch) (ruleset.Match, bool) {
		was := m.Field == ruleset.Src
		m.Field = ruleset.Dst
		return m, was
	})},
	{name: "a negation is lost", plant: inRules(func(m ruleset.AddrMatch) (ruleset.Match, bool) {
		was := m.Not
		m.Not = false
		return m, was
	})},
	{name: "another set is named", plant: func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			for i, m := range r.Matches {
				a, ok := m.(ruleset.AddrMatch)
				if !ok || a.Set == "" || r.Origin.Line == "" {
					continue
				}
				for _, s := range t.Sets {
					if other, ok := setOf(t, a.Set); ok && s.Name != a.Set && s.Key == other.Key && !s.Addrs.Equal(other.Addrs) {
						a.Set = s.Name
						r.Matches[i] = a
						return true
					}
				}
			}
			return false
		})
	}},
	{name: "the last address of a range is left out", plant: eachSet(func(s *ruleset.Set) bool {
		b, changed := netset.Builder{}, false
		for _, r := range s.Addrs.Ranges() {
			if r.From() != r.To() && !changed && s.Origin.Line != "" {
				r, changed = netipx.IPRangeFrom(r.From(), r.To().Prev()), true
			}
			b.Add(r)
		}
		s.Addrs, _ = b.Set()
		return changed
	})},
	{name: "IPv6 is forgotten", plant: func(t *ruleset.Table) bool {
		return dropFirst(t, func(r ruleset.Rule) bool {
			return r.Origin.Line != "" && slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
				a, ok := m.(ruleset.AddrMatch)
				return ok && a.Family == ruleset.IPv6
			})
		})
	}},
	{name: "the default lets in", plant: flipDefault},
	{hidden: true, name: "a limit holds nobody", plant: dropRule(func(r ruleset.Rule) bool { return slices.ContainsFunc(r.Matches, isType[ruleset.SourceRateMatch]) })},
	{name: "a limit holds everybody", plant: func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			i := slices.IndexFunc(r.Matches, isType[ruleset.SourceRateMatch])
			if i < 0 {
				return false
			}
			r.Matches = slices.Delete(slices.Clone(r.Matches), i, i+1)
			return true
		})
	}},
	{hidden: true, name: "a limit has another burst", plant: eachMatch(func(m ruleset.SourceRateMatch) (ruleset.Match, bool) {
		m.Rate.Burst += 3
		return m, true
	})},
	{nftOnly: true, name: "a reset is no reset", plant: func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			was := r.Verdict.Kind == ruleset.TCPReset
			if was {
				r.Verdict.Kind = ruleset.Unreachable
			}
			return was
		})
	}},
	{name: "a reject is silent", plant: func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			was := r.Verdict.Kind == ruleset.Unreachable
			if was {
				r.Verdict.Kind = ruleset.Drop
			}
			return was
		})
	}},
	{name: "containers' own addresses stay open", plant: dropRule(noted("container's own address"))},
	{name: "published ports are taken for containers' own addresses", plant: eachMatch(func(m ruleset.DNATMatch) (ruleset.Match, bool) {
		was := m.Not
		m.Not = false
		return m, was
	})},
	{hidden: true, nftOnly: true, name: "the destination is looked up behind DNAT", plant: func(t *ruleset.Table) bool {
		for i, ch := range t.Chains {
			if ch.Name == "gate" {
				base := *ch.Base
				base.Priority = -90
				t.Chains[i].Base = &base
				return true
			}
		}
		return false
	}},
	{name: "outbound isn't judged", plant: func(t *ruleset.Table) bool {
		for i, ch := range t.Chains {
			if ch.Base != nil && ch.Base.Hook == ruleset.Output {
				t.Chains[i].Rules = nil
				return true
			}
		}
		return false
	}},
	{name: "the interface of the way out is taken for that of the way in", plant: func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			for i, m := range r.Matches {
				if f, ok := m.(ruleset.IfaceMatch); ok && f.Field == ruleset.Out && r.Origin.Line != "" {
					r.Matches = slices.Delete(slices.Clone(r.Matches), i, i+1)
					return true
				}
			}
			return false
		})
	}},
}

// faultsReadEach is how often those who read rules look for a fault as well: of one of so many.
const faultsReadEach = 4

// TestFaults plants each fault on the way to one backend, in turn, and asks whether a run of the usual length finds it. Of some,
// those who read what is then in force must find it too.
func TestFaults(t *testing.T) {
	var benches []*bench
	for _, b := range backends() {
		benches = append(benches, newBench(t, b))
	}
	found := map[string]int{}
	for i, f := range faults {
		h := benches[i%len(benches)]
		if f.nftOnly {
			h = benches[0]
		}
		t.Run(f.name, func(t *testing.T) {
			h.fault = func(rs *ruleset.Ruleset) { f.plant(&rs.Tables[0]) }
			defer func() { h.fault = nil }()
			c, kernel := find(t, h, f)
			if c == nil || i%faultsReadEach != 0 {
				return
			}
			readers, err := h.readers(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range readers {
				found[o.by] += btoi(len(o.wrong) > 0)
				sameAs(t, c, kernel, o)
			}
		})
	}
	if found[bySimulator] == 0 || found[byAnalyser] == 0 {
		t.Error("somebody who reads the rules found no fault")
	}
	t.Logf("faults found: %v", found)
}

// sameAs tells of packets that the kernel judges wrongly by a fault, and somebody who reads the rules doesn't.
func sameAs(t *testing.T, c *Case, kernel map[uint16]fate, o opinion) {
	t.Helper()
	for _, p := range c.wrong(kernel) {
		if f, asked := o.fates[p.id]; asked && f.passed != kernel[p.id].passed && !p.lost() {
			t.Errorf("%s: %s: %s, and the kernel: %s", o, p, f, kernel[p.id])
		}
	}
}

// faultSeed is the first seed that faults are looked for with.
const faultSeed = 1

// find gives the first case that shows a fault, with what the kernel did with it.
func find(t *testing.T, h *bench, f fault) (*Case, map[uint16]fate) {
	tried := 0
	for seed := uint64(faultSeed); seed < faultSeed+usual; seed++ {
		c, err := newCase(seed, packetsEach)
		if err != nil {
			t.Fatal(err)
		}
		if !c.shows(f) {
			continue
		}
		tried++
		fates, err := h.try(c)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := c.wrong(fates); len(wrong) > 0 {
			t.Logf("found by seed %d with %s, the policy number %d that could show it: %s\n%s by %q, %s; %s", seed, h.name, tried,
				wrong[0], wrong[0].want.Verb, wrong[0].want.Origin, wrong[0].want.Why, fates[wrong[0].id])
			return c, fates
		}
	}
	t.Errorf("not found in %d policies with %s, of which %d could show it", usual, h.name, tried)
	return nil, nil
}

// shows tells whether a fault can make a difference to a packet of the case, so that the kernel needn't be asked about
// policies where it can't. What only the kernel can tell (the order of hooks, what limits count) always can.
func (c *Case) shows(f fault) bool {
	own := *c
	own.rules = clone(c.rules)
	if !f.plant(&own.rules.Tables[0]) {
		return false
	}
	for _, p := range c.probes {
		if before, _, err := c.walk(p); err == nil {
			if after, _, err := own.walk(p); err != nil || after != before {
				return true
			}
		}
	}
	return f.hidden
}

func noted(note string) func(ruleset.Rule) bool {
	return func(r ruleset.Rule) bool { return r.Origin.Note == note }
}

func isType[M ruleset.Match](m ruleset.Match) bool {
	_, ok := m.(M)
	return ok
}

// dropRule leaves out the first rule of a kind from each chain.
func dropRule(is func(ruleset.Rule) bool) func(*ruleset.Table) bool {
	return func(t *ruleset.Table) bool {
		dropped := false
		for i := range t.Chains {
			if j := slices.IndexFunc(t.Chains[i].Rules, is); j >= 0 {
				t.Chains[i].Rules = slices.Delete(t.Chains[i].Rules, j, j+1)
				dropped = true
			}
		}
		return dropped
	}
}

// dropFirst leaves out the first rule of a kind.
func dropFirst(t *ruleset.Table, is func(ruleset.Rule) bool) bool {
	for i := range t.Chains {
		if j := slices.IndexFunc(t.Chains[i].Rules, is); j >= 0 {
			t.Chains[i].Rules = slices.Delete(t.Chains[i].Rules, j, j+1)
			return true
		}
	}
	return false
}

// without takes the first match of a type from a rule.
func without[M ruleset.Match](r *ruleset.Rule) bool {
	i := slices.IndexFunc(r.Matches, isType[M])
	if i >= 0 {
		r.Matches = slices.Delete(slices.Clone(r.Matches), i, i+1)
	}
	return i >= 0
}

// inChain changes all rules of one chain that it can.
func inChain(name string, change func(*ruleset.Rule) bool) func(*ruleset.Table) bool {
	return func(t *ruleset.Table) bool {
		i := slices.IndexFunc(t.Chains, func(c ruleset.Chain) bool { return c.Name == name })
		if i < 0 {
			return false
		}
		one := ruleset.Table{Chains: t.Chains[i : i+1]}
		return eachRule(&one, change)
	}
}

// eachRule changes all rules that it can.
func eachRule(t *ruleset.Table, change func(*ruleset.Rule) bool) bool {
	changed := false
	for i := range t.Chains {
		for j := range t.Chains[i].Rules {
			changed = change(&t.Chains[i].Rules[j]) || changed
		}
	}
	return changed
}

// eachMatch changes all matches of a type that it can.
func eachMatch[M ruleset.Match](change func(M) (ruleset.Match, bool)) func(*ruleset.Table) bool {
	return matchesOf(func(ruleset.Rule) bool { return true }, change)
}

// inRules changes matches of rules that stand for lines of the policy.
func inRules[M ruleset.Match](change func(M) (ruleset.Match, bool)) func(*ruleset.Table) bool {
	return matchesOf(func(r ruleset.Rule) bool { return r.Origin.Line != "" }, change)
}

func matchesOf[M ruleset.Match](of func(ruleset.Rule) bool, change func(M) (ruleset.Match, bool)) func(*ruleset.Table) bool {
	return func(t *ruleset.Table) bool {
		return eachRule(t, func(r *ruleset.Rule) bool {
			changed := false
			for i, m := range r.Matches {
				if own, ok := m.(M); ok && of(*r) {
					if now, did := change(own); did {
						r.Matches[i], changed = now, true
					}
				}
			}
			return changed
		})
	}
}

func withoutType(kind ruleset.AddrType) func(*ruleset.Table) bool {
	return eachMatch(func(m ruleset.AddrTypeMatch) (ruleset.Match, bool) {
		had := m.Types&kind != 0 && m.Types != kind
		if had {
			m.Types &^= kind
		}
		return m, had
	})
}

// eachSet changes the first set that it can.
func eachSet(change func(*ruleset.Set) bool) func(*ruleset.Table) bool {
	return func(t *ruleset.Table) bool {
		for i := range t.Sets {
			if change(&t.Sets[i]) {
				return true
			}
		}
		return false
	}
}

// eachElement changes all elements of maps that it can.
func eachElement(change func(*ruleset.Element) bool) func(*ruleset.Table) bool {
	return func(t *ruleset.Table) bool {
		changed := false
		for i := range t.Maps {
			for j := range t.Maps[i].Elements {
				changed = change(&t.Maps[i].Elements[j]) || changed
			}
		}
		return changed
	}
}

func setOf(t *ruleset.Table, name string) (ruleset.Set, bool) {
	i := slices.IndexFunc(t.Sets, func(s ruleset.Set) bool { return s.Name == name })
	if i < 0 {
		return ruleset.Set{}, false
	}
	return t.Sets[i], true
}

// swapRules swaps the first neighbours that stand for lines of the policy and do different things.
func swapRules(t *ruleset.Table) bool {
	for i := range t.Chains {
		rules := t.Chains[i].Rules
		for j := 1; j < len(rules); j++ {
			a, b := rules[j-1], rules[j]
			if a.Origin.Line != "" && b.Origin.Line != "" && a.Verdict != b.Verdict && a.Lookup == nil && b.Lookup == nil && len(b.Matches) > 0 {
				rules[j-1], rules[j] = b, a
				return true
			}
		}
	}
	return false
}

// flipDefault makes the last word of the inbound rules allow.
func flipDefault(t *ruleset.Table) bool {
	return eachRule(t, func(r *ruleset.Rule) bool {
		was := r.Origin.Note == "no inbound rule matched" && r.Verdict.Kind != ruleset.Accept
		if was {
			r.Verdict = ruleset.Verdict{Kind: ruleset.Accept}
		}
		return was
	})
}
