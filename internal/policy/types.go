package policy

import (
	"net/netip"

	"quaywall/internal/diag"
	"quaywall/internal/netset"
	"quaywall/internal/rate"
)

// Policy is a policy file with its fragments and set files, validated: every name is resolved, every value is in
// range. It says nothing of the host it will be used on.
type Policy struct {
	File     string    // the main file as it was named; "" for the built-in default
	Hash     string    // SHA-256 in hex over the main file, the fragments, the set files and the raw files
	Written  string    // Hash without the set files: what changes only when somebody edits the policy
	Sets     []Set     // sorted by name
	Services []Service // the policy's own, sorted by name
	Inbound  []Rule
	Egress   []Rule
	Outbound []Rule
	Defaults Defaults
	Trusted  []string  // interface names, or a prefix and "*"; sorted
	Log      rate.Rate // denied packets logged; zero is off
	Hygiene  bool
	Keep     bool   // established: keep, live connections that a new policy denies go on
	Repair   Repair // docker-repair
	Raw      Raw
}

// Set is a named set of addresses.
type Set struct {
	Name  string
	Pos   diag.Pos
	File  string // absolute path of the file that fills it; "" where the entries stand in the policy
	Addrs netset.Set
	// Entries is how many were written. Addrs may have fewer: what touches is one range.
	Entries int
}

// Service is a name for traffic, the policy's own or a built-in one.
type Service struct {
	Name    string
	Pos     diag.Pos // the zero Pos for a built-in one
	Traffic []Traffic
}

// Verb is what a rule does. The zero value is the safe one.
type Verb uint8

// The verbs. Deny drops silently, Reject answers (TCP by RST, anything else by port-unreachable).
const (
	Deny Verb = iota
	Reject
	Allow
)

func (v Verb) String() string { return [...]string{"deny", "reject", "allow"}[v] }

// Section is one of the three lists of rules.
type Section uint8

// The sections divide by where a connection begins: outside, in a container, on the host.
const (
	Inbound Section = iota
	Egress
	Outbound
)

func (s Section) String() string { return [...]string{"inbound", "egress", "outbound"}[s] }

// Rule is one rule. The qualifiers must all hold; the first rule of a section that matches decides.
type Rule struct {
	Pos      diag.Pos
	Verb     Verb
	What     []Traffic // at least one; any of them
	From     Addresses // where the connection comes from
	To       Addresses // where it was dialled to
	On       []string  // interface names, or a prefix and "*"; empty is every one. The interface a packet comes in by, in outbound the one it leaves by
	Networks []string  // Docker networks, empty is every one; inbound: only ports published on them; egress: only connections that begin there
	Limit    rate.Rate // new connections that a source address (IPv6: its /64) may make; only with Allow
	Log      bool
	Note     string
}

// Origin is the policy line that a rule is known by, FILE:LINE with the file's base name, as kept in the kernel.
func (r Rule) Origin() string { return OriginOf(r.Pos) }

// Traffic is one kind of traffic, the "what" of a rule. The zero value is any packet.
type Traffic struct {
	Published bool         // the host address, protocol and port triples that Docker publishes now; all else is zero
	Proto     uint8        // IP protocol number; 0 is any
	Ports     netset.Ports // destination ports of TCP, UDP, SCTP, DCCP and UDP-Lite; AllPorts where none are named, zero for other protocols
	ICMP      ICMPMatch    // for Proto 1 and 58
}

// IP protocol numbers that the language knows more of than a name: ports, types, or that they are of one family.
// See https://www.iana.org/assignments/protocol-numbers.
const (
	ICMP    = 1
	TCP     = 6
	UDP     = 17
	DCCP    = 33
	AH      = 51
	ICMPv6  = 58
	SCTP    = 132
	UDPLite = 136
)

// HasPorts tells whether a protocol has ports that a rule can name.
func HasPorts(proto uint8) bool {
	switch proto {
	case TCP, UDP, DCCP, SCTP, UDPLite:
		return true
	}
	return false
}

// ICMPMatch narrows ICMP traffic to one type, or to one type and code. The zero value is all of it.
type ICMPMatch struct {
	HasType bool
	Type    uint8
	HasCode bool
	Code    uint8
}

// Addresses is a from or a to. The zero value is any address.
type Addresses struct {
	Given   bool       // a qualifier was written and is not "any"
	Not     bool       // all but these; never with Host or Network
	Sets    []string   // names of sets, sorted
	Inline  netset.Set // addresses written in the rule itself
	Host    bool       // to: host, any address of this host (egress, outbound)
	Network string     // to: {network: NAME}, the container addresses of a Docker network (inbound)
}

// Defaults are the verdicts on packets that no rule of a section matches.
type Defaults struct{ Inbound, Egress, Outbound Verdict }

// Verdict is a verb and the place that it comes from.
type Verdict struct {
	Verb Verb
	Pos  diag.Pos // the zero Pos for a built-in default
}

// Repair says what is done about Docker's rules when somebody else took them away.
type Repair uint8

// The ways of repair.
const (
	RepairMend Repair = iota
	RepairTell
	RepairOff
)

func (r Repair) String() string { return [...]string{"mend", "tell", "off"}[r] }

// Raw is hand-written rules in the backends' own languages: the text and the absolute path that it was read from.
type Raw struct {
	NFT, IPTables RawFile
}

// RawFile is one such file. The zero value is none.
type RawFile struct {
	Pos  diag.Pos
	Path string
	Text string
}

// Set gives the set of a name.
func (p *Policy) Set(name string) (Set, bool) {
	for _, s := range p.Sets {
		if s.Name == name {
			return s, true
		}
	}
	return Set{}, false
}

// Rules gives the rules of a section.
func (p *Policy) Rules(s Section) []Rule {
	return [...][]Rule{p.Inbound, p.Egress, p.Outbound}[s]
}

// Default gives the verdict of a section on packets that no rule matches.
func (p *Policy) Default(s Section) Verdict {
	return [...]Verdict{p.Defaults.Inbound, p.Defaults.Egress, p.Defaults.Outbound}[s]
}

// Resolve gives the addresses that a from or a to matches, sets looked up and "not" applied; everything for any.
// Host and Network are not its to know.
func (p *Policy) Resolve(a Addresses) netset.Set {
	if !a.Given {
		return netset.All()
	}
	all := a.Inline
	for _, name := range a.Sets {
		s, _ := p.Set(name)
		all = all.Union(s.Addrs)
	}
	if a.Not {
		return all.Complement()
	}
	return all
}

// MatchesInterface tells whether a name is one of the patterns: equal, or begun by what stands before a "*".
// No patterns match every interface.
func MatchesInterface(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, p := range patterns {
		if n := len(p) - 1; p == name || n >= 0 && p[n] == '*' && len(name) >= n && name[:n] == p[:n] {
			return true
		}
	}
	return false
}

// LimitKey is what a limit counts an address by: IPv4 the address, IPv6 its /64.
func LimitKey(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}
