package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Nflog collects what the rules of a node log to a group, until told to stop.
type Nflog struct {
	Group uint16 `json:"group"`
}

// NflogResult holds the packets in the order they were logged.
type NflogResult struct {
	Logged []Logged `json:"logged"`
}

// Logged is one packet: the prefix of the rule that logged it, and the packet from its IP header on.
type Logged struct {
	Prefix string `json:"prefix"`
	Packet []byte `json:"packet"`
}

// Numbers of linux/netfilter/nfnetlink_log.h, which x/sys/unix does not have.
const (
	nfulnlConfig  = unix.NFNL_SUBSYS_ULOG<<8 | 1
	nfulnlPacket  = unix.NFNL_SUBSYS_ULOG << 8
	attrCommand   = 1 // in a configuration
	attrMode      = 2
	attrThreshold = 5
	commandBind   = 1
	copyPacket    = 2
	attrPayload   = 9 // in a packet
	attrPrefix    = 10
	nfgenmsgBytes = 4
)

// nflog reads a group. Only one reader can have it.
func nflog(ctx context.Context, q Nflog, began func()) (NflogResult, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return NflogResult{}, err
	}
	defer conn.Close()
	mode := append(binary.BigEndian.AppendUint32(nil, 0xffff), copyPacket, 0)
	atOnce := []byte{0, 0, 0, 1} // else the kernel collects packets for up to a second
	if err := errors.Join(configure(conn, q.Group, attrCommand, []byte{commandBind}), configure(conn, q.Group, attrMode, mode),
		configure(conn, q.Group, attrThreshold, atOnce)); err != nil {
		return NflogResult{}, err
	}
	began()
	var r NflogResult
	for {
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		msgs, err := conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			return r, nil // nothing more is under way
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return r, err
		}
		for _, m := range msgs {
			if m.Header.Type == nfulnlPacket && len(m.Data) > nfgenmsgBytes {
				r.Logged = append(r.Logged, logged(m.Data[nfgenmsgBytes:]))
			}
		}
	}
}

func configure(conn *netlink.Conn, group uint16, attr uint16, value []byte) error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: attr, Data: value}})
	if err != nil {
		return err
	}
	data := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: nfulnlConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(data, attrs...),
	})
	return err
}

func logged(data []byte) Logged {
	var l Logged
	attrs, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return l
	}
	for _, a := range attrs {
		switch a.Type {
		case attrPrefix:
			l.Prefix = strings.TrimRight(string(a.Data), "\x00")
		case attrPayload:
			l.Packet = a.Data
		}
	}
	return l
}
