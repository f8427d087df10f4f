package iptsave

import (
	"slices"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/parse/names"
)

// option is an option of a match or a target.
type option struct {
	name string
	not  bool
	args []word
}

// arg is the only argument that an option has; not ok where it has none, or several.
func (o option) arg() (string, bool) {
	if len(o.args) != 1 {
		return "", false
	}
	return o.args[0].text, true
}

// text is the option as it would be written.
func (o option) text(b []byte) []byte {
	if o.not {
		b = append(b, " !"...)
	}
	b = append(append(b, ' '), o.name...)
	for _, a := range o.args {
		b = appendWord(b, a)
	}
	return b
}

// module is a match, or the target, with its options.
type module struct {
	word    string // "-m", "-j" or "-g"
	name    string
	options []option
	from    int // its first word
	to      int // behind its last word; -1 where others stand between
}

// text is the match as it would be written.
func (m *module) text() string {
	b := append([]byte(m.word+" "), bare(m.name)...)
	for _, o := range m.options {
		b = o.text(b)
	}
	return string(b)
}

// has tells whether an option is given.
func (m *module) has(name string) bool {
	return slices.ContainsFunc(m.options, func(o option) bool { return o.name == name })
}

// value is the only argument of an option, "" where it isn't given.
func (m *module) value(name string) string {
	for _, o := range m.options {
		if o.name == name {
			v, _ := o.arg()
			return v
		}
	}
	return ""
}

// ruleReader reads rules. It keeps what rules have in common.
type ruleReader struct {
	reader  *reader
	family  netfilter.Family
	matches map[string][]netfilter.Match // by how they are written
	actions map[string][]netfilter.Action
	mods    []module
	out     []netfilter.Match
	kept    []word // words without comments and counters
	// Of the rule that is read now.
	line     string
	words    []word
	plain    bool // no quotes in it: equal words are equal texts
	whole    bool // nothing of it is left out of its text
	comment  string
	count    *netfilter.Count
	proto    uint64
	hasProto bool
	actionsN int // targets that it has
}

// maxKept bounds what is remembered of rules that have nothing in common.
const maxKept = 1 << 15

// reset begins with rules of another family or variant.
func (p *ruleReader) reset(r *reader) {
	*p = ruleReader{reader: r, family: r.family, matches: map[string][]netfilter.Match{}, actions: map[string][]netfilter.Action{},
		mods: p.mods[:0], out: p.out[:0], kept: p.kept[:0]}
}

// read reads the words of a line that stand behind the chain's name.
func (p *ruleReader) read(line string, ws []word) *netfilter.Rule {
	p.comment, p.count, p.hasProto, p.actionsN = "", nil, false, 0
	p.line, p.words, p.plain = line, p.withoutNotes(ws), strings.IndexByte(line, '"') < 0
	p.whole = len(p.words) == len(ws)
	p.mods, p.out = p.mods[:0], p.out[:0]
	for i := 0; i < len(p.words); {
		i = p.item(i)
	}
	rule := &netfilter.Rule{Comment: p.comment, Count: p.count, Actions: p.convert()}
	rule.Text = p.text()
	if len(p.out) > 0 {
		rule.Matches = slices.Clone(p.out)
	}
	return rule
}

// withoutNotes takes comments and counters out of the words of a rule.
func (p *ruleReader) withoutNotes(ws []word) []word {
	if !slices.ContainsFunc(ws, isNote) {
		return ws
	}
	for before := -1; before != len(ws); {
		before = len(ws)
		p.kept = p.kept[:0]
		for i := 0; i < len(ws); {
			n := p.note(ws[i:])
			if n == 0 {
				n = 1
				if ws[i].isOption() {
					n += anyText[ws[i].text]
				}
				n = min(n, len(ws)-i)
				p.kept = append(p.kept, ws[i:i+n]...)
			}
			i += n
		}
		ws = append(ws[:0], p.kept...)
	}
	return ws
}

func isNote(w word) bool {
	switch w.text {
	case "--comment", "comment", "-c", "--set-counters":
		return !w.quoted
	}
	return false
}

// note reads a comment or counters at the beginning of words, and tells how many words they take.
func (p *ruleReader) note(ws []word) int {
	switch {
	case (ws[0].is("-m") || ws[0].is("--match")) && len(ws) > 1 && ws[1].text == "comment":
		return 2
	case ws[0].is("--comment") && len(ws) > 1:
		if p.comment != "" && ws[1].text != "" {
			p.comment += " "
		}
		p.comment += ws[1].text
		return 2
	case ws[0].is("--comment"):
		return 1
	case (ws[0].is("-c") || ws[0].is("--set-counters")) && len(ws) > 2:
		if c := countOf(ws[1].text, ws[2].text); c != nil {
			p.count = c
			return 3
		}
	}
	return 0
}

// item reads one option and its arguments, and returns where the next begins.
func (p *ruleReader) item(i int) int {
	from, not := i, false
	if p.words[i].is("!") && i+1 < len(p.words) && p.words[i+1].isOption() {
		not = true
		i++
	}
	w := p.words[i]
	if !w.isOption() {
		p.opaque(join(p.words[i : i+1]))
		return i + 1
	}
	o := option{name: w.text, not: not}
	i = p.arguments(&o, i+1)
	if rest := p.general(o, from, i); rest >= 0 {
		return i - rest
	}
	p.ofModule(o, from, i)
	return i
}

// arguments finds the arguments of an option: up to the next option, but for those that take any text.
func (p *ruleReader) arguments(o *option, i int) int {
	ws := p.words
	if i+1 < len(ws) && ws[i].is("!") && !ws[i+1].isOption() {
		o.not = !o.not
		i++
	}
	from, any := i, anyText[o.name]
	for i < len(ws) && (i-from < any || !ws[i].isOption() && !(ws[i].is("!") && (i+1 == len(ws) || ws[i+1].isOption()))) {
		i++
	}
	o.args = ws[from:i]
	return i
}

// anyText are options that take as many words whatever they look like.
var anyText = map[string]int{
	"--comment": 1, "--log-prefix": 1, "--nflog-prefix": 1, "--ulog-prefix": 1, "--name": 1, "--hashlimit-name": 1, "--match-set": 2,
	"--add-set": 2, "--del-set": 2, "--map-set": 2, "--set-name": 1, "--string": 1, "--hex-string": 1, "--helper": 1, "--genre": 1, "--path": 1,
	"--nfacct-name": 1, "--label": 1, "-j": 1, "--jump": 1, "-g": 1, "--goto": 1, "-m": 1, "--match": 1, "-i": 1, "-o": 1,
	"--in-interface": 1, "--out-interface": 1, "--physdev-in": 1, "--physdev-out": 1, "--led-trigger-id": 1, "--timeout-name": 1,
}

// general takes an option that is of no match. It returns how many of its arguments it has no use for, -1 where the option is
// none of these.
func (p *ruleReader) general(o option, from, to int) int {
	uses := 1
	if n := len(p.mods); o.name == "--proto" && n > 0 && p.mods[n-1].name == "policy" {
		return -1
	}
	switch o.name {
	case "-s", "--source", "--src":
		p.field(o, from, to, address(netfilter.Src))
	case "-d", "--destination", "--dst":
		p.field(o, from, to, address(netfilter.Dst))
	case "-i", "--in-interface":
		p.field(o, from, to, iface(netfilter.InIface))
	case "-o", "--out-interface":
		p.field(o, from, to, iface(netfilter.OutIface))
	case "-p", "--protocol", "--proto":
		p.protocol(o, from, to)
	case "-f", "--fragment", "--fragments":
		uses = 0
		o.args = nil
		p.field(o, from, from, fragment)
	case "-m", "--match":
		p.begin("-m", o, from, to)
	case "-j", "--jump":
		p.actionsN++
		p.begin("-j", o, from, to)
	case "-g", "--goto":
		p.actionsN++
		p.begin("-g", o, from, to)
	case "-4", "--ipv4", "-6", "--ipv6":
		uses = 0
	default:
		return -1
	}
	return max(len(o.args)-uses, 0)
}

// begin begins a match or the target.
func (p *ruleReader) begin(kind string, o option, from, to int) {
	if len(o.args) == 0 {
		p.opaque(kind)
		return
	}
	to -= len(o.args) - 1
	name := o.args[0].text
	if n := len(p.mods); n < cap(p.mods) {
		p.mods = p.mods[:n+1]
		p.mods[n].options = p.mods[n].options[:0]
	} else {
		p.mods = append(p.mods, module{})
	}
	m := &p.mods[len(p.mods)-1]
	m.word, m.name, m.from, m.to = kind, name, from, to
	if o.not {
		m.options = append(m.options, option{name: "!"})
	}
}

// span is how words stand in the line; "" where others that look alike may mean something else.
func (p *ruleReader) span(from, to int) string {
	if !p.plain || from >= to {
		return ""
	}
	return p.line[p.words[from].at:p.words[to-1].end]
}

// ofProtocol are the options of the protocol's own match, which people write behind any other.
var ofProtocol = map[string]bool{"--sport": true, "--source-port": true, "--dport": true, "--destination-port": true, "--syn": true,
	"--tcp-flags": true, "--tcp-option": true, "--icmp-type": true, "--icmpv6-type": true, "--dccp-types": true, "--chunk-types": true}

// ofModule gives an option to the match that it belongs to.
func (p *ruleReader) ofModule(o option, from, to int) {
	n := len(p.mods) - 1
	if ofProtocol[o.name] && (n < 0 || !protocolModules[p.mods[n].name]) {
		p.mods = slices.Grow(p.mods, 1)
		if at := slices.IndexFunc(p.mods, func(m module) bool { return protocolModules[m.name] }); at >= 0 {
			p.mods[at].options = append(p.mods[at].options, o)
			p.mods[at].to = -1
			return
		}
		p.mods = append(p.mods, module{word: "-m", name: p.protocolModule(o.name), options: []option{o}, to: -1})
		return
	}
	if n < 0 {
		p.opaque(strings.TrimPrefix(string(o.text(nil)), " "))
		return
	}
	m := &p.mods[n]
	m.options = append(m.options, o)
	if m.to == from {
		m.to = to
	} else {
		m.to = -1
	}
}

// protocolModules are the matches that -p loads.
var protocolModules = map[string]bool{"tcp": true, "udp": true, "udplite": true, "sctp": true, "dccp": true, "icmp": true, "icmp6": true,
	"icmpv6": true}

// protocolModule is the match that an option belongs to where none is named.
func (p *ruleReader) protocolModule(option string) string {
	switch {
	case option == "--icmp-type":
		return "icmp"
	case option == "--icmpv6-type":
		return "icmp6"
	case p.hasProto && p.proto == 17:
		return "udp"
	case p.hasProto && p.proto == 136:
		return "udplite"
	case p.hasProto && p.proto == 132:
		return "sctp"
	case p.hasProto && p.proto == 33:
		return "dccp"
	}
	return "tcp"
}

// opaque adds a match that isn't understood.
func (p *ruleReader) opaque(text string) {
	p.out = append(p.out, netfilter.Opaque{Text: text})
	p.reader.once("match "+text, "", "%s is not understood", shorten(text))
}

// reading makes matches of an option; not ok where it isn't understood.
type reading func(p *ruleReader, o option) ([]netfilter.Match, bool)

// field adds the match of an option that stands between two words.
func (p *ruleReader) field(o option, from, to int, read reading) {
	to -= max(len(o.args)-1, 0)
	o.args = o.args[:min(len(o.args), 1)]
	key := p.span(from, to)
	ms, known := p.matches[key]
	if !known {
		var ok bool
		if ms, ok = read(p, o); !ok {
			text := strings.TrimPrefix(string(o.text(nil)), " ")
			p.reader.once("match "+text, "", "%s is not understood", shorten(text))
			ms = []netfilter.Match{netfilter.Opaque{Text: text}}
		}
		p.keep(key, ms)
	}
	p.out = append(p.out, ms...)
}

// keep remembers what a text means.
func (p *ruleReader) keep(key string, ms []netfilter.Match) {
	if key == "" {
		return
	}
	if len(p.matches) >= maxKept {
		clear(p.matches)
	}
	p.matches[key] = ms
}

// protocol adds the match on the protocol.
func (p *ruleReader) protocol(o option, from, to int) {
	if len(o.args) > 0 {
		if n, ok := names.Protocol(o.args[0].text); ok && !o.not && n != 0 {
			p.proto, p.hasProto = n, true
		}
	}
	p.field(o, from, to, protocolIs)
}

// text is the rule in iptables' words.
func (p *ruleReader) text() string {
	ws := p.words
	if p.plain && p.whole {
		if len(ws) == 0 {
			return ""
		}
		return p.line[ws[0].at:ws[len(ws)-1].end]
	}
	return join(ws)
}

// convert makes matches and actions of the modules.
func (p *ruleReader) convert() []netfilter.Action {
	var before, actions []netfilter.Action
	for i := range p.mods {
		m := &p.mods[i]
		switch {
		case m.word != "-m":
			actions = p.target(m)
		case m.name == "connlabel" && m.has("--set") && !slices.ContainsFunc(p.mods[i+1:], func(m module) bool { return m.word == "-m" }):
			before = p.setLabel(m)
		default:
			p.match(m)
		}
	}
	switch {
	case p.actionsN > 1:
		return []netfilter.Action{netfilter.OpaqueAction{Text: "more than one target"}}
	case len(before) > 0:
		return append(before, actions...)
	}
	return actions
}
