package nft

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// String prints the rule much as nft does. Every expression is in it, so that different rules print differently; what
// isn't known is printed as bytes. Counters come without their values.
func (r *Rule) String() string {
	p := &printer{registers: map[uint32]operand{}}
	for _, e := range r.Exprs {
		p.print(e)
	}
	if r.Comment != "" {
		p.say("comment %q", r.Comment)
	}
	return strings.Join(p.words, " ")
}

// operand is what a register holds: what was loaded, how its values are printed, and the mask that was applied.
type operand struct {
	name   string
	format func([]byte) string
	mask   []byte
}

// printer follows what the expressions do to the registers.
type printer struct {
	registers map[uint32]operand
	proto     byte // the transport protocol that was asked for, so that its header can be named
	words     []string
}

func (p *printer) say(format string, args ...any) {
	p.words = append(p.words, fmt.Sprintf(format, args...))
}

func (p *printer) load(register uint32, name string, format func([]byte) string) {
	p.registers[register] = operand{name: name, format: format}
}

// get gives what is in a register; one that nothing was loaded to is named by its number.
func (p *printer) get(register uint32) operand {
	if o, ok := p.registers[register]; ok {
		return o
	}
	return operand{name: fmt.Sprintf("reg%d", register), format: formatHex}
}

func (p *printer) print(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		p.meta(e)
	case *expr.Payload:
		p.payload(e)
	case *expr.Ct:
		p.ct(e)
	case *expr.Fib:
		p.fib(e)
	case *expr.Socket:
		p.load(e.Register, map[bool]string{true: "socket wildcard", false: fmt.Sprintf("socket key %d", e.Key)}[e.Key == expr.SocketKeyWildcard], formatNumber)
	case *expr.Bitwise:
		p.bitwise(e)
	case *expr.Cmp:
		p.compare(e)
	case *expr.Range:
		o := p.get(e.Register)
		p.say("%s %s%s-%s", o.name, operator(e.Op), o.format(e.FromData), o.format(e.ToData))
	case *expr.Lookup:
		p.lookup(e)
	case *expr.Dynset:
		p.dynset(e)
	case *expr.Limit:
		p.say("%s", limitText(e))
	case *expr.Log:
		p.log(e)
	case *expr.Counter:
		p.say("counter")
	case *expr.Reject:
		p.reject(e)
	case *expr.Verdict:
		p.say("%s", verdictText(e))
	case *Opaque:
		p.say("[%s %s]", e.Name, formatHex(e.Data))
	default:
		p.say("[%T %+v]", e, e)
	}
}

// metaForms are the loads of package facts that have names here.
var metaForms = map[expr.MetaKey]operand{
	expr.MetaKeyIIFNAME: {name: "iifname", format: formatName},
	expr.MetaKeyOIFNAME: {name: "oifname", format: formatName},
	expr.MetaKeyNFPROTO: {name: "meta nfproto", format: formatFamily},
	expr.MetaKeyL4PROTO: {name: "meta l4proto", format: formatProto},
}

func (p *printer) meta(e *expr.Meta) {
	o, ok := metaForms[e.Key]
	switch {
	case e.SourceRegister:
		p.say("[meta key %d set from %s]", e.Key, p.get(e.Register).name)
	case ok:
		p.registers[e.Register] = o
	default:
		p.load(e.Register, fmt.Sprintf("meta key %d", e.Key), formatHex)
	}
}

func (p *printer) payload(e *expr.Payload) {
	if e.OperationType != expr.PayloadLoad {
		p.say("[payload %+v]", *e)
		return
	}
	name, format := payloadForm(e, protoNames[p.proto])
	if format == nil {
		name, format = fmt.Sprintf("@%d,%d,%d", e.Base, e.Offset, e.Len), formatHex
	}
	p.load(e.DestRegister, name, format)
}

// payloadForm names a field of a header; the format is nil for one that has no name here.
func payloadForm(e *expr.Payload, proto string) (string, func([]byte) string) {
	at := [2]uint32{e.Offset, e.Len}
	if e.Base == expr.PayloadBaseNetworkHeader {
		name := map[[2]uint32]string{{12, 4}: "ip saddr", {16, 4}: "ip daddr", {8, 16}: "ip6 saddr", {24, 16}: "ip6 daddr"}[at]
		if name != "" {
			return name, formatAddr
		}
	}
	if e.Base == expr.PayloadBaseTransportHeader && proto == "" {
		proto = "th" // nft's name for the header of whatever protocol it is
	}
	if e.Base != expr.PayloadBaseTransportHeader {
		return "", nil
	}
	isICMP := proto == "icmp" || proto == "icmpv6"
	switch {
	case isICMP && at == [2]uint32{0, 1}:
		return proto + " type", formatNumber
	case isICMP && at == [2]uint32{1, 1}:
		return proto + " code", formatNumber
	case !isICMP && at == [2]uint32{0, 2}:
		return proto + " sport", formatNumber
	case !isICMP && at == [2]uint32{2, 2}:
		return proto + " dport", formatNumber
	case proto == "tcp" && at == [2]uint32{13, 1}:
		return "tcp flags", formatTCPFlags
	}
	return "", nil
}

func (p *printer) ct(e *expr.Ct) {
	switch {
	case e.SourceRegister:
		p.say("[ct key %d set from %s]", e.Key, p.get(e.Register).name)
	case e.Key == expr.CtKeySTATE:
		p.load(e.Register, "ct state", formatCtState)
	case e.Key == expr.CtKeySTATUS:
		p.load(e.Register, "ct status", formatCtStatus)
	default:
		p.load(e.Register, fmt.Sprintf("ct key %d direction %d", e.Key, e.Direction), formatHex)
	}
}

func (p *printer) fib(e *expr.Fib) {
	plain := *e
	plain.Register, plain.FlagSADDR, plain.FlagDADDR = 0, false, false
	switch {
	case plain != expr.Fib{ResultADDRTYPE: true} || e.FlagSADDR == e.FlagDADDR:
		p.load(e.Register, fmt.Sprintf("fib %+v", plain), formatHex)
	case e.FlagSADDR:
		p.load(e.Register, "fib saddr type", formatAddrType)
	default:
		p.load(e.Register, "fib daddr type", formatAddrType)
	}
}

func (p *printer) bitwise(e *expr.Bitwise) {
	o := p.get(e.SourceRegister)
	if o.mask != nil || slices.ContainsFunc(e.Xor, func(b byte) bool { return b != 0 }) {
		o = operand{name: fmt.Sprintf("(%s & %s ^ %s)", o.name, formatHex(e.Mask), formatHex(e.Xor)), format: formatHex}
	} else {
		o.mask = e.Mask
	}
	p.registers[e.DestRegister] = o
}

// compare says a comparison with the mask that was applied before.
func (p *printer) compare(e *expr.Cmp) {
	o := p.get(e.Register)
	zero := !slices.ContainsFunc(e.Data, func(b byte) bool { return b != 0 })
	ones, isPrefix := prefixLength(o.mask)
	isAddr := strings.HasSuffix(o.name, "addr")
	switch {
	case o.name == "meta l4proto" && e.Op == expr.CmpOpEq && len(e.Data) == 1:
		p.proto = e.Data[0]
		p.say("meta l4proto %s", o.format(e.Data))
	case o.mask == nil:
		p.say("%s %s%s", o.name, operator(e.Op), o.format(e.Data))
	case strings.HasPrefix(o.name, "ct ") && zero && (e.Op == expr.CmpOpNeq || e.Op == expr.CmpOpEq):
		p.say("%s %s%s", o.name, map[bool]string{true: "! "}[e.Op == expr.CmpOpEq], o.format(o.mask))
	case isAddr && isPrefix:
		p.say("%s %s%s/%d", o.name, operator(e.Op), o.format(e.Data), ones)
	default:
		p.say("%s & %s %s %s", o.name, o.format(o.mask), map[bool]string{true: "==", false: operators[e.Op]}[e.Op == expr.CmpOpEq], o.format(e.Data))
	}
}

var operators = map[expr.CmpOp]string{
	expr.CmpOpEq: "==", expr.CmpOpNeq: "!=", expr.CmpOpLt: "<", expr.CmpOpLte: "<=", expr.CmpOpGt: ">", expr.CmpOpGte: ">=",
}

// operator is how a comparison is said between a name and a value: equality isn't.
func operator(op expr.CmpOp) string {
	if op == expr.CmpOpEq {
		return ""
	}
	return operators[op] + " "
}

// prefixLength is how many bits a mask keeps, if it keeps the first ones.
func prefixLength(mask []byte) (ones int, ok bool) {
	for _, b := range mask {
		ones += bits.OnesCount8(b)
	}
	return ones, bytes.Equal(mask, prefixMask(len(mask), ones))
}

// masked is the name of what a register holds, with the mask.
func (o operand) masked() string {
	if o.mask == nil {
		return o.name
	}
	return o.name + " & " + o.format(o.mask)
}

// key names the key of a look-up. A concatenation is in the registers one behind the other.
func (p *printer) key(register uint32) string {
	name := p.get(register).masked()
	if register != reg1 {
		return name
	}
	for _, r := range p.behind() {
		name += " . " + p.registers[r].masked()
	}
	return name
}

// behind are the registers behind the first one that something was loaded to, in their order.
func (p *printer) behind() []uint32 {
	all := slices.DeleteFunc(slices.Collect(maps.Keys(p.registers)), func(r uint32) bool { return wordOf(r) == 0 })
	slices.SortFunc(all, func(a, b uint32) int { return cmp.Compare(wordOf(a), wordOf(b)) })
	return all
}

// wordOf is where a register begins: its number tells whether it is one of sixteen bytes or of four.
func wordOf(register uint32) uint32 {
	if register >= reg32 {
		return register - reg32
	}
	return 4 * (register - reg1)
}

func (p *printer) lookup(e *expr.Lookup) {
	switch key := p.key(e.SourceRegister); {
	case e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT:
		p.say("%s vmap @%s", key, e.SetName)
	case e.IsDestRegSet:
		p.load(e.DestRegister, fmt.Sprintf("(%s map @%s)", key, e.SetName), formatHex)
	default:
		p.say("%s %s@%s", key, map[bool]string{true: "!= "}[e.Invert], e.SetName)
	}
	for _, r := range p.behind() {
		delete(p.registers, r)
	}
}

func (p *printer) dynset(e *expr.Dynset) {
	words := []string{p.key(e.SrcRegKey)}
	if e.Timeout != 0 {
		words = append(words, "timeout "+e.Timeout.String())
	}
	for _, inner := range e.Exprs {
		q := &printer{}
		q.print(inner)
		words = append(words, q.words...)
	}
	verb, ok := map[uint32]string{0: "add", unix.NFT_DYNSET_OP_UPDATE: "update", 2: "delete"}[e.Operation]
	if !ok || e.Invert || e.SrcRegData != 0 {
		verb = fmt.Sprintf("operation %d inverted %t data %s on", e.Operation, e.Invert, p.get(e.SrcRegData).name)
	}
	p.say("%s @%s { %s }", verb, e.SetName, strings.Join(words, " "))
}

func limitText(e *expr.Limit) string {
	unit, ok := map[expr.LimitTime]string{expr.LimitTimeSecond: "second", expr.LimitTimeMinute: "minute", expr.LimitTimeHour: "hour"}[e.Unit]
	if !ok {
		unit = fmt.Sprintf("%d seconds", e.Unit)
	}
	what := "packets"
	if e.Type != expr.LimitTypePkts {
		what = "bytes"
	}
	over := ""
	if e.Over {
		over = "over "
	}
	return fmt.Sprintf("limit rate %s%d/%s burst %d %s", over, e.Rate, unit, e.Burst, what)
}

func (p *printer) log(e *expr.Log) {
	if e.Key != 1<<unix.NFTA_LOG_GROUP|1<<unix.NFTA_LOG_PREFIX {
		p.say("[log %+v]", *e)
		return
	}
	p.say("log prefix %q group %d", e.Data, e.Group)
}

func (p *printer) reject(e *expr.Reject) {
	switch *e {
	case expr.Reject{Type: unix.NFT_REJECT_TCP_RST}:
		p.say("reject with tcp reset")
	case expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}:
		p.say("reject with icmpx port-unreachable")
	default:
		p.say("reject with type %d code %d", e.Type, e.Code)
	}
}

func verdictText(v *expr.Verdict) string {
	name, ok := map[expr.VerdictKind]string{
		expr.VerdictReturn: "return", expr.VerdictGoto: "goto", expr.VerdictJump: "jump", expr.VerdictContinue: "continue",
		expr.VerdictDrop: "drop", expr.VerdictAccept: "accept",
	}[v.Kind]
	if !ok {
		name = fmt.Sprintf("verdict %d", v.Kind)
	}
	if v.Chain != "" {
		name += " " + v.Chain
	}
	return name
}
