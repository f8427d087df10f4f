package iptsave

import (
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
)

// Options are what a text may not tell of itself. What it does tell goes first.
type Options struct {
	File    string            // its name, for the positions of problems
	Family  netfilter.Family  // IPv4 or IPv6; Inet to guess
	Dialect netfilter.Dialect // IPTablesLegacy, or IPTablesNFT, which NFT is taken for
	Table   string            // of rules that stand in none: those of iptables -S and -L; "" for filter
	Sets    []*netfilter.Set  // of ipset
}

// Parse reads tables in the order in which they stand in the text. The problems are warnings: what is not understood, and
// what is not known therefore.
func Parse(text string, o Options) ([]*netfilter.Table, diag.List) {
	if strings.ContainsAny(text, "\r\x00") {
		text = strings.NewReplacer("\r", "", "\x00", "").Replace(text)
	}
	r := newReader(text, o)
	for r.next() {
		r.take()
	}
	r.end()
	return r.tables, r.problems
}

// reader goes through a text line by line.
type reader struct {
	text     string // that isn't read yet
	line     string // that is read now
	number   int    // of line, from 1
	rest     int    // lines that line goes on for, behind the first
	options  Options
	family   netfilter.Family
	dialect  netfilter.Dialect
	plain    netfilter.Dialect // of a call that names no variant
	shell    bool              // the rule that is read has something in it that a shell would put there
	skip     bool              // this part of the text is of arptables or ebtables
	tables   []*netfilter.Table
	table    *table   // that is read now
	listing  *listing // that is read now
	byPlace  map[place]*table
	words    []word
	rule     ruleReader
	problems diag.List
	strays   int // lines that are no part of rules
	told     map[string]bool
}

// place is what two tables can't have in common.
type place struct {
	family  netfilter.Family
	dialect netfilter.Dialect
	name    string
}

// table is a table that is being read.
type table struct {
	*netfilter.Table
	chains map[string]*netfilter.Chain
	jumps  []jump // to chains that weren't there yet
	open   bool   // it stands between *NAME and COMMIT
}

// jump is a jump that may lead nowhere.
type jump struct {
	rule *netfilter.Rule
	at   int // in its actions
	word string
}

func newReader(text string, o Options) *reader {
	r := &reader{text: text, options: o, byPlace: map[place]*table{}, told: map[string]bool{}}
	r.family, r.dialect = o.Family, o.Dialect
	if r.family != netfilter.IPv4 && r.family != netfilter.IPv6 {
		r.family = guessFamily(text)
	}
	if r.dialect != netfilter.IPTablesLegacy {
		r.dialect = netfilter.IPTablesNFT
	}
	r.plain = r.dialect
	if strings.Contains(text, "tables-legacy") && !strings.Contains(text, "tables-nft") {
		r.plain = netfilter.IPTablesLegacy // the only variant that the text speaks of
	}
	r.rule.reset(r)
	return r
}

// guessFamily tells the family of rules that don't say it.
func guessFamily(text string) netfilter.Family {
	if strings.HasPrefix(text, generated) {
		return netfilter.IPv4 // until that line says it
	}
	for _, sign := range []string{"::/", "-p ipv6-icmp", "-m icmp6", "icmp6-", "ipv6-icmp "} {
		if strings.Contains(text, sign) {
			return netfilter.IPv6
		}
	}
	return netfilter.IPv4
}

// maxLines bounds a comment with line breaks in it: a quote that isn't closed is more likely.
const maxLines = 64

// next reads a line. One whose quotes aren't closed goes on, unless what follows looks like a line of its own.
func (r *reader) next() bool {
	if r.text == "" {
		return false
	}
	r.number += r.rest + 1
	r.rest = 0
	end := lineEnd(r.text, 0)
	if goesOn := openAtEnd(r.text[:end], r.listing != nil); goesOn != nil {
		for to := end; goesOn(r.text[:to]); r.rest++ {
			if r.rest == maxLines || to == len(r.text) || beginsLine(r.text[to+1:]) {
				r.rest, end = 0, lineEnd(r.text, 0)
				break
			}
			to = lineEnd(r.text, to+1)
			end = to
		}
	}
	r.line = r.text[:end]
	r.text = r.text[min(end+1, len(r.text)):]
	return true
}

// lineEnd is where the line that goes on at from ends.
func lineEnd(text string, from int) int {
	if n := strings.IndexByte(text[from:], '\n'); n >= 0 {
		return from + n
	}
	return len(text)
}

// openAtEnd is what tells whether a line that begins like this goes on behind it; nil where it doesn't.
func openAtEnd(line string, isListed bool) func(string) bool {
	switch {
	case isListed && openComment(line):
		return openComment
	case !isListed && strings.IndexByte(line, '"') >= 0 && isRule(line):
		return openQuote
	}
	return nil
}

// openComment tells whether a comment of a listing isn't closed.
func openComment(line string) bool {
	return strings.LastIndex(line, "/*") > strings.LastIndex(line, "*/")
}

// isRule tells whether a line may be a rule.
func isRule(line string) bool {
	return strings.HasPrefix(line, "-") || strings.HasPrefix(line, "[")
}

// beginsLine tells whether a text begins with what begins a line of a dump.
func beginsLine(text string) bool {
	if text == "" {
		return true
	}
	return strings.IndexByte("-[:*#", text[0]) >= 0 || strings.HasPrefix(text, "COMMIT") || strings.HasPrefix(text, "Chain ")
}

// openQuote tells whether a quote isn't closed, as split would.
func openQuote(line string) bool {
	open := false
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '"':
			open = !open
		case '\\':
			if open {
				i++
			}
		}
	}
	return open
}

// take reads the line.
func (r *reader) take() {
	line := strings.TrimRight(r.line, " \t\n")
	trimmed := strings.TrimLeft(line, " \t")
	switch {
	case trimmed == "":
		r.endListing()
	case strings.HasPrefix(line, "Chain ") && r.beginListing(line):
	case r.listing != nil:
		r.takeListed(line)
	case trimmed[0] == '#':
		r.comment(trimmed)
	case r.skip:
	case trimmed[0] == '*':
		r.beginTable(strings.TrimSpace(trimmed[1:]))
	case trimmed == "COMMIT":
		r.endTable(true)
	case trimmed[0] == ':':
		r.chainLine(trimmed[1:])
	case trimmed[0] == '-', isCounted(trimmed):
		r.command(trimmed)
	case r.scripted(trimmed):
	default:
		r.stray()
	}
}

// isCounted tells whether a line begins with the counters of a rule, and not with a test of a shell's.
func isCounted(line string) bool {
	return len(line) > 1 && line[0] == '[' && line[1] >= '0' && line[1] <= '9'
}

// warn tells a problem of this line.
func (r *reader) warn(hint, format string, args ...any) {
	if len(r.problems) >= maxProblems {
		return
	}
	r.problems.Warnf(diag.Pos{File: r.options.File, Line: r.number}, hint, format, args...)
}

// once tells a problem of this line, if it is the first of its kind.
func (r *reader) once(kind, hint, format string, args ...any) {
	if !r.told[kind] && len(r.told) < maxTold {
		r.told[kind] = true
		r.warn(hint, format, args...)
	}
}

// maxTold bounds how many kinds of problems are told, maxProblems how many in all: a text may be of anything.
const (
	maxTold     = 200
	maxProblems = 1000
)

// stray counts a line that isn't of a dump.
func (r *reader) stray() {
	if r.strays++; r.strays == 1 {
		r.warn("", "this line is not part of any rules: %s", shorten(r.line))
	}
}

// shorten is what is shown of a text that may be of any length.
func shorten(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strconv.Quote(s)
}

// generated begins a line that says which program wrote what follows.
const generated = "# Generated by "

// comment reads a line that programs write for people, mostly.
func (r *reader) comment(line string) {
	by, ok := strings.CutPrefix(line, generated)
	if !ok {
		if strings.HasPrefix(line, "# Warning: ") || strings.HasPrefix(line, "# Table ") {
			r.once(line, "", "%s", strings.TrimPrefix(line[2:], "Warning: "))
		}
		return
	}
	r.endTable(false)
	program, rest, _ := strings.Cut(by, " ")
	r.skip = strings.HasPrefix(program, "arp") || strings.HasPrefix(program, "eb")
	if r.skip {
		r.warn("", "the rules of %s are not read", program)
	}
	r.family = netfilter.IPv4
	if strings.HasPrefix(program, "ip6") {
		r.family = netfilter.IPv6
	}
	r.dialect = netfilter.IPTablesLegacy
	if strings.Contains(rest, "(nf_tables)") || strings.Contains(program, "nft") {
		r.dialect = netfilter.IPTablesNFT
	}
	r.plain = r.dialect
	r.rule.reset(r)
}

// beginTable takes a table up. One that was there before is replaced, as iptables-restore does.
func (r *reader) beginTable(name string) {
	r.endTable(false)
	at := place{r.family, r.dialect, name}
	if old := r.byPlace[at]; old != nil {
		r.warn("", "table %s is here for the second time: the first is left out", shorten(name))
		for i, t := range r.tables {
			if t == old.Table {
				r.tables = append(r.tables[:i], r.tables[i+1:]...)
				break
			}
		}
		delete(r.byPlace, at)
	}
	r.openTable(name)
	r.table.open = true
}

// openTable goes on with a table, or begins one.
func (r *reader) openTable(name string) {
	at := place{r.family, r.dialect, name}
	if r.table = r.byPlace[at]; r.table != nil {
		return
	}
	t := &netfilter.Table{Dialect: r.dialect, Family: r.family, Name: name}
	r.tables = append(r.tables, t)
	r.table = &table{Table: t, chains: map[string]*netfilter.Chain{}}
	r.byPlace[at] = r.table
	if _, known := hooks[name]; !known {
		r.warn("", "there is no table %s in iptables: its chains are taken for ones that nothing calls", shorten(name))
	}
}

// current is the table that lines belong to which stand in none.
func (r *reader) current() *table {
	if r.table == nil {
		name := r.options.Table
		if name == "" {
			name = "filter"
		}
		r.openTable(name)
	}
	return r.table
}

func (r *reader) endTable(committed bool) {
	t := r.table
	r.table = nil
	if t == nil {
		return
	}
	if t.open && !committed {
		r.warn("", "table %s is cut short: what stood behind is not known", shorten(t.Name))
	}
	t.open = false
}

// end finishes all tables.
func (r *reader) end() {
	r.endListing()
	r.endTable(false)
	for _, t := range r.tables {
		r.resolve(r.byPlace[place{t.Family, t.Dialect, t.Name}])
	}
	if r.strays > 1 {
		r.problems.Warnf(diag.Pos{File: r.options.File}, "", "%d lines are not part of any rules", r.strays)
	}
}

// resolve makes jumps to chains that never came opaque.
func (r *reader) resolve(t *table) {
	for _, j := range t.jumps {
		v := j.rule.Actions[j.at].(netfilter.Verdict)
		if t.chains[v.Chain] != nil {
			continue
		}
		j.rule.Actions = slices.Clone(j.rule.Actions) // rules that say the same share them, those of other tables too
		j.rule.Actions[j.at] = netfilter.OpaqueAction{Text: j.word + " " + bare(v.Chain)}
		if kind := "target " + v.Chain; !r.told[kind] && len(r.told) < maxTold {
			r.told[kind] = true
			r.problems.Warnf(diag.Pos{File: r.options.File, Line: j.rule.Line}, "",
				"%s is neither a chain of table %s nor a known target", shorten(v.Chain), shorten(t.Name))
		}
	}
}

// bare writes a word without quotes, where it can be.
func bare(s string) string {
	return string(appendWord(nil, word{text: s, quoted: s == "" || strings.ContainsAny(s, " \t\n\"")}))
}

// chain finds a chain of the table, or adds it.
func (t *table) chain(name string) *netfilter.Chain {
	c := t.chains[name]
	if c == nil {
		c = &netfilter.Chain{Name: name, Base: baseOf(t.Dialect, t.Name, name)}
		t.chains[name] = c
		t.Chains = append(t.Chains, c)
	}
	return c
}

// chainLine reads what stands behind the colon of ":INPUT ACCEPT [1:2]".
func (r *reader) chainLine(line string) {
	r.words, _ = split(line, r.words[:0])
	if len(r.words) == 0 || !isChainName(r.words[0].text) {
		r.stray()
		return
	}
	c := r.current().chain(r.words[0].text)
	if len(r.words) > 1 {
		r.policy(c, r.words[1].text)
	}
	if len(r.words) > 2 && c.Base != nil {
		c.Count = counts(r.words[2].text)
	}
}

// isChainName tells whether iptables lets a chain be called so.
func isChainName(s string) bool { return s != "" && !strings.ContainsAny(s, " \t\n\v\f") }

// policy sets the policy of a chain.
func (r *reader) policy(c *netfilter.Chain, name string) {
	switch {
	case name == "-" && c.Base == nil:
	case c.Base == nil:
		r.warn("", "chain %s has a policy and is none of table %s's own: it is taken for one that nothing calls", shorten(c.Name), shorten(r.table.Name))
	case name == "ACCEPT":
		c.Base.Policy = netfilter.Accept
	case name == "DROP":
		c.Base.Policy = netfilter.Drop
	default:
		r.warn("", "%s is no policy: chain %s is taken to accept", shorten(name), shorten(c.Name))
	}
}

// counts reads "[12:345]".
func counts(s string) *netfilter.Count {
	if len(s) < 5 || s[0] != '[' || s[len(s)-1] != ']' {
		return nil
	}
	packets, bytes, _ := strings.Cut(s[1:len(s)-1], ":")
	return countOf(packets, bytes)
}

func countOf(packets, bytes string) *netfilter.Count {
	p, err1 := strconv.ParseUint(packets, 10, 64)
	b, err2 := strconv.ParseUint(bytes, 10, 64)
	if err1 != nil || err2 != nil {
		return nil
	}
	return &netfilter.Count{Packets: p, Bytes: b}
}

// command reads a line of iptables-save's or iptables -S's: a rule, a chain or a policy.
func (r *reader) command(line string) {
	var open bool
	r.words, open = split(line, r.words[:0])
	ws := r.words
	if open {
		r.once("quote", "", "a quote is not closed")
	}
	var count *netfilter.Count
	if ws[0].text[0] == '[' {
		if count = counts(ws[0].text); count == nil {
			r.stray()
			return
		}
		ws = ws[1:]
	}
	if len(ws) < 2 {
		r.stray()
		return
	}
	name := ws[1].text
	if !isChainName(name) {
		r.stray()
		return
	}
	switch ws[0].text {
	case "-A", "--append":
		r.add(name, line, ws[2:], count, -1)
	case "-I", "--insert":
		at, rest := 1, ws[2:]
		if len(rest) > 0 {
			if n, err := strconv.Atoi(rest[0].text); err == nil {
				at, rest = n, rest[1:]
			}
		}
		r.add(name, line, rest, count, at-1)
	case "-N", "--new-chain":
		r.current().chain(name)
	case "-P", "--policy":
		r.policyLine(r.current().chain(name), ws[2:])
	default:
		r.stray()
	}
}

// policyLine reads what stands behind "-P INPUT".
func (r *reader) policyLine(c *netfilter.Chain, ws []word) {
	if len(ws) == 0 {
		r.stray()
		return
	}
	r.policy(c, ws[0].text)
	if len(ws) == 4 && ws[1].is("-c") && c.Base != nil {
		c.Count = countOf(ws[2].text, ws[3].text)
	}
}

// add puts a rule at a place of a chain, from 0; to its end if at is negative.
func (r *reader) add(chain, line string, ws []word, count *netfilter.Count, at int) {
	t := r.current()
	c := t.chains[chain]
	if c == nil {
		c = t.chain(chain)
		if c.Base != nil {
			r.once("policy "+chain, "", "the policy of chain %s is not here: it is taken to accept", shorten(chain))
		}
	}
	rule := r.rule.read(line, ws)
	rule.Line = r.number
	if r.shell {
		rule.Matches = []netfilter.Match{netfilter.Opaque{Text: line}}
	}
	if rule.Count == nil {
		rule.Count = count
	}
	r.link(rule)
	if at < 0 || at >= len(c.Rules) {
		rule.Number = len(c.Rules) + 1
		c.Rules = append(c.Rules, rule)
		return
	}
	c.Rules = append(c.Rules, nil)
	copy(c.Rules[at+1:], c.Rules[at:])
	c.Rules[at] = rule
	renumber(c.Rules, at)
}

// renumber gives rules their numbers anew, from a place on.
func renumber(rules []*netfilter.Rule, from int) {
	for i := from; i < len(rules); i++ {
		rules[i].Number = i + 1
	}
}

// link remembers the jump of a rule whose chain isn't there yet.
func (r *reader) link(rule *netfilter.Rule) {
	for i, a := range rule.Actions {
		if v, ok := a.(netfilter.Verdict); ok && v.Chain != "" && r.table.chains[v.Chain] == nil {
			word := "-j"
			if v.Kind == netfilter.Goto {
				word = "-g"
			}
			r.table.jumps = append(r.table.jumps, jump{rule, i, word})
		}
	}
}

// hooks are iptables' tables, and what their chains are called from.
var hooks = map[string]map[string]netfilter.Base{
	"raw":      {"PREROUTING": base(netfilter.Prerouting, -300), "OUTPUT": base(netfilter.Output, -300)},
	"mangle":   {"PREROUTING": base(netfilter.Prerouting, -150), "INPUT": base(netfilter.Input, -150), "FORWARD": base(netfilter.Forward, -150), "OUTPUT": {Type: netfilter.Route, Hook: netfilter.Output, Priority: -150, Policy: netfilter.Accept}, "POSTROUTING": base(netfilter.Postrouting, -150)},
	"nat":      {"PREROUTING": natBase(netfilter.Prerouting, -100), "INPUT": natBase(netfilter.Input, 100), "OUTPUT": natBase(netfilter.Output, -100), "POSTROUTING": natBase(netfilter.Postrouting, 100)},
	"filter":   {"INPUT": base(netfilter.Input, 0), "FORWARD": base(netfilter.Forward, 0), "OUTPUT": base(netfilter.Output, 0)},
	"security": {"INPUT": base(netfilter.Input, 50), "FORWARD": base(netfilter.Forward, 50), "OUTPUT": base(netfilter.Output, 50)},
}

func base(h netfilter.Hook, priority int) netfilter.Base {
	return netfilter.Base{Type: netfilter.Filter, Hook: h, Priority: priority, Policy: netfilter.Accept}
}

func natBase(h netfilter.Hook, priority int) netfilter.Base {
	return netfilter.Base{Type: netfilter.NAT, Hook: h, Priority: priority, Policy: netfilter.Accept}
}

// baseOf is where a chain is hooked in; nil for those that people make. The variant of nf_tables has table security at 150,
// behind the address translation of what comes in (xtables_ipv4 in iptables/nft.c).
func baseOf(d netfilter.Dialect, table, chain string) *netfilter.Base {
	b, ok := hooks[table][chain]
	if !ok {
		return nil
	}
	if table == "security" && d == netfilter.IPTablesNFT {
		b.Priority = 150
	}
	return &b
}
