package hostfiles

import (
	"net/netip"
	"strconv"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// DefaultRules are the rules that the kernel begins with.
func DefaultRules(f netfilter.Family) []snapshot.RoutingRule {
	rule := func(priority int, table string) snapshot.RoutingRule {
		return snapshot.RoutingRule{Family: f, Priority: priority, Table: table, Action: "lookup", SuppressPrefix: -1}
	}
	all := []snapshot.RoutingRule{rule(0, "local"), rule(32766, "main")}
	if f == netfilter.IPv4 {
		all = append(all, rule(32767, "default"))
	}
	return all
}

// Rules reads "ip rule", and "ip -6 rule" behind it: a priority below that of the line before begins the second. A family
// without rules in it has those that the kernel begins with.
func Rules(text, name string) ([]snapshot.RoutingRule, diag.List) {
	f := file{name: name}
	family := netfilter.IPv4
	families := map[netfilter.Family][]snapshot.RoutingRule{}
	last := -1
	f.lines(text, func(line string, words []string) {
		r, ok := readRule(words)
		if !ok {
			f.unread("rule of routing", line)
			return
		}
		if r.Priority < last || r.From.Addr().Is6() || r.To.Addr().Is6() {
			family = netfilter.IPv6
		}
		last = r.Priority
		r.Family = family
		families[family] = append(families[family], r)
	})
	var all []snapshot.RoutingRule
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		if len(families[family]) == 0 {
			families[family] = DefaultRules(family)
		}
		all = append(all, families[family]...)
	}
	return all, f.problems
}

func readRule(words []string) (snapshot.RoutingRule, bool) {
	r := snapshot.RoutingRule{SuppressPrefix: -1}
	priority, err := strconv.ParseUint(strings.TrimSuffix(words[0], ":"), 10, 32)
	if err != nil || !strings.HasSuffix(words[0], ":") {
		return r, false
	}
	r.Priority = int(priority)
	ok := true
	for words = words[1:]; len(words) > 0; {
		n, good := ruleWord(&r, words)
		ok = ok && good
		words = words[n:]
	}
	return r, ok && r.Action != ""
}

// ruleWord reads a word of a rule with its value. It gives how many words that is.
func ruleWord(r *snapshot.RoutingRule, words []string) (int, bool) {
	switch words[0] {
	case "not":
		r.Not = true
		return 1, true
	case "[detached]":
		return 1, true
	case "blackhole", "unreachable", "prohibit":
		r.Action = words[0]
		return 1, true
	case "nop":
		r.Action = words[0]
		r.Unread += " " + words[0]
		return 1, true
	}
	if len(words) == 1 {
		return 1, false
	}
	value, ok := words[1], true
	switch words[0] {
	case "from":
		r.From, ok = orAll(value)
	case "to":
		r.To, ok = orAll(value)
	case "iif":
		r.In = value
	case "oif":
		r.Out = value
	case "fwmark":
		ok = readMark(r, value)
	case "ipproto":
		p, err := packet.ParseProto(strings.Replace(value, "ipv6-icmp", "icmp6", 1))
		r.Proto, ok = p, err == nil
	case "sport":
		ok = readPorts(&r.SrcPorts, value)
	case "dport":
		ok = readPorts(&r.DstPorts, value)
	case "lookup":
		r.Action, r.Table = "lookup", value
		if strings.HasPrefix(value, "[") { // [l3mdev-table]
			r.Unread = strings.TrimSpace(r.Unread + " lookup " + value)
		}
	case "goto":
		n, err := strconv.ParseUint(value, 10, 32)
		r.Action, r.Goto, ok = "goto", int(n), err == nil
	case "suppress_prefixlength":
		n, err := strconv.ParseUint(value, 10, 8)
		r.SuppressPrefix, ok = int(n), err == nil
	case "proto":
	default:
		r.Unread = strings.TrimSpace(r.Unread + " " + words[0] + " " + value)
	}
	return 2, ok
}

func orAll(text string) (netip.Prefix, bool) {
	if text == "all" {
		return netip.Prefix{}, true
	}
	return parsePrefix(text)
}

func readMark(r *snapshot.RoutingRule, text string) bool {
	mark, mask, masked := strings.Cut(text, "/")
	m, err := strconv.ParseUint(mark, 0, 32)
	r.Mark, r.MarkMask = uint32(m), 0xffffffff
	if err == nil && masked {
		m, err = strconv.ParseUint(mask, 0, 32)
		r.MarkMask = uint32(m)
	}
	return err == nil
}

func readPorts(to *[2]uint16, text string) bool {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	*to = [2]uint16{uint16(a), uint16(b)}
	return err1 == nil && err2 == nil
}
