package nftlist

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
)

// rule is a rule that is put back into statements, expression by expression.
type rule struct {
	*lister
	family byte
	table  string
	regs   registers
	// What the matches so far say of the headers, 0 for nothing.
	network, transport uint64
	out                []any
	last               *operand // that the last statement compared
	ethernet           bool     // the last statement asked whether the interface is one of Ethernet
}

func (l *lister) rule(m message) object {
	a := attributes(m.attrs)
	r := rule{lister: l, family: m.family, table: a.text(unix.NFTA_RULE_TABLE), out: []any{}}
	if m.family == unix.NFPROTO_IPV4 || m.family == unix.NFPROTO_IPV6 {
		r.network = uint64(m.family)
	}
	for _, value := range nlsock.Attributes(a[unix.NFTA_RULE_EXPRESSIONS]) {
		e := attributes(value)
		r.expression(e.text(unix.NFTA_EXPR_NAME), attributes(e[unix.NFTA_EXPR_DATA]))
	}
	o := object{"family": families[m.family], "table": r.table, "chain": a.text(unix.NFTA_RULE_CHAIN), "handle": a.number(unix.NFTA_RULE_HANDLE),
		"expr": r.out}
	if text := comment(a[unix.NFTA_RULE_USERDATA]); text != "" {
		o["comment"] = text
	}
	return object{"rule": o}
}

// expression reads one. What isn't known may do anything, also to registers.
func (r *rule) expression(name string, a attrs) {
	known := r.load(name, a) || r.change(name, a) || r.compares(name, a) || r.statement(name, a)
	if !known {
		r.regs = registers{}
		r.say(name, object{"unknown": true})
	}
}

// say adds a statement.
func (r *rule) say(name string, v any) { r.add(object{name: v}) }

func (r *rule) add(statement object) {
	r.out = append(r.out, statement)
	r.last, r.ethernet = nil, false
}

// match adds a match. That the interface is one of Ethernet, which nft asks before it looks at a header of Ethernet, goes
// without saying then.
func (r *rule) match(o *operand, op string, left, right any) {
	if n := len(r.out); r.ethernet && n > 0 && o != nil && o.at != nil && o.at.base == unix.NFT_PAYLOAD_LL_HEADER {
		r.out = r.out[:n-1]
	}
	ethernet := o != nil && op == "==" && o.typ().name == typeIfType.name && right == any(uint64(unix.ARPHRD_ETHER))
	r.say("match", object{"op": op, "left": left, "right": right})
	r.last, r.ethernet = o, ethernet
}

// doubt adds a match that isn't understood.
func (r *rule) doubt(what string) {
	r.say("match", object{"op": "==", "left": object{what: object{}}, "right": 1})
}

// load reads what puts something of the packet, its connection or the host into a register.
func (r *rule) load(name string, a attrs) bool {
	switch name {
	case "meta":
		return r.loadKey(a, unix.NFTA_META_DREG, unix.NFTA_META_KEY, "meta", metaKeys)
	case "socket":
		return r.loadKey(a, 2, 1, "socket", socketKeys) // NFTA_SOCKET_DREG, NFTA_SOCKET_KEY
	case "ct":
		return r.loadCt(a)
	case "payload":
		return r.loadPayload(a)
	case "fib":
		return r.loadFib(a)
	case "rt":
		o := &operand{expr: object{"rt": object{"key": "?"}}, types: []datatype{typeUnknown}, size: 4}
		if a.number(unix.NFTA_RT_KEY) == unix.NFT_RT_CLASSID {
			o.expr, o.types = object{"rt": object{"key": "classid"}}, []datatype{typeRealm}
		}
		r.regs.put(a.number(unix.NFTA_RT_DREG), o)
	case "exthdr":
		return r.loadExtHeader(a)
	case "numgen":
		mode := "inc"
		if a.number(unix.NFTA_NG_TYPE) == unix.NFT_NG_RANDOM {
			mode = "random"
		}
		e := object{"mode": mode, "mod": a.number(unix.NFTA_NG_MODULUS), "offset": a.number(unix.NFTA_NG_OFFSET)}
		r.regs.put(a.number(unix.NFTA_NG_DREG), &operand{expr: object{"numgen": e}, types: []datatype{typeHost}, size: 4})
	case "hash":
		r.loadHash(a)
	case "osf", "xfrm":
		r.regs.put(a.number(1), &operand{expr: object{name: object{}}, types: []datatype{typeUnknown}, size: 16}) // NFTA_*_DREG
	default:
		return false
	}
	return true
}

// loadKey reads what is loaded by a key.
func (r *rule) loadKey(a attrs, register, key uint16, name string, keys map[uint64]known) bool {
	if !a.has(register) {
		return false
	}
	k, ok := keys[a.number(key)]
	if !ok {
		k = known{"?", datatype{size: 16, kind: raw}}
	}
	r.regs.put(a.number(register), &operand{expr: object{name: object{"key": k.key}}, types: []datatype{k.typ}, size: k.typ.size})
	return true
}

func (r *rule) loadCt(a attrs) bool {
	if !r.loadKey(a, unix.NFTA_CT_DREG, unix.NFTA_CT_KEY, "ct", ctKeys) {
		return false
	}
	o := r.regs.get(a.number(unix.NFTA_CT_DREG))
	if o == nil {
		return false
	}
	ct, _ := o.expr.(object)["ct"].(object)
	if a.has(unix.NFTA_CT_DIRECTION) {
		ct["dir"] = directionNames[a.number(unix.NFTA_CT_DIRECTION)]
	}
	// Addresses of older kernels, whose family is the rule's.
	if key := a.number(unix.NFTA_CT_KEY); key == unix.NFT_CT_SRC || key == unix.NFT_CT_DST {
		word := map[uint64]string{unix.NFT_CT_SRC: "saddr", unix.NFT_CT_DST: "daddr"}[key]
		switch r.network {
		case unix.NFPROTO_IPV4:
			ct["key"], o.types, o.size = "ip "+word, []datatype{typeAddr4}, 4
		case unix.NFPROTO_IPV6:
			ct["key"], o.types = "ip6 "+word, []datatype{typeAddr6}
		}
	}
	return true
}

func (r *rule) loadPayload(a attrs) bool {
	if !a.has(unix.NFTA_PAYLOAD_DREG) {
		return false
	}
	at := place{a.number(unix.NFTA_PAYLOAD_BASE), bytesAt{a.number(unix.NFTA_PAYLOAD_OFFSET), a.number(unix.NFTA_PAYLOAD_LEN)}}
	o := &operand{expr: rawPayload(at), types: []datatype{typeUnknown}, size: int(min(at.len, unix.NFT_REG_SIZE*4)), at: &at, big: true}
	if f, ok := r.field(at); ok {
		o.expr, o.types = f.expr(), []datatype{f.typ}
	}
	r.regs.put(a.number(unix.NFTA_PAYLOAD_DREG), o)
	return true
}

// field is what stands at a place, as far as the headers are known.
func (r *rule) field(at place) (field, bool) {
	for _, h := range r.headers(at.base) {
		if f, ok := fields[h][at.bytesAt]; ok {
			return f, true
		}
	}
	return field{}, false
}

func (r *rule) headers(base uint64) []header {
	switch base {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		return []header{{base, r.network}}
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return []header{{base, 0}, {base, r.transport}}
	}
	return []header{{base, 0}}
}

// bits is the field whose bits, and no others, are these of a place.
func (r *rule) bits(at place, mask uint64) (bitField, bool) {
	for _, h := range r.headers(at.base) {
		for _, b := range bitFields {
			if b.header == h && b.bytesAt == at.bytesAt && b.mask == mask {
				return b, true
			}
		}
	}
	return bitField{}, false
}

// Bits of NFTA_FIB_FLAGS.
var fibFlags = []struct {
	bit  uint64
	name string
}{{unix.NFTA_FIB_F_SADDR, "saddr"}, {unix.NFTA_FIB_F_DADDR, "daddr"}, {unix.NFTA_FIB_F_MARK, "mark"}, {unix.NFTA_FIB_F_IIF, "iif"}, {unix.NFTA_FIB_F_OIF, "oif"}}

func (r *rule) loadFib(a attrs) bool {
	flags := []string{}
	for _, f := range fibFlags {
		if a.number(unix.NFTA_FIB_FLAGS)&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	o := &operand{types: []datatype{typeHost}, size: 4}
	result := "oif"
	switch a.number(unix.NFTA_FIB_RESULT) {
	case unix.NFT_FIB_RESULT_OIFNAME:
		result, o.types, o.size = "oifname", []datatype{typeName}, 16
	case unix.NFT_FIB_RESULT_ADDRTYPE:
		result, o.types = "type", []datatype{typeRoute}
	}
	if a.number(unix.NFTA_FIB_FLAGS)&unix.NFTA_FIB_F_PRESENT != 0 {
		o.types, o.size = []datatype{typeBool}, 1
	}
	o.expr = object{"fib": object{"result": result, "flags": flags}}
	r.regs.put(a.number(unix.NFTA_FIB_DREG), o)
	return true
}

// Names of extension headers of IPv6 and of options of TCP.
var (
	extHeaders = map[uint64]string{0: "hbh", 43: "rt", 44: "frag", 51: "auth", 60: "dst", 135: "mh"}
	tcpOptions = map[uint64]string{0: "eol", 1: "nop", 2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp", 19: "md5sig", 30: "mptcp", 34: "fastopen"}
)

// loadExtHeader reads whether a header or an option is there. What stands in it isn't known here.
func (r *rule) loadExtHeader(a attrs) bool {
	if !a.has(unix.NFTA_EXTHDR_DREG) {
		return false
	}
	kind, names := "exthdr", extHeaders
	if a.number(unix.NFTA_EXTHDR_OP) == unix.NFT_EXTHDR_OP_TCPOPT {
		kind, names = "tcp option", tcpOptions
	}
	e := object{"name": names[a.number(unix.NFTA_EXTHDR_TYPE)]}
	o := &operand{expr: object{kind: e}, types: []datatype{typeBool}, size: 1}
	if a.number(unix.NFTA_EXTHDR_FLAGS)&unix.NFT_EXTHDR_F_PRESENT == 0 || a.number(unix.NFTA_EXTHDR_OP) > unix.NFT_EXTHDR_OP_TCPOPT {
		e["field"] = "?"
		o.types, o.size = []datatype{typeUnknown}, int(min(a.number(unix.NFTA_EXTHDR_LEN), unix.NFT_REG_SIZE))
	}
	r.regs.put(a.number(unix.NFTA_EXTHDR_DREG), o)
	return true
}

func (r *rule) loadHash(a attrs) {
	name, e := "symhash", object{"mod": a.number(unix.NFTA_HASH_MODULUS)}
	if a.number(unix.NFTA_HASH_TYPE) == unix.NFT_HASH_JENKINS {
		name = "jhash"
		e["expr"] = concat(r.regs.run(a.number(unix.NFTA_HASH_SREG), int(a.number(unix.NFTA_HASH_LEN))))
	}
	r.regs.put(a.number(unix.NFTA_HASH_DREG), &operand{expr: object{name: e}, types: []datatype{typeHost}, size: 4})
}

// concat is operands together, or one.
func concat(all []*operand) any {
	if len(all) == 1 {
		return all[0].expression()
	}
	parts := []any{}
	for _, o := range all {
		parts = append(parts, o.expression())
	}
	return object{"concat": parts}
}

// nftaBitwiseData and nftaBitwiseOp are of Linux 5.6.
const (
	nftaBitwiseOp   = 6
	nftaBitwiseData = 7
	nftaBitwiseMore = 8 // NFTA_BITWISE_SREG2, Linux 6.13
)

// change reads what changes the value of a register.
func (r *rule) change(name string, a attrs) bool {
	switch name {
	case "immediate":
		return r.immediate(a)
	case "byteorder":
		if o := r.regs.get(a.number(unix.NFTA_BYTEORDER_SREG)); o != nil {
			turned := *o
			turned.big = !o.big
			r.regs.put(a.number(unix.NFTA_BYTEORDER_DREG), &turned)
			return true
		}
	case "bitwise":
		o := r.regs.get(a.number(unix.NFTA_BITWISE_SREG))
		length := int(a.number(unix.NFTA_BITWISE_LEN))
		if a.has(nftaBitwiseMore) || o == nil || o.size != length || o.data != nil {
			r.regs.put(a.number(unix.NFTA_BITWISE_DREG), &operand{expr: object{"bitwise": object{}}, types: []datatype{typeUnknown}, size: length})
			return true
		}
		r.regs.put(a.number(unix.NFTA_BITWISE_DREG), o.bitwise(a))
		return true
	}
	return false
}

// bitwise is an operand under a mask and with bits turned over, or shifted.
func (o *operand) bitwise(a attrs) *operand {
	then := *o
	value := func(typ uint16) []byte { return bytes.Clone(a.nested(typ)[unix.NFTA_DATA_VALUE]) }
	switch op := a.number(nftaBitwiseOp); {
	case op == 0 && o.mask == nil && o.xor == nil: // NFT_BITWISE_MASK_XOR
		then.mask, then.xor = value(unix.NFTA_BITWISE_MASK), value(unix.NFTA_BITWISE_XOR)
		if isZero(inverted(then.mask)) {
			then.mask = nil
		}
	case op == 2: // NFT_BITWISE_RSHIFT
		then = operand{expr: object{">>": []any{o.expression(), native(value(nftaBitwiseData))}}, types: o.types, size: o.size, big: o.big}
	default:
		then = operand{expr: object{"bitwise": object{}}, types: []datatype{typeUnknown}, size: o.size}
	}
	return &then
}

// immediate reads a verdict, or a constant.
func (r *rule) immediate(a attrs) bool {
	data := a.nested(unix.NFTA_IMMEDIATE_DATA)
	if v := data.nested(unix.NFTA_DATA_VERDICT); v != nil {
		r.add(verdict(v))
		return true
	}
	b := bytes.Clone(data[unix.NFTA_DATA_VALUE])
	if b == nil {
		return false
	}
	r.regs.put(a.number(unix.NFTA_IMMEDIATE_DREG), &operand{data: b, size: len(b), types: []datatype{typeUnknown}})
	return true
}

// verdicts are those without a chain, by their numbers.
var verdicts = map[int32]string{unix.NFT_CONTINUE: "continue", unix.NFT_RETURN: "return", 0: "drop", 1: "accept"}

func verdict(a attrs) object {
	code := int32(a.number(unix.NFTA_VERDICT_CODE))
	switch code {
	case unix.NFT_JUMP:
		return object{"jump": object{"target": a.text(unix.NFTA_VERDICT_CHAIN)}}
	case unix.NFT_GOTO:
		return object{"goto": object{"target": a.text(unix.NFTA_VERDICT_CHAIN)}}
	}
	if name, ok := verdicts[code]; ok {
		return object{name: nil}
	}
	return object{"verdict": object{"unknown": code}}
}

// compares reads what goes on only where something holds.
func (r *rule) compares(name string, a attrs) bool {
	switch name {
	case "cmp":
		data := a.nested(unix.NFTA_CMP_DATA)[unix.NFTA_DATA_VALUE]
		if op := a.number(unix.NFTA_CMP_OP); op < uint64(len(operators)) {
			r.cmp(r.regs.get(a.number(unix.NFTA_CMP_SREG)), operators[op], data)
			return true
		}
	case "range":
		from, to := a.nested(unix.NFTA_RANGE_FROM_DATA)[unix.NFTA_DATA_VALUE], a.nested(unix.NFTA_RANGE_TO_DATA)[unix.NFTA_DATA_VALUE]
		op := "=="
		if a.number(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ {
			op = "!="
		}
		o := r.regs.get(a.number(unix.NFTA_RANGE_SREG))
		if o == nil || o.data != nil {
			r.doubt(name)
			return true
		}
		r.match(o, op, o.expression(), o.typ().span(from, to, o.big, r.nameOf))
		return true
	case "lookup":
		return r.lookup(a)
	}
	return false
}

// operators by the numbers of enum nft_cmp_ops.
var operators = [...]string{"==", "!=", "<", "<=", ">", ">="}

func (r *rule) cmp(o *operand, op string, data []byte) {
	switch {
	case o == nil || o.data != nil || data == nil:
		r.doubt("cmp")
	case o.at != nil && r.cmpBits(o, op, data), o.at != nil && o.typ().kind == raw && o.mask == nil && r.cmpPieces(*o.at, op, data):
	case op == "<=" && r.last == o && r.cmpUpTo(o, data):
	default:
		r.compare(o, op, data)
		r.learn(o, op, data)
	}
}

// cmpBits compares a field of some bits.
func (r *rule) cmpBits(o *operand, op string, data []byte) bool {
	b, ok := r.bits(*o.at, bigEndian(o.mask))
	if !ok || !isZero(o.xor) || len(data) != o.size {
		return false
	}
	r.match(o, op, b.expr(), bigEndian(data)>>b.shift)
	return true
}

// cmpPieces compares bytes of which each part has a name: fields that stand side by side are compared at once, and only those
// bytes of an address that count.
func (r *rule) cmpPieces(at place, op string, data []byte) bool {
	if uint64(len(data)) != at.len || op != "==" && op != "!=" {
		return false
	}
	type piece struct{ left, right any }
	var all []piece
	for len(data) > 0 {
		f, n, ok := r.beginsAt(at)
		if !ok {
			return false
		}
		right := f.typ.value(data[:n], true, r.nameOf)
		if n < f.typ.size {
			whole := make([]byte, f.typ.size)
			copy(whole, data)
			right = object{"prefix": object{"addr": f.typ.value(whole, true, r.nameOf), "len": 8 * n}}
		}
		all = append(all, piece{f.expr(), right})
		data = data[n:]
		at.offset, at.len = at.offset+uint64(n), at.len-uint64(n)
	}
	if op == "!=" && len(all) != 1 {
		return false
	}
	for _, p := range all {
		r.match(&operand{at: &at}, op, p.left, p.right)
	}
	return true
}

// beginsAt is the field that begins where a place does, and how many of its bytes are in it.
func (r *rule) beginsAt(at place) (f field, n int, ok bool) {
	for _, h := range r.headers(at.base) {
		for where, f := range fields[h] {
			if where.offset == at.offset && (where.len <= at.len || f.typ.kind == address) {
				return f, int(min(where.len, at.len)), true
			}
		}
	}
	return field{}, 0, false
}

// cmpUpTo makes one range of two comparisons.
func (r *rule) cmpUpTo(o *operand, data []byte) bool {
	m, _ := r.out[len(r.out)-1].(object)["match"].(object)
	if m == nil || m["op"] != ">=" || o.from == nil || len(o.from) != len(data) {
		return false
	}
	m["op"], m["right"] = "==", o.typ().span(o.from, data, o.big, r.nameOf)
	return true
}

func (r *rule) compare(o *operand, op string, data []byte) {
	if op == ">=" {
		o.from = data
	}
	t, equal := o.typ(), op == "==" || op == "!="
	var right any = t.value(data, o.big, r.nameOf)
	switch {
	case o.mask != nil && equal && isZero(data) && isZero(o.xor) && (t.kind == state || t.name == typeLabel.name):
		r.someBits(o, op)
		return
	case o.mask != nil && equal && t.kind == address && isZero(o.xor) && len(data) == t.size:
		if n, ok := prefixLen(make([]byte, len(o.mask)), inverted(o.mask)); ok {
			r.match(o, op, o.expr, object{"prefix": object{"addr": right, "len": n}})
			return
		}
	case t.name == typeBool.name:
		right = !isZero(data)
	}
	r.match(o, op, o.expression(), right)
}

// someBits asks whether one of some bits is set, or none.
func (r *rule) someBits(o *operand, op string) {
	word := map[string]string{"!=": "in", "==": "!"}[op]
	right := o.typ().named(o.typ().uint(o.mask, o.big))
	if o.typ().name == typeLabel.name {
		bit, ok := oneBit(o.mask)
		if !ok {
			r.doubt("ct label")
			return
		}
		right = bit
	}
	r.match(o, word, o.expr, right)
}

func inverted(b []byte) []byte {
	all := slices.Clone(b)
	for i := range all {
		all[i] = ^all[i]
	}
	return all
}

// learn notes what a comparison says of the headers.
func (r *rule) learn(o *operand, op string, data []byte) {
	if op != "==" || o.mask != nil {
		return
	}
	n := o.typ().uint(data, o.big)
	switch o.typ().name {
	case typeFamily.name:
		r.network = n
	case typeEther.name:
		r.network = map[uint64]uint64{unix.ETH_P_IP: unix.NFPROTO_IPV4, unix.ETH_P_IPV6: unix.NFPROTO_IPV6}[n]
	case typeProto.name:
		r.transport = n
	}
}

// lookup reads what looks into a set, or into a map for a verdict or a value.
func (r *rule) lookup(a attrs) bool {
	s := r.sets[setKey{r.family, r.table, a.text(unix.NFTA_LOOKUP_SET)}]
	if s == nil {
		return false
	}
	all := r.regs.run(a.number(unix.NFTA_LOOKUP_SREG), s.keyLen)
	if len(all) == 0 || slices.ContainsFunc(all, func(o *operand) bool { return o.data != nil }) {
		all = []*operand{{expr: object{"unknown": object{}}, types: []datatype{typeUnknown}}}
	}
	key, data := concat(all), s.name(all)
	switch {
	case !a.has(unix.NFTA_LOOKUP_DREG):
		op := "=="
		if a.number(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0 {
			op = "!="
		}
		r.match(nil, op, key, data)
	case s.verdicts:
		r.say("vmap", object{"key": key, "data": data})
	default:
		o := &operand{expr: object{"map": object{"key": key, "data": data}}, types: s.to}
		for _, t := range s.to {
			o.size = (o.size+3)&^3 + t.size
		}
		o.size = max(o.size, s.dataLen)
		r.regs.put(a.number(unix.NFTA_LOOKUP_DREG), o)
	}
	return true
}

// name is a set as rules name it: without a name, its elements.
func (s *set) name(key []*operand) any {
	if !s.isAnonymous() {
		return "@" + s.key.name
	}
	var types []datatype
	for _, o := range key {
		types = append(types, o.types...)
	}
	return object{"set": s.list(types)}
}
