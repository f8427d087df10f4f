// Package nft turns a ruleset into what nf_tables is told, and reads back what nf_tables says it holds.
//
//	table, err := nft.Render(rs)                      // typed: chains, rules as expressions, sets
//	change := nft.NewChange(table, live)              // the netlink messages that put it in force
//
// Everything is a value: no socket is opened here. Expressions are those of github.com/google/nftables/expr; messages
// are written by this package, since that library puts all elements of a set into one attribute, which holds 64 KiB.
//
// A ruleset lists short lists of values in its rules: { 22, 80 }. Here they become named sets whose name tells what they
// hold, such as list/22_80, each just once: the kernel takes time in the square of the number of anonymous sets (30 s for
// 10,000, measured).
//
// Be aware: IPv6 sources are limited by their /64. A table of sources holds 65,535 of them: while it is full, new sources
// are not limited.
package nft

import (
	"iter"
	"time"

	"github.com/google/nftables/expr"
)

// Table is one table of family inet.
type Table struct {
	Name   string
	Flags  uint32 // as they were read: NFT_TABLE_F_DORMANT and others; quaywall sets none
	Chains []Chain
	Sets   []Set // maps too
}

// Chain is a list of rules. A base chain has a Base; its policy is to accept.
type Chain struct {
	Name  string
	Base  *Base
	Rules []Rule
}

// Base is where a chain of type filter is called. Hook is NF_INET_*, Policy NF_ACCEPT or NF_DROP.
type Base struct {
	Hook     uint32
	Priority int32
	Policy   uint32
	Type     string
}

// Rule is expressions, evaluated in order until one doesn't match.
type Rule struct {
	Exprs   []expr.Any
	Comment string
}

// Opaque is an expression that was read and isn't known here.
type Opaque struct {
	expr.Any // nil: it can't be written
	Name     string
	Data     []byte
}

// Set is a set or a verdict map.
type Set struct {
	Name    string
	Key     KeyType
	Flags   uint32 // NFT_SET_*
	Counter bool   // each element counts its packets
	Timeout time.Duration
	Size    uint32 // most elements; 0 is no limit
	Comment string

	// Elements are sorted by key; where an interval ends and the next begins at the same key, the end comes first. An
	// element and its slices are valid until the next one is asked for.
	Elements iter.Seq[Element]

	// Written is the summary that was kept with a set that was read, by the one who filled it; nil if there is none.
	Written *Summary
	// Count is how many elements the kernel says the set has; -1 where it doesn't say (before Linux 6.17).
	Count int
}

// KeyType is what the keys of a set are.
type KeyType struct {
	Magic     uint32   // how nft numbers the type, so that it prints the keys right
	Len       uint32   // bytes
	Fields    []uint32 // lengths of the fields of a concatenation
	HostOrder bool     // nft takes its bytes in the host's order
}

// Element is one element of a set or map: a key, the beginning of an interval or, with End, the key behind its last one.
// Elements of concatenations name the last key in KeyEnd instead. An interval without an end goes up to the last key.
type Element struct {
	Key, KeyEnd []byte
	End         bool
	Verdict     *expr.Verdict // of maps
	Comment     string
	Counter     expr.Counter // as it was read
}
