package judge

import (
	"fmt"
	"strings"
)

// ruleWriter makes random rule sets of others: text for nft and for both variants of iptables, dense enough that a packet meets
// something in most chains.
type ruleWriter struct {
	generator
	family int  // 4 or 6
	inet   bool // the table is of both
}

var (
	where4 = []string{"192.0.2.1", "192.0.2.77", "192.0.2.0/24", "198.51.100.1", "198.51.100.9", "198.51.100.0/25", "172.17.0.2", "172.17.0.9",
		"172.16.0.0/12", "172.18.0.0/16", "45.0.0.1", "45.0.0.0/8", "203.0.113.7", "0.0.0.0/1", "127.0.0.0/8", "10.9.0.0/24"}
	where6 = []string{"2001:db8:2::1", "2001:db8:2::77", "2001:db8:2::/64", "2001:db8:51::1", "2001:db8:51::9", "fd00:17::2", "fd00:17::9",
		"fd00:17::/64", "fd00:30::5", "2003:db8::9", "2003::/16", "::/1", "fd00::/8", "fd09::/64"}
	targets4  = []string{"172.17.0.2", "172.17.0.9", "172.18.0.2", "192.0.2.1", "198.51.100.9", "10.9.0.77", "127.0.0.1"}
	targets6  = []string{"fd00:17::2", "fd00:17::9", "fd00:30::5", "2001:db8:2::1", "2001:db8:51::9", "fd09::77"}
	sources4  = []string{"192.0.2.1", "198.51.100.1", "10.9.0.1", "203.0.113.99"}
	sources6  = []string{"2001:db8:2::1", "2001:db8:51::1", "fd09::1", "2003:db8::99"}
	ruleLinks = []string{"eth0", "eth1", "docker0", "br-00000000bace", "wg0", "lo"}
	rulePorts = []string{"22", "53", "80", "443", "7000", "8080"}
)

func (w ruleWriter) of(four, six []string) string {
	if w.family == 4 {
		return pick(w.generator, four...)
	}
	return pick(w.generator, six...)
}

func (w ruleWriter) addr() string { return w.of(where4, where6) }
func (w ruleWriter) port() string { return pick(w.generator, rulePorts...) }

func (w ruleWriter) portRange(separator string) string {
	if w.oneIn(3) {
		return pick(w.generator, "1"+separator+"79", "80"+separator+"500", "7000"+separator+"65535")
	}
	return w.port()
}

func (w ruleWriter) not(text string) string {
	if w.oneIn(4) {
		return text
	}
	return ""
}

// hookName is a built-in chain of iptables.
type hookName string

const (
	preroutingHook  hookName = "PREROUTING"
	inputHook       hookName = "INPUT"
	forwardHook     hookName = "FORWARD"
	outputHook      hookName = "OUTPUT"
	postroutingHook hookName = "POSTROUTING"
	userChain       hookName = ""
)

// iptables writes a rule set as iptables-restore reads it, all tables whole.
func (w ruleWriter) iptables() string {
	var b strings.Builder
	for _, t := range []struct {
		name  string
		hooks []hookName
	}{
		{"raw", []hookName{preroutingHook, outputHook}},
		{"mangle", []hookName{preroutingHook, inputHook, forwardHook, outputHook, postroutingHook}},
		{"nat", []hookName{preroutingHook, inputHook, outputHook, postroutingHook}},
		{"filter", []hookName{inputHook, forwardHook, outputHook}},
		{"security", []hookName{inputHook, forwardHook, outputHook}},
	} {
		fmt.Fprintf(&b, "*%s\n", t.name)
		for _, h := range t.hooks {
			policy := "ACCEPT"
			if t.name == "filter" && w.oneIn(5) {
				policy = "DROP"
			}
			fmt.Fprintf(&b, ":%s %s [0:0]\n", h, policy)
		}
		chains := w.IntN(4)
		for i := range chains {
			fmt.Fprintf(&b, ":u%d - [0:0]\n", i)
		}
		for _, h := range t.hooks {
			for range w.IntN(5) {
				fmt.Fprintf(&b, "-A %s %s\n", h, w.iptRule(t.name, h, 0, chains))
			}
		}
		for i := range chains {
			for range 1 + w.IntN(4) {
				fmt.Fprintf(&b, "-A u%d %s\n", i, w.iptRule(t.name, userChain, i+1, chains))
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// iptRule is a rule of a table; it jumps to user chains from a number on.
func (w ruleWriter) iptRule(table string, h hookName, from, chains int) string {
	var m []string
	proto := pick(w.generator, "", "", "tcp", "tcp", "udp", "icmp")
	switch proto {
	case "tcp", "udp":
		m = append(m, "-p "+proto)
		m = append(m, w.iptPorts(proto)...)
	case "icmp":
		if w.family == 4 {
			m = append(m, "-p icmp -m icmp "+w.not("! ")+"--icmp-type 8")
		} else {
			m = append(m, "-p icmpv6 -m icmp6 "+w.not("! ")+"--icmpv6-type 128")
		}
	}
	for range w.IntN(3) {
		m = append(m, w.iptMatch(table, h))
	}
	return strings.Join(append(unique(m), w.iptTarget(table, h, proto, from, chains)), " ")
}

// unique keeps one of each kind of match: iptables takes most options once.
func unique(all []string) []string {
	var kept []string
	seen := map[string]bool{}
	for _, m := range all {
		words := strings.Fields(strings.ReplaceAll(m, "! ", ""))
		if len(words) == 0 {
			continue
		}
		key := words[0]
		if key == "-m" {
			key = words[1]
		}
		if !seen[key] {
			kept = append(kept, m)
		}
		seen[key] = true
	}
	return kept
}

func (w ruleWriter) iptPorts(proto string) []string {
	switch w.IntN(4) {
	case 0:
		return []string{"-m multiport " + w.not("! ") + "--" + pick(w.generator, "dports", "sports", "ports") + " " + w.port() + "," + w.portRange(":") + ",9999"}
	case 1:
		if proto == "tcp" {
			return []string{"-m tcp " + w.not("! ") + "--tcp-flags " + pick(w.generator, "FIN,SYN,RST,ACK SYN", "SYN,ACK SYN", "ALL NONE", "SYN,FIN SYN,FIN")}
		}
	case 2:
		return []string{"-m " + proto + " " + w.not("! ") + "--sport " + w.portRange(":")}
	}
	return []string{"-m " + proto + " " + w.not("! ") + "--dport " + w.portRange(":")}
}

func (w ruleWriter) iptMatch(table string, h hookName) string {
	mayIn := h == preroutingHook || h == inputHook || h == forwardHook
	mayOut := h == postroutingHook || h == outputHook || h == forwardHook
	switch w.IntN(10) {
	case 0, 1:
		return w.not("! ") + "-s " + w.addr()
	case 2, 3:
		return w.not("! ") + "-d " + w.addr()
	case 4:
		if mayIn {
			return w.not("! ") + "-i " + pick(w.generator, append(ruleLinks, "eth+")...)
		}
	case 5:
		if mayOut {
			return w.not("! ") + "-o " + pick(w.generator, append(ruleLinks, "br-+")...)
		}
	case 6:
		return "-m conntrack " + w.not("! ") + "--ctstate " + pick(w.generator, "NEW", "RELATED,ESTABLISHED", "INVALID", "UNTRACKED", "DNAT", "SNAT")
	case 7:
		return "-m addrtype " + w.not("! ") + "--" + pick(w.generator, "src", "dst") + "-type LOCAL"
	case 8:
		return "-m mark " + w.not("! ") + "--mark " + pick(w.generator, "0x1", "0x2/0x2", "0x0/0x3", "0x10/0xf0")
	}
	switch w.IntN(4) {
	case 0:
		four, six := "192.0.2.10-192.0.2.100", "2001:db8:2::10-2001:db8:51::"
		if w.family == 4 {
			return "-m iprange " + w.not("! ") + "--" + pick(w.generator, "src", "dst") + "-range " + four
		}
		return "-m iprange " + w.not("! ") + "--" + pick(w.generator, "src", "dst") + "-range " + six
	case 1:
		return "-m conntrack " + w.not("! ") + "--ctorigdstport " + w.port()
	}
	return "-m set " + w.not("! ") + "--match-set " + w.set()
}

// set is a set of ipset with its directions.
func (w ruleWriter) set() string {
	name := pick(w.generator, "ip src", "ip dst", "net src", "net dst", "ipport dst,dst", "ipport src,dst", "list dst", "netport src,dst")
	return fmt.Sprintf("q%d-%s", w.family, name)
}

func (w ruleWriter) iptTarget(table string, h hookName, proto string, from, chains int) string {
	if from < chains && w.oneIn(3) {
		return pick(w.generator, "-j", "-j", "-g") + fmt.Sprintf(" u%d", from+w.IntN(chains-from))
	}
	if w.oneIn(8) {
		return pick(w.generator, "-j RETURN", "-j ACCEPT")
	}
	switch table {
	case "nat":
		return w.iptNAT(h, proto)
	case "mangle":
		if w.oneIn(2) {
			return pick(w.generator, "-j MARK --set-xmark 0x1/0x1", "-j MARK --set-xmark 0x2/0xffffffff", "-j MARK --set-xmark 0x30/0xf0",
				"-j CONNMARK --save-mark", "-j CONNMARK --restore-mark", "-j CONNMARK --set-xmark 0x3/0xff")
		}
	case "raw":
		if w.oneIn(4) {
			return pick(w.generator, "-j NOTRACK", "-j CT --notrack")
		}
		return pick(w.generator, "-j DROP", "-j ACCEPT", "-j RETURN")
	case "filter":
		if w.oneIn(6) {
			return "-j REJECT"
		}
	}
	return pick(w.generator, "-j DROP", "-j ACCEPT", "-j ACCEPT", "-j RETURN", "")
}

// iptNAT translates. A port needs a protocol, and what a user chain is called from isn't known.
func (w ruleWriter) iptNAT(h hookName, proto string) string {
	port := ""
	if proto == "tcp" || proto == "udp" {
		port = pick(w.generator, "", ":80", ":7000")
	}
	with := func(addr, port string) string {
		if port != "" && w.family == 6 {
			return "[" + addr + "]" + port
		}
		return addr + port
	}
	switch {
	case h == preroutingHook || h == outputHook:
		if port != "" && w.oneIn(3) {
			return "-j REDIRECT --to-ports " + port[1:]
		}
		if h == preroutingHook && w.oneIn(8) && w.family == 4 {
			return "-j NETMAP --to 10.9.0.0/24"
		}
		return "-j DNAT --to-destination " + with(w.of(targets4, targets6), port)
	case h == postroutingHook && w.oneIn(3):
		return "-j MASQUERADE"
	case h == postroutingHook || h == inputHook:
		return "-j SNAT --to-source " + with(w.of(sources4, sources6), port)
	}
	return pick(w.generator, "-j ACCEPT", "-j RETURN")
}

// ipsets writes the sets that the rules ask for.
func ipsets(g generator) string {
	var b strings.Builder
	for _, family := range []int{4, 6} {
		w := ruleWriter{generator: g, family: family}
		name := func(kind string) string { return fmt.Sprintf("q%d-%s", family, kind) }
		for _, kind := range []string{"ip", "net", "ipport", "netport"} {
			fmt.Fprintf(&b, "flush %s\n", name(kind))
		}
		for range 1 + g.IntN(4) {
			fmt.Fprintf(&b, "-exist add %s %s\n", name("ip"), w.of(targets4, targets6))
			fmt.Fprintf(&b, "-exist add %s %s\n", name("net"), w.addr())
			fmt.Fprintf(&b, "-exist add %s %s,%s%s\n", name("ipport"), w.of(targets4, targets6), pick(g, "tcp:", "udp:"), w.port())
			fmt.Fprintf(&b, "-exist add %s %s,%s%s\n", name("netport"), w.of(targets4, targets6), pick(g, "tcp:", "udp:"), w.port())
		}
		if g.oneIn(2) {
			fmt.Fprintf(&b, "-exist add %s %s nomatch\n", name("net"), w.of(targets4, targets6))
		}
	}
	return b.String()
}

// ipsetsMade creates the sets, once for a host.
func ipsetsMade() string {
	var b strings.Builder
	for family, name := range map[int]string{4: "inet", 6: "inet6"} {
		for kind, typ := range map[string]string{"ip": "hash:ip", "net": "hash:net", "ipport": "hash:ip,port", "netport": "hash:net,port"} {
			fmt.Fprintf(&b, "create q%d-%s %s family %s\n", family, kind, typ, name)
		}
		fmt.Fprintf(&b, "create q%d-list list:set\nadd q%d-list q%d-ip\nadd q%d-list q%d-net\n", family, family, family, family, family)
	}
	return b.String()
}

// nftChain is a base chain that random rules of nft stand in.
type nftChain struct {
	name, typ, hook string
	priority        int
}

var nftChains = []nftChain{
	{"pre-raw", "filter", "prerouting", -300}, {"pre", "filter", "prerouting", -150}, {"pre-late", "filter", "prerouting", -95},
	{"pre-nat", "nat", "prerouting", -100}, {"pre-nat2", "nat", "prerouting", -90}, {"in", "filter", "input", 0}, {"in2", "filter", "input", 10},
	{"in-nat", "nat", "input", 100}, {"fwd", "filter", "forward", 0}, {"fwd2", "filter", "forward", -10}, {"out-raw", "filter", "output", -300},
	{"out-route", "route", "output", -150}, {"out-nat", "nat", "output", -100}, {"out", "filter", "output", 0}, {"post", "filter", "postrouting", 0},
	{"post-nat", "nat", "postrouting", 100}, {"post-late", "filter", "postrouting", 120},
}

// nft writes a table as nft reads it. What it replaces is gone first.
func (w ruleWriter) nft(family, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s\ndelete table %s %s\ntable %s %s {\n", family, name, family, name, family, name)
	if w.family == 4 || family == "inet" {
		fmt.Fprintf(&b, " set s4 { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.0/25, 172.17.0.2, 45.0.0.1-45.0.0.9 } }\n")
		fmt.Fprintf(&b, " set p4 { type ipv4_addr . inet_service; elements = { 172.17.0.2 . 80, 192.0.2.1 . 443 } }\n")
	}
	if w.family == 6 || family == "inet" {
		fmt.Fprintf(&b, " set s6 { type ipv6_addr; flags interval; auto-merge; elements = { 2001:db8:2::/65, fd00:17::2 } }\n")
		fmt.Fprintf(&b, " set p6 { type ipv6_addr . inet_service; elements = { fd00:17::2 . 80, 2001:db8:2::1 . 443 } }\n")
	}
	chains := 1 + w.IntN(3)
	fmt.Fprintf(&b, " map ports { type inet_service : verdict; flags interval; elements = { 22 : accept, 53 : drop, 80-443 : jump u%d } }\n", chains-1)
	inet := family == "inet"
	for i := range chains {
		at := chains - 1 - i // those that are jumped to first
		fmt.Fprintf(&b, " chain u%d {\n", at)
		for range 1 + w.IntN(4) {
			fmt.Fprintf(&b, "  %s\n", w.nftRule(nftChain{}, at+1, chains, inet))
		}
		b.WriteString(" }\n")
	}
	for _, c := range nftChains {
		if w.oneIn(3) {
			continue
		}
		policy := "accept"
		if c.typ == "filter" && w.oneIn(8) && c.priority == 0 {
			policy = "drop"
		}
		fmt.Fprintf(&b, " chain c-%s {\n  type %s hook %s priority %d; policy %s;\n", c.name, c.typ, c.hook, c.priority, policy)
		for range 1 + w.IntN(4) {
			fmt.Fprintf(&b, "  %s\n", w.nftRule(c, 0, chains, inet))
		}
		b.WriteString(" }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (w ruleWriter) nftRule(c nftChain, from, chains int, inet bool) string {
	if w.inet = inet; inet {
		w.family = pick(w.generator, 4, 6)
	}
	var m []string
	proto := pick(w.generator, "", "tcp", "tcp", "udp")
	if proto != "" {
		m = append(m, proto+" "+pick(w.generator, "dport", "dport", "sport")+" "+w.nftPorts())
	}
	for range w.IntN(3) {
		m = append(m, w.nftMatch(c, proto))
	}
	if w.oneIn(4) {
		m = append(m, "counter")
	}
	return strings.Join(append(m, w.nftVerdict(c, proto, from, chains)), " ")
}

func (w ruleWriter) nftPorts() string {
	switch w.IntN(3) {
	case 0:
		return w.not("!= ") + "{ " + w.port() + ", 9999, 1000-2000 }"
	case 1:
		return w.not("!= ") + w.portRange("-")
	}
	return w.not("!= ") + w.port()
}

func (w ruleWriter) nftMatch(c nftChain, proto string) string {
	ip := map[int]string{4: "ip", 6: "ip6"}[w.family]
	side := pick(w.generator, "saddr", "daddr")
	mayIn := c.hook == "prerouting" || c.hook == "input" || c.hook == "forward"
	switch w.IntN(11) {
	case 0, 1:
		return ip + " " + side + " " + w.not("!= ") + w.addr()
	case 2:
		return fmt.Sprintf("%s %s %s@s%d", ip, side, w.not("!= "), w.family)
	case 3:
		if mayIn {
			return "iifname " + w.not("!= ") + pick(w.generator, `"eth0"`, `{ "eth1", "docker0" }`, `"eth*"`)
		}
		return "oifname " + w.not("!= ") + pick(w.generator, `"eth0"`, `"lo"`, `{ "eth1", "docker0" }`)
	case 4:
		return "ct state " + w.not("!= ") + pick(w.generator, "new", "established,related", "invalid", "untracked")
	case 5:
		return "meta mark " + w.not("!= ") + pick(w.generator, "0x1", "0x0", "0x2")
	case 6:
		return "meta mark & 0x3 " + pick(w.generator, "== 0x1", "!= 0x2")
	case 7:
		return "fib " + side + " type " + w.not("!= ") + "local"
	case 8:
		if proto != "" {
			return "ct original proto-dst " + w.not("!= ") + w.port()
		}
		return "meta l4proto " + w.not("!= ") + pick(w.generator, "tcp", "{ udp, icmp, ipv6-icmp }")
	case 9:
		return "ct status " + pick(w.generator, "dnat", "snat")
	}
	if proto == "" {
		return w.nfproto() + "meta mark 0x3"
	}
	return fmt.Sprintf("%s%s daddr . %s dport @p%d", w.nfproto(), ip, proto, w.family)
}

// nfproto asks for the family where the table doesn't.
func (w ruleWriter) nfproto() string {
	if !w.inet {
		return ""
	}
	return "meta nfproto " + map[int]string{4: "ipv4", 6: "ipv6"}[w.family] + " "
}

func (w ruleWriter) nftVerdict(c nftChain, proto string, from, chains int) string {
	switch {
	case from < chains && w.oneIn(3):
		return pick(w.generator, "jump", "jump", "goto") + fmt.Sprintf(" u%d", from+w.IntN(chains-from))
	case from == 0 && proto != "" && w.oneIn(6):
		return proto + " dport vmap @ports"
	case c.typ == "nat" && w.oneIn(2):
		return w.nftNAT(c, proto)
	case c.priority == -300 && w.oneIn(4):
		return "notrack"
	case c.typ != "nat" && w.oneIn(3):
		return pick(w.generator, "meta mark set 0x1", "meta mark set meta mark | 0x2", "meta mark set meta mark & 0x1", "ct mark set meta mark", "meta mark set ct mark")
	case (c.hook == "input" || c.hook == "forward" || c.hook == "output") && c.typ == "filter" && w.oneIn(6):
		return "reject"
	}
	return pick(w.generator, "drop", "accept", "accept", "return", "continue")
}

func (w ruleWriter) nftNAT(c nftChain, proto string) string {
	ip := map[int]string{4: "ip", 6: "ip6"}[w.family]
	match := w.nfproto()
	with := func(addr string) string {
		port := pick(w.generator, "", ":80", ":7000")
		if proto == "" || port == "" {
			return addr
		}
		if w.family == 6 {
			addr = "[" + addr + "]"
		}
		return addr + port
	}
	switch c.hook {
	case "prerouting", "output":
		if proto != "" && w.oneIn(3) {
			return "redirect to :" + pick(w.generator, "80", "7000")
		}
		return match + "dnat " + ip + " to " + with(w.of(targets4, targets6))
	case "postrouting":
		if w.oneIn(3) {
			return "masquerade"
		}
	}
	return match + "snat " + ip + " to " + with(w.of(sources4, sources6))
}
