package iptsave

import (
	"slices"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/parse/names"
)

// listed is the name of a match that is none: it stands in rules that iptables -L listed, for what isn't known of them.
const listed = "listing"

// listing is a chain that iptables -L prints.
type listing struct {
	chain   string
	columns []string // of its header; nil before that came
}

// beginListing reads "Chain INPUT (policy ACCEPT 12 packets, 720 bytes)" or "Chain X (1 references)".
func (r *reader) beginListing(line string) bool {
	rest := strings.TrimPrefix(line, "Chain ")
	name, note, ok := strings.Cut(rest, " (")
	if !ok || !isChainName(name) || !strings.HasSuffix(note, ")") {
		return false
	}
	fields := strings.Fields(strings.TrimSuffix(note, ")"))
	isBase := len(fields) >= 2 && fields[0] == "policy"
	if t := r.current(); isBase && r.options.Table == "" && t.Name == "filter" && (name == "PREROUTING" || name == "POSTROUTING") {
		r.once("nat", "say which table it is", "chain %s is not one of the table filter: it is taken for the table nat's", name)
		r.openTable("nat")
	}
	c := r.table.chain(name)
	if isBase {
		r.policy(c, fields[1])
		if len(fields) == 6 && c.Base != nil {
			c.Count = countOf(fields[2], fields[4])
		}
	}
	r.listing = &listing{chain: name}
	return true
}

func (r *reader) endListing() { r.listing = nil }

// takeListed reads a line of a listing.
func (r *reader) takeListed(line string) {
	if r.listing.columns == nil {
		columns := strings.Fields(line)
		if !slices.Contains(columns, "prot") || !slices.Contains(columns, "source") {
			r.endListing()
			r.stray()
			return
		}
		r.listing.columns = columns
		r.tellLost(columns)
		return
	}
	row, details, ok := r.columns(line)
	if !ok {
		r.stray()
		return
	}
	spec := row.spec(details, r.family)
	r.words, _ = split(spec, r.words[:0])
	r.add(r.listing.chain, spec, r.words, countOf(row.packets, row.bytes), -1)
}

// tellLost tells what such a listing leaves out.
func (r *reader) tellLost(columns []string) {
	const hint = "use iptables-save"
	if !slices.Contains(columns, "in") {
		r.once("listing without -v", hint, "iptables -L without -v leaves out interfaces: each of its rules is in doubt")
	}
	r.once("listing", hint, "iptables -L writes some matches so that they can't be told from nothing, and without -n it writes names that only its host knows")
}

// row is the columns of a listed rule.
type row struct {
	packets, bytes, target, proto, opt, in, out, src, dst string
	ifaces                                                bool // in and out are there
}

// columns reads the columns of a line. A column may be empty: the target's, and opt's in old listings of ip6tables.
func (r *reader) columns(line string) (row, string, bool) {
	has := func(name string) bool { return slices.Contains(r.listing.columns, name) }
	ws := strings.Fields(line)
	var c row
	need := 3
	if has("num") && len(ws) > 0 {
		ws = ws[1:]
	}
	if has("pkts") && len(ws) > 1 {
		c.packets, c.bytes, ws = ws[0], ws[1], ws[2:]
	}
	opt := func(i int) bool {
		return i < len(ws) && slices.Contains([]string{"--", "-f", "!f", "----"}, ws[i])
	}
	isProto := func(i int) bool {
		if i >= len(ws) {
			return false
		}
		_, ok := names.Protocol(strings.TrimPrefix(ws[i], "!"))
		return ok
	}
	switch {
	case opt(1) && isProto(0):
	case opt(2), isProto(1), !isProto(0):
		if len(ws) > 0 {
			c.target, ws = ws[0], ws[1:]
		}
	}
	if has("in") {
		need += 2
		c.ifaces = true
	}
	if len(ws) < need || !isProto(0) {
		return c, "", false
	}
	c.proto, ws = ws[0], ws[1:]
	if opt(0) {
		c.opt, ws = ws[0], ws[1:]
	}
	if c.ifaces && len(ws) > 1 {
		c.in, c.out, ws = ws[0], ws[1], ws[2:]
	}
	if len(ws) < 2 {
		return c, "", false
	}
	c.src, c.dst = ws[0], ws[1]
	return c, behind(line, len(strings.Fields(line))-len(ws)+2), true
}

// behind is what stands behind so many words of a line.
func behind(line string, n int) string {
	for range n {
		line = strings.TrimLeft(line, " \t")
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			return ""
		}
		line = line[end:]
	}
	return strings.TrimSpace(line)
}

// spec is the rule as iptables-save would write it.
func (c row) spec(details string, family netfilter.Family) string {
	d := details2spec{target: c.target, family: family}
	d.negatable("-s", address2save(c.src, family), "")
	d.negatable("-d", address2save(c.dst, family), "")
	if c.ifaces {
		d.negatable("-i", c.in, "*")
		d.negatable("-o", c.out, "*")
	} else {
		d.spec = append(d.spec, " -m "+listed+" --lost interfaces"...)
	}
	if c.proto != "all" && c.proto != "0" {
		d.negatable("-p", c.proto, "")
	}
	switch c.opt {
	case "-f":
		d.add("-f")
	case "!f":
		d.add("!", "-f")
	}
	d.read(details)
	return strings.TrimPrefix(string(d.spec), " ")
}

// address2save is an address as iptables-save writes it, "" for any.
func address2save(s string, family netfilter.Family) string {
	not := ""
	if strings.HasPrefix(s, "!") {
		not, s = "!", s[1:]
	}
	switch s {
	case "anywhere", "0.0.0.0/0", "::/0", "default":
		if not == "" {
			return ""
		}
		s = map[bool]string{true: "::/0", false: "0.0.0.0/0"}[family == netfilter.IPv6]
	case "localhost":
		s = map[bool]string{true: "::1", false: "127.0.0.1"}[family == netfilter.IPv6]
	case "loopback/8":
		s = "127.0.0.0/8"
	case "link-local/16":
		s = "169.254.0.0/16"
	}
	return not + s
}

// details2spec turns what stands behind the columns into options.
type details2spec struct {
	spec     []byte
	ws       []word
	target   string
	family   netfilter.Family
	module   string   // whose options stand last in spec
	unread   []string // words that nothing is known of
	isGoto   bool
	behindIt []byte // options of the target
}

// add writes words.
func (d *details2spec) add(words ...string) {
	for _, w := range words {
		d.spec = append(append(d.spec, ' '), w...)
	}
}

// negatable writes an option whose value may begin with "!"; a value that says nothing isn't written.
func (d *details2spec) negatable(option, value, nothing string) {
	plain := strings.TrimPrefix(value, "!")
	switch {
	case value == "" || value == nothing || value == "any" && nothing != "":
	case plain != value:
		d.add("!", option, bare(plain))
	default:
		d.add(option, bare(plain))
	}
}

// option writes an option of a match.
func (d *details2spec) option(module, option string, not bool, values ...string) {
	d.flush()
	if d.module != module {
		d.add("-m", module)
		d.module = module
	}
	if not {
		d.add("!")
	}
	if option != "" {
		d.add(option)
	}
	for _, v := range values {
		d.add(bare(v))
	}
}

// flush writes what isn't understood as a match.
func (d *details2spec) flush() {
	if len(d.unread) > 0 {
		d.add("-m", listed, "--text", quote(strings.Join(d.unread, " ")))
		d.unread, d.module = nil, ""
	}
}

// read reads the details.
func (d *details2spec) read(text string) {
	for {
		from := strings.Index(text, "/* ")
		to := strings.Index(text, " */")
		if from < 0 || to < from+2 {
			break
		}
		if comment := text[from+2 : to]; comment != "" {
			d.add("-m", "comment", "--comment", quote(strings.TrimPrefix(comment, " ")))
		}
		text = text[:from] + text[to+3:]
	}
	d.ws, _ = split(text, nil)
	for len(d.ws) > 0 {
		if before := len(d.ws); !d.phrase() || len(d.ws) == before {
			d.unread = append(d.unread, d.pop())
		}
	}
	d.end()
}

// end writes the target. What isn't understood is taken for the target's if that is one that has such.
func (d *details2spec) end() {
	if !notes[d.target] && !opaqueTargets[d.target] && targets[d.target] == nil {
		d.flush()
	}
	if d.target == "" {
		return
	}
	if d.isGoto {
		d.add("-g", bare(d.target))
	} else {
		d.add("-j", bare(d.target))
	}
	d.spec = append(d.spec, d.behindIt...)
	if len(d.unread) > 0 {
		d.add("--listed", quote(strings.Join(d.unread, " ")))
	}
}

// pop takes a word.
func (d *details2spec) pop() string {
	if len(d.ws) == 0 {
		return ""
	}
	w := d.ws[0]
	d.ws = d.ws[1:]
	return w.text
}

// peek is a word that comes, "" for none.
func (d *details2spec) peek(n int) string {
	if n >= len(d.ws) {
		return ""
	}
	return d.ws[n].text
}

// accept takes words if they come.
func (d *details2spec) accept(words ...string) bool {
	for i, w := range words {
		if d.peek(i) != w {
			return false
		}
	}
	d.ws = d.ws[len(words):]
	return true
}

// not takes "!" in front of a value or of its first letter.
func (d *details2spec) not() bool {
	if d.accept("!") {
		return true
	}
	if len(d.ws) > 0 && len(d.ws[0].text) > 1 && d.ws[0].text[0] == '!' {
		d.ws[0].text = d.ws[0].text[1:]
		return true
	}
	return false
}

// phrase reads what one match, or the target, has to say.
func (d *details2spec) phrase() bool {
	if d.targetPhrase() {
		return true
	}
	negated := d.peek(0) == "!"
	w := d.peek(0)
	if negated {
		w = d.peek(1)
	}
	if read := phrases[w]; read != nil {
		saved := d.ws
		d.ws = d.ws[map[bool]int{true: 2, false: 1}[negated]:]
		if read(d, w, negated) {
			return true
		}
		d.ws = saved
		return false
	}
	if value, ok := strings.CutPrefix(w, "match0x"); ok && len(d.unread) > 0 && d.unread[len(d.unread)-1] == "tos" {
		d.unread = d.unread[:len(d.unread)-1]
		d.pop()
		d.option("tos", "--tos", false, "0x"+value)
		return true
	}
	return false
}

// phrases are what matches say, by their first word. negated tells that a "!" stood before it.
var phrases = map[string]func(d *details2spec, word string, negated bool) bool{
	"tcp": portPhrase, "udp": portPhrase, "udplite": portPhrase, "sctp": portPhrase, "dccp": portPhrase,
	"icmptype": icmpPhrase, "icmp": icmpPhrase, "ipv6-icmptype": icmpPhrase, "ipv6-icmp": icmpPhrase,
	"multiport": multiportPhrase,
	"ctstate":   conntrackPhrase, "ctproto": conntrackPhrase, "ctorigsrc": conntrackPhrase, "ctorigdst": conntrackPhrase,
	"ctreplsrc": conntrackPhrase, "ctrepldst": conntrackPhrase, "ctorigsrcport": conntrackPhrase, "ctorigdstport": conntrackPhrase,
	"ctreplsrcport": conntrackPhrase, "ctrepldstport": conntrackPhrase, "ctstatus": conntrackPhrase, "ctexpire": conntrackPhrase,
	"ctdir":    conntrackPhrase,
	"state":    onePhrase("state", "--state", ""),
	"mark":     onePhrase("mark", "--mark", "match"),
	"MARK":     onePhrase("mark", "--mark", "match"),
	"connmark": onePhrase("connmark", "--mark", "match"), "CONNMARK": onePhrase("connmark", "--mark", "match"),
	"MAC": onePhrase("mac", "--mac-source", ""), "length": onePhrase("length", "--length", ""),
	"DSCP": onePhrase("dscp", "--dscp", "match"), "helper": onePhrase("helper", "--helper", "match"),
	"tos": onePhrase("tos", "--tos", "match"), "realm": onePhrase("realm", "--realm", ""),
	"src-group": onePhrase("devgroup", "--src-group", ""), "dst-group": onePhrase("devgroup", "--dst-group", ""),
	"connlabel": onePhrase("connlabel", "--label", ""), "quota:": onePhrase("quota", "--quota", ""),
	"PKTTYPE": pkttypePhrase, "TTL": ttlPhrase, "HL": ttlPhrase, "ADDRTYPE": addrtypePhrase, "PHYSDEV": physdevPhrase,
	"source": rangePhrase, "destination": rangePhrase, "match-set": setPhrase, "limit:": limitPhrase, "recent:": recentPhrase,
	"owner": ownerPhrase, "#conn": connlimitPhrase, "policy": policyPhrase, "socket": socketPhrase, "rpfilter": rpfilterPhrase,
	"statistic": statisticPhrase, "TIME": timePhrase,
}

// onePhrase reads "WORD [FILLER] VALUE".
func onePhrase(module, option, filler string) func(*details2spec, string, bool) bool {
	return func(d *details2spec, _ string, negated bool) bool {
		if filler != "" && !d.accept(filler) {
			return false
		}
		not := d.not() != negated
		value := d.pop()
		if value == "" {
			return false
		}
		d.option(module, option, not, value)
		if module == "quota" {
			d.accept("bytes")
		}
		return true
	}
}

func portPhrase(d *details2spec, word string, _ bool) bool {
	d.module = ""
	d.option(word, "", false)
	for {
		name, value, ok := strings.Cut(d.peek(0), ":")
		if !ok {
			name, value, ok = strings.Cut(d.peek(0), "=")
		}
		not := strings.HasPrefix(value, "!")
		value = strings.TrimPrefix(value, "!")
		switch {
		case !ok || value == "":
			return true
		case name == "spt", name == "spts":
			d.option(word, "--sport", not, value)
		case name == "dpt", name == "dpts":
			d.option(word, "--dport", not, value)
		case name == "option":
			d.option(word, "--tcp-option", not, value)
		case name == "flags":
			mask, comp, _ := strings.Cut(value, "/")
			d.option(word, "--tcp-flags", not, mask, comp)
		default:
			return true
		}
		d.pop()
	}
}

func icmpPhrase(d *details2spec, word string, negated bool) bool {
	module, option := "icmp", "--icmp-type"
	if strings.HasPrefix(word, "ipv6") {
		module, option = "icmp6", "--icmpv6-type"
	}
	not := d.not() != negated
	d.accept("type")
	kind := d.pop()
	if kind == "" {
		return false
	}
	if d.accept("code") {
		kind += "/" + d.pop()
	}
	d.option(module, option, not, kind)
	return true
}

func multiportPhrase(d *details2spec, _ string, negated bool) bool {
	which := d.pop()
	if !slices.Contains([]string{"dports", "sports", "ports"}, which) {
		return false
	}
	not := d.not() != negated
	d.module = ""
	d.option("multiport", "--"+which, not, d.pop())
	return true
}

func conntrackPhrase(d *details2spec, word string, negated bool) bool {
	if len(d.ws) == 0 {
		return false
	}
	d.option("conntrack", "--"+word, negated, d.pop())
	return true
}

func pkttypePhrase(d *details2spec, _ string, negated bool) bool {
	not := d.accept("!=")
	if !not && !d.accept("=") {
		return false
	}
	d.option("pkttype", "--pkt-type", not != negated, d.pop())
	return true
}

// ttlPhrase reads "TTL match TTL < 5".
func ttlPhrase(d *details2spec, word string, _ bool) bool {
	if !d.accept("match", word) {
		return false
	}
	option, ok := map[string]string{"==": "-eq", "!=": "-eq", "<": "-lt", ">": "-gt"}[d.peek(0)]
	not := d.pop() == "!="
	module := strings.ToLower(word)
	d.module = ""
	d.option(module, "--"+module+option, not, d.pop())
	return ok
}

func addrtypePhrase(d *details2spec, _ string, _ bool) bool {
	if !d.accept("match") {
		return false
	}
	for {
		switch {
		case d.accept("src-type"):
			not := d.not()
			d.option("addrtype", "--src-type", not, d.pop())
		case d.accept("dst-type"):
			not := d.not()
			d.option("addrtype", "--dst-type", not, d.pop())
		case d.accept("limit-in"):
			d.option("addrtype", "--limit-iface-in", false)
		case d.accept("limit-out"):
			d.option("addrtype", "--limit-iface-out", false)
		default:
			return true
		}
	}
}

func physdevPhrase(d *details2spec, _ string, _ bool) bool {
	if !d.accept("match") {
		return false
	}
	for {
		at := 0
		if d.peek(0) == "!" {
			at = 1
		}
		option := d.peek(at)
		if !strings.HasPrefix(option, "--physdev-") {
			return true
		}
		d.ws = d.ws[at+1:]
		if option == "--physdev-in" || option == "--physdev-out" {
			d.option("physdev", option, at == 1, d.pop())
		} else {
			d.option("physdev", option, at == 1)
		}
	}
}

func rangePhrase(d *details2spec, word string, negated bool) bool {
	if !d.accept("IP", "range") {
		return false
	}
	not := d.not() != negated
	option := map[string]string{"source": "--src-range", "destination": "--dst-range"}[word]
	d.option("iprange", option, not, d.pop())
	return true
}

func setPhrase(d *details2spec, _ string, negated bool) bool {
	if len(d.ws) < 2 {
		return false
	}
	d.module = ""
	d.option("set", "--match-set", negated, d.pop(), d.pop())
	for {
		switch w := d.peek(0); {
		case w == "return-nomatch":
			d.option("set", "--"+d.pop(), false)
		case w == "!" && (d.peek(1) == "update-counters" || d.peek(1) == "update-subcounters"):
			d.ws = d.ws[1:]
			d.option("set", "--"+d.pop(), true)
		case strings.HasPrefix(w, "packets-") || strings.HasPrefix(w, "bytes-"):
			d.option("set", "--"+d.pop(), false, d.pop())
		default:
			return true
		}
	}
}

// limitPhrase reads "limit: avg 5/sec burst 7" of limit, and "limit: up to 5/sec burst 9 …" of hashlimit.
func limitPhrase(d *details2spec, _ string, _ bool) bool {
	d.module = ""
	prefix := "--hashlimit-"
	switch {
	case d.accept("avg"):
		d.option("limit", "--limit", false, d.pop())
		prefix = "--limit-"
	case d.accept("up", "to"):
		d.option("hashlimit", "--hashlimit-upto", false, d.pop())
	case d.accept("above"):
		d.option("hashlimit", "--hashlimit-above", false, d.pop())
	default:
		return false
	}
	for slices.Contains([]string{"burst", "mode", "htable-size", "htable-max", "htable-gcinterval", "htable-expire", "srcmask", "dstmask"}, d.peek(0)) {
		name := d.pop()
		d.option(d.module, prefix+name, false, strings.ReplaceAll(d.pop(), "-", ","))
	}
	return true
}

func recentPhrase(d *details2spec, _ string, negated bool) bool {
	option, ok := map[string]string{"CHECK": "--rcheck", "SET": "--set", "UPDATE": "--update", "REMOVE": "--remove"}[d.pop()]
	if !ok {
		return false
	}
	d.module = ""
	d.option("recent", option, negated)
	for {
		switch {
		case d.accept("seconds:"):
			d.option("recent", "--seconds", false, d.pop())
		case d.accept("hit_count:"):
			d.option("recent", "--hitcount", false, d.pop())
		case d.accept("reap"):
			d.option("recent", "--reap", false)
		case d.accept("TTL-Match"):
			d.option("recent", "--rttl", false)
		case d.accept("name:"):
			d.option("recent", "--name", false, d.pop())
		case d.accept("side:"):
			d.option("recent", map[bool]string{true: "--rsource", false: "--rdest"}[d.pop() == "source"], false)
		case d.accept("mask:"):
			d.option("recent", "--mask", false, d.pop())
		default:
			return true
		}
	}
}

func ownerPhrase(d *details2spec, _ string, negated bool) bool {
	switch {
	case d.accept("socket", "exists"):
		d.option("owner", "--socket-exists", negated)
	case d.accept("UID", "match"):
		d.option("owner", "--uid-owner", negated, d.pop())
	case d.accept("GID", "match"):
		d.option("owner", "--gid-owner", negated, d.pop())
		if d.accept("incl.", "suppl.", "groups") {
			d.option("owner", "--suppl-groups", false)
		}
	default:
		return false
	}
	return true
}

// connlimitPhrase reads "#conn src/32 > 3".
func connlimitPhrase(d *details2spec, _ string, _ bool) bool {
	side, mask, _ := strings.Cut(d.pop(), "/")
	option, ok := map[string]string{">": "--connlimit-above", "<=": "--connlimit-upto"}[d.pop()]
	if !ok {
		return false
	}
	d.option("connlimit", option, false, d.pop())
	d.option("connlimit", "--connlimit-mask", false, mask)
	if side == "dst" {
		d.option("connlimit", "--connlimit-daddr", false)
	}
	return true
}

func policyPhrase(d *details2spec, _ string, _ bool) bool {
	if !d.accept("match", "dir") {
		return false
	}
	d.option("policy", "--dir", false, d.pop())
	if d.accept("pol") {
		d.option("policy", "--pol", false, d.pop())
	}
	for slices.Contains([]string{"strict", "reqid", "spi", "proto", "mode", "tunnel-dst", "tunnel-src"}, d.peek(0)) {
		if name := d.pop(); name == "strict" {
			d.option("policy", "--strict", false)
		} else {
			d.option("policy", "--"+name, false, d.pop())
		}
	}
	return true
}

func socketPhrase(d *details2spec, _ string, _ bool) bool {
	d.option("socket", "", false)
	for strings.HasPrefix(d.peek(0), "--") {
		d.option("socket", d.pop(), false)
	}
	return true
}

func rpfilterPhrase(d *details2spec, _ string, _ bool) bool {
	d.option("rpfilter", "", false)
	for slices.Contains([]string{"loose", "validmark", "accept-local", "invert"}, d.peek(0)) {
		d.option("rpfilter", "--"+d.pop(), false)
	}
	return true
}

func statisticPhrase(d *details2spec, _ string, _ bool) bool {
	d.module = ""
	d.option("statistic", "", false)
	for {
		at := 0
		if d.peek(0) == "!" {
			at = 1
		}
		if !slices.Contains([]string{"mode", "probability", "every", "packet"}, d.peek(at)) {
			return true
		}
		d.ws = d.ws[at:]
		d.option("statistic", "--"+d.pop(), at == 1, d.pop())
	}
}

func timePhrase(d *details2spec, _ string, _ bool) bool {
	var said []string
	for len(d.ws) > 0 {
		w := d.pop()
		if said = append(said, w); w == "UTC" {
			break
		}
	}
	d.option("time", "--"+listed, false, strings.Join(said, " "))
	return true
}

// targetPhrase reads what the target has to say.
func (d *details2spec) targetPhrase() bool {
	if d.accept("[goto]") {
		d.isGoto = true
		return true
	}
	switch d.target {
	case "DNAT", "SNAT", "NETMAP":
		return d.natPhrase(map[string]string{"DNAT": "--to-destination", "SNAT": "--to-source", "NETMAP": "--to"}[d.target])
	case "MASQUERADE":
		return d.ofTarget("--to-ports", "masq", "ports:") || d.natPhrase("")
	case "REDIRECT":
		return d.ofTarget("--to-ports", "redir", "ports") || d.natPhrase("")
	case "REJECT":
		return d.ofTarget("--reject-with", "reject-with")
	case "LOG":
		return d.logPhrase()
	case "NFLOG":
		return d.ofTarget("--nflog-prefix", "nflog-prefix") || d.ofTarget("--nflog-group", "nflog-group") ||
			d.ofTarget("--nflog-size", "nflog-size") || d.ofTarget("--nflog-threshold", "nflog-threshold")
	case "NFQUEUE":
		return d.ofTarget("--queue-num", "NFQUEUE", "num") || d.ofTarget("--queue-balance", "NFQUEUE", "balance") || d.flagOfTarget("bypass", "--queue-bypass")
	case "MARK", "CONNMARK":
		return d.markPhrase()
	case "CT":
		return d.ctPhrase()
	case "TPROXY":
		return d.tproxyPhrase()
	case "SET":
		return d.setTargetPhrase()
	}
	return false
}

// ofTarget reads words and a value, which are an option of the target.
func (d *details2spec) ofTarget(option string, words ...string) bool {
	if len(d.ws) <= len(words) || !d.accept(words...) {
		return false
	}
	w := d.ws[0]
	d.ws = d.ws[1:]
	d.behindIt = append(append(d.behindIt, ' '), option...)
	d.behindIt = appendWord(d.behindIt, w)
	return true
}

func (d *details2spec) flagOfTarget(word, option string) bool {
	if !d.accept(word) {
		return false
	}
	d.behindIt = append(append(d.behindIt, ' '), option...)
	return true
}

func (d *details2spec) natPhrase(option string) bool {
	if to, ok := strings.CutPrefix(d.peek(0), "to:"); ok && option != "" && to != "" {
		d.pop()
		d.behindIt = append(d.behindIt, " "+option+" "+bare(to)...)
		return true
	}
	return d.flagOfTarget("random", "--random") || d.flagOfTarget("random-fully", "--random-fully") || d.flagOfTarget("persistent", "--persistent")
}

func (d *details2spec) logPhrase() bool {
	if d.accept("LOG") {
		for len(d.ws) > 0 && d.peek(0) != "prefix" {
			d.pop()
		}
		return true
	}
	return d.ofTarget("--log-prefix", "prefix")
}

func (d *details2spec) markPhrase() bool {
	if d.peek(0) != d.target {
		return false
	}
	for word, option := range map[string]string{"set": "--set-mark", "xset": "--set-xmark", "and": "--and-mark", "or": "--or-mark", "xor": "--xor-mark"} {
		if d.ofTarget(option, d.target, word) {
			return true
		}
	}
	for _, word := range []string{"save", "restore"} {
		if d.accept(d.target, word) {
			d.behindIt = append(d.behindIt, " --"+word+"-mark"...)
			d.ofTarget("--mask", "mask")
			return true
		}
	}
	return false
}

func (d *details2spec) ctPhrase() bool {
	d.accept("CT")
	return d.flagOfTarget("notrack", "--notrack") || d.ofTarget("--helper", "helper") || d.ofTarget("--zone", "zone")
}

// tproxyPhrase reads "TPROXY redirect 127.0.0.1:3128 mark 0x1/0x1".
func (d *details2spec) tproxyPhrase() bool {
	if d.accept("TPROXY", "redirect") {
		to := d.pop()
		at := strings.LastIndex(to, ":")
		if at < 0 {
			return false
		}
		ip := strings.Trim(to[:at], "[]")
		d.behindIt = append(d.behindIt, " --on-port "+bare(to[at+1:])+" --on-ip "+bare(ip)...)
		return true
	}
	return d.ofTarget("--tproxy-mark", "mark")
}

func (d *details2spec) setTargetPhrase() bool {
	for _, word := range []string{"add-set", "del-set"} {
		if d.peek(0) == word && d.ofTarget("--"+word, word) {
			d.behindIt = append(d.behindIt, " "+bare(d.pop())...)
			return true
		}
	}
	return d.flagOfTarget("exist", "--exist") || d.ofTarget("--timeout", "timeout")
}
