package nftjson

import (
	"fmt"
	"math"
	"slices"

	"quaywall/internal/netfilter"
)

// rule is a rule that is being read, statement by statement.
type rule struct {
	p       *parser
	names   chainKey
	table   *netfilter.Table
	family  uint64 // of its packets as far as its matches tell, NFPROTO_*
	proto   uint64
	rule    netfilter.Rule
	chain   *netfilter.Chain
	matches []netfilter.Match
	actions []netfilter.Action
	acted   bool      // one of the actions is more than a note
	parts   []operand // that are looked at: room for operands
}

// rule reads a rule.
func (p *parser) rule(n *node) {
	names := chainKey{n.str("family"), n.str("table"), n.str("chain")}
	r := &p.reading
	*r = rule{p: p, names: names, chain: p.chainOf(names.family, names.table, names.name), table: p.tableOf(names.family, names.table),
		matches: r.matches[:0], actions: r.actions[:0], parts: r.parts[:0]}
	number := 1
	if last := len(r.chain.Rules); last > 0 {
		number = r.chain.Rules[last-1].Number + 1
	}
	expr := n.get("expr")
	r.rule = netfilter.Rule{Number: number, Handle: n.uint("handle"), Comment: n.str("comment"), Line: p.lineAt(p.begins), Text: ruleText(expr)}
	for s := range expr.each {
		if key, v := s.only(); key != "" || !s.isCut() {
			r.statement(key, v)
		}
	}
	if n.isCut() || expr == nil {
		r.opaque("(cut short)")
		r.act(netfilter.OpaqueAction{Text: "(cut short)"})
	}
	r.emit()
}

// nfproto is the family of the packets that the rule is about, 0 where it may be any.
func (r *rule) nfproto() uint64 {
	if r.table != nil {
		switch r.table.Family {
		case netfilter.IPv4:
			return nfprotoIPv4
		case netfilter.IPv6:
			return nfprotoIPv6
		}
	}
	return r.family
}

// is is the match that a field has a value.
func (p *parser) is(n need) netfilter.Match {
	m, ok := p.needs[n]
	if !ok {
		m = netfilter.Compare{Field: n.field, Values: netfilter.Values{Numbers: one(n.value)}}
		p.needs[n] = m
	}
	return m
}

func (r *rule) act(a netfilter.Action) {
	if _, note := a.(netfilter.Note); !note {
		r.acted = true
	}
	r.actions = append(r.actions, a)
}

// separate ends the part of a rule that has acted, before a match that the action doesn't depend on.
func (r *rule) separate() {
	if !r.acted {
		return
	}
	// Where the matches before would be asked anew, and say something else, the rest is in doubt.
	doubt := slices.ContainsFunc(r.actions, func(a netfilter.Action) bool {
		f := assigned(a)
		return f != netfilter.NoField && slices.ContainsFunc(r.matches, func(m netfilter.Match) bool { return asks(m, f) })
	})
	r.emit()
	r.actions, r.acted = r.actions[:0], false
	if doubt {
		r.matches = append(r.matches, netfilter.Opaque{Text: "(what the rule itself has changed)"})
	}
}

// assigned is the field that an action writes.
func assigned(a netfilter.Action) netfilter.Field {
	if a, ok := a.(netfilter.Assign); ok {
		return a.Field
	}
	return netfilter.NoField
}

func asks(m netfilter.Match, f netfilter.Field) bool {
	switch m := m.(type) {
	case netfilter.Compare:
		return m.Field == f
	case netfilter.In:
		return slices.Contains(m.Fields, f)
	}
	return false
}

// emit adds the rule, as far as it was read, to its chain.
func (r *rule) emit() {
	part := r.rule
	part.Matches, part.Actions = append([]netfilter.Match(nil), r.matches...), append([]netfilter.Action(nil), r.actions...)
	r.chain.Rules = append(r.chain.Rules, &part)
}

// statement reads one statement. What it isn't able to read is an OpaqueAction.
func (r *rule) statement(key string, v *node) {
	if verdict, ok := verdictOf(key, v); ok {
		r.act(verdict)
		return
	}
	switch key {
	case "match":
		r.match(v)
	case "counter":
		if c := count(v); c != nil {
			r.rule.Count = c
		}
	case "limit", "quota", "ct count":
		r.stateful(key, v)
	case "log":
		r.act(logOf(v))
	case "reject":
		r.reject(v)
	case "dnat", "snat", "masquerade", "redirect":
		r.translate(key, v)
	case "tproxy":
		r.tproxy(v)
	case "mangle":
		r.mangle(v)
	case "notrack":
		r.act(netfilter.Untrack{})
	case "queue":
		r.act(netfilter.Verdict{Kind: netfilter.Queue})
	case "vmap":
		r.vmap(v)
	case "set":
		r.update(v)
	case "meter":
		r.stateful(key, v)
	case "flow", "dup", "last", "map", "ct helper", "ct timeout", "ct expectation", "reset", "secmark":
		r.act(netfilter.Note{Text: statementText(key, v)})
	case "xt":
		r.xt(v)
	default:
		r.act(netfilter.OpaqueAction{Text: statementText(key, v)})
	}
}

// verdictOf reads a verdict, as a statement or in a map.
func verdictOf(key string, v *node) (netfilter.Verdict, bool) {
	switch key {
	case "accept":
		return netfilter.Verdict{Kind: netfilter.Accept}, true
	case "drop":
		return netfilter.Verdict{Kind: netfilter.Drop}, true
	case "continue":
		return netfilter.Verdict{Kind: netfilter.Continue}, true
	case "return":
		return netfilter.Verdict{Kind: netfilter.Return}, true
	case "jump":
		return netfilter.Verdict{Kind: netfilter.Jump, Chain: v.str("target")}, v.str("target") != ""
	case "goto":
		return netfilter.Verdict{Kind: netfilter.Goto, Chain: v.str("target")}, v.str("target") != ""
	}
	return netfilter.Verdict{}, false
}

// stateful reads what holds for some packets and not for others. One that is over a limit comes seldom, and is never the first.
func (r *rule) stateful(kind string, v *node) {
	over := v.isTrue("inv")
	switch {
	case kind == "meter":
		_, limit := v.get("stmt").only()
		over = limit.isTrue("inv")
	case v.kind == str:
		over = !r.p.stateful[chainKey{r.names.family, r.names.table, v.text}]
	}
	r.add(netfilter.Stateful{Kind: kind, Text: statementText(kind, v), Fresh: !over})
}

func logOf(v *node) netfilter.Action {
	l := netfilter.Log{Prefix: v.str("prefix")}
	if v.get("group") != nil {
		group := uint16(v.uint("group"))
		l.Group = &group
	}
	return l
}

// reject reads an answer. nft leaves out that one by ICMP is for packets of its family.
func (r *rule) reject(v *node) {
	with := v.str("type")
	switch with {
	case "icmp":
		r.needs(needIPv4)
	case "icmpv6":
		r.needs(needIPv6)
	case "tcp reset":
		r.needs(needProto(6))
	}
	if code := v.str("expr"); code != "" {
		with += " " + code
	}
	r.act(netfilter.Reject{With: with})
}

// xt is something of xtables, of which nft knows the name alone.
func (r *rule) xt(v *node) {
	switch v.str("type") {
	case "match":
		r.opaque(statementText("xt", v))
	case "watcher":
		r.act(netfilter.Note{Text: statementText("xt", v)})
	default:
		r.act(netfilter.OpaqueAction{Text: statementText("xt", v)})
	}
}

// vmap reads a look-up of a verdict. By what isn't a field, such as a random number, each of its verdicts is a rule that may
// hold.
func (r *rule) vmap(v *node) {
	parts, ok := r.operands(v.get("key"))
	data := v.get("data")
	if data == nil {
		r.act(netfilter.OpaqueAction{Text: statementText("vmap", v)})
		return
	}
	if ok && parts[0].stateful == "" && allPlain(parts) {
		if name, elements, ok := r.mapOf(data, parts); ok {
			r.require(parts)
			r.act(netfilter.Lookup{Fields: fields(parts), Map: name, Elements: elements})
			return
		}
	}
	text := statementText("vmap", v)
	elements := r.elementsOf(data)
	var may netfilter.Match = netfilter.Opaque{Text: text}
	all := false
	if ok && parts[0].stateful != "" {
		r.require(parts)
		may = netfilter.Stateful{Kind: parts[0].stateful, Text: text}
		_, number := v.get("key").only()
		all = number.uint("mod") > 0 && uint64(len(elements)) >= number.uint("mod")
	}
	r.either(may, elements, all, text)
}

// either is rules of which one holds, one for each verdict. Where there is a verdict for all packets the last of them takes
// what the others leave.
func (r *rule) either(may netfilter.Match, elements []netfilter.Element, all bool, text string) {
	var verdicts []netfilter.Verdict
	for _, e := range elements {
		if e.Verdict == nil {
			verdicts = nil
			break
		}
		if !slices.Contains(verdicts, *e.Verdict) {
			verdicts = append(verdicts, *e.Verdict)
		}
	}
	if len(verdicts) == 0 {
		r.act(netfilter.OpaqueAction{Text: text})
		return
	}
	r.separate()
	before := len(r.matches)
	for i, verdict := range verdicts {
		last := i == len(verdicts)-1
		if r.matches = r.matches[:before]; !last || !all {
			r.add(may)
		}
		r.act(verdict)
		if !last {
			r.emit()
			r.actions, r.acted = r.actions[:0], false
		}
	}
}

// elementsOf are the elements of a map, or at least what they lead to.
func (r *rule) elementsOf(data *node) []netfilter.Element {
	if s := r.setOf(data); s != nil {
		return s.Elements
	}
	return r.targets(data)
}

// setOf is the set of the table that an expression names.
func (r *rule) setOf(n *node) *netfilter.Set {
	if n.kind != str || len(n.text) < 2 || n.text[0] != '@' {
		return nil
	}
	return r.table.Set(n.text[1:])
}

// targets are what the elements of a map without a name lead to, whatever their keys are.
func (r *rule) targets(data *node) []netfilter.Element {
	_, set := data.only()
	var all []netfilter.Element
	for n := range set.each {
		e := netfilter.Element{}
		if _, to, ok := n.pair(); ok && r.p.target(&e, to, nil) {
			all = append(all, e)
		}
	}
	return all
}

// mapOf reads the map of a look-up: its name, or its elements where it has none.
func (r *rule) mapOf(data *node, parts []operand) (name string, elements []netfilter.Element, ok bool) {
	if data.kind == str {
		return data.text[min(1, len(data.text)):], nil, len(data.text) > 1 && data.text[0] == '@'
	}
	key, set := data.only()
	if key != "set" {
		return "", nil, false
	}
	elements, ok = r.elements(parts, set)
	return "", elements, ok
}

// translate reads a translation of addresses.
func (r *rule) translate(key string, v *node) {
	t := netfilter.Translate{Kind: map[string]netfilter.NATKind{"dnat": netfilter.DNAT, "snat": netfilter.SNAT,
		"masquerade": netfilter.Masquerade, "redirect": netfilter.Redirect}[key]}
	for _, flags := range []string{"flags", "type_flags"} {
		for f := range v.get(flags).each {
			switch f.text {
			case "random", "fully-random":
				t.Random = true
			case "prefix", "netmap":
				t.Kind = netfilter.Netmap
			}
		}
	}
	switch v.str("family") {
	case "ip":
		r.needs(needIPv4)
	case "ip6":
		r.needs(needIPv6)
	}
	if !r.translateTo(&t, v.get("addr"), true) || !r.translateTo(&t, v.get("port"), false) {
		r.act(netfilter.OpaqueAction{Text: statementText(key, v)})
		return
	}
	r.act(t)
}

// translateTo reads where a translation takes its address or its port from.
func (r *rule) translateTo(t *netfilter.Translate, n *node, addr bool) bool {
	if n == nil {
		return true
	}
	if key, v := n.only(); key == "map" {
		return r.translateBy(t, v, addr)
	}
	typ := typeNumber
	if addr {
		typ = guessOne(n)
	}
	v, ok := r.p.valueOf(n, typ)
	if addr {
		t.Addrs = v
	} else {
		t.Ports = v.Numbers
	}
	return ok && (typ.kind == netfilter.Address) == addr
}

// translateBy reads a translation by a map. By what isn't a field, it is to any of the map's values.
func (r *rule) translateBy(t *netfilter.Translate, n *node, addr bool) bool {
	data := n.get("data")
	parts, ok := r.operands(n.get("key"))
	if data == nil {
		return false
	}
	if ok && parts[0].stateful == "" && allPlain(parts) && t.Fields == nil {
		if t.Map, t.Elements, ok = r.mapOf(data, parts); ok {
			r.require(parts)
			t.Fields = fields(parts)
			return true
		}
	}
	elements := r.elementsOf(data)
	if len(elements) == 0 || !addr && len(elements[0].To) > 1 {
		return false
	}
	if !addr {
		t.Ports = allOf(elements, 0).Numbers
		return true
	}
	t.Addrs, t.Ports = allOf(elements, 0), allOf(elements, 1).Numbers
	return !t.Addrs.Addrs.IsEmpty()
}

// tproxy reads the hand-over to a socket of this host.
func (r *rule) tproxy(v *node) {
	t := netfilter.Translate{}
	if !r.translateTo(&t, v.get("addr"), true) || !r.translateTo(&t, v.get("port"), false) || len(t.Ports) > 1 || t.Fields != nil ||
		len(t.Ports) == 1 && (t.Ports[0].First != t.Ports[0].Last || t.Ports[0].Last > math.MaxUint16) {
		r.act(netfilter.OpaqueAction{Text: statementText("tproxy", v)})
		return
	}
	p := netfilter.TProxy{Addrs: t.Addrs}
	if len(t.Ports) == 1 {
		p.Port = uint16(t.Ports[0].First)
	}
	r.act(p)
}

// update reads what adds a packet's fields to a set, or takes them out. With a limit of its own the rule goes on only where
// that holds.
func (r *rule) update(v *node) {
	elem, _ := unwrap(v.get("elem"))
	parts, ok := r.operands(elem)
	set := v.str("set")
	if !ok || len(set) < 2 {
		r.act(netfilter.OpaqueAction{Text: statementText("set", v)})
		return
	}
	r.require(parts)
	r.act(netfilter.Update{Fields: fields(parts), Set: set[1:], Delete: v.str("op") == "delete"})
	for s := range v.get("stmt").each {
		switch key, inner := s.only(); key {
		case "limit", "quota", "ct count":
			r.stateful(key, inner)
		}
	}
}

// mangle reads what writes a field.
func (r *rule) mangle(v *node) {
	key, value := v.get("key"), v.get("value")
	switch kind, inner := key.only(); {
	case kind == "tcp option" || kind == "exthdr", kind == "meta" && inner.str("key") == "nftrace", kind == "meta" && inner.str("key") == "secmark",
		kind == "ct" && slices.Contains([]string{"event", "secmark", "helper"}, inner.str("key")):
		r.act(netfilter.Note{Text: statementText("mangle", v)})
		return
	}
	to, ok := r.operand(key)
	if !ok || value == nil || !to.isPlain() || !r.assign(to, value) {
		r.act(netfilter.OpaqueAction{Text: statementText("mangle", v)})
	}
}

// widths are the bits of the fields that can be written. A label is a bit that is set, and known by its number.
var widths = map[netfilter.Field]uint64{netfilter.Mark: math.MaxUint32, netfilter.CtMark: math.MaxUint32, netfilter.CtZone: math.MaxUint16,
	netfilter.CtLabel: 0, netfilter.Priority: math.MaxUint32, netfilter.DSCP: 0x3f, netfilter.ECN: 3, netfilter.TTL: 0xff}

// assign reads what a field becomes: a constant, itself under a mask, or another mark.
func (r *rule) assign(to operand, value *node) bool {
	width, ok := widths[to.field]
	if !ok {
		return false
	}
	a := netfilter.Assign{Field: to.field, Mask: width}
	if c, ok := to.typ.constant(value); ok {
		a.Value = c
		r.require([]operand{to})
		r.act(a)
		return true
	}
	from, ok := r.operand(value)
	if !ok || from.shift != 0 || from.stateful != "" || from.typ.kind != netfilter.Number {
		return false
	}
	r.require([]operand{to, from})
	if from.field == to.field {
		a.Mask, a.Value = ^from.mask&a.Mask, from.xor
		r.act(a)
		return true
	}
	a.From, a.FromMask = from.field, from.mask&math.MaxUint32
	r.act(a)
	if from.xor != 0 {
		r.act(netfilter.Assign{Field: to.field, Value: from.xor})
	}
	return true
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
