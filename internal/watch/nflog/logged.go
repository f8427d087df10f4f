package nflog

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"

	"quaywall/internal/nlsock"
	"quaywall/internal/packet"
)

// Logged is a packet that a rule logged.
type Logged struct {
	Prefix  string
	In, Out int          // indexes of the interfaces that IP sees; 0 where it has none yet, or none any more
	State   packet.State // New, too, where the kernel can't tell; Invalid, too, for one that isn't tracked
	Packet  []byte       // its beginning, from the IP header on
}

// Attributes of a packet, and what stands in front of them (struct nfgenmsg).
const (
	familyHeader = 4

	attrIn      = 4
	attrOut     = 5
	attrPayload = 9
	attrPrefix  = 10
	attrCtInfo  = 19
)

// Decode reads a message; what it doesn't understand it leaves out. tracked tells whether the kernel was asked what
// connection tracking says.
func Decode(b []byte, tracked bool) Logged {
	var l Logged
	if tracked {
		l.State = packet.Invalid
	}
	for kind, value := range nlsock.Attributes(b[min(familyHeader, len(b)):]) {
		switch {
		case kind == attrPrefix:
			prefix, _, _ := bytes.Cut(value, []byte{0})
			l.Prefix = string(prefix)
		case kind == attrPayload:
			l.Packet = value
		case len(value) != 4:
		case kind == attrIn:
			l.In = int(binary.BigEndian.Uint32(value))
		case kind == attrOut:
			l.Out = int(binary.BigEndian.Uint32(value))
		case kind == attrCtInfo:
			l.State = stateOf(binary.BigEndian.Uint32(value))
		}
	}
	return l
}

// stateOf reads enum ip_conntrack_info of linux/netfilter/nf_conntrack_common.h. Replies count like what they answer.
func stateOf(info uint32) packet.State {
	const reply = 3
	switch info % reply {
	case 0:
		return packet.Established
	case 1:
		return packet.Related
	}
	return packet.New
}

// InterfaceName is the name that an interface has now in this network namespace; "" for 0. One that is gone is called by
// its index.
func InterfaceName(index int) string {
	if index == 0 {
		return ""
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("#%d", index)
	}
	return link.Attrs().Name
}
