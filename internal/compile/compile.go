package compile

import (
	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// Options are what the policy doesn't say.
type Options struct {
	PickUp   bool   // let TCP connections of containers go on that ran before the first apply, untracked (design trap 38)
	LogGroup uint16 // NFLOG group for denied packets and rules with log
	Cut      Cut    // live connections that the policy ends

	// Observe has everything judged, counted and logged, and nothing denied. Hand-written rules are left out, since nobody
	// knows what they deny, and so is Cut.
	Observe bool
}

// TableName is the name of the table.
const TableName = "quaywall"

// The priorities of the base chains: behind the putting together of fragments (-400) and in front of connection tracking
// (-200); right behind mangle, so that hand-written mangle rules come first; before filter.
const (
	earlyPriority    = -300
	gatePriority     = -149
	manyPriority     = -149
	directPriority   = -10
	outboundPriority = -149
)

// Compile gives the ruleset of a policy on a host, with warnings about what the policy says and the host doesn't have.
// With errors in the list there is no ruleset.
func Compile(p *policy.Policy, inv *inventory.Inventory, o Options) (*ruleset.Ruleset, diag.List) {
	list := check(p, inv)
	if o.Observe {
		o.Cut = Cut{}
		list = append(list, leftOut(p.Raw)...)
	}
	list.Sort()
	if list.HasErrors() {
		return nil, list
	}
	c := &compiler{policy: p, inv: inv, options: o, names: names{}, lists: map[string]*addrSet{}, maps: map[string]int{}}
	c.prepareSets()
	if !o.Observe { // the gate judges what would be dropped there as well, and nothing is to be counted twice
		c.early()
	}
	c.gate()
	c.many()
	c.direct()
	c.outbound()
	rs := &ruleset.Ruleset{Tables: []ruleset.Table{c.result()}}
	if !o.Observe {
		rs.Raw = ruleset.Raw{NFT: p.Raw.NFT.Text, IPTables: p.Raw.IPTables.Text}
	}
	return rs, list
}

// compiler collects the table. Chains are kept in the order in which they are made, base chains before those they lead to.
type compiler struct {
	policy  *policy.Policy
	inv     *inventory.Inventory
	options Options

	chains  []*ruleset.Chain
	sets    []ruleset.Set
	lookups []ruleset.Map
	names   names

	userSets map[string]*addrSet // the policy's sets by name
	lists    map[string]*addrSet // long inline lists by their content
	maps     map[string]int      // index in lookups by what the map holds
	actions  actions
	bridges  string // name of the set of Docker's bridges, once made
}

// chain begins a chain.
func (c *compiler) chain(name string, base *ruleset.Base) *ruleset.Chain {
	ch := &ruleset.Chain{Name: c.names.claim(name), Base: base}
	c.chains = append(c.chains, ch)
	return ch
}

// set adds a set and gives its name.
func (c *compiler) set(s ruleset.Set) string {
	s.Name = c.names.claim(s.Name)
	c.sets = append(c.sets, s)
	return s.Name
}

func (c *compiler) result() ruleset.Table {
	t := ruleset.Table{Family: ruleset.Inet, Name: TableName, Sets: c.sets, Maps: c.lookups}
	for _, ch := range c.chains {
		t.Chains = append(t.Chains, *ch)
	}
	t.Prune()
	return t
}

// add appends rules to a chain.
func add(ch *ruleset.Chain, rules ...ruleset.Rule) { ch.Rules = append(ch.Rules, rules...) }

// passes is a rule on what passes whatever the policy says; note is what it is for. It doesn't count: most packets of a
// host meet the first of these.
func passes(note string, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: matches, Verdict: accept, Origin: ruleset.Origin{Note: note}}
}

// refused is a rule on what is dropped whatever the policy says.
func (c *compiler) refused(note string, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: matches, Counter: true, Verdict: c.deny(), Origin: c.always(note)}
}

// leads is a rule that sends packets to another chain.
func leads(chain, note string, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: matches, Verdict: toChain(chain), Origin: ruleset.Origin{Note: note}}
}

func toChain(name string) ruleset.Verdict { return ruleset.Verdict{Kind: ruleset.Goto, Chain: name} }

var accept = ruleset.Verdict{Kind: ruleset.Accept}
