// Package iptwalk leads one packet through rules of iptables, naively: rule by rule, set by set, as xtables would. The rules are
// those that render/ipt made, or those that iptables-save printed.
//
//	r, err := iptwalk.Walk(rules, "PREROUTING", pk, host)
//
// Be aware: for tests alone. It knows what render/ipt writes and nothing more; an option that it doesn't know is an error. A
// limit is never over and a log never full.
package iptwalk

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulewalk"
)

// Result is what became of a packet.
type Result struct {
	Verdict string   // ACCEPT, DROP, or REJECT for a packet that was labelled to be rejected
	Lines   []string // policy lines of the rules and elements that counted the packet, in order
	Logs    []string // prefixes by which it was logged
	Rules   int      // how many rules it met
}

// Walk leads a packet through the jumps of a hook of table raw, then of table mangle.
func Walk(rules *ipt.Rules, hook string, pk packet.Packet, host rulewalk.Host) (Result, error) {
	w := &walker{sets: map[string]ipt.Set{}, pk: pk, host: host}
	family := &rules.IPv4
	if pk.Dst.Is6() {
		family = &rules.IPv6
	}
	for _, s := range rules.Sets {
		w.sets[s.Name] = s
	}
	var err error
	for _, w.table = range []*ipt.Table{&family.Raw, &family.Mangle} {
		if w.result.Verdict, err = w.verdict(hook); err != nil || w.result.Verdict == "DROP" {
			break
		}
	}
	return w.result, err
}

// Same tells whether a ruleset and what was made of it did the same with a packet. Whether a rejected packet is answered by RST
// or by port-unreachable is decided behind table mangle; one that begins no connection is dropped there without an answer.
func Same(pk packet.Packet, want rulewalk.Result, got Result) bool {
	verdict := map[ruleset.Kind]string{ruleset.Accept: "ACCEPT", ruleset.Drop: "DROP", ruleset.TCPReset: "REJECT",
		ruleset.Unreachable: "REJECT"}[want.Kind]
	if verdict == "REJECT" && pk.State != packet.New {
		verdict = "DROP"
	}
	return got.Verdict == verdict && slices.Equal(got.Lines, want.Lines) && slices.Equal(got.Logs, want.Logs)
}

type walker struct {
	table    *ipt.Table
	sets     map[string]ipt.Set
	pk       packet.Packet
	host     rulewalk.Host
	labelled bool
	result   Result
	depth    int
}

func (w *walker) verdict(hook string) (string, error) {
	for _, j := range w.table.Jumps {
		if j.From != hook {
			continue
		}
		done, err := w.rule(j.Spec)
		if err != nil || done != "" {
			return done, err
		}
	}
	if w.labelled {
		return "REJECT", nil
	}
	return "ACCEPT", nil
}

// chain gives "" for a packet that comes back.
func (w *walker) chain(name string) (string, error) {
	i := slices.IndexFunc(w.table.Chains, func(c ipt.Chain) bool { return c.Name == name })
	if i < 0 {
		return "", fmt.Errorf("there is no chain %s", name)
	}
	if w.depth++; w.depth > 60 {
		return "", fmt.Errorf("goes round in circles: %s", name)
	}
	for _, r := range w.table.Chains[i].Rules {
		done, err := w.rule(r.Spec)
		switch {
		case err != nil:
			return "", err
		case done == "RETURN", done == "LEFT":
			return "", nil
		case done != "":
			return done, nil
		}
	}
	return "", nil
}

// rule gives what the rule does with the packet: "" for nothing final, "RETURN", "DROP", "LEFT" after a -g that came back.
func (w *walker) rule(spec string) (string, error) {
	words, err := ipt.Words(spec)
	if err != nil {
		return "", err
	}
	w.result.Rules++
	s := scan{w: w, words: words}
	if holds, err := s.holds(); err != nil || !holds {
		return "", err
	}
	for _, c := range append(s.elements, s.comment) {
		if line := ruleset.ParseOrigin(c).Line; line != "" {
			w.result.Lines = append(w.result.Lines, line)
		}
	}
	switch {
	case s.target == "NFLOG":
		w.result.Logs = append(w.result.Logs, s.prefix)
	case s.target == "" || s.target == "DROP" || s.target == "RETURN":
		return s.target, nil
	default:
		done, err := w.chain(s.target)
		if s.isGoto && done == "" {
			done = "LEFT"
		}
		return done, err
	}
	return "", nil
}

// scan reads one rule against the packet.
type scan struct {
	w     *walker
	words []string

	ok             bool
	target, prefix string
	isGoto         bool
	comment        string
	elements       []string // comments of elements that matched
}

func (s *scan) next() string {
	if len(s.words) == 0 {
		return ""
	}
	w := s.words[0]
	s.words = s.words[1:]
	return w
}

func (s *scan) holds() (bool, error) {
	s.ok = true
	not := false
	for len(s.words) > 0 && s.ok {
		option := s.next()
		if option == "!" {
			not = true
			continue
		}
		if err := s.option(option, not); err != nil {
			return false, err
		}
		not = false
	}
	return s.ok, nil
}

func (s *scan) option(option string, not bool) error {
	pk := s.w.pk
	is := func(b bool) { s.ok = s.ok && b != not }
	switch option {
	case "-j", "-g":
		s.target, s.isGoto = s.next(), option == "-g"
	case "-m":
		if s.next() == "socket" {
			is(pk.Socket)
		}
	case "-p":
		is(protocols[s.next()] == pk.Proto)
	case "-s":
		is(netip.MustParsePrefix(s.next()).Contains(pk.Src))
	case "-d":
		is(netip.MustParsePrefix(s.next()).Contains(pk.Dst))
	case "-i":
		is(ifaceMatches(s.next(), pk.In))
	case "-o":
		is(ifaceMatches(s.next(), pk.Out))
	case "--dport", "--dports":
		is(portIn(s.next(), pk.DstPort))
	case "--sport", "--sports":
		is(portIn(s.next(), pk.SrcPort))
	case "--tcp-flags":
		mask, value := flagBits(s.next()), flagBits(s.next())
		is(pk.Flags&mask == value)
	case "--icmp-type", "--icmpv6-type":
		is(icmpIs(s.next(), pk))
	case "--ctstate":
		is(s.ctstate(strings.Split(s.next(), ",")))
	case "--src-type":
		is(s.addrType(s.next(), pk.Src))
	case "--dst-type":
		is(s.addrType(s.next(), pk.Dst))
	case "--limit-iface-in": // the hosts of tests have link-local addresses on no interface in particular
	case "--hashlimit-above":
		s.next()
		is(s.w.host.Over)
	case "--comment":
		s.comment = s.next()
	case "--match-set":
		return s.matchSet(s.next(), s.next(), not)
	case "--label":
		s.next()
		if len(s.words) > 0 && s.words[0] == "--set" {
			s.next()
			s.w.labelled = s.ok
		}
		is(s.w.labelled)
	case "--ctstatus": // what is walked here is in no table of connections
		is(s.next() != "CONFIRMED")
	case "--nflog-prefix":
		s.prefix = s.next()
	case "--limit", "--limit-burst", "--nflog-group", "--hashlimit-burst", "--hashlimit-mode", "--hashlimit-name",
		"--hashlimit-htable-size", "--hashlimit-htable-max", "--hashlimit-htable-expire", "--hashlimit-srcmask":
		s.next()
	default:
		return fmt.Errorf("option %q", option)
	}
	return nil
}

// protocols are the names that iptables-save prints, and the numbers that render/ipt writes.
var protocols = map[string]uint8{
	"icmp": policy.ICMP, "tcp": policy.TCP, "udp": policy.UDP, "ipv6-icmp": policy.ICMPv6,
	"33": policy.DCCP, "dccp": policy.DCCP, "132": policy.SCTP, "sctp": policy.SCTP, "136": policy.UDPLite, "udplite": policy.UDPLite,
}

func ifaceMatches(pattern, name string) bool {
	prefix, glob := strings.CutSuffix(pattern, "+")
	return pattern == name || glob && strings.HasPrefix(name, prefix)
}

func portIn(list string, port uint16) bool {
	for _, r := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(r, ":")
		if !isRange {
			last = first
		}
		a, _ := strconv.Atoi(first)
		b, _ := strconv.Atoi(last)
		if a <= int(port) && int(port) <= b {
			return true
		}
	}
	return false
}

func flagBits(names string) uint8 {
	var bits uint8
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if slices.Contains(strings.Split(names, ","), name) {
			bits |= 1 << i
		}
	}
	return bits
}

func icmpIs(text string, pk packet.Packet) bool {
	kind, code, hasCode := strings.Cut(text, "/")
	return kind == fmt.Sprint(pk.ICMPType) && (!hasCode || code == fmt.Sprint(pk.ICMPCode))
}

func (s *scan) ctstate(names []string) bool {
	state := [...]string{packet.New: "NEW", packet.Established: "ESTABLISHED", packet.Related: "RELATED",
		packet.Invalid: "INVALID", packet.Untracked: "UNTRACKED"}[s.w.pk.State]
	return slices.Contains(names, state) || slices.Contains(names, "DNAT") && s.w.host.DNAT
}

var addrTypes = map[string]ruleset.AddrType{"LOCAL": ruleset.TypeLocal, "BROADCAST": ruleset.TypeBroadcast,
	"MULTICAST": ruleset.TypeMulticast, "ANYCAST": ruleset.TypeAnycast}

// addrType: several types mean any of them in IPv4, all of them in IPv6.
func (s *scan) addrType(list string, a netip.Addr) bool {
	have := s.w.host.AddrType(a)
	any, all := false, true
	for _, name := range strings.Split(list, ",") {
		is := have&addrTypes[name] != 0
		any, all = any || is, all && is
	}
	return a.Is4() && any || all
}

func (s *scan) matchSet(name, directions string, not bool) error {
	set, ok := s.w.sets[name]
	if !ok {
		return fmt.Errorf("there is no set %s", name)
	}
	dirs := strings.Split(directions, ",")
	if set.Kind == ipt.Flows {
		s.ok = s.ok && slices.ContainsFunc(set.Flows, func(f ruleset.Flow) bool { return s.isFlow(f, directions) }) != not
		return nil
	}
	if (set.Kind == ipt.IfaceNets) != (len(dirs) == 2) {
		return fmt.Errorf("set %s is asked for %s", name, directions)
	}
	found := false
	for e := range set.Entries {
		if s.entry(e, set, dirs) {
			found = true
			s.elements = append(s.elements, e.Comment)
		}
	}
	s.ok = s.ok && found != not
	return nil
}

func (s *scan) entry(e ipt.Entry, set ipt.Set, dirs []string) bool {
	pk := s.w.pk
	addr, port, iface := pk.Dst, pk.DstPort, pk.Out
	if dirs[0] == "src" {
		addr, port = pk.Src, pk.SrcPort
	}
	if dirs[len(dirs)-1] == "src" {
		iface = pk.In
	}
	switch set.Kind {
	case ipt.PortBits:
		return (pk.Proto == policy.TCP || pk.Proto == policy.UDP) && e.Ports.Contains(port)
	case ipt.IfaceNets:
		return e.Net.Contains(addr) && (e.Iface == iface || e.Wildcard && strings.HasPrefix(iface, e.Iface))
	}
	return e.Net.Contains(addr)
}

// isFlow tells whether the packet is of a flow: "src,src,dst" is one that its server sends.
func (s *scan) isFlow(f ruleset.Flow, directions string) bool {
	pk := s.w.pk
	server, client := netip.AddrPortFrom(pk.Src, pk.SrcPort), pk.Dst
	if directions == "dst,dst,src" {
		server, client = netip.AddrPortFrom(pk.Dst, pk.DstPort), pk.Src
	} else if directions != "src,src,dst" {
		return false
	}
	return f == ruleset.Flow{Proto: pk.Proto, Server: server, Client: client}
}
