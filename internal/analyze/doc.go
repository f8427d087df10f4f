// Package analyze says who can reach what on a host, for all packets at once: its sets of packets are exact.
//
//	a := analyze.New(host, netfilter.IPv4)
//	e := a.Dial(analyze.Target{Proto: 6, Addr: addr, Port: 8080})
//	e.May, e.Must   // from which interfaces and addresses a connection gets there
//
// The rules of each hook are walked once, with all packets; what a port's way through the host lets in is then looked up.
// Where that would take too much memory, Audit walks them with those packets alone that it asks about, in a few rounds.
// A match that isn't understood, or depends on more than the packet, is a bit that nobody knows: what it decides may get
// there and doesn't have to. Nothing that wasn't understood is ever taken for closed.
//
// Be aware: it judges the first packet of a connection, on the rules of one moment, without the hooks of traffic control
// and XDP. It shares no code with the simulator, so that each can be held against the other. The order of the fields in
// the diagrams is what makes it fast: a test pins it.
package analyze
