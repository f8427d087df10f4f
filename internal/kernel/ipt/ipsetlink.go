package ipt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	"quaywall/internal/nlsock"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// Sets are made and read by netlink rather than by the program ipset: for a million entries that takes half the time, needs
// no text of thirty megabytes, and one package less on the host.

// Commands, attributes, flags and errors of linux/netfilter/ipset/ip_set.h.
const (
	ipsetProtocol = 6

	cmdCreate  = 2
	cmdDestroy = 3
	cmdRename  = 5
	cmdSwap    = 6
	cmdList    = 7
	cmdAdd     = 9

	attrProtocol = 1
	attrSetName  = 2
	attrTypeName = 3 // also the second name of rename and swap
	attrRevision = 4
	attrFamily   = 5
	attrFlags    = 6
	attrData     = 7
	attrADT      = 8 // a list of entries, each in an attrData
	attrLineNo   = 9

	flagListNames = 1 << 1

	createPortFrom = 4
	createPortTo   = 5
	createTimeout  = 6
	createFlags    = 8
	createHashSize = 18
	createMaxElem  = 19
	flagCounters   = 1 << 3
	flagComments   = 1 << 4

	entryIP      = 1
	entryCIDR    = 3
	entryPort    = 4
	entryPortTo  = 5
	entryProto   = 7
	entryFlags   = 8
	entryIP2     = 20
	entryIface   = 23
	entryBytes   = 24
	entryPackets = 25
	entryComment = 26
	entryPad     = 30
	flagWildcard = 1 << 7

	addrIPv4 = 1
	addrIPv6 = 2

	errNoSubsystem = unix.EINVAL      // what nfnetlink says where there is no ipset at all
	errNoType      = unix.Errno(4098) // IPSET_ERR_FIND_TYPE
	errSetBusy     = unix.Errno(4100) // IPSET_ERR_BUSY
	errOtherType   = unix.Errno(4102) // IPSET_ERR_TYPE_MISMATCH
	errSetMissing  = unix.ENOENT
)

// revisions are the oldest revisions of the types that can do what is asked of them: comments, and names of interfaces by
// their beginning. Kernels take older revisions than their newest.
var revisions = map[render.Kind]byte{render.Nets: 4, render.IfaceNets: 7, render.PortBits: 2, render.Flows: 1}

// ipsetConn is a socket to the kernel's ipsets, of the network namespace that it was opened in.
type ipsetConn struct{ *netlink.Conn }

func dialIPSet() (*ipsetConn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	return &ipsetConn{c}, nil
}

func ipsetMessage(cmd uint16, flags netlink.HeaderFlags, attrs ...netlink.Attribute) netlink.Message {
	attrs = append([]netlink.Attribute{{Type: attrProtocol, Data: []byte{ipsetProtocol}}}, attrs...)
	return nfnetlinkMessage(unix.NFNL_SUBSYS_IPSET<<8|cmd, unix.AF_INET, netlink.Request|netlink.Acknowledge|flags, attrs)
}

func setName(name string) netlink.Attribute { return cString(attrSetName, name) }

func cString(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

func number(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind | netlink.NetByteOrder, Data: binary.BigEndian.AppendUint32(nil, n)}
}

// own are the names of quaywall's sets.
func (c *ipsetConn) own() ([]string, error) {
	answer, err := c.Execute(ipsetMessage(cmdList, netlink.Dump, number(attrFlags, flagListNames)))
	if errors.Is(err, errNoSubsystem) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing ipsets: %w", err)
	}
	var names []string
	for _, m := range answer {
		for kind, value := range nlsock.Attributes(m.Data[min(4, len(m.Data)):]) {
			if name := unix.ByteSliceToString(value); kind == attrSetName && render.OwnSet(name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// create makes a set without entries, under a name.
func (c *ipsetConn) create(name string, s *render.Set) error {
	m, err := createMessage(name, s)
	if err == nil {
		_, err = c.Execute(m)
	}
	return err
}

func createMessage(name string, s *render.Set) (netlink.Message, error) {
	var flags uint32
	if s.Counters {
		flags = flagCounters | flagComments
	}
	data := []netlink.Attribute{number(createFlags, flags)}
	if s.Kind == render.PortBits {
		data = append(data,
			netlink.Attribute{Type: createPortFrom | netlink.NetByteOrder, Data: []byte{0, 0}},
			netlink.Attribute{Type: createPortTo | netlink.NetByteOrder, Data: []byte{0xff, 0xff}})
	} else {
		data = append(data, number(createHashSize, uint32(s.HashSize())), number(createMaxElem, uint32(s.MaxElem())))
	}
	if s.Timeout != 0 {
		data = append(data, number(createTimeout, s.Timeout))
	}
	nested, err := netlink.MarshalAttributes(data)
	return ipsetMessage(cmdCreate, netlink.Create|netlink.Excl, setName(name), cString(attrTypeName, s.Kind.String()),
		netlink.Attribute{Type: attrRevision, Data: []byte{revisions[s.Kind]}},
		netlink.Attribute{Type: attrFamily, Data: []byte{familyOf(s)}},
		netlink.Attribute{Type: attrData | netlink.Nested, Data: nested}), err
}

func familyOf(s *render.Set) byte {
	switch {
	case s.Kind == render.PortBits:
		return unix.AF_UNSPEC
	case s.Family == ruleset.IPv6:
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// maxList is how many bytes of entries go into one message: the length of an attribute has sixteen bits.
const maxList = 60000

// add puts entries into a set. Flows may be there already.
func (c *ipsetConn) add(name string, s *render.Set) error {
	list := make([]byte, 0, maxList+1000)
	added, flags := 0, netlink.Excl
	if s.Kind == render.Flows {
		flags = 0
	}
	send := func() error {
		if _, err := c.Execute(addMessage(name, list, flags)); err != nil {
			return fmt.Errorf("entries up to number %d of %d: %w", added, s.Elements, err)
		}
		list = list[:0]
		return nil
	}
	for entry := range encoded(s) {
		list = entry(list)
		if added++; len(list) >= maxList {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return send()
}

func addMessage(name string, list []byte, flags netlink.HeaderFlags) netlink.Message {
	return ipsetMessage(cmdAdd, flags, setName(name), number(attrLineNo, 0), netlink.Attribute{Type: attrADT | netlink.Nested, Data: list})
}

// encoded are the entries of a set, each as what appends it to a list.
func encoded(s *render.Set) iter.Seq[func([]byte) []byte] {
	return func(yield func(func([]byte) []byte) bool) {
		for e := range s.Entries {
			if !yield(func(b []byte) []byte { return appendEntry(b, &e, s.Kind) }) {
				return
			}
		}
		for i := range s.Flows {
			if !yield(func(b []byte) []byte { return appendFlow(b, &s.Flows[i]) }) {
				return
			}
		}
	}
}

// two is rename and swap.
func (c *ipsetConn) two(cmd uint16, from, to string) error {
	_, err := c.Execute(ipsetMessage(cmd, 0, setName(from), cString(attrTypeName, to)))
	return err
}

// destroy destroys a set; the error is errSetBusy where a rule uses it.
func (c *ipsetConn) destroy(name string) error {
	_, err := c.Execute(ipsetMessage(cmdDestroy, 0, setName(name)))
	return err
}

// content is what a set is and holds.
type content struct {
	render.Digest
	typeName string
	family   byte
	counts   bool
	counters map[string]kernel.PacketCount // by policy line
	strange  bool                          // there is more to it than quaywall asks for
}

func newContent() *content { return &content{counters: map[string]kernel.PacketCount{}} }

// is tells whether the set is what is planned.
func (c *content) is(s *render.Set) bool {
	return c.summary() == summary(s) && c.typeName == s.Kind.String() && c.family == familyOf(s) && c.counts == s.Counters
}

func (c *content) summary() kernel.SetSummary {
	if c.strange {
		return kernel.SetSummary{Elements: c.Elements(), Digest: "changed by somebody"}
	}
	return kernel.SetSummary{Elements: c.Elements(), Digest: c.String()}
}

func summary(s *render.Set) kernel.SetSummary {
	return kernel.SetSummary{Elements: s.Elements, Digest: s.Digest}
}

var kinds = map[string]render.Kind{"hash:net": render.Nets, "hash:net,iface": render.IfaceNets, "bitmap:port": render.PortBits}

// read reads a set.
func (c *ipsetConn) read(name string) (*content, error) {
	answer, err := c.Execute(ipsetMessage(cmdList, netlink.Dump, setName(name)))
	if err != nil {
		return nil, fmt.Errorf("reading the ipset %s: %w", name, err)
	}
	out := newContent()
	for _, m := range answer {
		out.message(m.Data)
	}
	if out.typeName == "" {
		return nil, fmt.Errorf("reading the ipset %s: %w", name, errors.New("the answer was cut short"))
	}
	return out, nil
}

// message takes in a part of what the kernel tells about a set. The entries come behind the type.
func (c *content) message(data []byte) {
	for attr, value := range nlsock.Attributes(data[min(4, len(data)):]) {
		switch {
		case attr == attrTypeName:
			c.typeName = unix.ByteSliceToString(value)
		case attr == attrFamily && len(value) == 1:
			c.family = value[0]
		case attr == attrData:
			c.header(value)
		case attr == attrADT:
			kind, known := kinds[c.typeName]
			c.strange = c.strange || !known
			c.entries(value, kind)
		}
	}
}

// header takes in how the set was made.
func (c *content) header(data []byte) {
	for attr, value := range nlsock.Attributes(data) {
		switch {
		case attr == createTimeout:
			c.strange = true
		case attr == createFlags && len(value) == 4:
			flags := binary.BigEndian.Uint32(value)
			c.counts = flags&flagCounters != 0
			c.strange = c.strange || flags&^(flagCounters|flagComments) != 0
		}
	}
}
