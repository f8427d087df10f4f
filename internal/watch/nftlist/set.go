package nftlist

import (
	"bytes"
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
)

type setKey struct {
	family      byte
	table, name string
}

// set is a set or a map with its elements.
type set struct {
	key      setKey
	flags    uint64
	types    []datatype // of its key
	keyLen   int
	to       []datatype // what a map leads to
	dataLen  int
	verdicts bool // which is a verdict
	about    object
	elements []element
	lister   *lister
}

// Attributes and flags that the library of system calls doesn't have.
const (
	nftaSetElemKeyEnd      = 10 // NFTA_SET_ELEM_KEY_END, Linux 5.6
	nftaSetElemExpressions = 11 // NFTA_SET_ELEM_EXPRESSIONS, Linux 5.11
	setElemCatchAll        = 2  // NFT_SET_ELEM_CATCHALL, Linux 5.13
	dataVerdict            = 0xffffff00
)

func (l *lister) set(m message) {
	a := attributes(m.attrs)
	s := &set{key: setKey{m.family, a.text(unix.NFTA_SET_TABLE), a.text(unix.NFTA_SET_NAME)}, flags: a.number(unix.NFTA_SET_FLAGS),
		types: datatypesOf(a.number(unix.NFTA_SET_KEY_TYPE)), keyLen: int(a.number(unix.NFTA_SET_KEY_LEN)), lister: l}
	s.about = object{"family": families[m.family], "table": s.key.table, "name": s.key.name, "type": typeNames(s.types)}
	if s.flags&unix.NFT_SET_MAP != 0 {
		magic := a.number(unix.NFTA_SET_DATA_TYPE)
		s.verdicts, s.dataLen = magic == dataVerdict, int(a.number(unix.NFTA_SET_DATA_LEN))
		s.to = []datatype{typeVerdict}
		if !s.verdicts {
			s.to = datatypesOf(magic)
		}
		s.about["map"] = typeNames(s.to)
	}
	var flags []string
	for _, f := range []struct {
		bit  uint64
		name string
	}{{unix.NFT_SET_CONSTANT, "constant"}, {unix.NFT_SET_INTERVAL, "interval"}, {unix.NFT_SET_TIMEOUT, "timeout"}, {unix.NFT_SET_EVAL, "dynamic"}} {
		if s.flags&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	if flags != nil {
		s.about["flags"] = flags
	}
	l.sets[s.key] = s
	l.order = append(l.order, s)
}

func (s *set) isAnonymous() bool { return s.flags&unix.NFT_SET_ANONYMOUS != 0 }

// object is the set as nft's JSON has it.
func (s *set) object() object {
	if elements := s.list(s.types); elements != nil {
		s.about["elem"] = elements
	}
	if s.flags&unix.NFT_SET_MAP != 0 {
		return object{"map": s.about}
	}
	return object{"set": s.about}
}

// element is an element as the kernel has it. That of an interval is its beginning or, apart from it, what comes behind it.
type element struct {
	key, last []byte // last of intervals, both ends included
	end       bool
	rest      bool // all that no other is
	data      []byte
	verdict   object
	about     object
}

// add adds the elements of a message.
func (s *set) add(b []byte) {
	for _, value := range nlsock.Attributes(attributes(b)[unix.NFTA_SET_ELEM_LIST_ELEMENTS]) {
		a := attributes(value)
		flags, data := a.number(unix.NFTA_SET_ELEM_FLAGS), a.nested(unix.NFTA_SET_ELEM_DATA)
		e := element{key: bytes.Clone(a.nested(unix.NFTA_SET_ELEM_KEY)[unix.NFTA_DATA_VALUE]), last: bytes.Clone(a.nested(nftaSetElemKeyEnd)[unix.NFTA_DATA_VALUE]),
			end: flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, rest: flags&setElemCatchAll != 0, data: bytes.Clone(data[unix.NFTA_DATA_VALUE]),
			about: aboutElement(a)}
		if v := data.nested(unix.NFTA_DATA_VERDICT); v != nil {
			e.verdict = verdict(v)
		}
		s.elements = append(s.elements, e)
	}
}

// aboutElement is what an element has besides.
func aboutElement(a attrs) object {
	about := object{}
	if text := comment(a[unix.NFTA_SET_ELEM_USERDATA]); text != "" {
		about["comment"] = text
	}
	if timeout := a.number(unix.NFTA_SET_ELEM_TIMEOUT); timeout != 0 {
		about["timeout"] = timeout / 1000
	}
	expressions := a[unix.NFTA_SET_ELEM_EXPR]
	for _, one := range nlsock.Attributes(a[nftaSetElemExpressions]) {
		expressions = one
	}
	if e := attributes(expressions); e.text(unix.NFTA_EXPR_NAME) == "counter" {
		about["counter"] = counter(e.nested(unix.NFTA_EXPR_DATA))
	}
	return about
}

// udataComment is the type of comments, NFTNL_UDATA_RULE_COMMENT and NFTNL_UDATA_SET_ELEM_COMMENT of libnftnl.
const udataComment = 0

// comment is the comment in what nft keeps with a thing for itself: a type, a length and a value each, in single bytes.
func comment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == udataComment {
			return unix.ByteSliceToString(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// list are the elements as nft's JSON has them, their parts of these types.
func (s *set) list(types []datatype) []any {
	var all []any
	for _, e := range s.joined() {
		var key any = "*"
		if !e.rest {
			key = s.parts(types, e.key, e.last)
		}
		if len(e.about) > 0 {
			e.about["val"] = key
			key = object{"elem": e.about}
		}
		if s.flags&unix.NFT_SET_MAP == 0 {
			all = append(all, key)
			continue
		}
		all = append(all, []any{key, s.target(e)})
	}
	return all
}

// joined are the elements in order, intervals in one piece.
func (s *set) joined() []element {
	sorted := slices.SortedStableFunc(slices.Values(s.elements), func(a, b element) int {
		if c := s.order(a.key, b.key); c != 0 || a.end == b.end {
			return c
		}
		if a.end { // what ends here, before what begins here
			return -1
		}
		return 1
	})
	if s.flags&unix.NFT_SET_INTERVAL == 0 {
		return sorted
	}
	var all []element
	for i, e := range sorted {
		switch {
		case e.end:
			continue
		case e.rest || e.last != nil:
		case i+1 < len(sorted) && len(sorted[i+1].key) == len(e.key):
			e.last = before(sorted[i+1].key)
		default:
			e.last = bytes.Repeat([]byte{0xff}, len(e.key))
		}
		all = append(all, e)
	}
	return all
}

// order is that of two keys.
func (s *set) order(a, b []byte) int {
	if s.flags&unix.NFT_SET_INTERVAL == 0 && len(s.types) == 1 && s.types[0].host && s.types[0].kind != raw {
		return cmp.Compare(native(a), native(b))
	}
	return bytes.Compare(a, b)
}

// before is the value in front of one.
func before(b []byte) []byte {
	b = bytes.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]--; b[i] != 0xff {
			break
		}
	}
	return b
}

// parts writes a value, or all from it to another, in its parts.
func (s *set) parts(types []datatype, first, last []byte) any {
	if last == nil {
		last = first
	}
	big := s.flags&unix.NFT_SET_INTERVAL != 0
	var all []any
	for _, t := range types {
		n := min(t.size, len(first), len(last))
		if t.kind == raw {
			n = min(len(first), len(last))
		}
		all = append(all, t.span(first[:n], last[:n], big, s.lister.nameOf))
		n = min((n+3)&^3, len(first), len(last))
		first, last = first[n:], last[n:]
	}
	if len(all) == 1 {
		return all[0]
	}
	return object{"concat": all}
}

// target is what an element of a map leads to: a value, or all from one to another.
func (s *set) target(e element) any {
	if s.verdicts {
		return e.verdict
	}
	length := 0
	for i, t := range s.to {
		if i > 0 {
			length = (length + 3) &^ 3
		}
		length += t.size
	}
	if half := len(e.data) / 2; length > 0 && half >= length && len(e.data)%2 == 0 {
		return s.values(e.data[:half], e.data[half:])
	}
	return s.values(e.data, nil)
}

// values writes what a map leads to. Those are never in network byte order for the sake of ranges.
func (s *set) values(first, last []byte) any {
	plain := set{lister: s.lister}
	return plain.parts(s.to, first, last)
}
