package iptsave

import (
	"strconv"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/parse/names"
)

// conntrack reads the matches conntrack and state. The kernel asks for nothing but the state of a packet without a
// connection, whatever else stands in the match; without --ctstate such a packet doesn't meet it.
func conntrack(p *ruleReader, m *module) ([]netfilter.Match, bool) {
	var state, others []netfilter.Match
	hasState, invalid := false, false
	for _, o := range m.options {
		if o.name == "--ctstate" || o.name == "--state" {
			ms, withoutConnection, ok := states(o)
			if !ok {
				return nil, false
			}
			state, hasState, invalid = append(state, ms...), true, withoutConnection
			continue
		}
		read := conntrackReadings[o.name]
		if read == nil {
			return nil, false
		}
		ms, ok := read(p, o)
		if !ok {
			return nil, false
		}
		others = append(others, ms...)
	}
	if hasState && invalid && len(others) > 0 {
		none := netfilter.Compare{Field: netfilter.CtState, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 3, Last: 4}}}}
		return append(state, netfilter.Any{Of: [][]netfilter.Match{{none}, others}}), true
	}
	return append(state, others...), len(m.options) > 0
}

// states reads --ctstate, and tells whether packets without a connection meet it.
func states(o option) (_ []netfilter.Match, withoutConnection, ok bool) {
	s, ok := o.arg()
	if !ok {
		return nil, false, false
	}
	var list []netfilter.Range
	var status uint64
	withoutConnection = o.not
	for name := range strings.SplitSeq(strings.ToUpper(s), ",") {
		if n, ok := ctStates[name]; ok {
			list = append(list, netfilter.Range{First: n, Last: n})
			if n >= 3 {
				withoutConnection = true // with ! the other one is still left, or nothing at all
			}
			continue
		}
		bits, ok := ctStatusOfState[name]
		if !ok {
			return nil, false, false
		}
		status |= bits
	}
	is := netfilter.Compare{Field: netfilter.CtState, Values: netfilter.Values{Numbers: list}, Not: o.not}
	if status == 0 {
		return []netfilter.Match{is}, withoutConnection, true
	}
	nat := netfilter.Compare{Field: netfilter.CtStatus, Mask: status, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 1, Last: status}}}}
	if len(list) == 0 && !o.not {
		return []netfilter.Match{nat}, false, true
	}
	is.Not = false
	any := netfilter.Any{Of: [][]netfilter.Match{{nat}}, Not: o.not}
	if len(list) > 0 {
		any.Of = [][]netfilter.Match{{is}, {nat}}
	}
	return []netfilter.Match{any}, withoutConnection, true
}

var conntrackReadings = map[string]reading{
	"--ctproto":       ctProto,
	"--ctorigsrc":     address(netfilter.CtOrigSrc),
	"--ctorigdst":     address(netfilter.CtOrigDst),
	"--ctreplsrc":     address(netfilter.CtReplySrc),
	"--ctrepldst":     address(netfilter.CtReplyDst),
	"--ctorigsrcport": port(netfilter.CtOrigSrcPort),
	"--ctorigdstport": port(netfilter.CtOrigDstPort),
	"--ctreplsrcport": port(netfilter.CtReplySrcPort),
	"--ctrepldstport": port(netfilter.CtReplyDstPort),
	"--ctstatus":      ctStatus,
	"--ctdir":         ctDirection,
	"--ctexpire":      ctExpire,
}

func ctProto(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := names.Protocol(s)
	return []netfilter.Match{equals(netfilter.CtProto, n, o.not)}, ok
}

// ctStatus: NONE alone is no bit at all, which no connection has one of.
func ctStatus(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	var bits uint64
	for name := range strings.SplitSeq(strings.ToUpper(s), ",") {
		b, ok := ctStatuses[name]
		if !ok {
			return nil, false
		}
		bits |= b
	}
	if bits == 0 {
		return one(netfilter.Compare{Field: netfilter.CtStatus, Not: o.not})
	}
	c := between(netfilter.CtStatus, 1, bits, o.not)
	c.Mask = bits
	return one(c)
}

func ctDirection(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := map[string]uint64{"ORIGINAL": 0, "REPLY": 1}[strings.ToUpper(s)]
	return []netfilter.Match{equals(netfilter.CtDirection, n, o.not)}, ok
}

func ctExpire(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	first, _, ok := split2(s, number32, 1<<32-1)
	return []netfilter.Match{netfilter.Stateful{Kind: "ctexpire", Text: "-m conntrack" + string(o.text(nil)), Fresh: (first == 0) != o.not}}, ok
}

// setLabel reads the last match of a rule where it is connlabel with --set: a packet with a connection meets it, and it does
// something before the target.
func (p *ruleReader) setLabel(m *module) []netfilter.Action {
	n, ok := names.Number(m.value("--label"), 7)
	if !ok || len(m.options) != 2 || m.options[0].not || m.options[1].not {
		p.match(m)
		return nil
	}
	p.out = append(p.out, between(netfilter.CtDirection, 0, 1, false))
	return []netfilter.Action{netfilter.Assign{Field: netfilter.CtLabel, Value: n}}
}

// connlabel: that --set sets the label nothing can say of a match that others follow.
func connlabel(_ *ruleReader, m *module) ([]netfilter.Match, bool) {
	if len(m.options) != 1 || m.options[0].name != "--label" {
		return nil, false
	}
	o := m.options[0]
	s, _ := o.arg()
	n, ok := names.Number(s, 7)
	is := equals(netfilter.CtLabel, n, false)
	if o.not {
		return []netfilter.Match{none(is)}, ok
	}
	return []netfilter.Match{is}, ok
}

// stateful reads the matches that look at more than a packet.
func stateful(_ *ruleReader, m *module) ([]netfilter.Match, bool) {
	return one(netfilter.Stateful{Kind: m.name, Text: m.text(), Fresh: fresh(m)})
}

// fresh tells whether a stateful match holds for a packet unlike any that came lately.
func fresh(m *module) bool {
	if m.name == "time" {
		return true
	}
	inverted := false
	for _, o := range m.options {
		inverted = inverted || o.not
	}
	return freshly(m) != inverted
}

func freshly(m *module) bool {
	switch m.name {
	case "recent":
		return m.has("--set")
	case "hashlimit", "dstlimit":
		return !m.has("--hashlimit-above")
	case "connlimit", "iplimit":
		if n, ok := names.Number(m.value("--connlimit-upto"), 32); ok {
			return n >= 1
		}
		n, _ := names.Number(m.value("--connlimit-above"), 32)
		return n < 1
	case "statistic":
		chance, err := strconv.ParseFloat(m.value("--probability"), 64)
		return err == nil && chance >= 0.5
	case "connbytes":
		first, _, ok := split2(m.value("--connbytes"), func(s string) (uint64, bool) { return names.Number(s, 64) }, 1<<64-1)
		return ok && first <= 1
	case "random", "nth", "rateest", "psd":
		return false
	}
	return true
}
