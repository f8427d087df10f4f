// Package netfilter is the rules of a whole host, everybody's, as the kernel holds them: tables of iptables in both variants,
// and of nf_tables.
//
//	for _, t := range rules.Tables {
//		for _, c := range t.Chains {
//			for _, r := range c.Rules { … r.Matches, r.Actions … }
//		}
//	}
//
// It is what parsers of dumps give, and what the simulator and the analyser work on. It can say whatever a dump says: a
// match or an action that isn't understood is Opaque, and stays where it stands. Package ruleset is the closed language of
// what quaywall plans; Of turns that into this (decision 0011).
//
// Be aware: nothing here judges a packet. A field has the meaning that the kernel gives it at the hook where the rule
// stands: at the gate Dst is the dialled address, in forward what NAT made of it. Values are never modified once they were
// made: rule sets may share them.
package netfilter

import (
	"strings"

	"quaywall/internal/netset"
)

// Rules are all rules of a host: its tables in the order in which they were read, and the sets of ipset.
type Rules struct {
	Tables []*Table
	Sets   []*Set
}

// Dialect is who keeps a table, and in whose words its rules are written.
type Dialect uint8

// The dialects. The tables of IPTablesNFT are tables of nf_tables with the names, chains and priorities of iptables.
const (
	NFT Dialect = iota
	IPTablesNFT
	IPTablesLegacy
)

// Family is the address family of a table.
type Family uint8

// The families. Inet is IPv4 and IPv6.
const (
	Inet Family = iota
	IPv4
	IPv6
	Bridge
	ARP
	Netdev
)

// Table is a table with its chains and sets. A table of iptables has no sets: those of ipset are the host's.
type Table struct {
	Dialect Dialect
	Family  Family
	Name    string
	Dormant bool // the kernel calls none of its chains
	Chains  []*Chain
	Sets    []*Set
}

// Chain is a list of rules. A base chain has a Base; any other returns at its end.
type Chain struct {
	Name  string
	Base  *Base
	Rules []*Rule
	Count *Count // of a base chain's policy in iptables; nil where it isn't known
}

// Base hooks a chain into the kernel.
type Base struct {
	Type     Type
	Hook     Hook
	Priority int         // netfilter's: -300 raw, -150 mangle, -100 dstnat, 0 filter, 100 srcnat
	Policy   VerdictKind // Accept or Drop: what becomes of a packet at its end
	Devices  []string    // of the hooks Ingress and Egress
}

// Type is what a base chain is for.
type Type uint8

// The types. Chains of type NAT see the first packet of a connection alone. Chains of type Route have a packet routed anew
// where they changed its mark or addresses; so has mangle OUTPUT of iptables.
const (
	Filter Type = iota
	NAT
	Route
)

// Hook is a place where the kernel calls base chains.
type Hook uint8

// The hooks.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
	Ingress
	Egress
)

// Rule is matches that must all hold, then actions, in this order. The first action that ends the rule ends it. A rule of
// nf_tables that does something between its matches is two of these with one Number: the first has the matches before.
type Rule struct {
	Number  int    // of the rule in its chain, from 1
	Handle  uint64 // of nf_tables, 0 where there is none
	Text    string // the rule in its dialect's words, without its table, chain, counters and comment
	Comment string
	Matches []Match
	Actions []Action
	Count   *Count // nil where the rule counts nothing, or where the dump doesn't tell
	Line    int    // in the dump that it was read from, from 1; 0 where it wasn't
}

// Count is what a rule, a chain or an element has counted.
type Count struct{ Packets, Bytes uint64 }

// Set is a set or a map of nf_tables, or a set of ipset.
type Set struct {
	Name   string
	Family Family // of its addresses in ipset, of its table in nf_tables
	Type   string // "ipv4_addr . inet_service", "hash:ip,port": as its dialect writes it
	Parts  []Kind // what the parts of an element are, in order; of ipset's ports a protocol and a port are two
	Maps   bool   // its elements lead to something
	// Addrs are the elements that are an address or a range of them and nothing else: those of large sets mostly are.
	Addrs netset.Set
	// Elements count in this order: the first that holds a packet says whether it is in the set.
	Elements []Element
	Members  []string // of a list:set: the names of sets that are looked into one after the other
	Dynamic  bool     // packets add elements, or time takes them out: these are those that it held when it was read
	Unread   string   // what of it isn't understood, "" for nothing; with it nothing is known of what isn't in it
}

// Element is an element of a set: one value, interval or pattern for each of its parts.
type Element struct {
	Key     []Values
	Not     bool     // nomatch of ipset: what is in it is not in the set
	To      []Values // what a map leads to; nil for verdicts and sets
	Verdict *Verdict // what a verdict map leads to
	Comment string
	Count   *Count
}

// Set finds a set of ipset by its name; nil where there is none.
func (r *Rules) Set(name string) *Set { return find(r.Sets, name) }

// Set finds a set or map of the table by its name; nil where there is none.
func (t *Table) Set(name string) *Set { return find(t.Sets, name) }

func find(sets []*Set, name string) *Set {
	for _, s := range sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Chain finds a chain by its name; nil where there is none.
func (t *Table) Chain(name string) *Chain {
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// IsOwn tells whether a table of nf_tables is quaywall's.
func (t *Table) IsOwn() bool { return t.Dialect == NFT && strings.HasPrefix(t.Name, "quaywall") }

// IsOwnChain tells whether a chain of iptables is quaywall's, by its name.
func IsOwnChain(name string) bool { return strings.HasPrefix(name, "QUAYWALL") }
