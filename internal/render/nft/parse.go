package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// errShort is an answer whose attributes are longer than it is.
var errShort = errors.New("the kernel's answer is cut short")

// each goes through attributes.
func each(b []byte, f func(typ uint16, value []byte) error) error {
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return errShort
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := f(typ, b[unix.SizeofNlAttr:length]); err != nil {
			return err
		}
		b = b[min((length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil
}

// number is a value of 4 bytes; anything else is 0.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// ParseTable reads the body of a message about a table; just its name and flags are in it.
func ParseTable(body []byte) (Table, error) {
	var t Table
	err := each(body, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_TABLE_NAME:
			t.Name = unix.ByteSliceToString(value)
		case unix.NFTA_TABLE_FLAGS:
			t.Flags = number(value)
		}
		return nil
	})
	return t, err
}

// ParseChain reads the body of a message about a chain, without its rules, and gives the table that it belongs to.
func ParseChain(body []byte) (table string, c Chain, err error) {
	var base Base
	err = each(body, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			table = unix.ByteSliceToString(value)
		case unix.NFTA_CHAIN_NAME:
			c.Name = unix.ByteSliceToString(value)
		case unix.NFTA_CHAIN_POLICY:
			base.Policy = number(value)
		case unix.NFTA_CHAIN_TYPE:
			base.Type = unix.ByteSliceToString(value)
		case unix.NFTA_CHAIN_HOOK:
			c.Base = &base
			return base.parse(value)
		}
		return nil
	})
	return table, c, err
}

func (b *Base) parse(hook []byte) error {
	return each(hook, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_HOOK_HOOKNUM:
			b.Hook = number(value)
		case unix.NFTA_HOOK_PRIORITY:
			b.Priority = int32(number(value))
		}
		return nil
	})
}

// ParseRule reads the body of a message about a rule and gives the chain that it belongs to.
func ParseRule(body []byte) (table, chain string, r Rule, err error) {
	err = each(body, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = unix.ByteSliceToString(value)
		case unix.NFTA_RULE_CHAIN:
			chain = unix.ByteSliceToString(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			return each(value, func(_ uint16, value []byte) error {
				e, err := parseExpr(value)
				r.Exprs = append(r.Exprs, e)
				return err
			})
		case unix.NFTA_RULE_USERDATA:
			r.Comment = udata(value, udataRuleComment)
		}
		return nil
	})
	return table, chain, r, err
}

// parseExpr reads an expression. One that isn't known is Opaque, never left out.
func parseExpr(b []byte) (expr.Any, error) {
	var name string
	var data []byte
	err := each(b, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = unix.ByteSliceToString(value)
		case unix.NFTA_EXPR_DATA:
			data = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if v := parseVerdict(attribute(attribute(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)); v != nil && name == "immediate" {
		return v, nil
	}
	e := newExpr(name, data)
	if e == nil {
		return &Opaque{Name: name, Data: data}, nil
	}
	if err := unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("expression %s: %w", name, err)
	}
	return e, nil
}

// unmarshal reads the attributes of an expression. The library takes values for as long as they should be and panics where
// they are not.
func unmarshal(data []byte, e expr.Any) (err error) {
	defer func() {
		if recover() != nil {
			err = errShort
		}
	}()
	return expr.Unmarshal(unix.NFPROTO_INET, data, e)
}

// newExpr makes an empty expression of those that rules are rendered to, nil for any other.
func newExpr(name string, data []byte) expr.Any {
	switch name {
	case "meta":
		return &expr.Meta{}
	case "payload":
		return &expr.Payload{}
	case "ct":
		return &expr.Ct{}
	case "fib":
		return &expr.Fib{}
	case "socket":
		return &expr.Socket{}
	case "bitwise":
		if plainBitwise(data) {
			return &expr.Bitwise{}
		}
	case "cmp":
		return &expr.Cmp{}
	case "range":
		return &expr.Range{}
	case "lookup":
		return &expr.Lookup{}
	case "dynset":
		return &expr.Dynset{}
	case "limit":
		return &expr.Limit{}
	case "log":
		return &expr.Log{}
	case "counter":
		return &expr.Counter{}
	case "reject":
		return &expr.Reject{}
	}
	return nil
}

// attribute finds the value of an attribute; nil where it isn't there.
func attribute(b []byte, wanted uint16) (found []byte) {
	// What is malformed is found where the expression itself is read.
	_ = each(b, func(typ uint16, value []byte) error {
		if typ == wanted {
			found = value
		}
		return nil
	})
	return found
}

// plainBitwise tells whether a bitwise expression is a mask and an xor: the library passes over shifts.
func plainBitwise(data []byte) bool { return number(attribute(data, nftaBitwiseOp)) == 0 }

// udataValue finds a value in user data: a type, a length and a value each, all in single bytes.
func udataValue(b []byte, wanted userdata.Type) []byte {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if userdata.Type(b[0]) == wanted {
			return b[2 : 2+int(b[1])]
		}
		b = b[2+int(b[1]):]
	}
	return nil
}

func udata(b []byte, wanted userdata.Type) string {
	return unix.ByteSliceToString(udataValue(b, wanted))
}

// ParseSet reads the body of a message about a set, without its elements, and gives the table that it belongs to.
func ParseSet(body []byte) (table string, s Set, err error) {
	s.Count = -1
	err = each(body, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_SET_TABLE:
			table = unix.ByteSliceToString(value)
		case unix.NFTA_SET_NAME:
			s.Name = unix.ByteSliceToString(value)
		case unix.NFTA_SET_FLAGS:
			s.Flags = number(value)
		case unix.NFTA_SET_KEY_TYPE:
			s.Key.Magic = number(value)
		case unix.NFTA_SET_KEY_LEN:
			s.Key.Len = number(value)
		case unix.NFTA_SET_TIMEOUT:
			if len(value) == 8 {
				s.Timeout = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
			}
		case unix.NFTA_SET_DESC:
			s.Size = number(attribute(value, unix.NFTA_SET_DESC_SIZE))
		case unix.NFTA_SET_USERDATA:
			s.Comment = udata(value, userdata.NFTNL_UDATA_SET_COMMENT)
			s.Written = parseSummary(udataValue(value, udataSetSummary))
		case nftaSetExpr:
			s.Counter = unix.ByteSliceToString(attribute(value, unix.NFTA_EXPR_NAME)) == "counter"
		case nftaSetCount:
			s.Count = int(number(value))
		}
		return nil
	})
	return table, s, err
}

// bytes is the summary as it is kept with a set.
func (s Summary) bytes() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(s.Elements))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Ends))
	return append(b, s.Digest[:]...)
}

func parseSummary(b []byte) *Summary {
	s := &Summary{}
	if len(b) != 8+len(s.Digest) {
		return nil
	}
	s.Elements, s.Ends = int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint32(b[4:]))
	copy(s.Digest[:], b[8:])
	return s
}

// ParseElements reads the body of a message about elements of one set and appends them.
func ParseElements(body []byte, elements []Element) ([]Element, error) {
	list := attribute(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	err := each(list, func(_ uint16, value []byte) error {
		e, err := parseElement(value)
		elements = append(elements, e)
		return err
	})
	return elements, err
}

func parseElement(b []byte) (e Element, err error) {
	err = each(b, func(typ uint16, value []byte) error {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = attribute(value, unix.NFTA_DATA_VALUE)
		case nftaSetElemKeyEnd:
			e.KeyEnd = attribute(value, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = number(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			e.Verdict = parseVerdict(attribute(value, unix.NFTA_DATA_VERDICT))
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = udata(value, userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
		case unix.NFTA_SET_ELEM_EXPR:
			x, err := parseExpr(value)
			if counter, ok := x.(*expr.Counter); ok {
				e.Counter = *counter
			}
			return err
		}
		return nil
	})
	return e, err
}

func parseVerdict(b []byte) *expr.Verdict {
	code := attribute(b, unix.NFTA_VERDICT_CODE)
	if code == nil {
		return nil
	}
	return &expr.Verdict{
		Kind:  expr.VerdictKind(int32(number(code))),
		Chain: unix.ByteSliceToString(attribute(b, unix.NFTA_VERDICT_CHAIN)),
	}
}
