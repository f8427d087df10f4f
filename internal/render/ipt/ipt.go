// Package ipt turns a ruleset into payloads of iptables-restore and ip6tables-restore, and into the ipsets that these name.
//
//	rules, err := ipt.Render(rs)
//	rules.IPv4.Payload(present)           // for iptables-restore --noflush
//	for e := range rules.Sets[0].Entries  // what a set holds
//
// Packets are judged in table mangle, which is behind connection tracking and before DNAT; a base chain in front of
// connection tracking is in table raw. One restore for each family replaces both. Chains are called QUAYWALL-… and base chains are reached by a jump that stands first in the chain of their hook. What a rule
// accepts leaves by RETURN and meets the rules of others: every chain is reached by -g, so that RETURN leads back to the
// built-in chain.
//
// A verdict map has no counterpart. One of addresses becomes an ipset for each verdict in it; the elements are disjoint, so
// their order doesn't matter. One of ports becomes rules where it is small, a bitmap for each verdict where there are few
// verdicts, else a tree of chains behind a bitmap of all its ports.
//
// TCPReset and Unreachable become a label of the connection, RejectLabel, since mangle can't answer; table filter answers
// what is labelled, and table security drops it should the jump in filter be lost. Without such a verdict neither table is
// touched. Table raw can't have one.
//
// Be aware: nothing is executed here. A labelled TCP packet is answered by RST and any other by port-unreachable, whichever
// of the two verdicts it met; one that begins no connection (INVALID, UNTRACKED) is dropped without an answer. A table of
// iptables has one place for each hook: priorities only order quaywall's own chains.
package ipt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"quaywall/internal/ruleset"
)

// Prefix begins the names of quaywall's chains.
const Prefix = "QUAYWALL-"

// RejectLabel is the label of connection tracking (0-127) that says "to be rejected". A packet mark would be lost to whoever
// writes whole marks behind the gate, as wg-quick does ("meta mark set ct mark"), and the packet would get in; labels only
// Open vSwitch writes, in zones of its own.
const RejectLabel = 86

// labelTest is the test of RejectLabel as iptables-save prints it.
var labelTest = fmt.Sprintf(`-m connlabel --label "%d"`, RejectLabel)

// fresh are packets of a connection that isn't in the kernel's table yet, so that its labels are of this very packet. That
// leaves the answers out, which belong to the same connection.
const fresh = "-m conntrack --ctstate NEW ! --ctstatus CONFIRMED"

// The chains that have no counterpart in a ruleset.
const (
	rejectChain = Prefix + "REJECT" // in mangle it labels, in filter it answers, in security it drops
	RawChain    = Prefix + "RAW"    // the rules of Raw.IPTables
)

// Rules is a ruleset in the words of iptables and ipset.
type Rules struct {
	Sets       []Set // of both families, sorted by name
	IPv4, IPv6 Family
}

// Family is the tables of one family, those that the policy doesn't use without chains.
type Family struct {
	Family                        ruleset.Family
	Raw, Mangle, Filter, Security Table
}

// Table is quaywall's chains in one table, and the jumps to them that must stand first in built-in chains.
type Table struct {
	Name   string
	Chains []Chain // sorted by name
	Jumps  []Jump  // in the order in which they must stand
}

// Chain is a chain of quaywall's.
type Chain struct {
	Name  string
	Rules []Rule
}

// Rule is what stands behind "-A CHAIN" in a payload.
type Rule struct{ Spec string }

// Jump is a rule of a built-in chain.
type Jump struct {
	From string // the built-in chain
	Spec string // as iptables-save prints it
}

// Render turns a ruleset into rules and sets. It takes what a compiler writes: one table. The error names the chain and the
// rule that iptables has no words for.
func Render(rs *ruleset.Ruleset) (*Rules, error) {
	if len(rs.Tables) != 1 {
		return nil, fmt.Errorf("iptables: a ruleset of one table is needed, there are %d", len(rs.Tables))
	}
	raw, err := parseRaw(rs.Raw.IPTables)
	if err != nil {
		return nil, err
	}
	sets := setList{sets: map[string]Set{}, known: map[string]string{}}
	out := &Rules{}
	for _, f := range []struct {
		family ruleset.Family
		to     *Family
	}{{ruleset.IPv4, &out.IPv4}, {ruleset.IPv6, &out.IPv6}} {
		if *f.to, err = renderFamily(f.family, &rs.Tables[0], raw, sets); err != nil {
			return nil, fmt.Errorf("iptables (%s): %w", f.family, err)
		}
	}
	out.Sets = sets.sorted()
	return out, nil
}

// EmptyFamily is a family without chains: its payload takes away what is there.
func EmptyFamily(f ruleset.Family) Family {
	return Family{Family: f, Raw: Table{Name: "raw"}, Mangle: Table{Name: "mangle"}, Filter: Table{Name: "filter"},
		Security: Table{Name: "security"}}
}

// renderFamily lowers what a table says about one family.
func renderFamily(family ruleset.Family, t *ruleset.Table, raw []rawRule, sets setList) (Family, error) {
	f := EmptyFamily(family)
	if t.Family != ruleset.Inet && t.Family != family {
		return f, nil
	}
	early, err := f.Raw.fill(family, t, sets)
	if err != nil {
		return f, err
	}
	if early.rejects {
		return f, errors.New("a packet can't be rejected in front of connection tracking, only dropped")
	}
	gate, err := f.Mangle.fill(family, t, sets)
	if err != nil {
		return f, err
	}
	if gate.rejects {
		f.addReject()
	}
	f.addRaw(raw, gate.rejects)
	f.Mangle.sort()
	return f, nil
}

// fill lowers the base chains that belong into a table of iptables, and the chains that they lead to. A chain that is
// reached from two tables is written into both.
func (to *Table) fill(family ruleset.Family, t *ruleset.Table, sets setList) (*lowering, error) {
	l, err := newLowering(family, t, sets)
	if err != nil {
		return nil, err
	}
	for _, c := range baseChains(t) {
		table, hook, err := builtin(c.Base)
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", c.Name, err)
		}
		if table == to.Name {
			to.Jumps = append(to.Jumps, Jump{hook, "-j " + l.need(c.Name, place{})})
		}
	}
	to.Chains, err = l.all()
	to.sort()
	return l, err
}

// sort orders the chains by name; the payload doesn't need an order, a reader does.
func (t *Table) sort() {
	slices.SortFunc(t.Chains, func(a, b Chain) int { return cmp.Compare(a.Name, b.Name) })
}

// baseChains are the table's base chains by hook and priority.
func baseChains(t *ruleset.Table) []ruleset.Chain {
	var base []ruleset.Chain
	for _, c := range t.Chains {
		if c.Base != nil {
			base = append(base, c)
		}
	}
	slices.SortStableFunc(base, func(a, b ruleset.Chain) int {
		return cmp.Or(cmp.Compare(a.Base.Hook, b.Base.Hook), cmp.Compare(a.Base.Priority, b.Base.Priority))
	})
	return base
}

// builtins are the chains of iptables that stand for hooks.
var builtins = map[ruleset.Hook]string{ruleset.Prerouting: "PREROUTING", ruleset.Input: "INPUT", ruleset.Forward: "FORWARD",
	ruleset.Output: "OUTPUT", ruleset.Postrouting: "POSTROUTING"}

// builtin is the table and the chain that stand for a hook and a priority. In prerouting it matters on which side of
// defragmentation (-400), of connection tracking (-200) and of DNAT (-100) a chain judges: raw is between the first two,
// mangle between the last.
func builtin(b *ruleset.Base) (table, chain string, err error) {
	chain, ok := builtins[b.Hook]
	switch {
	case !ok:
		return "", "", fmt.Errorf("unknown hook %d", b.Hook)
	case b.Hook == ruleset.Prerouting && -400 < b.Priority && b.Priority < -200:
		return "raw", chain, nil
	case b.Hook == ruleset.Prerouting && (b.Priority <= -200 || b.Priority >= -100):
		return "", "", fmt.Errorf("priority %d in prerouting: table raw serves those between -400 and -200, table mangle those "+
			"between -200 and -100, and none serves others", b.Priority)
	}
	return "mangle", chain, nil
}

// addReject adds what the label means: an answer in filter and, behind it, a drop in security. What can't be labelled is
// dropped at once.
func (f *Family) addReject() {
	unreachable := "icmp-port-unreachable"
	if f.Family == ruleset.IPv6 {
		unreachable = "icmp6-port-unreachable"
	}
	f.Mangle.Chains = append(f.Mangle.Chains, Chain{rejectChain, []Rule{{fresh + " " + labelTest + " --set -j RETURN"}, {"-j DROP"}}})
	f.Filter.Chains = []Chain{{rejectChain, []Rule{
		{"-p tcp " + labelTest + " -j REJECT --reject-with tcp-reset"},
		{labelTest + " -j REJECT --reject-with " + unreachable},
	}}}
	f.Security.Chains = []Chain{{rejectChain, []Rule{{labelTest + " -j DROP"}}}}
	for _, hook := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		jump := Jump{hook, fresh + " -j " + rejectChain}
		f.Filter.Jumps = append(f.Filter.Jumps, jump)
		f.Security.Jumps = append(f.Security.Jumps, jump)
	}
}

// addRaw adds the hand-written rules. Their jump stands behind the gate's, where a packet comes to only if the gate let it
// go, and it passes over those that go on to be rejected.
func (f *Family) addRaw(raw []rawRule, rejects bool) {
	if len(raw) == 0 {
		return
	}
	chain := Chain{Name: RawChain}
	if rejects {
		chain.Rules = []Rule{{labelTest + " -j RETURN"}}
	}
	for _, r := range raw {
		if r.family == ruleset.Inet || r.family == f.Family {
			chain.Rules = append(chain.Rules, Rule{r.spec})
		}
	}
	f.Mangle.Chains = append(f.Mangle.Chains, chain)
	last := 0
	for i, j := range f.Mangle.Jumps {
		if j.From == "PREROUTING" {
			last = i + 1
		}
	}
	f.Mangle.Jumps = slices.Insert(f.Mangle.Jumps, last, Jump{"PREROUTING", "-j " + RawChain})
}
