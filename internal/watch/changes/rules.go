package changes

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Change is what is known of a change of rules.
type Change struct {
	Own    bool   // a table of quaywall's in the family inet
	Tables bool   // a table of IPv4 or IPv6, as those of iptables-nft and Docker are
	Taken  bool   // something went from there that is not quaywall's
	By     string // the program that did it, "iptables (process 812)"; "" where that is not known, and for this process
}

// Rules tells of changes of nf_tables' rules, one call for each transaction. The first, and one after messages were lost,
// says that anything may have changed.
func Rules(ctx context.Context, each func(Change)) error {
	var c Change
	return follow(ctx, unix.NETLINK_NETFILTER, []int{groupNFTables}, func() { each(Change{Own: true, Tables: true}) },
		func(datagram []byte) {
			for m := range messages(datagram) {
				if !m.isTransactionEnd() {
					c.note(m)
					continue
				}
				c.By = m.author()
				if c.Own || c.Tables {
					each(c)
				}
				c = Change{}
			}
		})
}

// message is a message of nf_tables.
type message struct {
	kind   uint16
	family byte
	attrs  []byte
}

const (
	headersLen     = unix.NLMSG_HDRLEN + 4 // with struct nfgenmsg
	attrHeaderLen  = unix.SizeofNlAttr
	attrTable      = 1 // NFTA_TABLE_NAME, and where every other kind of object names its table
	attrRuleChain  = 2 // NFTA_RULE_CHAIN
	attrChainName  = 3 // NFTA_CHAIN_NAME
	attrGenPID     = 2 // NFTA_GEN_PROC_PID
	attrGenName    = 3 // NFTA_GEN_PROC_NAME
	attrTypeMask   = 0x3fff
	subsysNFTables = unix.NFNL_SUBSYS_NFTABLES << 8
)

// messages takes a datagram apart. What is not understood ends it.
func messages(b []byte) func(func(message) bool) {
	return func(yield func(message) bool) {
		for len(b) >= headersLen {
			length := int(binary.NativeEndian.Uint32(b))
			if length < headersLen || length > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[4:])
			m := message{kind: kind &^ subsysNFTables, family: b[unix.NLMSG_HDRLEN], attrs: b[headersLen:length]}
			if kind&0xff00 == subsysNFTables && !yield(m) {
				return
			}
			b = b[min(align(length), len(b)):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

func (m message) isTransactionEnd() bool { return m.kind == unix.NFT_MSG_NEWGEN }

// attr finds an attribute; nil where it isn't there.
func (m message) attr(want uint16) []byte {
	for b := m.attrs; len(b) >= attrHeaderLen; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < attrHeaderLen || length > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&attrTypeMask == want {
			return b[attrHeaderLen:length]
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}

// note adds what a message says of the tables that were changed.
func (c *Change) note(m message) {
	switch m.family {
	case unix.NFPROTO_INET:
		c.Own = c.Own || strings.HasPrefix(unix.ByteSliceToString(m.attr(attrTable)), "quaywall")
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6:
		c.Tables = true
		c.Taken = c.Taken || m.takes()
	}
}

// takes tells whether a rule, chain or table of others than quaywall's goes. In mangle there are quaywall's.
func (m message) takes() bool {
	chain := ""
	switch m.kind {
	case unix.NFT_MSG_DELRULE:
		chain = unix.ByteSliceToString(m.attr(attrRuleChain))
	case unix.NFT_MSG_DELCHAIN:
		chain = unix.ByteSliceToString(m.attr(attrChainName))
	case unix.NFT_MSG_DELTABLE:
	default:
		return false
	}
	return unix.ByteSliceToString(m.attr(attrTable)) != "mangle" && !strings.HasPrefix(chain, "QUAYWALL-")
}

// author is the program that made a transaction.
func (m message) author() string {
	name, pid := unix.ByteSliceToString(m.attr(attrGenName)), m.attr(attrGenPID)
	if len(pid) < 4 {
		return ""
	}
	id := int(binary.BigEndian.Uint32(pid))
	// The kernel tells the thread. One of this process's may have ended since, but Go keeps its threads.
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", id)); err == nil {
		return ""
	}
	return fmt.Sprintf("%s (process %d)", printable(name), id)
}

// printable keeps a process, which may give itself any name, from writing to the journal's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
