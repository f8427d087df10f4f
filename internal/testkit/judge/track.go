package judge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/netns"
)

// tracker puts connections into connection tracking, as if both sides had been heard.
type tracker struct{ conn *netlink.Conn }

func newTracker(t testing.TB, host *netns.NS) *tracker {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &tracker{conn}
}

// What ctnetlink speaks (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctNew             = 1 << 8
	ctDelete          = 1<<8 | 2
	ctTupleOrig       = 1
	ctTupleReply      = 2
	ctStatus          = 3
	ctProtoInfo       = 4
	ctTimeout         = 7
	ctTupleIP         = 1
	ctTupleProto      = 2
	ctProtoNum        = 1
	ctProtoSrcPort    = 2
	ctProtoDstPort    = 3
	ctProtoICMPID     = 4 // and type 5, code 6; of ICMPv6 three more each
	ctInfoTCP         = 1
	ctInfoTCPState    = 1
	tcpEstablished    = 3
	statusEstablished = 2 | 4 | 8 // seen reply, assured, confirmed
)

// add makes a connection known whose first packet is opening. One that is known already is no error.
func (tr *tracker) add(opening packet.Packet, id uint16) error {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(ctTupleOrig, tuple(opening, id))
	ae.Nested(ctTupleReply, tuple(reversed(opening), id))
	ae.Uint32(ctStatus, statusEstablished)
	ae.Uint32(ctTimeout, 60)
	if opening.Proto == policy.TCP {
		ae.Nested(ctProtoInfo, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(ctInfoTCP, func(ae *netlink.AttributeEncoder) error {
				ae.Uint8(ctInfoTCPState, tcpEstablished)
				return nil
			})
			return nil
		})
	}
	if err := tr.execute(ctNew, netlink.Create|netlink.Excl, opening, ae); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("making the connection of %s known: %w", opening, err)
	}
	return nil
}

// flush forgets all connections: packets of protocols without ports would be answers to those of an earlier policy.
func (tr *tracker) flush() error {
	err := tr.execute(ctDelete, 0, packet.Packet{}, netlink.NewAttributeEncoder())
	if err != nil {
		return fmt.Errorf("forgetting the connections of before: %w", err)
	}
	return nil
}

func (tr *tracker) execute(typ netlink.HeaderType, flags netlink.HeaderFlags, opening packet.Packet, ae *netlink.AttributeEncoder) error {
	data, err := ae.Encode()
	if err != nil {
		return err
	}
	family := byte(unix.AF_UNSPEC)
	switch {
	case opening.Dst.Is4():
		family = unix.AF_INET
	case opening.Dst.Is6():
		family = unix.AF_INET6
	}
	_, err = tr.conn.Execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data: append([]byte{family, 0, 0, 0}, data...)})
	return err
}

// reversed is the packet that answers an opening one.
func reversed(pk packet.Packet) packet.Packet {
	pk.Src, pk.Dst, pk.SrcPort, pk.DstPort = pk.Dst, pk.Src, pk.DstPort, pk.SrcPort
	switch {
	case pk.Proto == policy.ICMP && pk.ICMPType == 8:
		pk.ICMPType = 0
	case pk.Proto == policy.ICMPv6 && pk.ICMPType == 128:
		pk.ICMPType = 129
	}
	return pk
}

func tuple(pk packet.Packet, id uint16) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Nested(ctTupleIP, func(ae *netlink.AttributeEncoder) error {
			first := uint16(1)
			if pk.Dst.Is6() {
				first = 3
			}
			for i, a := range []netip.Addr{pk.Src, pk.Dst} {
				ae.Bytes(first+uint16(i), a.AsSlice())
			}
			return nil
		})
		ae.Nested(ctTupleProto, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(ctProtoNum, pk.Proto)
			switch {
			case policy.HasPorts(pk.Proto):
				ae.Uint16(ctProtoSrcPort, pk.SrcPort)
				ae.Uint16(ctProtoDstPort, pk.DstPort)
			case pk.Proto == policy.ICMP || pk.Proto == policy.ICMPv6:
				first := uint16(ctProtoICMPID)
				if pk.Proto == policy.ICMPv6 {
					first += 3
				}
				ae.Uint16(first, id)
				ae.Uint8(first+1, pk.ICMPType)
				ae.Uint8(first+2, pk.ICMPCode)
			}
			return nil
		})
		return nil
	}
}
