package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"quaywall/internal/netset"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
)

// What x/sys/unix lacks of linux/netfilter.h and linux/netfilter/nf_tables.h.
const (
	nfDrop     = 0
	nfAccept   = 1
	dnatStatus = 0x20 // IPS_DST_NAT
	reg1       = 1    // NFT_REG_1, 16 bytes
	reg2       = 2    // NFT_REG_2, the 16 bytes behind
)

// builder collects the expressions of one rule.
type builder struct {
	*renderer
	exprs  []expr.Any
	family ruleset.Family // that the expressions so far have asked for; Inet is none
	proto  int            // likewise; 0 is none
}

func (b *builder) add(e ...expr.Any) { b.exprs = append(b.exprs, e...) }

// match adds the expressions of one match.
func (b *builder) match(m ruleset.Match) error {
	switch m := m.(type) {
	case ruleset.FamilyMatch:
		return b.needFamily(m.Family)
	case ruleset.IfaceMatch:
		return b.iface(m)
	case ruleset.AddrMatch:
		return b.addr(m)
	case ruleset.IfaceAddrMatch:
		return b.ifaceAddr(m)
	case ruleset.FlowMatch:
		return b.flow(m)
	case ruleset.ProtoMatch:
		return b.protocol(m)
	case ruleset.PortMatch:
		return b.ports(m)
	case ruleset.ICMPTypeMatch:
		return b.icmp(m)
	case ruleset.TCPFlagsMatch:
		b.tcpFlags(m)
	case ruleset.CtStateMatch:
		b.ctState(m)
	case ruleset.DNATMatch:
		b.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1})
		b.bits(host32(dnatStatus), m.Not)
	case ruleset.AddrTypeMatch:
		return b.addrType(m)
	case ruleset.SocketMatch:
		b.add(&expr.Socket{Key: expr.SocketKeyWildcard, Register: reg1}, equal([]byte{0}, false))
	case ruleset.RateMatch:
		limit, err := limitOf(m.Rate)
		b.add(limit)
		return err
	case ruleset.SourceRateMatch:
		return b.sourceRate(m)
	case ruleset.Opaque:
		return fmt.Errorf("%q could be read, but is not understood", m.Text)
	default:
		return fmt.Errorf("the match %T is not known", m)
	}
	return nil
}

// needFamily asks for packets of one family, once.
func (b *builder) needFamily(f ruleset.Family) error {
	number := map[ruleset.Family]byte{ruleset.IPv4: unix.NFPROTO_IPV4, ruleset.IPv6: unix.NFPROTO_IPV6}[f]
	if number == 0 {
		return fmt.Errorf("packets are of family ip or ip6, not of %s", f)
	}
	if b.family != f {
		b.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1}, equal([]byte{number}, false))
		b.family = f
	}
	return nil
}

// needProto asks for packets of one transport protocol, once.
func (b *builder) needProto(proto uint8) {
	if b.proto != int(proto) {
		b.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, equal([]byte{proto}, false))
		b.proto = int(proto)
	}
}

func (b *builder) protocol(m ruleset.ProtoMatch) error {
	if m.Not {
		b.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, equal([]byte{m.Proto}, true))
		return nil
	}
	if f := familyOf(m.Proto); f != ruleset.Inet {
		if err := b.needFamily(f); err != nil {
			return err
		}
	}
	b.needProto(m.Proto)
	return nil
}

func (b *builder) iface(m ruleset.IfaceMatch) error {
	key := map[ruleset.Field]expr.MetaKey{ruleset.In: expr.MetaKeyIIFNAME, ruleset.Out: expr.MetaKeyOIFNAME}[m.Field]
	if key == 0 {
		return fmt.Errorf("an interface is one that a packet comes in or leaves by, not %s", m.Field)
	}
	b.add(&expr.Meta{Key: key, Register: reg1})
	switch {
	case m.Set != "":
		b.lookup(m.Set, m.Not)
	case len(m.Names) == 1:
		return b.oneIface(m.Names[0], m.Not)
	default:
		return list(b, m.Names, ifaceList, m.Not)
	}
	return nil
}

// oneIface compares the name in the register. A prefix is compared by its bytes alone.
func (b *builder) oneIface(name string, not bool) error {
	first, _, err := ifaceRange(name)
	if err != nil {
		return err
	}
	prefix, wild := strings.CutSuffix(name, "*")
	switch {
	case wild && prefix == "": // any interface, but not none
		b.add(equal(first[:], !not))
	case wild:
		b.add(equal(first[:len(prefix)], not))
	default:
		b.add(equal(first[:], not))
	}
	return nil
}

func (b *builder) addr(m ruleset.AddrMatch) error {
	ranges := ofFamily(m.Addrs, m.Family).Ranges()
	if m.Set == "" && oneByOne(len(ranges), m.Not) {
		for _, r := range ranges {
			if err := b.loadAddr(m.Field, m.Family, reg1); err != nil {
				return err
			}
			b.addrRange(r, m.Not)
		}
		return nil
	}
	if err := b.loadAddr(m.Field, m.Family, reg1); err != nil {
		return err
	}
	if m.Set != "" {
		b.lookup(m.Set, m.Not)
		return nil
	}
	return list(b, ranges, addrList(m.Family), m.Not)
}

// oneByOne tells whether a list of n values is compared value by value: each must not be the one, or there is just one.
func oneByOne(n int, not bool) bool { return n == 1 || not && 1 < n && n <= maxAlternatives }

// ofFamily is the part of a set that is of a family.
func ofFamily(s netset.Set, f ruleset.Family) netset.Set {
	if f == ruleset.IPv4 {
		return s.V4()
	}
	return s.V6()
}

// addrRange compares the address in the register.
func (b *builder) addrRange(r netipx.IPRange, not bool) {
	from, to := r.From().AsSlice(), r.To().AsSlice()
	p, isPrefix := r.Prefix()
	switch {
	case r.From() == r.To():
		b.add(equal(from, not))
	case isPrefix:
		b.mask(prefixMask(len(from), p.Bits()))
		b.add(equal(from, not))
	default:
		b.between(from, to, not)
	}
}

func prefixMask(length, bits int) []byte {
	mask := make([]byte, length)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// addrField is where an address stands in the header.
func addrField(field ruleset.Field, family ruleset.Family) (offset, length uint32, err error) {
	switch {
	case field == ruleset.Src && family == ruleset.IPv4:
		return 12, 4, nil
	case field == ruleset.Dst && family == ruleset.IPv4:
		return 16, 4, nil
	case field == ruleset.Src && family == ruleset.IPv6:
		return 8, 16, nil
	case field == ruleset.Dst && family == ruleset.IPv6:
		return 24, 16, nil
	}
	return 0, 0, fmt.Errorf("%s of family %s is no address", field, family)
}

// loadAddr loads an address of one family.
func (b *builder) loadAddr(field ruleset.Field, family ruleset.Family, register uint32) error {
	offset, length, err := addrField(field, family)
	if err != nil {
		return err
	}
	if err := b.needFamily(family); err != nil {
		return err
	}
	b.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length})
	return nil
}

func (b *builder) ifaceAddr(m ruleset.IfaceAddrMatch) error {
	if err := b.needFamily(m.Family); err != nil {
		return err
	}
	b.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1})
	if err := b.loadAddr(m.Field, m.Family, reg2); err != nil {
		return err
	}
	b.lookup(m.Set, m.Not)
	return nil
}

// loadPort loads a port of the protocol that an earlier match has asked for.
func (b *builder) loadPort(f ruleset.Field) error {
	offset, ok := map[ruleset.Field]uint32{ruleset.SrcPort: 0, ruleset.DstPort: 2}[f]
	switch {
	case !ok:
		return fmt.Errorf("%s is no port", f)
	case b.proto == 0:
		return errors.New("ports of no protocol")
	}
	b.loadTransport(offset, 2)
	return nil
}

func (b *builder) loadTransport(offset, length uint32) {
	b.add(&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length})
}

func (b *builder) ports(m ruleset.PortMatch) error {
	ports := netset.JoinPorts(m.Ports)
	if !oneByOne(len(ports), m.Not) {
		if err := b.loadPort(m.Field); err != nil {
			return err
		}
		return list(b, ports, portList, m.Not)
	}
	for _, p := range ports {
		if err := b.loadPort(m.Field); err != nil {
			return err
		}
		switch {
		case p.First > p.Last:
			return fmt.Errorf("%s is no range of ports", p)
		case p.First == p.Last:
			b.add(equal(big16(p.First), m.Not))
		default:
			b.between(big16(p.First), big16(p.Last), m.Not)
		}
	}
	return nil
}

func (b *builder) icmp(m ruleset.ICMPTypeMatch) error {
	proto := map[ruleset.Family]uint8{ruleset.IPv4: unix.IPPROTO_ICMP, ruleset.IPv6: unix.IPPROTO_ICMPV6}[m.Family]
	if err := b.needFamily(m.Family); err != nil {
		return err
	}
	b.needProto(proto)
	b.loadTransport(0, 1)
	if len(m.Types) == 1 {
		b.add(equal(m.Types, false))
	} else if err := list(b, m.Types, icmpList(m.Family), false); err != nil {
		return err
	}
	if m.Code != nil {
		b.loadTransport(1, 1)
		b.add(equal([]byte{*m.Code}, false))
	}
	return nil
}

func (b *builder) tcpFlags(m ruleset.TCPFlagsMatch) {
	b.needProto(unix.IPPROTO_TCP)
	b.loadTransport(13, 1)
	b.mask([]byte{m.Mask})
	b.add(equal([]byte{m.Value}, m.Not))
}

// ctStates are the kernel's bits of the states.
var ctStates = map[ruleset.CtState]uint32{
	ruleset.StateNew:         expr.CtStateBitNEW,
	ruleset.StateEstablished: expr.CtStateBitESTABLISHED,
	ruleset.StateRelated:     expr.CtStateBitRELATED,
	ruleset.StateInvalid:     expr.CtStateBitINVALID,
	ruleset.StateUntracked:   expr.CtStateBitUNTRACKED,
}

func (b *builder) ctState(m ruleset.CtStateMatch) {
	var bits uint32
	for state, bit := range ctStates {
		if m.States&state != 0 {
			bits |= bit
		}
	}
	b.add(&expr.Ct{Key: expr.CtKeySTATE, Register: reg1})
	b.bits(host32(bits), m.Not)
}

// addrTypes are the kernel's numbers of the types, RTN_*, from the lowest up.
var addrTypes = []struct {
	typ    ruleset.AddrType
	number uint32
	name   string
}{
	{ruleset.TypeLocal, unix.RTN_LOCAL, "local"},
	{ruleset.TypeBroadcast, unix.RTN_BROADCAST, "broadcast"},
	{ruleset.TypeAnycast, unix.RTN_ANYCAST, "anycast"},
	{ruleset.TypeMulticast, unix.RTN_MULTICAST, "multicast"},
}

func (b *builder) addrType(m ruleset.AddrTypeMatch) error {
	if m.Field != ruleset.Src && m.Field != ruleset.Dst {
		return fmt.Errorf("%s is no address", m.Field)
	}
	b.add(&expr.Fib{
		Register: reg1, ResultADDRTYPE: true,
		FlagSADDR: m.Field == ruleset.Src, FlagDADDR: m.Field == ruleset.Dst,
	})
	var numbers []uint32
	for _, t := range addrTypes {
		if m.Types&t.typ != 0 {
			numbers = append(numbers, t.number)
		}
	}
	if len(numbers) == 1 {
		b.add(equal(host32(numbers[0]), m.Not))
		return nil
	}
	return list(b, numbers, addrTypeList, m.Not)
}

// limitOf holds as long as packets come no faster.
func limitOf(r rate.Rate) (*expr.Limit, error) {
	unit := map[time.Duration]expr.LimitTime{
		time.Second: expr.LimitTimeSecond, time.Minute: expr.LimitTimeMinute, time.Hour: expr.LimitTimeHour,
	}[r.Per]
	if r.IsZero() || unit == 0 {
		return &expr.Limit{}, fmt.Errorf("a rate of %d in %s is none", r.Count, r.Per)
	}
	burst := r.Burst
	if burst == 0 {
		burst = rate.DefaultBurst
	}
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(r.Count), Unit: unit, Burst: burst}, nil
}

// sourceRate keeps a limit for each source in a set that the kernel fills.
func (b *builder) sourceRate(m ruleset.SourceRateMatch) error {
	limit, err := limitOf(m.Rate)
	if err != nil {
		return err
	}
	limit.Over = true
	if err := b.loadAddr(ruleset.Src, m.Family, reg1); err != nil {
		return err
	}
	if m.Family == ruleset.IPv6 {
		b.mask(prefixMask(16, 64))
	}
	set := sourceSet(m)
	b.addSet(set)
	b.add(&expr.Dynset{SrcRegKey: reg1, SetName: set.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{limit}})
	return nil
}

// list holds if the register is one of several values. Of none it never holds.
func list[T any](b *builder, values []T, typ listType[T], not bool) error {
	set, err := typ.set(values)
	if err != nil {
		return err
	}
	set.Name = typ.nameOf(values)
	b.addSet(set)
	b.lookup(set.Name, not)
	return nil
}

// addSet adds a set that isn't the ruleset's own, once.
func (b *builder) addSet(s Set) {
	if !b.lists[s.Name] {
		b.lists[s.Name] = true
		b.table.Sets = append(b.table.Sets, s)
	}
}

// action adds what is done with a packet that matches.
func (b *builder) action(r *ruleset.Rule) error {
	if r.Log != nil {
		b.add(&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: r.Log.Group, Data: []byte(r.Log.Prefix)})
	}
	if r.Lookup != nil {
		return b.mapLookup(r)
	}
	if r.Counter {
		b.add(&expr.Counter{})
	}
	v, err := verdict(r.Verdict)
	if v != nil {
		b.add(v)
	}
	return err
}

// mapLookup counts before it looks up: with a counter, a packet is counted whether the map holds it or not.
func (b *builder) mapLookup(r *ruleset.Rule) error {
	m, ok := b.maps[r.Lookup.Map]
	if !ok {
		return fmt.Errorf("there is no map %s", r.Lookup.Map)
	}
	if r.Counter {
		b.add(&expr.Counter{})
	}
	load := func() error { return b.loadPort(r.Lookup.By) }
	switch m.Key {
	case ruleset.Addr4:
		load = func() error { return b.loadAddr(r.Lookup.By, ruleset.IPv4, reg1) }
	case ruleset.Addr6:
		load = func() error { return b.loadAddr(r.Lookup.By, ruleset.IPv6, reg1) }
	}
	if err := load(); err != nil {
		return err
	}
	b.add(&expr.Lookup{SourceRegister: reg1, SetName: m.Name, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
	return nil
}

// verdict is the last expression of a rule; nil for Continue.
func verdict(v ruleset.Verdict) (expr.Any, error) {
	switch v.Kind {
	case ruleset.Drop:
		return &expr.Verdict{Kind: expr.VerdictDrop}, nil
	case ruleset.TCPReset:
		return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}, nil
	case ruleset.Unreachable:
		return &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}, nil
	case ruleset.Accept:
		return &expr.Verdict{Kind: expr.VerdictAccept}, nil
	case ruleset.Continue:
		return nil, nil
	case ruleset.Return:
		return &expr.Verdict{Kind: expr.VerdictReturn}, nil
	case ruleset.Jump:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: v.Chain}, nil
	case ruleset.Goto:
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: v.Chain}, nil
	}
	return nil, fmt.Errorf("the verdict %s is not known", v.Kind)
}

// equal compares the register with data.
func equal(data []byte, not bool) *expr.Cmp {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return &expr.Cmp{Op: op, Register: reg1, Data: data}
}

// between holds for values from first to last.
func (b *builder) between(first, last []byte, not bool) {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	b.add(&expr.Range{Op: op, Register: reg1, FromData: first, ToData: last})
}

// mask keeps the bits of a mask in the register.
func (b *builder) mask(mask []byte) {
	b.add(&expr.Bitwise{
		SourceRegister: reg1, DestRegister: reg1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask)),
	})
}

// bits holds if any of the bits is set in the register; with not, if none is.
func (b *builder) bits(bits []byte, not bool) {
	b.mask(bits)
	b.add(equal(make([]byte, len(bits)), !not))
}

// lookup holds if the register is in a set.
func (b *builder) lookup(set string, not bool) {
	b.add(&expr.Lookup{SourceRegister: reg1, SetName: set, Invert: not})
}

func big16(v uint16) []byte  { return binary.BigEndian.AppendUint16(nil, v) }
func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
