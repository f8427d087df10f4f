// Package guard keeps people from locking themselves out: it finds the ways by which whoever runs this process came to
// this host, and tells which of them a policy would cut.
//
//	found, err := guard.Find(inv)
//	cuts := guard.Check(found.Ways, planned, inv)
//	for _, c := range cuts { fmt.Println(c) }
//
// The way in is found from below: the process, its parent and so on up to process 1, and the sockets that these hold.
// A connection from outside held by one of them is how somebody came in. Where that can't be told, because a process
// doesn't show its descriptors or lives in another network namespace, or because none of them holds such a connection
// (tmux, screen, su under systemd), every live connection that was made to this host counts.
//
// Two decisions on what a listening socket of an ancestor means (a management agent, a web console, sshd itself). It
// counts as cut only when the policy lets nobody at all come in by it: whoever narrows SSH to the office wants exactly
// that, and the session in hand is judged for itself. And other people's connections to it count only where every live
// connection does: on a public host there is always some scanner connected to port 22, and nobody should be told to let
// it in. Connections that an ancestor dialled itself (an agent that calls its controller) are judged as outbound, as
// they are when the agent calls again.
//
// Be aware: sockets are those of the calling thread's network namespace, processes those that /proc shows. A way through
// a published port into a container has no socket here and isn't found; nor is a session over a serial console in need
// of any. Find and Name read, and change nothing; Check and Lines are pure.
package guard

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/watch/sockets"
)

// Kind says what makes a socket a way in.
type Kind uint8

// The kinds of way in.
const (
	Session  Kind = iota // a connection from outside that the process or an ancestor holds
	Listener             // a socket on which an ancestor waits for connections or datagrams
	Dialled              // a connection to the outside that an ancestor made
	Live                 // any connection from outside; they count where the way in can't be told
)

func (k Kind) String() string { return [...]string{"session", "listener", "dialled", "live"}[k] }

// MarshalText makes JSON say the kind by name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Way is a way into this host.
type Way struct {
	Kind    Kind           `json:"kind"`
	PID     int            `json:"pid,omitempty"`     // the process that holds the socket; 0 where not known
	Process string         `json:"process,omitempty"` // its name as the kernel keeps it, at most 15 characters
	Proto   uint8          `json:"proto"`             // TCP or UDP
	Local   netip.AddrPort `json:"local"`
	Peer    netip.AddrPort `json:"peer,omitzero"` // invalid for a Listener
	// Interfaces are those by which its packets may come in (Dialled: leave): the one that routes lead to the peer by, and
	// the one that has the local address. Empty where neither is known, and for a Listener.
	Interfaces []string `json:"interfaces,omitempty"`

	inode uint64
}

// Found is all ways in.
type Found struct {
	Ways []Way `json:"ways"`
	// Because says why every live connection counts, a sentence without a full stop; "" where the way in is known.
	Because string `json:"because,omitempty"`
}

// Find finds the ways in. The inventory tells which addresses are this host's own. An error means that sockets can't be
// listed: then nothing is known.
func Find(inv *inventory.Inventory) (Found, error) {
	socks, err := sockets.List()
	if err != nil {
		return Found{}, fmt.Errorf("finding the way in: %w", err)
	}
	chain, because := ancestors()
	f := finder{locals: localsOf(inv), socks: socks, ports: sockets.EphemeralPorts()}
	ways := f.heldBy(chain)
	fromOutside := slices.ContainsFunc(ways, func(w Way) bool { return w.Kind == Session })
	if because == "" && !fromOutside {
		because = fmt.Sprintf("none of the %d processes from this one up holds a connection from outside", len(chain))
	}
	if because != "" {
		ways = append(ways, f.live(ways)...)
	}
	slices.SortFunc(ways, compare)
	return Found{Ways: ways, Because: because}, nil
}

func compare(a, b Way) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Proto, b.Proto), a.Local.Compare(b.Local), a.Peer.Compare(b.Peer))
}

// finder is what Find knows of the sockets and addresses of the host.
type finder struct {
	locals map[netip.Addr][]string // this host's addresses, and the interfaces that have them
	socks  []sockets.Socket
	ports  sockets.PortRange
}

// heldBy are the ways in through sockets that these processes hold. A socket that several hold is told once, with the
// process furthest from init.
func (f finder) heldBy(chain []process) []Way {
	var ways []Way
	told := map[uint64]bool{}
	for i, p := range chain {
		for _, s := range f.socks {
			if !p.inodes[s.Inode] || told[s.Inode] {
				continue
			}
			told[s.Inode] = true
			if kind, ok := f.kindOf(s, p, i == 0); ok {
				w := f.way(kind, s)
				w.PID, w.Process = p.pid, p.name
				ways = append(ways, w)
			}
		}
	}
	return ways
}

// kindOf tells what a socket of a process is to us, if anything. What this very process (self) listens on or dialled is
// quaywall's own affair, what it was given by its parent is not.
func (f finder) kindOf(s sockets.Socket, p process, self bool) (Kind, bool) {
	switch {
	case s.Listening:
		// Sockets that init listens on are kept for services it would start: nobody came in by them.
		return Listener, !self && p.pid != 1 && !s.Local.Addr().IsLoopback()
	case !s.Connected || !f.isOutside(s.Remote.Addr()):
		return 0, false
	case f.isInbound(s):
		return Session, true
	}
	return Dialled, !self
}

// live are all connections from outside that aren't among the ways already, and that somebody has accepted: until then the
// kernel alone has them, and they have no inode.
func (f finder) live(ways []Way) []Way {
	known := map[uint64]bool{}
	for _, w := range ways {
		known[w.inode] = true
	}
	var more []Way
	for _, s := range f.socks {
		if s.Connected && s.Inode != 0 && !known[s.Inode] && f.isOutside(s.Remote.Addr()) && f.isInbound(s) {
			more = append(more, f.way(Live, s))
		}
	}
	return more
}

func (f finder) way(kind Kind, s sockets.Socket) Way {
	w := Way{Kind: kind, Proto: s.Proto, Local: s.Local, inode: s.Inode}
	if kind != Listener {
		w.Peer, w.Interfaces = s.Remote, f.interfacesOf(s)
	}
	return w
}

// isOutside tells whether an address is another machine's (a container is one).
func (f finder) isOutside(a netip.Addr) bool {
	_, local := f.locals[a.WithZone("")]
	return !local && !a.IsLoopback() && !a.IsUnspecified()
}

// isInbound tells whether the peer made a connection. The kernel doesn't keep that, but a port that something listens
// on, or that it wouldn't have chosen itself, is one that was dialled. Where both ports could have been chosen by either
// side, the peer is taken to have dialled: counting one way too many is the smaller mistake.
func (f finder) isInbound(s sockets.Socket) bool {
	for _, l := range f.socks {
		if l.Listening && l.Proto == s.Proto && l.Local.Port() == s.Local.Port() &&
			(l.Local.Addr().IsUnspecified() || l.Local.Addr() == s.Local.Addr()) {
			return true
		}
	}
	return !f.ports.Contains(s.Local.Port()) || f.ports.Contains(s.Remote.Port())
}

// localsOf are the host's addresses, each with the interfaces that have it.
func localsOf(inv *inventory.Inventory) map[netip.Addr][]string {
	locals := map[netip.Addr][]string{}
	for _, i := range inv.Interfaces {
		for _, p := range i.Addrs {
			a := p.Addr().Unmap().WithZone("")
			locals[a] = append(locals[a], i.Name)
		}
	}
	return locals
}

// packets are the first packets that would come if a connection by this way was made anew: one for each interface that
// it may take. A Listener has none.
func (w Way) packets() []packet.Packet {
	pk := packet.Packet{Proto: w.Proto, Src: w.Peer.Addr(), SrcPort: w.Peer.Port(), Dst: w.Local.Addr(), DstPort: w.Local.Port()}
	if w.Proto == protoTCP {
		pk.Flags = packet.SYN
	}
	if w.Kind == Dialled {
		pk.Src, pk.Dst, pk.SrcPort, pk.DstPort = pk.Dst, pk.Src, pk.DstPort, pk.SrcPort
	}
	var pks []packet.Packet
	for _, name := range w.throughs() {
		if pk.In = name; w.Kind == Dialled {
			pk.In, pk.Out = "", name
		}
		pks = append(pks, pk)
	}
	return pks
}

// unknownInterface stands for an interface of outside whose name isn't known. No interface can be called that.
const unknownInterface = "(unknown)"

func (w Way) throughs() []string {
	if len(w.Interfaces) == 0 {
		return []string{unknownInterface}
	}
	return w.Interfaces
}
