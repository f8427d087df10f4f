// Package conntrack tells the kernel's connection tracking of flows that run already.
//
//	flows, err := conntrack.Unseen()
//	n, err := conntrack.Adopt(flows)
//
// On a host where nothing used connection tracking no flow is known to it, and to the first ruleset that asks for
// established connections every packet is a new one's. A TCP packet shows by its flags and its socket that it is of a
// flow from before; a datagram shows nothing. So the flows of connected UDP sockets, as QUIC, VPN and DNS programs have
// them, are put into the table before the first policy comes.
//
// Be aware: it works on the network namespace of the calling operating system thread and needs CAP_NET_ADMIN. Flows that
// are known already are left as they are. A socket that isn't connected doesn't tell whom it talks with: what it is sent
// is judged by the policy. See enum ctattr_type in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/watch/sockets"
)

// Flow is a flow between two sockets, the local one first.
type Flow struct {
	Proto         uint8 // IP protocol number; one with ports
	Local, Remote netip.AddrPort
}

// Unseen are the flows of connected UDP sockets with others than this host itself.
func Unseen() ([]Flow, error) {
	all, err := sockets.List()
	if err != nil {
		return nil, err
	}
	var flows []Flow
	for _, s := range all {
		remote := s.Remote.Addr()
		if s.Proto != unix.IPPROTO_UDP || !s.Connected || remote.IsLoopback() || remote == s.Local.Addr() {
			continue
		}
		flows = append(flows, Flow{s.Proto, s.Local, s.Remote})
	}
	return flows, nil
}

// quiet is how long an adopted flow may stay silent before it is forgotten. From its first packet on, the kernel's own
// time holds (two minutes).
const quiet = 10 * time.Minute

// Numbers of nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	newFlow = unix.NFNL_SUBSYS_CTNETLINK << 8 // with IPCTNL_MSG_CT_NEW, which is 0

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaTimeout = 1, 2, 3, 7
	ctaTupleIP, ctaTupleProto                          = 1, 2
	ctaProtoNum, ctaProtoSrcPort, ctaProtoDstPort      = 1, 2, 3

	seenReply, assured, confirmed = 1 << 1, 1 << 2, 1 << 3
)

// Adopt makes flows known, as established ones, and gives how many were not known before.
func Adopt(flows []Flow) (n int, err error) {
	if len(flows) == 0 {
		return 0, nil
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("asking connection tracking: %w", err)
	}
	defer conn.Close()
	for _, f := range flows {
		err := adopt(conn, f)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("telling connection tracking of the flow %v - %v: %w", f.Local, f.Remote, err)
		}
		n++
	}
	return n, nil
}

func adopt(conn *netlink.Conn, f Flow) error {
	data, err := f.encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: newFlow, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
		Data:   data,
	})
	return err
}

// encode is the flow as a request to make it known.
func (f Flow) encode() ([]byte, error) {
	family := byte(unix.AF_INET)
	if f.Local.Addr().Is6() {
		family = unix.AF_INET6
	}
	ae := attributes()
	ae.Nested(ctaTupleOrig, tuple(f.Proto, f.Local, f.Remote))
	ae.Nested(ctaTupleReply, tuple(f.Proto, f.Remote, f.Local))
	ae.Uint32(ctaStatus, seenReply|assured|confirmed)
	ae.Uint32(ctaTimeout, uint32(quiet/time.Second))
	attrs, err := ae.Encode()
	// struct nfgenmsg: the family, version 0, no resource id.
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...), err
}

func attributes() *netlink.AttributeEncoder {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	return ae
}

func tuple(proto uint8, src, dst netip.AddrPort) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.ByteOrder = binary.BigEndian
		ae.Nested(ctaTupleIP, func(ae *netlink.AttributeEncoder) error {
			// CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST
			first := uint16(1)
			if src.Addr().Is6() {
				first = 3
			}
			ae.Bytes(first, src.Addr().AsSlice())
			ae.Bytes(first+1, dst.Addr().AsSlice())
			return nil
		})
		ae.Nested(ctaTupleProto, func(ae *netlink.AttributeEncoder) error {
			ae.ByteOrder = binary.BigEndian
			ae.Uint8(ctaProtoNum, proto)
			ae.Uint16(ctaProtoSrcPort, src.Port())
			ae.Uint16(ctaProtoDstPort, dst.Port())
			return nil
		})
		return nil
	}
}
