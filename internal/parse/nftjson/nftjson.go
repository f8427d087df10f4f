// Package nftjson reads what "nft -j list ruleset" prints (libnftables' JSON schema 1, of nftables 0.9 to 1.1) into the
// tables of package netfilter.
//
//	tables, problems := nftjson.Parse(text, "nft-ruleset.json")
//
// What isn't understood is Opaque or an OpaqueAction, and stays in its place. nft leaves matches out that follow from others
// (the protocol of "tcp dport 80", the family of "ip saddr"): they are put back. A rule that acts between its matches is
// several, with one number.
//
// Be aware: tables that iptables-nft keeps are in nft's list too, with matches and targets of xtables that nft can't show.
// Their Dialect is IPTablesNFT: where there is a dump of iptables-save, it is the one to be read. Elements that packets add
// (Set.Dynamic) are those of the moment. "ip6 nexthdr" is taken for the transport protocol, which it is for packets without
// extension headers. A flow table is a note: it carries the later packets of connections past the rules.
package nftjson

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
)

// Parse reads a listing. Whatever stands around it, and whatever is missing of it, is told; file is the name that problems
// have.
func Parse(text, file string) ([]*netfilter.Table, diag.List) {
	p := &parser{reader: reader{text: text}, file: file, tables: map[tableKey]*netfilter.Table{}, values: map[known]netfilter.Values{},
		named: map[setKey][]*datatype{}, chains: map[chainKey]*netfilter.Chain{}, stateful: map[chainKey]bool{},
		needs: map[need]netfilter.Match{}}
	p.parse()
	for _, t := range p.all {
		t.Dialect = dialect(t)
	}
	return p.all, p.problems
}

type parser struct {
	reader
	file     string
	all      []*netfilter.Table
	tables   map[tableKey]*netfilter.Table
	chains   map[chainKey]*netfilter.Chain
	named    map[setKey][]*datatype
	values   map[known]netfilter.Values
	stateful map[chainKey]bool // whether a named limit or quota holds for what is new: not those that hold above a limit
	needs    map[need]netfilter.Match
	reading  rule
	problems diag.List
	begins   int // where what is read just now begins
}

// known is a word of a type, of which the values are kept.
type known struct {
	typ  *datatype
	text string
}

type tableKey struct{ family, name string }
type chainKey struct{ family, table, name string }
type setKey chainKey

// parse goes through the objects of a listing, in whatever they are wrapped.
func (p *parser) parse() {
	garbage, found := false, false
	for {
		p.space()
		skipped := p.skip()
		if p.at == len(p.text) {
			break
		}
		garbage = garbage || skipped
		p.begins = p.at
		if p.enter() {
			found = true
			continue
		}
		n := p.value(0)
		key, v := n.only()
		if !p.object(key, v) {
			garbage = true
		} else {
			found = true
			if n.isCut() {
				p.problem("the "+key+" is cut short or damaged: what follows in it is not known", "")
			}
		}
		p.release()
	}
	switch {
	case !found && strings.TrimSpace(p.text) != "":
		p.begins = p.counted
		p.problem("this is no list of nft in JSON", "make it by: nft -j list ruleset")
	case garbage:
		p.problems.Warnf(diag.Pos{File: p.file}, "", "there is text in it that is none of nft's: it was passed over")
	}
}

// skip goes to the next brace, past what separates objects. It tells whether there was anything else.
func (p *parser) skip() bool {
	to := strings.IndexByte(p.text[p.at:], '{')
	if to < 0 {
		to = len(p.text) - p.at
	}
	between := p.text[p.at : p.at+to]
	p.at += to
	return strings.Trim(between, "[]},: \t\r\n\x00") != ""
}

// enter steps into the list that all objects are in.
func (p *parser) enter() bool {
	inner := p.reader
	inner.at++
	if key, ok := inner.key(object); !ok || key != "nftables" || !inner.take('[') {
		return false
	}
	p.at = inner.at
	return true
}

func (p *parser) problem(message, hint string) {
	p.problems.Warnf(diag.Pos{File: p.file, Line: p.lineAt(p.begins)}, hint, "%s", message)
}

// object reads one object of the listing. It tells whether it is one.
func (p *parser) object(key string, n *node) bool {
	if n == nil || n.kind != object {
		if n == nil && key == "" {
			// No value at all: go on behind the brace.
			p.at = max(p.at, p.begins+1)
		}
		return false
	}
	switch key {
	case "metainfo":
		if v := n.str("json_schema_version"); v != "" && v != "1" {
			p.problem("it is of version "+strconv.Quote(v)+" of nft's JSON, and version 1 is known", "")
		}
	case "table":
		p.table(n)
	case "chain":
		p.chain(n)
	case "set", "map", "meter":
		p.set(n)
	case "rule":
		p.rule(n)
	case "element":
		p.more(n)
	case "limit", "quota":
		p.stateful[chainKey{n.str("family"), n.str("table"), n.str("name")}] = !n.isTrue("inv")
	case "flowtable", "counter", "ct helper", "ct timeout", "ct expectation", "secmark", "synproxy", "tunnel":
	case "add", "insert", "create", "replace":
		// What "nft -e -j" echoes.
		inner, v := n.only()
		return p.object(inner, v)
	default:
		return false
	}
	return true
}

var families = map[string]netfilter.Family{"inet": netfilter.Inet, "ip": netfilter.IPv4, "ip6": netfilter.IPv6,
	"bridge": netfilter.Bridge, "arp": netfilter.ARP, "netdev": netfilter.Netdev}

func (p *parser) table(n *node) {
	t := p.tableOf(n.str("family"), n.str("name"))
	for flag := range n.get("flags").each {
		t.Dormant = t.Dormant || flag.text == "dormant"
	}
}

// tableOf is a table, made where the listing doesn't have it.
func (p *parser) tableOf(family, name string) *netfilter.Table {
	key := tableKey{family, name}
	if t := p.tables[key]; t != nil {
		return t
	}
	f, ok := families[family]
	if !ok {
		p.problem("the family "+strconv.Quote(family)+" of table "+strconv.Quote(name)+" is not known: it is taken for inet", "")
	}
	t := &netfilter.Table{Family: f, Name: strings.Clone(name)}
	p.tables[key] = t
	p.all = append(p.all, t)
	return t
}

// chainOf is a chain, made where the listing doesn't have it.
func (p *parser) chainOf(family, table, name string) *netfilter.Chain {
	key := chainKey{family, table, name}
	if c := p.chains[key]; c != nil {
		return c
	}
	c := &netfilter.Chain{Name: name}
	p.chains[key] = c
	t := p.tableOf(family, table)
	t.Chains = append(t.Chains, c)
	return c
}

var hooks = map[string]netfilter.Hook{"prerouting": netfilter.Prerouting, "input": netfilter.Input, "forward": netfilter.Forward,
	"output": netfilter.Output, "postrouting": netfilter.Postrouting, "ingress": netfilter.Ingress, "egress": netfilter.Egress}

var types = map[string]netfilter.Type{"filter": netfilter.Filter, "nat": netfilter.NAT, "route": netfilter.Route}

func (p *parser) chain(n *node) {
	c := p.chainOf(n.str("family"), n.str("table"), n.str("name"))
	if n.get("hook") == nil {
		return
	}
	hook, ok := hooks[n.str("hook")]
	typ, known := types[n.str("type")]
	prio, err := strconv.Atoi(n.str("prio"))
	if !ok || !known || err != nil {
		p.problem(fmt.Sprintf("chain %q has a hook, a type or a priority that is not known: where its rules act is not known", c.Name), "")
		return
	}
	c.Base = &netfilter.Base{Type: typ, Hook: hook, Priority: prio, Policy: netfilter.Accept}
	if n.str("policy") == "drop" {
		c.Base.Policy = netfilter.Drop
	}
	for d := range n.get("dev").each {
		c.Base.Devices = append(c.Base.Devices, d.text)
	}
}

// dialect tells tables of iptables-nft from others: by their names, and by base chains that are all iptables' own, each at its
// hook, type and priority. A table without base chains is one if its name is; of somebody else's there will be no dump.
func dialect(t *netfilter.Table) netfilter.Dialect {
	own, ok := iptables[t.Name]
	if !ok || t.Family != netfilter.IPv4 && t.Family != netfilter.IPv6 || len(t.Sets) > 0 && hasNamed(t.Sets) {
		return netfilter.NFT
	}
	for _, c := range t.Chains {
		if b := c.Base; b != nil && !slices.Contains(own, standard{c.Name, b.Type, b.Hook, b.Priority}) {
			return netfilter.NFT
		}
	}
	return netfilter.IPTablesNFT
}

// hasNamed tells whether there is a set that somebody named. iptables-nft makes sets without names alone.
func hasNamed(sets []*netfilter.Set) bool {
	return slices.ContainsFunc(sets, func(s *netfilter.Set) bool { return !strings.HasPrefix(s.Name, "__") })
}

// standard is a base chain of iptables.
type standard struct {
	name     string
	typ      netfilter.Type
	hook     netfilter.Hook
	priority int
}

// iptables are the tables of iptables with their base chains. See xtables_ipv4 in iptables/nft.c: table security, which the
// kernel's own iptables has at 50, is at 150 there.
var iptables = map[string][]standard{
	"raw": {{"PREROUTING", netfilter.Filter, netfilter.Prerouting, -300}, {"OUTPUT", netfilter.Filter, netfilter.Output, -300}},
	"mangle": {{"PREROUTING", netfilter.Filter, netfilter.Prerouting, -150}, {"INPUT", netfilter.Filter, netfilter.Input, -150},
		{"FORWARD", netfilter.Filter, netfilter.Forward, -150}, {"OUTPUT", netfilter.Route, netfilter.Output, -150},
		{"POSTROUTING", netfilter.Filter, netfilter.Postrouting, -150}},
	"filter": {{"INPUT", netfilter.Filter, netfilter.Input, 0}, {"FORWARD", netfilter.Filter, netfilter.Forward, 0},
		{"OUTPUT", netfilter.Filter, netfilter.Output, 0}},
	"security": {{"INPUT", netfilter.Filter, netfilter.Input, 150}, {"FORWARD", netfilter.Filter, netfilter.Forward, 150},
		{"OUTPUT", netfilter.Filter, netfilter.Output, 150}},
	"nat": {{"PREROUTING", netfilter.NAT, netfilter.Prerouting, -100}, {"INPUT", netfilter.NAT, netfilter.Input, 100},
		{"POSTROUTING", netfilter.NAT, netfilter.Postrouting, 100}, {"OUTPUT", netfilter.NAT, netfilter.Output, -100}},
}
