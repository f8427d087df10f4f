package nftjson

import (
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
)

// set reads a set or a map of a table.
func (p *parser) set(n *node) {
	family, table, name := n.str("family"), n.str("table"), n.str("name")
	types, text := setTypes(n.get("type"))
	s := &netfilter.Set{Name: name, Family: families[family], Type: text}
	t := p.tableOf(family, table)
	t.Sets = append(t.Sets, s)
	for _, typ := range types {
		s.Parts = append(s.Parts, typ.kind)
	}
	to, toText := setTypes(n.get("map"))
	if n.get("map") != nil {
		s.Maps = true
		s.Type += " : " + toText
		if toText != "verdict" {
			types = append(types, to...)
		}
	}
	p.named[setKey{family, table, name}] = types
	for flag := range n.get("flags").each {
		s.Dynamic = s.Dynamic || flag.text == "dynamic" || flag.text == "timeout"
	}
	p.fill(s, types, n.get("elem"))
	if n.isCut() {
		s.Unread = "it is cut short"
	}
}

// more reads elements that are listed apart from their set.
func (p *parser) more(n *node) {
	s := p.tableOf(n.str("family"), n.str("table")).Set(n.str("name"))
	if s == nil {
		p.problem("there are elements of a set that isn't there", "")
		return
	}
	p.fill(s, p.named[setKey{n.str("family"), n.str("table"), n.str("name")}], n.get("elem"))
}

// setTypes reads the type of a set: one, several of a concatenation, or of newer versions the expression that it is made for.
func setTypes(n *node) (all []*datatype, text string) {
	if key, v := n.only(); key == "typeof" {
		return typeOf(v)
	}
	var names []string
	for part := range n.each {
		names = append(names, strings.Split(part.text, " . ")...)
	}
	for _, name := range names {
		all = append(all, typeNamed(name))
	}
	return all, strings.Join(names, " . ")
}

func typeNamed(name string) *datatype {
	if t := datatypes[name]; t != nil {
		return t
	}
	return typeNumber
}

// typeOf reads the expressions that a set is made for.
func typeOf(n *node) (all []*datatype, text string) {
	r := rule{}
	if parts, ok := r.operands(n); ok {
		for _, o := range parts {
			all = append(all, o.typ)
		}
		return all, expressionText(n)
	}
	return []*datatype{typeNumber}, expressionText(n)
}

// fill reads the elements of a set. Those that are just addresses are kept as ranges: there may be many.
func (p *parser) fill(s *netfilter.Set, types []*datatype, list *node) {
	parts := types[:min(len(s.Parts), len(types))]
	addrs := builder{typ: typeNumber}
	if len(parts) == 1 && !s.Maps {
		addrs.typ = parts[0]
	}
	unread := 0
	var rest []netfilter.Element // "*", which counts where nothing else does
	for n := range list.each {
		if addrs.typ.kind == netfilter.Address && isPlainAddr(n) {
			if !addrs.add(n) {
				unread++
			}
			continue
		}
		e, ok := p.element(n, types)
		switch {
		case !ok:
			unread++
		case isWildcard(n):
			rest = append(rest, e)
		default:
			s.Elements = append(s.Elements, e)
		}
	}
	s.Elements = append(s.Elements, rest...)
	s.Addrs = s.Addrs.Union(addrs.done().Addrs)
	if unread > 0 {
		s.Unread = plural(unread, "element") + " could not be read"
		p.problem("of set "+s.Name+", "+s.Unread+": what else it holds is not known", "")
	}
}

// isPlainAddr tells whether an element is values and nothing else.
func isPlainAddr(n *node) bool {
	key, _ := n.only()
	return n.kind == str || key == "prefix" || key == "range"
}

// isWildcard tells whether an element is all that no other is.
func isWildcard(n *node) bool {
	if key, _, ok := n.pair(); ok {
		n = key
	}
	value, _ := unwrap(n)
	return value != nil && value.kind == str && value.text == "*"
}

// unwrap takes an element out of what tells of it.
func unwrap(n *node) (value, about *node) {
	if key, v := n.only(); key == "elem" {
		return v.get("val"), v
	}
	return n, nil
}

// element reads an element of a set, or with a second value of a map. Types are those of its parts, then those of what it
// leads to.
func (p *parser) element(n *node, types []*datatype) (netfilter.Element, bool) {
	e := netfilter.Element{}
	key, to, isMap := n.pair()
	if !isMap {
		key = n
	}
	value, about := unwrap(key)
	if about != nil {
		e.Comment = about.str("comment")
		e.Count = count(about.get("counter"))
	}
	parts := partsOf(value)
	if len(parts) > len(types) || value == nil {
		return e, false
	}
	var ok bool
	if e.Key, ok = p.keys(parts, types); !ok {
		return e, false
	}
	if isMap {
		return e, p.target(&e, to, types[len(parts):])
	}
	return e, true
}

// partsOf are the parts of a concatenation, or one.
func partsOf(n *node) []*node {
	key, v := n.only()
	if key != "concat" {
		return []*node{n}
	}
	var all []*node
	for part := range v.each {
		all = append(all, part)
	}
	return all
}

func (p *parser) keys(parts []*node, types []*datatype) ([]netfilter.Values, bool) {
	all := make([]netfilter.Values, len(parts))
	for i, part := range parts {
		v, ok := p.valueOf(part, types[i])
		if !ok {
			return nil, false
		}
		all[i] = v
	}
	return all, true
}

// target reads what an element of a map leads to.
func (p *parser) target(e *netfilter.Element, to *node, types []*datatype) bool {
	to, _ = unwrap(to)
	if key, v := to.only(); key != "" {
		if verdict, ok := verdictOf(key, v); ok {
			e.Verdict = &verdict
			return true
		}
	}
	parts := partsOf(to)
	if len(types) == 0 {
		types = guess(parts)
	}
	if len(parts) > len(types) {
		return false
	}
	var ok bool
	e.To, ok = p.keys(parts, types)
	return ok
}

// guess finds the types of values that nothing is said of, as those of a map without a name are.
func guess(parts []*node) []*datatype {
	all := make([]*datatype, len(parts))
	for i, part := range parts {
		all[i] = guessOne(part)
	}
	return all
}

func guessOne(n *node) *datatype {
	word := n
	switch key, v := n.only(); key {
	case "prefix":
		word = v.get("addr")
	case "range":
		word, _, _ = v.pair()
	}
	switch {
	case word == nil || word.kind != str:
		return typeNumber
	case strings.Contains(word.text, ":"):
		return typeAddr6
	case strings.Contains(word.text, "."):
		return typeAddr4
	}
	return typeNumber
}

func count(n *node) *netfilter.Count {
	if n == nil || n.kind != object {
		return nil
	}
	return &netfilter.Count{Packets: n.uint("packets"), Bytes: n.uint("bytes")}
}

// allOf are all values of one part of what the elements of a map lead to, together.
func allOf(elements []netfilter.Element, part int) netfilter.Values {
	var all netfilter.Values
	var addrs netset.Builder
	for _, e := range elements {
		if part < len(e.To) {
			addrs.AddSet(e.To[part].Addrs)
			all.Numbers = append(all.Numbers, e.To[part].Numbers...)
		}
	}
	all.Addrs, _ = addrs.Set() // of sets, which are valid
	return all
}
