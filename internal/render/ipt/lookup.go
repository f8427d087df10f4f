package ipt

import (
	"errors"
	"fmt"
	"iter"
	"math"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// How a map of ports is written depends on its size. Measured per packet: …
const (
	fewPorts     = 16 // as many elements are a rule each
	maxPortSets  = 4  // as many verdicts are a bitmap each
	maxPortRules = 32 // as many elements are a rule each where there are more verdicts, and in a leaf of the tree
	maxFanOut    = 8  // of the nodes above the leaves
)

// lookup adds the actions of a look-up. A rule that counts for a policy line counts before the look-up, for it counts what
// the map doesn't hold too; the elements count for their own lines.
func (b *body) lookup(o *outcome, r ruleset.Rule, c *condition) error {
	m, ok := b.l.maps[r.Lookup.Map]
	if !ok {
		return fmt.Errorf("there is no map %q", r.Lookup.Map)
	}
	if r.Origin.Line != "" && r.Counter {
		o.actions = append(o.actions, action{comment: r.Origin.Comment()})
		o.comment = ""
	}
	var more []action
	var err error
	switch r.Lookup.By {
	case ruleset.Src, ruleset.Dst:
		more, err = b.addressLookup(m, r.Lookup.By)
	case ruleset.DstPort:
		more, err = b.portLookup(m, c)
	default:
		err = fmt.Errorf("a map can't be asked for %s", r.Lookup.By)
	}
	o.actions = append(o.actions, more...)
	return err
}

// group is the elements of a map that have one verdict.
type group struct {
	verdict  ruleset.Verdict
	elements []*ruleset.Element
}

// groups sorts the elements of a map by verdict, in the order of their first elements.
func groups(m *ruleset.Map) []*group {
	var all []*group
	index := map[ruleset.Verdict]*group{}
	for i := range m.Elements {
		e := &m.Elements[i]
		g := index[e.Verdict]
		if g == nil {
			g = &group{verdict: e.Verdict}
			index[e.Verdict] = g
			all = append(all, g)
		}
		g.elements = append(g.elements, e)
	}
	return all
}

// verdictTarget is the target of an element.
func (b *body) verdictTarget(m *ruleset.Map, v ruleset.Verdict) (string, error) {
	switch v.Kind {
	case ruleset.Drop, ruleset.Accept, ruleset.Jump, ruleset.Goto:
		return b.target(v)
	}
	return "", fmt.Errorf("map %s: %q can't be the verdict of an element", m.Name, v.Kind)
}

// addressLookup is a set for each verdict.
func (b *body) addressLookup(m *ruleset.Map, by ruleset.Field) ([]action, error) {
	family := map[ruleset.Key]ruleset.Family{ruleset.Addr4: ruleset.IPv4, ruleset.Addr6: ruleset.IPv6}[m.Key]
	if family == ruleset.Inet {
		return nil, fmt.Errorf("map %s doesn't hold addresses", m.Name)
	}
	if family != b.l.family {
		return nil, nil
	}
	return b.setLookup(m, by, func(elements []*ruleset.Element) Set {
		return Set{Kind: Nets, Family: family, Entries: addressElements(elements)}
	})
}

// setLookup is a set, counting, for each verdict of a map.
func (b *body) setLookup(m *ruleset.Map, by ruleset.Field, make func([]*ruleset.Element) Set) ([]action, error) {
	var actions []action
	for i, g := range groups(m) {
		target, err := b.verdictTarget(m, g.verdict)
		if err != nil {
			return nil, err
		}
		set := make(g.elements)
		set.Counters = true
		name := b.l.sets.once(fmt.Sprint("map ", i, m.Name), m.Name, set)
		actions = append(actions, action{match: matchSet(name, direction(by), false), target: target})
	}
	return actions, nil
}

func addressElements(elements []*ruleset.Element) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, e := range elements {
			text := elementComment(e.Origin.Comment())
			for _, p := range appendPrefixes(nil, e.Addrs) {
				if !yield(Entry{Net: p, Comment: text}) {
					return
				}
			}
		}
	}
}

func portElements(elements []*ruleset.Element) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, e := range elements {
			if !yield(Entry{Ports: e.Ports, Comment: elementComment(e.Origin.Comment())}) {
				return
			}
		}
	}
}

// portLookup is a rule for each element, a bitmap for each verdict, or a tree of chains. The kernel's bitmaps know ports
// of TCP and UDP only.
func (b *body) portLookup(m *ruleset.Map, c *condition) ([]action, error) {
	if m.Key != ruleset.Port {
		return nil, fmt.Errorf("map %s doesn't hold ports", m.Name)
	}
	if !c.proto.given || c.proto.not {
		return nil, errors.New("ports are looked up without a protocol")
	}
	switch {
	case len(m.Elements) <= fewPorts || c.transportMatch() == "":
		return b.portRules(m, m.Elements)
	case len(groups(m)) <= maxPortSets:
		return b.setLookup(m, ruleset.DstPort, func(elements []*ruleset.Element) Set {
			return Set{Kind: PortBits, Entries: portElements(elements)}
		})
	case len(m.Elements) <= maxPortRules:
		return b.portRules(m, m.Elements)
	}
	tree, err := b.tree(m, c)
	if err != nil {
		return nil, err
	}
	// Only packets that the tree has a leaf for may go into it: from there is no way back to the next rule.
	all := b.l.sets.add(m.Name, Set{Kind: PortBits, Entries: portEntries(elementPorts(m.Elements))})
	return []action{{match: matchSet(all, "dst", false), target: "-g " + tree}}, nil
}

func elementPorts(elements []ruleset.Element) []netset.Ports {
	var ports []netset.Ports
	for _, e := range elements {
		ports = append(ports, e.Ports)
	}
	return netset.JoinPorts(ports)
}

// portRules is a rule for each element.
func (b *body) portRules(m *ruleset.Map, elements []ruleset.Element) ([]action, error) {
	var actions []action
	for _, e := range elements {
		target, err := b.verdictTarget(m, e.Verdict)
		if err != nil {
			return nil, err
		}
		actions = append(actions, action{
			ports:   &ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{e.Ports}},
			target:  target,
			comment: e.Origin.Comment(),
		})
	}
	return actions, nil
}

// tree writes the search tree of a map for a protocol, once for each place that its verdicts come back to, and gives the
// name of its root.
func (b *body) tree(m *ruleset.Map, c *condition) (string, error) {
	key := fmt.Sprintf("%s.%s.", protocolName(c.proto.number), b.end.chain)
	for _, g := range groups(m) {
		if g.verdict.Kind == ruleset.Jump {
			key += b.after().chain + "."
			break
		}
	}
	if root, ok := b.l.trees[m.Name+" "+key]; ok {
		return root, nil
	}
	t := &treeBuilder{body: b, m: m, proto: c.transport(), fanOut: fanOut(len(m.Elements)), key: key}
	root, err := t.node(m.Elements)
	b.l.trees[m.Name+" "+key] = root
	return root, err
}

// fanOut spreads elements over as few levels above the leaves as maxFanOut allows, and evenly.
func fanOut(elements int) int {
	leaves := math.Ceil(float64(elements) / maxPortRules)
	for levels := 1.0; ; levels++ {
		if f := math.Ceil(math.Pow(leaves, 1/levels)); f <= maxFanOut {
			return max(int(f), 2)
		}
	}
}

type treeBuilder struct {
	*body
	m      *ruleset.Map
	proto  *condition
	fanOut int
	key    string
	nodes  int
}

// node writes the chain that decides among elements, sorted ones, and gives its name. Above the leaves a test for the upper
// end is enough: lower ports have left by the rules before it, and every port has a leaf.
func (t *treeBuilder) node(elements []ruleset.Element) (string, error) {
	t.nodes++
	ch := t.l.open(derivedName(chainName(t.m.Name), fmt.Sprintf("%s%d", t.key, t.nodes)))
	if len(elements) <= maxPortRules {
		actions, err := t.portRules(t.m, elements)
		if err != nil {
			return "", err
		}
		return ch.Name, t.direct(ch, t.proto, outcome{actions: actions})
	}
	for i := range t.fanOut {
		part := elements[len(elements)*i/t.fanOut : len(elements)*(i+1)/t.fanOut]
		child, err := t.node(part)
		if err != nil {
			return "", err
		}
		branch := action{target: "-g " + child}
		if i < t.fanOut-1 {
			upTo := netset.Ports{Last: part[len(part)-1].Ports.Last}
			branch.ports = &ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{upTo}}
		}
		if err := t.direct(ch, t.proto, outcome{actions: []action{branch}}); err != nil {
			return "", err
		}
	}
	return ch.Name, nil
}
