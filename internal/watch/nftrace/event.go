package nftrace

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/netfilter"
	"quaywall/internal/nlsock"
	"quaywall/internal/watch/nflog"
)

// Event is a rule that a packet matched, or the end of a chain that it came to.
type Event struct {
	Legacy bool
	// ID is the packet's, of nf_tables; iptables-legacy has none. The kernel uses it for others as well, later.
	ID     uint32
	Family netfilter.Family // of the table
	Table  string
	Chain  string
	Kind   Kind
	Handle uint64 // of a rule of nf_tables
	Number int    // of a rule of iptables-legacy, from 1
	// Verdict is that of the rule or the policy; iptables-legacy doesn't tell it.
	Verdict *netfilter.Verdict
	In, Out int    // indexes of interfaces, 0 for none
	Mark    uint32 // of the packet
	// Header is the packet as it was there, from its IP header on, cut short: of nf_tables up to 40 bytes and 20 of the
	// transport's header. Only the first event of a base chain has it, and every one of iptables-legacy.
	Header []byte
}

// Kind is what an event tells of.
type Kind uint8

// The kinds.
const (
	Rule   Kind = iota
	Return      // the end of a chain that isn't a base chain
	Policy      // the end of a base chain
)

// Attributes of an event, see linux/netfilter/nf_tables.h.
const (
	familyHeader = 4 // struct nfgenmsg

	attrTable     = 1
	attrChain     = 2
	attrHandle    = 3
	attrType      = 4
	attrVerdict   = 5
	attrID        = 6
	attrNetwork   = 8
	attrTransport = 9
	attrIn        = 10
	attrOut       = 12
	attrMark      = 14
	attrPolicy    = 16

	verdictCode  = 1
	verdictChain = 2

	typePolicy = 1
)

var families = map[byte]netfilter.Family{unix.NFPROTO_INET: netfilter.Inet, unix.NFPROTO_IPV4: netfilter.IPv4,
	unix.NFPROTO_IPV6: netfilter.IPv6, unix.NFPROTO_BRIDGE: netfilter.Bridge, unix.NFPROTO_ARP: netfilter.ARP, unix.NFPROTO_NETDEV: netfilter.Netdev}

// decode reads an event of nf_tables. It fails on what is none.
func decode(b []byte) (Event, bool) {
	if len(b) < familyHeader {
		return Event{}, false
	}
	family, known := families[b[0]]
	e := Event{Family: family}
	var network, transport []byte
	var kind uint32
	for attr, value := range nlsock.Attributes(b[familyHeader:]) {
		switch attr {
		case attrTable:
			e.Table = unix.ByteSliceToString(value)
		case attrChain:
			e.Chain = unix.ByteSliceToString(value)
		case attrHandle:
			if len(value) == 8 {
				e.Handle = binary.BigEndian.Uint64(value)
			}
		case attrVerdict:
			e.Verdict = verdict(value)
		case attrPolicy:
			e.Verdict = &netfilter.Verdict{Kind: verdictKind(number(value))}
		case attrNetwork:
			network = value
		case attrTransport:
			transport = value
		case attrType:
			kind = number(value)
		case attrID:
			e.ID = number(value)
		case attrIn:
			e.In = int(number(value))
		case attrOut:
			e.Out = int(number(value))
		case attrMark:
			e.Mark = number(value)
		}
	}
	switch {
	case kind == typePolicy:
		e.Kind = Policy
	case e.Handle == 0: // where no rule of a chain decided, its end is told in the same way
		e.Kind = Return
	}
	if network != nil {
		e.Header = append(network[:len(network):len(network)], transport...)
	}
	return e, known && e.Table != "" && e.Chain != ""
}

// number is a value of 4 bytes; anything else is 0.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

func verdict(b []byte) *netfilter.Verdict {
	var v netfilter.Verdict
	for attr, value := range nlsock.Attributes(b) {
		switch attr {
		case verdictCode:
			v.Kind = verdictKind(number(value))
		case verdictChain:
			v.Chain = unix.ByteSliceToString(value)
		}
	}
	return &v
}

// verdictKind reads a verdict of the kernel: NFT_* are below zero, of NF_* the lower half counts.
func verdictKind(code uint32) netfilter.VerdictKind {
	switch int32(code) {
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
		return netfilter.Continue
	case unix.NFT_JUMP:
		return netfilter.Jump
	case unix.NFT_GOTO:
		return netfilter.Goto
	case unix.NFT_RETURN:
		return netfilter.Return
	}
	const drop, queue = 0, 3
	switch code & 0xffff {
	case drop:
		return netfilter.Drop
	case queue:
		return netfilter.Queue
	}
	return netfilter.Accept
}

// legacyPrefix is what iptables-legacy begins a line with: "TRACE: filter:INPUT:rule:3 ".
const legacyPrefix = "TRACE: "

// decodeLegacy reads an event of iptables-legacy. It fails on what is none.
func decodeLegacy(b []byte) (Event, bool) {
	if len(b) < familyHeader {
		return Event{}, false
	}
	l := nflog.Decode(b, false)
	text, ok := strings.CutPrefix(strings.TrimSpace(l.Prefix), strings.TrimSpace(legacyPrefix))
	parts := strings.Split(strings.TrimSpace(text), ":")
	if !ok || len(parts) < 4 {
		return Event{}, false
	}
	n := len(parts) // a chain's name may have colons
	e := Event{Legacy: true, Family: families[b[0]], Table: parts[0], Chain: strings.Join(parts[1:n-2], ":"), In: l.In, Out: l.Out, Header: l.Packet}
	e.Number, _ = strconv.Atoi(parts[n-1])
	// "return" is a rule without conditions, which stands last.
	if parts[n-2] == "policy" {
		e.Kind = Policy
	}
	return e, true
}
