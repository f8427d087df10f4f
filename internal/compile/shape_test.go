package compile_test

import (
	"fmt"
	"net/netip"
	"testing"

	"quaywall/internal/compile"
	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// shape is a policy that asks for a lot, and what its ruleset may come to.
type shape struct {
	name   string
	rules  []policy.Rule
	sets   []policy.Set
	path   int // rules that a packet meets at most
	weight int // rules and elements together
	chains int // 0 for as many as there are ports
}

func addrN(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)})
}

func fromAddr(i int) policy.Addresses {
	return policy.Addresses{Given: true, Inline: netset.OfAddrs(addrN(i))}
}

// sources is a list of n addresses that don't touch.
func sources(n int) netset.Set {
	all := make([]netip.Addr, n)
	for i := range all {
		all[i] = addrN(2 * i)
	}
	return netset.OfAddrs(all...)
}

// manyRules makes n rules.
func manyRules(n int, make func(i int) policy.Rule) []policy.Rule {
	rules := []policy.Rule{}
	for i := range n {
		r := make(i)
		r.Pos = at(i + 10)
		rules = append(rules, r)
	}
	return rules
}

func tcpPorts(n int) (all []policy.Traffic) {
	for i := range n {
		all = append(all, port(policy.TCP, uint16(1000+2*i)))
	}
	return all
}

func verbOf(i int) policy.Verb { return policy.Verb(i % 3) }

func shapes() []shape {
	list := sources(200)
	one := func(i int) []policy.Traffic { return []policy.Traffic{port(policy.TCP, uint16(i+1000))} }
	return []shape{
		{name: "10000 rules on 10000 ports", path: 40, weight: 10_200,
			rules: manyRules(10_000, func(i int) policy.Rule { return policy.Rule{Verb: verbOf(i), What: one(i)} })},
		{name: "10000 rules on 10000 ports from 10000 sources", path: 49, weight: 21_200, chains: 1100,
			rules: manyRules(10_000, func(i int) policy.Rule { return policy.Rule{Verb: verbOf(i), What: one(i), From: fromAddr(i)} })},
		{name: "10000 rules on one port", path: 45, weight: 10_200,
			rules: manyRules(10_000, func(i int) policy.Rule {
				return policy.Rule{Verb: verbOf(i), What: one(0), From: fromAddr(i)}
			})},
		{name: "10000 rules on any port", path: 45, weight: 10_200,
			rules: manyRules(10_000, func(i int) policy.Rule {
				return policy.Rule{Verb: verbOf(i), What: []policy.Traffic{{}}, From: fromAddr(i)}
			})},
		{name: "10000 ports from one list", path: 45, weight: 10_200,
			sets: []policy.Set{{Name: "list", Addrs: sources(100_000)}},
			rules: manyRules(1, func(int) policy.Rule {
				return policy.Rule{Verb: policy.Allow, What: tcpPorts(10_000), From: policy.Addresses{Given: true, Sets: []string{"list"}}}
			})},
		{name: "trap 33: 2000 ports from 200 sources in one rule", path: 45, weight: 2_400,
			rules: manyRules(1, func(int) policy.Rule {
				return policy.Rule{Verb: policy.Allow, What: tcpPorts(2000), From: policy.Addresses{Given: true, Inline: list}}
			})},
		{name: "trap 33: a rule for each of 200 sources", path: 45, weight: 2_400,
			rules: manyRules(200, func(i int) policy.Rule {
				return policy.Rule{Verb: policy.Allow, What: tcpPorts(2000), From: fromAddr(i)}
			})},
		{name: "trap 33: a rule for each of 2000 ports", path: 45, weight: 6_300,
			rules: manyRules(2000, func(i int) policy.Rule {
				return policy.Rule{Verb: policy.Allow, What: one(i), From: policy.Addresses{Given: true, Inline: list}}
			})},
		{name: "trap 33: a rule for each of 2000 ports and 20 sources", path: 45, weight: 46_200,
			rules: manyRules(40_000, func(i int) policy.Rule {
				return policy.Rule{Verb: policy.Allow, What: one(i % 2000), From: fromAddr(i / 2000)}
			})},
		{name: "5000 sources denied before 5000 ports", path: 45, weight: 15_200, // the sources twice: early and at the gate
			rules: manyRules(10_000, func(i int) policy.Rule {
				if i < 5000 {
					return policy.Rule{Verb: policy.Deny, What: []policy.Traffic{{}}, From: fromAddr(i)}
				}
				return policy.Rule{Verb: policy.Allow, What: one(i)}
			})},
		{name: "5000 sources denied behind 5000 ports", path: 45, weight: 20_200, chains: 1100,
			rules: manyRules(10_000, func(i int) policy.Rule {
				if i >= 5000 {
					return policy.Rule{Verb: policy.Deny, What: []policy.Traffic{{}}, From: fromAddr(i)}
				}
				return policy.Rule{Verb: policy.Allow, What: one(i), From: fromAddr(i)}
			})},
	}
}

func (s shape) policy() *policy.Policy {
	p := defaultPolicy()
	p.Sets, p.Inbound = s.sets, s.rules
	return p
}

// TestShape: the cost of a packet doesn't grow with the policy, and the ruleset grows no faster than the policy.
func TestShape(t *testing.T) {
	for _, s := range shapes() {
		t.Run(s.name, func(t *testing.T) {
			rs, _ := compile.Compile(s.policy(), testHost(), compile.Options{})
			if err := rs.Validate(); err != nil {
				t.Fatal(err)
			}
			path, weight := rs.Tables[0].LongestPath(), weigh(rs.Tables[0])
			chains := len(rs.Tables[0].Chains)
			t.Logf("path %d, weight %d, %d chains", path, weight, chains)
			if s.chains > 0 && chains > s.chains {
				t.Errorf("%d chains, want at most %d", chains, s.chains)
			}
			if path > s.path || weight > s.weight {
				t.Errorf("a packet meets %d rules, of %d rules and elements; want at most %d, %d", path, weight, s.path, s.weight)
			}
		})
	}
}

// weigh counts rules and elements.
func weigh(t ruleset.Table) int {
	n := 0
	for _, c := range t.Chains {
		n += len(c.Rules)
	}
	for _, m := range t.Maps {
		n += len(m.Elements)
	}
	return n
}

// TestOverlaps: policies whose rules overlap so much that resolving them would explode still compile, to rulesets that a
// kernel can take.
func TestOverlaps(t *testing.T) {
	cases := map[string][]policy.Rule{
		"ports": manyRules(10_000, func(i int) policy.Rule {
			first := uint16(i * 7919 % 30_000)
			return policy.Rule{Verb: verbOf(i), From: fromAddr(i), What: []policy.Traffic{
				{Proto: policy.TCP, Ports: netset.Ports{First: first, Last: first + 20_000}}}}
		}),
		"ports and sources in turn": manyRules(10_000, func(i int) policy.Rule {
			if i%2 == 0 {
				return policy.Rule{Verb: verbOf(i), From: fromAddr(i), What: []policy.Traffic{{}}}
			}
			return policy.Rule{Verb: verbOf(i), From: fromAddr(i), What: []policy.Traffic{port(policy.TCP, uint16(i))}}
		}),
	}
	for name, rules := range cases {
		t.Run(name, func(t *testing.T) {
			rs, _ := compile.Compile(shape{rules: rules}.policy(), testHost(), compile.Options{})
			if err := rs.Validate(); err != nil {
				t.Fatal(err)
			}
			if weight := weigh(rs.Tables[0]); weight > 1_000_000 {
				t.Errorf("%d rules and elements", weight)
			} else {
				t.Logf("path %d, weight %d", rs.Tables[0].LongestPath(), weight)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range shapes() {
		p, inv := s.policy(), testHost()
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, list := compile.Compile(p, inv, compile.Options{}); list.HasErrors() {
					b.Fatal(list)
				}
			}
		})
	}
}

// Names tell what they are about, in each of many classes.
func ExampleCompile() {
	rs, _ := compile.Compile(defaultPolicy(), testHost(), compile.Options{LogGroup: 86})
	fmt.Println(rs.Tables[0].Chains[0].Rules[4])
	// Output: iifname @bridges accept # from a container
}
