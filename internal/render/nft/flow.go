package nft

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"quaywall/internal/ruleset"
)

// flowSet is a set of flows. To the kernel it is one that packets fill, so that nobody compares what it holds; a hash.
func flowSet(s *ruleset.Set) Set {
	key := flow4Key
	if s.Key == ruleset.Flow6 {
		key = flow6Key
	}
	key.Fields = nil // the kernel wants to know them where there are intervals
	return Set{
		Key: key, Flags: unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT, Timeout: s.Timeout, Count: -1,
		Elements: func(yield func(Element) bool) {
			var buf []byte
			for i := range s.Flows {
				if buf = appendFlow(buf[:0], &s.Flows[i]); !yield(Element{Key: buf}) {
					return
				}
			}
		},
	}
}

// appendFlow writes the key of a flow: each field is filled up to a multiple of four bytes.
func appendFlow(b []byte, f *ruleset.Flow) []byte {
	b = append(b, f.Proto, 0, 0, 0)
	b = append(b, f.Server.Addr().AsSlice()...)
	b = append(binary.BigEndian.AppendUint16(b, f.Server.Port()), 0, 0)
	return append(b, f.Client.AsSlice()...)
}

// Flow reads a key of a set of flows; of any other it is not ok.
func (k KeyType) Flow(key []byte) (f ruleset.Flow, ok bool) {
	length := 4
	switch k.Magic {
	case flow4Key.Magic:
	case flow6Key.Magic:
		length = 16
	default:
		return f, false
	}
	if len(key) != 8+2*length {
		return f, false
	}
	server, _ := netip.AddrFromSlice(key[4 : 4+length])
	client, _ := netip.AddrFromSlice(key[8+length:])
	return ruleset.Flow{Proto: key[0], Server: netip.AddrPortFrom(server, binary.BigEndian.Uint16(key[4+length:])), Client: client}, true
}

// IsFlows tells whether the keys are flows.
func (k KeyType) IsFlows() bool { return k.Magic == flow4Key.Magic || k.Magic == flow6Key.Magic }

func formatFlow(key []byte) string {
	k := flow4Key
	if len(key) == int(flow6Key.Len) {
		k = flow6Key
	}
	f, ok := k.Flow(key)
	if !ok {
		return formatHex(key)
	}
	return fmt.Sprintf("%s . %s . %d . %s", formatProto([]byte{f.Proto}), f.Server.Addr(), f.Server.Port(), f.Client)
}

// AddFlows gives the messages that add flows to sets which are there.
func AddFlows(table string, sets []ruleset.Set) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for i := range sets {
			set, err := namedSet(&sets[i])
			if err != nil {
				yield(Message{}, err)
				return
			}
			for m := range addElements(table, &set) {
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// reg32 is NFT_REG32_00, the first of sixteen registers of four bytes; reg1 is the first four of them.
const reg32 = 8

// flow looks the two ends of a packet up. Where a packet has no ports, what stands in their place is of no protocol that
// the set holds.
func (b *builder) flow(m ruleset.FlowMatch) error {
	server, client, port := ruleset.Src, ruleset.Dst, uint32(0)
	if m.Field == ruleset.Dst {
		server, client, port = client, server, 2
	} else if m.Field != ruleset.Src {
		return fmt.Errorf("%s is no end of a flow", m.Field)
	}
	if err := b.needFamily(m.Family); err != nil {
		return err
	}
	words := uint32(1)
	if m.Family == ruleset.IPv6 {
		words = 4
	}
	b.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1})
	if err := b.loadAddr(server, m.Family, reg32+1); err != nil {
		return err
	}
	b.add(&expr.Payload{DestRegister: register(1 + words), Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2})
	if err := b.loadAddr(client, m.Family, register(2+words)); err != nil {
		return err
	}
	b.lookup(m.Set, false)
	return nil
}

// register is the number by which the kernel lists the register of a word.
func register(word uint32) uint32 {
	if word%4 == 0 {
		return reg1 + word/4
	}
	return reg32 + word
}
