package iptsave

import (
	"strconv"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/parse/names"
)

// target is what the target of a rule does.
func (p *ruleReader) target(m *module) []netfilter.Action {
	if verdict, ok := verdicts[m.name]; ok && m.word == "-j" && len(m.options) == 0 {
		return verdict
	}
	key := p.span(m.from, m.to)
	if as, ok := p.actions[key]; ok {
		return as
	}
	as := p.effects(m)
	if key != "" {
		if len(p.actions) >= maxKept {
			clear(p.actions)
		}
		p.actions[key] = as
	}
	return as
}

// verdicts are the targets that decide, without options.
var verdicts = map[string][]netfilter.Action{
	"ACCEPT": {netfilter.Verdict{Kind: netfilter.Accept}},
	"DROP":   {netfilter.Verdict{Kind: netfilter.Drop}},
	"RETURN": {netfilter.Verdict{Kind: netfilter.Return}},
	"QUEUE":  {netfilter.Verdict{Kind: netfilter.Queue}},
}

// effects is what a target does, or where it leads.
func (p *ruleReader) effects(m *module) []netfilter.Action {
	if m.word == "-g" {
		if len(m.options) > 0 {
			return p.opaqueTarget(m)
		}
		return []netfilter.Action{netfilter.Verdict{Kind: netfilter.Goto, Chain: m.name}}
	}
	isChain := p.reader.table.chains[m.name] != nil
	if read := targets[m.name]; read != nil && !(isChain && len(m.options) == 0) {
		if as, ok := read(p, m); ok {
			return as
		}
		return p.opaqueTarget(m)
	}
	if notes[m.name] && !isChain {
		return []netfilter.Action{netfilter.Note{Text: m.text()}}
	}
	if len(m.options) > 0 || opaqueTargets[m.name] && !isChain {
		return p.opaqueTarget(m)
	}
	return []netfilter.Action{netfilter.Verdict{Kind: netfilter.Jump, Chain: m.name}}
}

// notes are targets that change neither a packet's way nor what rules see of it.
var notes = map[string]bool{"AUDIT": true, "CHECKSUM": true, "TRACE": true, "TCPMSS": true, "TCPOPTSTRIP": true, "TEE": true, "LED": true,
	"IDLETIMER": true, "RATEEST": true, "SECMARK": true, "CONNSECMARK": true, "ACCOUNT": true}

// opaqueTargets are known to do what nothing here can say.
var opaqueTargets = map[string]bool{"CLUSTERIP": true, "DNPT": true, "SNPT": true, "HMARK": true, "SYNPROXY": true, "ECN": true, "SAME": true,
	"TARPIT": true, "CHAOS": true, "DELUDE": true, "MIRROR": true, "ROUTE": true, "IMQ": true, "IPMARK": true, "NAT": true, "BALANCE": true,
	"RAWDNAT": true, "RAWSNAT": true, "DHCPMAC": true, "ECHO": true, "SYSRQ": true, "LOGMARK": true, "PROTO": true}

// opaqueTarget is a target that isn't understood.
func (p *ruleReader) opaqueTarget(m *module) []netfilter.Action {
	text := m.text()
	if !opaqueTargets[m.name] {
		p.reader.once("target "+m.name, "", "%s is not understood", shorten(text))
	}
	return []netfilter.Action{netfilter.OpaqueAction{Text: text}}
}

// targets are the targets that are understood. One that has something in it that isn't known is not ok.
var targets = map[string]func(*ruleReader, *module) ([]netfilter.Action, bool){
	"REJECT": reject, "NFQUEUE": nfqueue,
	"DNAT": nat(netfilter.DNAT), "SNAT": nat(netfilter.SNAT), "MASQUERADE": nat(netfilter.Masquerade), "REDIRECT": nat(netfilter.Redirect),
	"NETMAP": nat(netfilter.Netmap), "TPROXY": tproxy,
	"MARK": mark, "CONNMARK": connmark, "CT": ct, "NOTRACK": notrack, "CLASSIFY": classify, "DSCP": setDSCP, "TOS": setTOS,
	"TTL": setTTL, "HL": setTTL, "SET": setTarget,
	"LOG": logTarget("--log-prefix", "", 0), "NFLOG": logTarget("--nflog-prefix", "--nflog-group", 0),
	"ULOG": logTarget("--ulog-prefix", "--ulog-nlgroup", 1),
}

// does is a single action, understood.
func does(a netfilter.Action) ([]netfilter.Action, bool) { return []netfilter.Action{a}, true }

func reject(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	with := m.value("--reject-with")
	if with == "tcp-reset" || with == "tcp-rst" {
		with = "tcp reset"
	}
	return []netfilter.Action{netfilter.Reject{With: with}}, onlyHas(m, "--reject-with")
}

// onlyHas tells whether a target has no options but these, none of them with !.
func onlyHas(m *module, names ...string) bool {
	for _, o := range m.options {
		known := false
		for _, name := range names {
			known = known || o.name == name
		}
		if !known || o.not {
			return false
		}
	}
	return true
}

func nfqueue(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	return []netfilter.Action{netfilter.Verdict{Kind: netfilter.Queue}},
		onlyHas(m, "--queue-num", "--queue-balance", "--queue-bypass", "--queue-cpu-fanout")
}

// nat reads the targets that translate addresses.
func nat(kind netfilter.NATKind) func(*ruleReader, *module) ([]netfilter.Action, bool) {
	return func(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
		t := netfilter.Translate{Kind: kind}
		for _, o := range m.options {
			s, ok := o.arg()
			switch o.name {
			case "--to-destination", "--to-source":
				ok = ok && translateTo(&t, s)
			case "--to-ports":
				ok = ok && translatePorts(&t, s)
			case "--to":
				var ms []netfilter.Match
				if ms, ok = addressIs(netfilter.Dst, s, false); ok {
					c := ms[0].(netfilter.Compare)
					t.Addrs.Addrs, ok = c.Addrs, !c.AddrMask.IsValid()
				}
			case "--random", "--random-fully":
				t.Random, ok = true, true
			case "--persistent":
				ok = true
			default:
				ok = false
			}
			if !ok || o.not {
				return nil, false
			}
		}
		if kind == netfilter.Netmap && t.Addrs.Addrs.IsEmpty() {
			return nil, false
		}
		return does(t)
	}
}

// translateTo reads [ADDRESS[-ADDRESS]][:PORT[-PORT[/BASE]]]. Around an IPv6 address with a port stand brackets. Old kernels
// took several of these.
func translateTo(t *netfilter.Translate, s string) bool {
	addrs, ports := s, ""
	switch {
	case strings.HasPrefix(s, "["):
		inside, behind, ok := strings.Cut(s[1:], "]")
		addrs, ports = inside, strings.TrimPrefix(behind, ":")
		if ok = ok && (behind == "" || behind[0] == ':'); !ok {
			return false
		}
	case strings.Count(s, ":") == 1:
		addrs, ports, _ = strings.Cut(s, ":")
	}
	if addrs != "" {
		set, ok := rangeSet(strings.ReplaceAll(strings.ReplaceAll(addrs, "[", ""), "]", ""))
		if !ok {
			return false
		}
		if t.Addrs.Addrs.IsEmpty() {
			t.Addrs.Addrs = set
		} else {
			t.Addrs.Addrs = t.Addrs.Addrs.Union(set)
		}
	}
	return ports == "" || translatePorts(t, ports)
}

// translatePorts reads PORT, PORT-PORT or PORT-PORT/BASE.
func translatePorts(t *netfilter.Translate, s string) bool {
	s, base, hasBase := strings.Cut(s, "/")
	first, last, ok := split2(strings.Replace(s, "-", ":", 1), names.Port, 65535)
	if !ok || first > last {
		return false
	}
	t.Ports = append(t.Ports, netfilter.Range{First: first, Last: last})
	if hasBase {
		n, ok := names.Port(base)
		t.Base = uint16(n)
		return ok
	}
	return true
}

func tproxy(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	port, ok := names.Number(m.value("--on-port"), 16)
	t := netfilter.TProxy{Port: uint16(port)}
	if s := m.value("--on-ip"); s != "" {
		a, okAddr := parseAddr(s)
		if ok = ok && okAddr; ok && !a.IsUnspecified() {
			t.Addrs.Addrs = netset.OfAddrs(a)
		}
	}
	if s := m.value("--tproxy-mark"); s != "" {
		var okMark bool
		t.Mark, t.Mask, okMark = valueAndMask(s)
		ok = ok && okMark
	}
	return []netfilter.Action{t}, ok && onlyHas(m, "--on-port", "--on-ip", "--tproxy-mark")
}

const allBits = 0xffffffff

// markOption reads an option that sets bits of a mark.
func markOption(f netfilter.Field, o option) (netfilter.Assign, bool) {
	s, _ := o.arg()
	value, mask, ok := valueAndMask(s)
	a := netfilter.Assign{Field: f, Mask: mask, Value: value}
	switch o.name {
	case "--set-xmark":
	case "--set-mark":
		a.Mask |= value
	case "--and-mark":
		a.Mask, a.Value = ^value&allBits, 0
	case "--or-mark":
		a.Mask = value
	case "--xor-mark":
		a.Mask = 0
	default:
		ok = false
	}
	return a, ok && !o.not
}

func mark(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	if len(m.options) != 1 {
		return nil, false
	}
	a, ok := markOption(netfilter.Mark, m.options[0])
	return []netfilter.Action{a}, ok
}

func connmark(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	if len(m.options) == 1 {
		if a, ok := markOption(netfilter.CtMark, m.options[0]); ok {
			return does(a)
		}
	}
	ctMask, nfMask := uint64(allBits), uint64(allBits)
	for _, o := range m.options {
		if o.name == "--save-mark" || o.name == "--restore-mark" {
			continue
		}
		s, _ := o.arg()
		n, ok := names.Number(s, 32)
		switch {
		case !ok:
			return nil, false
		case o.name == "--mask":
			ctMask, nfMask = n, n
		case o.name == "--nfmask":
			nfMask = n
		case o.name == "--ctmask":
			ctMask = n
		default:
			return nil, false
		}
	}
	switch {
	case m.has("--save-mark") && !m.has("--restore-mark"):
		return does(netfilter.Assign{Field: netfilter.CtMark, Mask: ctMask, From: netfilter.Mark, FromMask: nfMask})
	case m.has("--restore-mark") && !m.has("--save-mark"):
		return does(netfilter.Assign{Field: netfilter.Mark, Mask: nfMask, From: netfilter.CtMark, FromMask: ctMask})
	}
	return nil, false
}

func notrack(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	return []netfilter.Action{netfilter.Untrack{}}, len(m.options) == 0
}

// ct reads the target CT. A helper, a timeout and events are nothing that rules see.
func ct(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	var all []netfilter.Action
	for _, o := range m.options {
		s, _ := o.arg()
		switch o.name {
		case "--notrack":
			all = append(all, netfilter.Untrack{})
		case "--zone":
			a := netfilter.Assign{Field: netfilter.CtZone, Mask: 0xffff}
			if s == "mark" {
				a.From, a.FromMask = netfilter.Mark, 0xffff
			} else {
				n, ok := names.Number(s, 16)
				if !ok {
					return nil, false
				}
				a.Value = n
			}
			all = append(all, a)
		case "--helper", "--timeout", "--ctevents", "--expevents":
			all = append(all, netfilter.Note{Text: "-j CT" + string(o.text(nil))})
		default:
			return nil, false
		}
	}
	return all, true
}

// classify: the class is hexadecimal, MAJOR:MINOR.
func classify(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	major, minor, _ := strings.Cut(m.value("--set-class"), ":")
	hi, err1 := strconv.ParseUint(major, 16, 16)
	lo, err2 := strconv.ParseUint(minor, 16, 16)
	return []netfilter.Action{netfilter.Assign{Field: netfilter.Priority, Mask: allBits, Value: hi<<16 | lo}},
		err1 == nil && err2 == nil && onlyHas(m, "--set-class")
}

func setDSCP(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	n, ok := dscpValue(m.value("--set-dscp") + m.value("--set-dscp-class"))
	return []netfilter.Action{netfilter.Assign{Field: netfilter.DSCP, Mask: 63, Value: n}}, ok && len(m.options) == 1
}

// setTOS sets the DSCP, and ECN where the mask reaches it.
func setTOS(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	if len(m.options) != 1 {
		return nil, false
	}
	s, _ := m.options[0].arg()
	value, mask, ok := tosValue(s, 0xff)
	switch m.options[0].name {
	case "--set-tos":
	case "--and-tos":
		mask, value = ^value&0xff, 0
	case "--or-tos":
		mask = value
	case "--xor-tos":
		mask = 0
	default:
		ok = false
	}
	all := []netfilter.Action{netfilter.Assign{Field: netfilter.DSCP, Mask: mask >> 2, Value: value >> 2}}
	if (mask|value)&3 != 0 {
		all = append(all, netfilter.Assign{Field: netfilter.ECN, Mask: mask & 3, Value: value & 3})
	}
	return all, ok
}

func setTTL(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
	if len(m.options) != 1 {
		return nil, false
	}
	s, _ := m.options[0].arg()
	n, ok := names.Number(s, 8)
	a := netfilter.Assign{Field: netfilter.TTL}
	switch m.options[0].name {
	case "--ttl-set", "--hl-set":
		a.Mask, a.Value = 0xff, n
	case "--ttl-inc", "--hl-inc":
		a.Add = int(n)
	case "--ttl-dec", "--hl-dec":
		a.Add = -int(n)
	default:
		ok = false
	}
	return []netfilter.Action{a}, ok
}

// setTarget reads the target SET. Of a set that isn't known the fields aren't either.
func setTarget(p *ruleReader, m *module) ([]netfilter.Action, bool) {
	var all []netfilter.Action
	for _, o := range m.options {
		switch o.name {
		case "--add-set", "--del-set":
			if len(o.args) != 2 {
				return nil, false
			}
			u := netfilter.Update{Set: o.args[0].text, Delete: o.name == "--del-set"}
			if s := p.set(u.Set); s != nil {
				u.Fields = setFields(s.Type, strings.Split(o.args[1].text, ","))
			}
			all = append(all, u)
		case "--exist", "--timeout":
		default:
			return nil, false
		}
	}
	return all, len(all) > 0
}

// logTarget reads the targets that tell of a packet. Without a group they tell the kernel's log.
func logTarget(prefix, group string, defaultGroup uint16) func(*ruleReader, *module) ([]netfilter.Action, bool) {
	return func(_ *ruleReader, m *module) ([]netfilter.Action, bool) {
		l := netfilter.Log{Prefix: m.value(prefix)}
		if group != "" {
			l.Group = &defaultGroup
			if s := m.value(group); s != "" {
				n, ok := names.Number(s, 16)
				if !ok {
					return nil, false
				}
				g := uint16(n)
				l.Group = &g
			}
		}
		return does(l)
	}
}
