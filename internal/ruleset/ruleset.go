// Package ruleset is the typed form of netfilter rules, planned or read from a host.
//
// It speaks netfilter and nothing else: tables, chains with hook and priority, matches, verdicts, sets and verdict
// maps. The compiler emits one table of family Inet; the renderers turn that into what their backend understands. A
// renderer is an exhaustive switch over the matches: a match that it doesn't know is an error, never left out.
//
// Be aware: the first rule that matches and has a final verdict decides within its base chain. A rule whose Verdict is
// Continue goes on to the next one. The zero Verdict is Drop.
package ruleset

import (
	"net/netip"
	"regexp"
	"time"

	"quaywall/internal/netset"

	"go4.org/netipx"
)

// Ruleset is tables of rules.
type Ruleset struct {
	Tables []Table `json:"tables"`
	Raw    Raw     `json:"raw,omitzero"`
}

// Raw is hand-written rules, text in the backend's own language; a backend takes its own and leaves the other.
type Raw struct {
	NFT      string `json:"nft,omitempty"`
	IPTables string `json:"iptables,omitempty"`
}

// Family is an address family of netfilter.
type Family uint8

// The families. Inet is IPv4 and IPv6.
const (
	Inet Family = iota
	IPv4
	IPv6
)

// Table is one table. Names of chains, sets and maps are unique in it, and stable: the same policy on the same host
// gives the same names.
type Table struct {
	Family Family  `json:"family"`
	Name   string  `json:"name"`
	Chains []Chain `json:"chains"`
	Sets   []Set   `json:"sets,omitempty"`
	Maps   []Map   `json:"maps,omitempty"`
}

// Hook is a place where the kernel calls base chains.
type Hook uint8

// The hooks of IPv4 and IPv6.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// Chain is a list of rules. A base chain has a Base and accepts at its end; any other returns there.
type Chain struct {
	Name  string `json:"name"`
	Base  *Base  `json:"base,omitempty"`
	Rules []Rule `json:"rules"`
}

// Base hooks a chain into the kernel. Priorities are netfilter's: -150 is mangle, 0 filter.
type Base struct {
	Hook     Hook `json:"hook"`
	Priority int  `json:"priority"`
}

// Rule is matches that must all hold, then, in this order, what is done: log, count, look the packet up in a verdict
// map, give a verdict. A rule with a Lookup has no other verdict: a packet that the map does not hold goes on to the
// next rule. So does a packet of the other family than the map's key is of.
type Rule struct {
	Matches []Match `json:"-"`
	Log     *Log    `json:"log,omitempty"`
	Counter bool    `json:"counter,omitempty"`
	Lookup  *Lookup `json:"lookup,omitempty"`
	Verdict Verdict `json:"verdict"`
	Origin  Origin  `json:"origin"`
}

// Origin is where a rule or an element comes from: Line is FILE:LINE of the policy, "default" for the built-in one, ""
// for what always holds, or one of those below; Note is the user's note, or what the rule is for. Together they are its comment in the kernel.
type Origin struct {
	Line string `json:"line,omitempty"`
	Note string `json:"note,omitempty"`
}

// Lines that are none of the policy's, by which packets are counted that an observed policy would deny: what is denied
// whatever it says, and with a line behind it what is over that line's limit.
const (
	Always    = "always"
	OverLimit = "over the limit of "
)

// Comment is the origin as it stands in the kernel: "policy.yaml:12", "policy.yaml:12: the note" or "the note".
func (o Origin) Comment() string {
	switch {
	case o.Line == "":
		return o.Note
	case o.Note == "":
		return o.Line
	}
	return o.Line + ": " + o.Note
}

// originLine is how a Line looks at the beginning of a comment.
var originLine = regexp.MustCompile(`^(default|always|.*?:[0-9]+)(?:: |$)`)

// ParseOrigin reads a comment from the kernel: what Comment wrote. A comment that names no line is a note.
func ParseOrigin(comment string) Origin {
	m := originLine.FindStringSubmatch(comment)
	if m == nil {
		return Origin{Note: comment}
	}
	return Origin{Line: m[1], Note: comment[len(m[0]):]}
}

// Verdict is what becomes of a packet.
type Verdict struct {
	Kind  Kind   `json:"kind"`
	Chain string `json:"chain,omitempty"` // of Jump and Goto
}

// Kind is a kind of verdict. The zero value is the safe one.
type Kind uint8

// The kinds of verdict. Accept ends the base chain, and only that. TCPReset and Unreachable drop the packet and answer
// it: by a RST, by port-unreachable.
const (
	Drop Kind = iota
	TCPReset
	Unreachable
	Accept
	Continue
	Return
	Jump
	Goto
)

// Log sends a copy of the packet to an NFLOG group (nfnetlink_log).
type Log struct {
	Group  uint16 `json:"group"`
	Prefix string `json:"prefix"` // at most 63 characters, the limit of xt_NFLOG
}

// Lookup finds the verdict of a packet in a map of the table. By is the part of the packet that is looked up: DstPort,
// Src or Dst.
type Lookup struct {
	By  Field  `json:"by"`
	Map string `json:"map"`
}

// Field is a part of a packet.
type Field uint8

// The fields. SrcPort and DstPort are those of the transport protocol that an earlier ProtoMatch of the rule names.
const (
	Src Field = iota
	Dst
	SrcPort
	DstPort
	In  // the interface it comes in by
	Out // the interface it leaves by
)

// Key is what a set or a map holds.
type Key uint8

// The keys.
const (
	Addr4      Key = iota // IPv4 addresses
	Addr6                 // IPv6 addresses
	Port                  // ports
	Iface                 // interface names
	IfaceAddr4            // an interface name and an IPv4 prefix, together
	IfaceAddr6
	Flow4 // a protocol, an address and a port of it, and another address, together
	Flow6
)

// AddrKey is the key of sets and maps that hold addresses of a family: IPv4 or IPv6.
func (f Family) AddrKey() Key {
	if f == IPv6 {
		return Addr6
	}
	return Addr4
}

// Set is a named set. Which field is filled follows from Key.
type Set struct {
	Name   string        `json:"name"`
	Key    Key           `json:"key"`
	Addrs  netset.Set    `json:"addrs,omitzero"`
	Ifaces []string      `json:"ifaces,omitempty"` // names, or a prefix and "*"
	Pairs  []IfaceSubnet `json:"pairs,omitempty"`
	Origin Origin        `json:"origin"`

	// Flows are what a set of key Flow4 or Flow6 holds at first. More may be added, and each goes after Timeout: such a set
	// is never compared by what it holds, and two of one name are the same set.
	Flows   []Flow        `json:"flows,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // in whole seconds
}

// Flow is what goes between a port of a server and a client, whichever port the client has.
type Flow struct {
	Proto  uint8 // IP protocol number; one with ports
	Server netip.AddrPort
	Client netip.Addr // of the same family
}

// AddFlows adds those flows that are of the set's family.
func (s *Set) AddFlows(flows []Flow) {
	for _, f := range flows {
		if f.Client.Is4() == (s.Key == Flow4) {
			s.Flows = append(s.Flows, f)
		}
	}
}

// FlowSets are the sets of flows of all tables.
func (rs *Ruleset) FlowSets() []*Set {
	var all []*Set
	for _, t := range rs.Tables {
		for i := range t.Sets {
			if k := t.Sets[i].Key; k == Flow4 || k == Flow6 {
				all = append(all, &t.Sets[i])
			}
		}
	}
	return all
}

// IfaceSubnet is an interface and addresses behind it.
type IfaceSubnet struct {
	Iface  string     `json:"iface"`
	Subnet netset.Set `json:"subnet"` // of one family
}

// Map is a verdict map: each element is an interval and what becomes of packets in it. Elements are sorted and do not
// overlap; each counts its packets.
type Map struct {
	Name     string    `json:"name"`
	Key      Key       `json:"key"` // Addr4, Addr6 or Port
	Elements []Element `json:"elements"`
}

// Element is one element of a Map. Addrs is set for the address keys, Ports for Port. The verdict is Drop, Accept, Jump
// or Goto.
type Element struct {
	Addrs   netipx.IPRange `json:"addrs,omitzero"`
	Ports   netset.Ports   `json:"ports,omitzero"`
	Verdict Verdict        `json:"verdict"`
	Origin  Origin         `json:"origin"`
}
