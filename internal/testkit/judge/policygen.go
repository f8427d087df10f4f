package judge

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/policy"
)

// document is a policy as text in parts, so that a part can be left out when a disagreement is cut down.
type document struct {
	settings []string     // whole lines: defaults, trusted, log, hygiene
	sets     []setText    // inline and from files
	services []string     // lines "  name: [...]"
	rules    [3][]rowText // by policy.Section
}

type setText struct {
	name    string
	entries []string
	file    bool // the entries stand in a file
}

// rowText is a rule: its verb, what it is about, and its qualifiers as YAML.
type rowText struct {
	verb  string
	what  []string
	quals []qualifier
}

type qualifier struct{ key, value string }

const policyFile = "/etc/quaywall/policy.yaml"

// files are the policy and the files of its sets.
func (d document) files() policy.Memory {
	m := policy.Memory{policyFile: d.text()}
	for _, s := range d.sets {
		if s.file {
			m["/etc/quaywall/"+s.name+".txt"] = strings.Join(s.entries, "\n") + "\n"
		}
	}
	return m
}

// text is the policy in its language.
func (d document) text() string {
	var b strings.Builder
	b.WriteString("version: 1\n")
	for _, s := range d.settings {
		b.WriteString(s + "\n")
	}
	if len(d.sets) > 0 {
		b.WriteString("sets:\n")
	}
	for _, s := range d.sets {
		if s.file {
			fmt.Fprintf(&b, "  %s: {file: %s.txt}\n", s.name, s.name)
			continue
		}
		fmt.Fprintf(&b, "  %s: [%s]\n", s.name, strings.Join(quoted(s.entries), ", "))
	}
	if len(d.services) > 0 {
		b.WriteString("services:\n" + strings.Join(d.services, "\n") + "\n")
	}
	for s, rows := range d.rules {
		if len(rows) > 0 {
			fmt.Fprintf(&b, "%s:\n", policy.Section(s))
		}
		for _, r := range rows {
			b.WriteString("  - " + r.text() + "\n")
		}
	}
	return b.String()
}

func (r rowText) text() string {
	words := []string{r.verb + ": [" + strings.Join(r.what, ", ") + "]"}
	for _, q := range r.quals {
		words = append(words, q.key+": "+q.value)
	}
	return "{" + strings.Join(words, ", ") + "}"
}

// quoted puts quotes round what YAML would take for something else.
func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w; strings.Contains(w, ":") {
			out[i] = `"` + w + `"`
		}
	}
	return out
}

// load reads the document with the real parser.
func (d document) load() (*policy.Policy, diag.List) {
	p, _, list := policy.Load(d.files(), policyFile)
	return p, list
}

// generator makes random documents and packets. The same seed gives the same.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator {
	return generator{rand.New(rand.NewPCG(seed, 0x71756179))}
}

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) oneIn(n int) bool { return g.IntN(n) == 0 }

// document makes a policy. Most are small and dense, so that rules overlap; some are long, so that they become maps,
// sets and trees.
func (g generator) document() document {
	var d document
	d.sets = g.sets()
	d.services = []string{"  stack: [80/tcp, 9000-9100/tcp, 53/udp]", "  lone: 7000/tcp"}
	d.settings = g.settings()
	for _, s := range []policy.Section{policy.Inbound, policy.Egress, policy.Outbound} {
		d.rules[s] = g.rows(d.sets, s)
	}
	return d
}

func (g generator) settings() []string {
	verb := func(deny, reject, allow int) string {
		switch n := g.IntN(deny + reject + allow); {
		case n < deny:
			return "deny"
		case n < deny+reject:
			return "reject"
		}
		return "allow"
	}
	s := []string{fmt.Sprintf("defaults: {inbound: %s, egress: %s, outbound: %s}", verb(6, 2, 1), verb(2, 1, 3), verb(2, 1, 4))}
	s = append(s, "hygiene: "+pick(g, "on", "on", "off"))
	s = append(s, "log: "+pick(g, "{denied: 10/second}", "{denied: 1000/second}", "off"))
	if g.oneIn(2) {
		s = append(s, "trusted: ["+pick(g, "wg0", `"wg*"`, "wg0, eth1", "br-00000000bace", "eth9")+"]")
	}
	if g.oneIn(4) {
		s = append(s, "established: keep")
	}
	return s
}

// addresses that rules and packets come back to; those of the host and its networks are among them.
var places4 = []string{"203.0.113.7", untracked4, "203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0", "10.0.0.1", "10.9.0.2", "10.255.255.255",
	"192.0.2.9", "192.0.2.1", "198.51.100.9", "172.17.0.2", "172.17.0.9", "172.18.0.2", "172.30.0.5", "192.168.7.7", "1.0.0.0", "223.255.255.255"}

var places6 = []string{"2001:db8:9::7", untracked6, "2001:db8:9::", "2001:db8:8:ffff:ffff:ffff:ffff:ffff", "2001:db8:a::", "2001:db8:2::9", "2001:db8:2::1",
	"fd00:17::2", "fd00:30::5", "fe80::9", "2001:db8:aa::1", "fd09::2", "2003::1"}

// place is an address near the usual ones, of a family where one is asked for (4, 6, else either).
func (g generator) place(family int) netip.Addr {
	from := places4
	if family == 6 || family != 4 && g.oneIn(2) {
		from = places6
	}
	a := netip.MustParseAddr(pick(g, from...))
	switch g.IntN(6) {
	case 0:
		return a.Next()
	case 1:
		return a.Prev()
	}
	return a
}

// entry is an address, a prefix or a range.
func (g generator) entry(family int) string {
	a := g.place(family)
	switch g.IntN(5) {
	case 0, 1:
		widths := []int{8, 16, 23, 24, 25, 30, 31}
		if a.Is6() {
			widths = []int{16, 32, 48, 64, 65, 126, 127}
		}
		p, _ := a.Prefix(pick(g, widths...))
		return p.String()
	case 2:
		b := g.place(4 + 2*btoi(a.Is6()))
		if b.Less(a) {
			a, b = b, a
		}
		return a.String() + "-" + b.String()
	}
	return a.String()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (g generator) sets() []setText {
	sets := []setText{
		{name: "office", entries: g.entries(1+g.IntN(5), 0)},
		{name: "four", entries: g.entries(1+g.IntN(4), 4)},
		{name: "six", entries: g.entries(1+g.IntN(4), 6)},
		{name: "friends", entries: g.entries(1+g.IntN(6), 0), file: true},
	}
	if g.oneIn(6) {
		sets = append(sets, setText{name: "many", entries: g.scattered(200 + g.IntN(400)), file: g.oneIn(2)})
	}
	return sets
}

func (g generator) entries(n, family int) (all []string) {
	for range n {
		all = append(all, g.entry(family))
	}
	return all
}

// scattered is a long list of small prefixes of both families with gaps between.
func (g generator) scattered(n int) (all []string) {
	for i := range n {
		if i%3 == 0 {
			all = append(all, fmt.Sprintf("2001:db8:9:%x::/%d", i*2, 63+g.IntN(2)))
			continue
		}
		all = append(all, fmt.Sprintf("10.%d.%d.%d/%d", i/128, i%128*2, g.IntN(64)*4, 30+g.IntN(3)))
	}
	return all
}

func (g generator) rows(sets []setText, s policy.Section) (rows []rowText) {
	n := g.IntN(7)
	if s == policy.Inbound {
		n = 1 + g.IntN(10)
		if g.oneIn(3) {
			rows = g.banned(sets)
			n += len(rows)
		}
	}
	for len(rows) < n {
		r := g.row(sets, s)
		rows = append(rows, r)
		if g.oneIn(8) {
			rows = append(rows, g.run(sets, s, r)...)
		}
	}
	return rows
}

// banned is rows that deny everything from some addresses: in front of all others they are judged before connection
// tracking.
func (g generator) banned(sets []setText) (rows []rowText) {
	for range pick(g, 1, 1, 2, 3, 8) {
		r := rowText{verb: "deny", what: []string{"any"}, quals: []qualifier{{"from", g.named(sets, g.oneIn(10))}}}
		if g.oneIn(5) {
			r.quals = append(r.quals, qualifier{"on", g.on(policy.Inbound)})
		}
		if g.oneIn(5) {
			r.quals = append(r.quals, qualifier{"log", "true"})
		}
		rows = append(rows, r)
	}
	return rows
}

// run is rules like one that differ by address, or by port: what the compiler makes maps of.
func (g generator) run(sets []setText, s policy.Section, like rowText) (rows []rowText) {
	n := pick(g, 3, 9, 20, 40)
	byPort := g.oneIn(3)
	for range n {
		r := rowText{verb: pick(g, "allow", "deny", "reject", like.verb)}
		if r.what = like.what; byPort {
			r.what = g.whats(s)
		}
		side := "from"
		if s != policy.Inbound {
			side = "to"
		}
		r.quals = append(r.quals, qualifier{side, g.named(sets, g.oneIn(10))})
		rows = append(rows, r)
	}
	return rows
}

func (g generator) row(sets []setText, s policy.Section) rowText {
	r := rowText{verb: pick(g, "allow", "allow", "allow", "deny", "reject"), what: g.whats(s)}
	add := func(key, value string) { r.quals = append(r.quals, qualifier{key, value}) }
	if g.oneIn(2) {
		add("from", g.named(sets, g.oneIn(5)))
	}
	toNetwork := false
	if g.oneIn(4) || s != policy.Inbound && g.oneIn(3) {
		value := g.to(sets, s)
		toNetwork = strings.HasPrefix(value, "{network")
		add("to", value)
	}
	if g.oneIn(6) {
		add("on", g.on(s))
	}
	if s != policy.Outbound && !toNetwork && g.oneIn(6) {
		add("network", pick(g, "backend", "bridge", "[routed, bridge]", "[backend]"))
	}
	if r.verb == "allow" && g.oneIn(6) {
		// Wide ones never bind; narrow ones are tried with a flood.
		add("limit", pick(g, wideLimit, wideLimit, "5/minute burst 5", "3/hour burst 7", "10/minute"))
	}
	if g.oneIn(8) {
		add("log", "true")
	}
	if g.oneIn(10) {
		add("note", `"because: it's so"`)
	}
	return r
}

const wideLimit = "9000/second burst 9000"

func (g generator) on(s policy.Section) string {
	switch s {
	case policy.Egress:
		return pick(g, `"docker*"`, "br-00000000bace", `"br-*"`, "[docker0, br-000000005eed]", "eth0")
	case policy.Outbound:
		return pick(g, "eth0", `"eth*"`, "[eth1, wg0]", "eth9")
	}
	return pick(g, "eth0", "eth1", `"eth*"`, "[wg0, eth1]", `"w*"`, "eth")
}

func (g generator) to(sets []setText, s policy.Section) string {
	if s == policy.Inbound {
		if g.oneIn(3) {
			return "{network: " + pick(g, "routed", "routed", "bridge") + "}"
		}
		return pick(g, "192.0.2.1", "198.51.100.1", `"2001:db8:2::1"`, "[192.0.2.1, \"2001:db8:2::1\"]", "{not: 192.0.2.1}", "192.0.2.0/24",
			"224.0.0.0/4", "192.0.2.255", `"fe80::/10"`)
	}
	if s == policy.Egress && g.oneIn(3) {
		return "host"
	}
	return g.named(sets, g.oneIn(5))
}

// named is a from or a to by addresses.
func (g generator) named(sets []setText, not bool) string {
	var words []string
	for range 1 + g.IntN(3)*g.IntN(2) {
		if g.oneIn(2) {
			words = append(words, sets[g.IntN(len(sets))].name)
		} else {
			words = append(words, g.entry(0))
		}
	}
	text := strings.Join(quoted(words), ", ")
	if len(words) > 1 || g.oneIn(4) {
		text = "[" + text + "]"
	}
	if not {
		return "{not: " + text + "}"
	}
	return text
}

func (g generator) whats(s policy.Section) []string {
	if g.oneIn(8) {
		return []string{"any"}
	}
	var all []string
	for range 1 + g.IntN(3)*g.IntN(2) {
		all = append(all, g.what(s))
	}
	if g.oneIn(25) {
		for range 30 {
			all = append(all, g.what(s))
		}
	}
	return all
}

func (g generator) what(s policy.Section) string {
	switch g.IntN(12) {
	case 0:
		return pick(g, "ssh", "dns", "https", "ping", "stack", "lone", "swarm", "mosh")
	case 1:
		return pick(g, "ping", "icmp", "icmp6", "icmp/8", "icmp6/128", "icmp/13", "icmp/8/0", "icmp/13/1", "icmp6/128/1", "icmp/5/1", "icmp6/137", "icmp/0", "icmp6/129", "icmp/3", "icmp6/1/4")
	case 2:
		return pick(g, "esp", "ah", "gre", "sctp", "igmp", "udplite", "tcp", "udp", "ospf")
	case 3:
		if s != policy.Outbound {
			return "published"
		}
	}
	return g.ports() + pick(g, "", "/tcp", "/tcp", "/tcp", "/udp", "/udp", "/any", "/tcp+udp", "/sctp", "/tcp+sctp")
}

// ports is a port or a range of them; the usual ones are where published ports and sockets are.
func (g generator) ports() string {
	first := g.port()
	if g.oneIn(4) {
		last := g.port()
		return fmt.Sprintf("%d-%d", min(first, last), max(first, last))
	}
	return fmt.Sprint(first)
}

func (g generator) port() uint16 {
	if g.oneIn(12) {
		return uint16(1 + g.IntN(65535))
	}
	p := pick[uint16](g, 1, 22, 53, 68, 80, 443, 546, 1024, 7000, 7001, 8080, 8081, 8082, 8083, 8084, 9000, 9050, 9100, 65535)
	switch g.IntN(8) {
	case 0:
		return max(1, p-1)
	case 1:
		return max(1, p+1)
	}
	return p
}
