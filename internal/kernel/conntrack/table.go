package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
	"quaywall/internal/recheck"
)

// More numbers of nfnetlink_conntrack.h and nf_conntrack_tcp.h.
const (
	getFlows   = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	deleteFlow = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaProtoInfo, ctaID, ctaTupleMaster, ctaZone = 4, 12, 14, 18
	ctaProtoInfoTCP                              = 1
	ctaTCPState, ctaTCPFlagsOrig                 = 1, 4

	tcpTimeWait, tcpClose = 7, 8
	beLiberal             = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL: a connection that was picked up in mid-stream
)

// List lists the flows of both families that are not over.
func List() ([]recheck.Flow, error) {
	n, unknown := count()
	if unknown == nil && n == 0 {
		return nil, nil // spares the walk through hundreds of thousands of empty buckets
	}
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	flows := make([]recheck.Flow, 0, n+n/64)
	var keys []byte // one piece of memory for all of them
	err = conn.Dump(getFlows, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, func(message []byte) {
		if f, live := decode(message); live {
			begin := len(keys)
			keys = append(keys, f.Key...)
			f.Key = keys[begin:len(keys):len(keys)]
			flows = append(flows, f)
		}
	})
	if unknown != nil && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT)) {
		return nil, nil // there is no connection tracking here
	}
	if err != nil {
		return nil, fmt.Errorf("listing the connections that run: %w", err)
	}
	return flows, nil
}

// Begun listens for flows that begin.
type Begun struct{ socket *nlsock.Socket }

// eventsFile says whether connection tracking tells of its flows.
const eventsFile = "/proc/sys/net/netfilter/nf_conntrack_events"

// Listen begins to listen. What is listed after that, and what is heard, is all there is. Nil is a kernel that tells nothing,
// or knows of no flow: that is listed again as fast, and it may not know yet whom to tell.
func Listen() *Begun {
	tells, err := os.ReadFile(eventsFile)
	if n, unknown := count(); err != nil || unknown != nil || n == 0 || strings.TrimSpace(string(tells)) == "0" {
		return nil
	}
	socket, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil
	}
	if socket.Join(unix.NFNLGRP_CONNTRACK_NEW) != nil {
		socket.Close()
		return nil
	}
	return &Begun{socket}
}

// Close ends the listening.
func (b *Begun) Close() {
	if b != nil {
		b.socket.Close()
	}
}

// Flows are those that began since it was called last. It is not ok where that is not known: then they have to be listed.
func (b *Begun) Flows() (flows []recheck.Flow, ok bool) {
	if b == nil {
		return nil, false
	}
	err := b.socket.Heard(func(message []byte) {
		if f, live := decode(message); live {
			f.Key = slices.Clone(f.Key)
			flows = append(flows, f)
		}
	})
	return flows, err == nil
}

// count is how many flows the network namespace of the calling thread has.
func count() (n int, err error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	return n, err
}

// decode reads a flow; it is not live where it is over, or can't be read. Its key is a part of the message.
func decode(message []byte) (f recheck.Flow, live bool) {
	if len(message) < 4 {
		return f, false
	}
	live = true
	for kind, value := range nlsock.Attributes(message[4:]) { // behind struct nfgenmsg
		switch kind {
		case ctaTupleOrig:
			f.Orig, f.Key = decodeTuple(value), value
		case ctaTupleReply:
			f.Reply = decodeTuple(value)
		case ctaTupleMaster:
			f.Master = decodeTuple(value)
		case ctaID:
			f.ID = uint32(bigEndian(value))
		case ctaZone:
			f.Zone = uint16(bigEndian(value))
		case ctaProtoInfo:
			state, flags := decodeTCP(value)
			f.MidStream = flags&beLiberal != 0
			live = state != tcpTimeWait && state != tcpClose
		}
	}
	return f, live && f.Orig.Src.IsValid() && f.Reply.Src.IsValid()
}

func decodeTuple(b []byte) recheck.Tuple {
	var t recheck.Tuple
	var src, dst netip.Addr
	var sport, dport uint16
	for kind, value := range nlsock.Attributes(b) {
		switch kind {
		case ctaTupleIP:
			for k, v := range nlsock.Attributes(value) {
				if k == 1 || k == 3 {
					src, _ = netip.AddrFromSlice(v)
				} else {
					dst, _ = netip.AddrFromSlice(v)
				}
			}
		case ctaTupleProto:
			for k, v := range nlsock.Attributes(value) {
				switch k {
				case ctaProtoNum:
					t.Proto = uint8(bigEndian(v))
				case ctaProtoSrcPort:
					sport = uint16(bigEndian(v))
				case ctaProtoDstPort:
					dport = uint16(bigEndian(v))
				}
			}
		}
	}
	t.Src, t.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return t
}

func decodeTCP(info []byte) (state, flags byte) {
	for kind, value := range nlsock.Attributes(info) {
		if kind != ctaProtoInfoTCP {
			continue
		}
		for k, v := range nlsock.Attributes(value) {
			switch {
			case k == ctaTCPState && len(v) > 0:
				state = v[0]
			case k == ctaTCPFlagsOrig && len(v) > 0: // struct nf_ct_tcp_flags: the flags, then their mask
				flags = v[0]
			}
		}
	}
	return state, flags
}

func bigEndian(b []byte) (n uint64) {
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// Forget takes flows, as List gave them, out of the table: the next packet of one begins a new flow. One that is gone by
// now is no error, and one that came instead of it, with the same addresses and ports, is left alone. What can't be
// forgotten keeps no other flow.
func Forget(flows []recheck.Flow) error {
	if len(flows) == 0 {
		return nil
	}
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	n, err := conn.Send(deleteFlow, 0, func(yield func([]byte) bool) {
		var b []byte
		for i := range flows {
			if b = appendForget(b[:0], &flows[i]); !yield(b) {
				return
			}
		}
	}, unix.ENOENT)
	if err != nil {
		return fmt.Errorf("telling connection tracking to forget (it forgot %d of %d): %w", n, len(flows), err)
	}
	return nil
}

// appendForget writes a request to forget a flow.
func appendForget(b []byte, f *recheck.Flow) []byte {
	family := byte(unix.AF_INET)
	if f.Orig.Src.Addr().Is6() {
		family = unix.AF_INET6
	}
	b = append(b, family, unix.NFNETLINK_V0, 0, 0)
	b = nlsock.Append(b, ctaTupleOrig|unix.NLA_F_NESTED, f.Key...)
	if f.Zone != 0 {
		b = nlsock.Append(b, ctaZone, binary.BigEndian.AppendUint16(nil, f.Zone)...)
	}
	return nlsock.Append(b, ctaID, binary.BigEndian.AppendUint32(nil, f.ID)...)
}
