// Package compile turns a policy and an inventory into the ruleset that puts the policy into force.
//
//	rs, list := compile.Compile(p, inv, compile.Options{LogGroup: 86})
//	if err := list.Err(); err != nil { … }
//
// The result is one table of family Inet with up to five base chains: early (prerouting, in front of connection tracking)
// drops what the first rules deny whatever it asks for, gate (prerouting) judges every new connection at the address and
// port that it was dialled to, many (input) what is sent to many, direct (forward) closes the containers' own addresses,
// outbound (output) judges what the host sends. A section of the policy becomes, for each protocol, a verdict map by port
// that leads to one chain for all ports with the same rules; there, long runs of rules that differ by address alone become verdict
// maps by address. So what a packet costs doesn't grow with the policy, and still the first rule that matches decides.
//
// With Options.Observe the same rules count and log, and deny nothing.
//
// Be aware: everything is pure; the same policy and inventory give the same bytes. Sets that a file fills are always
// referred to by name, so that their elements can change without a rule being touched. A section whose rules overlap so
// much that resolving them would explode keeps its last rules as a plain list (see budget in section.go).
package compile
