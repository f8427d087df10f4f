package netfilter

// Action is one thing that a rule does. The types that implement it are those of this file and no others.
type Action interface{ action() }

// Verdict says what becomes of a packet.
type Verdict struct {
	Kind  VerdictKind
	Chain string // of Jump and Goto
}

// VerdictKind is a kind of verdict.
type VerdictKind uint8

// The kinds. Continue goes on with the next rule. In user chains Return goes back to the chain that jumped here; in a base
// chain, and behind a goto from one, the base chain's policy decides.
const (
	Continue VerdictKind = iota
	Accept
	Drop
	Return
	Jump
	Goto
	Queue // a program decides: nothing is known of what it will say
)

// Reject drops a packet and answers it.
type Reject struct{ With string } // "tcp reset", or an ICMP type in the dialect's words; "" for its default

// Lookup finds the verdict of a packet in a verdict map. A packet that isn't in it goes on.
type Lookup struct {
	Fields   []Field
	Map      string    // of the table; "" for Elements
	Elements []Element // a map without a name
}

// Translate rewrites addresses or ports of a connection, and accepts the packet.
type Translate struct {
	Kind  NATKind
	Addrs Values // to one of these; none to keep the address
	Ports []Range
	// Base is the port whose packets go to the first of Ports, those of the next port to the second and so on; 0 where the
	// kernel chooses one.
	Base uint16
	// Fields and Map, or Elements, say instead where addresses and ports come from: of a map's value the first part is the
	// address, the second the port; where there is one only, it is what its kind says.
	Fields   []Field
	Map      string
	Elements []Element
	Random   bool // ports are chosen at random
}

// NATKind is a kind of address translation.
type NATKind uint8

// The kinds. Masquerade takes an address of the interface that the packet leaves by, Redirect one of the interface that it
// came in by (for packets of the host 127.0.0.1 or ::1), Netmap keeps the host bits.
const (
	DNAT NATKind = iota
	SNAT
	Masquerade
	Redirect
	Netmap
)

// TProxy has a packet delivered to a socket of this host whatever its destination is.
type TProxy struct {
	Addrs      Values
	Port       uint16 // 0 keeps the packet's
	Mark, Mask uint64 // iptables sets the packet's mark along with it
}

// Assign writes a field: the new value is what it was, without the bits of Mask, xor Value. Of a connection's mark to the
// packet's, or the other way, From says so, and Value counts for nothing. Of CtLabel Value is the number of a bit that is
// set, and Mask counts for nothing.
type Assign struct {
	Field    Field // Mark, CtMark, CtZone, CtLabel, DSCP, ECN, TTL, Priority
	Mask     uint64
	Value    uint64
	Add      int   // of TTL: this is added instead, from 0 to 255
	From     Field // NoField, or the field whose bits under FromMask are put there
	FromMask uint64
}

// Untrack has connection tracking leave the packet alone: NOTRACK, CT --notrack.
type Untrack struct{}

// Update adds the packet's fields to a set, or takes them out.
type Update struct {
	Fields []Field
	Set    string
	Delete bool
}

// Log tells of the packet.
type Log struct {
	Prefix string
	Group  *uint16 // of NFLOG; nil for the kernel's log
}

// Note is what changes neither the packet's way nor what later rules see of it: counters, traces, MSS clamping, checksums.
type Note struct{ Text string }

// OpaqueAction isn't understood. It may do anything: end the rule in any way, or change the packet.
type OpaqueAction struct{ Text string }

func (Verdict) action()      {}
func (Reject) action()       {}
func (Lookup) action()       {}
func (Translate) action()    {}
func (TProxy) action()       {}
func (Assign) action()       {}
func (Untrack) action()      {}
func (Update) action()       {}
func (Log) action()          {}
func (Note) action()         {}
func (OpaqueAction) action() {}
