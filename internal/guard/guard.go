// Package guard keeps people from locking themselves out: it finds the ways by which whoever runs this process came to
// this host, and tells which of them a policy would cut.
//
//	found, err := guard.Find(inv)
//	cuts := guard.Check(found.Ways, planned, inv)
//	for _, c := range cuts { fmt.Println(c) }
//
// The way in is found from below: the process, its parent and so on up to process 1, and the sockets that these hold.
// A connection from outside held by one of them is how somebody came in. Where none is, it is followed on: to whoever
// shows the terminals of these processes and types there (the sshd of who is attached to tmux or screen), to who has the
// other end of a connection that stays on this host (a web server in front of a web terminal, docker-proxy), and into the
// network namespaces of ancestors that live in a container, whose connections connection tracking leads back to what was
// dialled here. What carries a way counts as one, too: what leads into the container that a session comes from, and the
// connection that a tunnel goes through. Where all of that can't be told (a tmux that nobody is attached to, a process
// that doesn't show its descriptors) every live connection that was made to this host counts.
//
// Two decisions on what a listening socket of an ancestor means (a management agent, a web console, sshd itself). It
// counts as cut only when the policy lets nobody at all come in by it: whoever narrows SSH to the office wants exactly
// that, and the session in hand is judged for itself. And other people's connections to it count only where every live
// connection does: on a public host there is always some scanner connected to port 22, and nobody should be told to let
// it in. Connections that an ancestor dialled itself (an agent that calls its controller) are judged as outbound, as
// they are when the agent calls again.
//
// A UDP server keeps nobody's address. Who is at the other end of mosh is what connection tracking knows, or what sshd told
// the process when it was started.
//
// Be aware: sockets are those of the calling thread's network namespace, and of those that ancestors live in; processes
// those that /proc shows. A session over a serial console has no need of any. The tunnels of a kernel's own that are known
// are WireGuard's and the like over UDP. Find and Name read, and change nothing; Check and Lines are pure.
package guard

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"quaywall/internal/inventory"
	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/packet"
	"quaywall/internal/recheck"
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
	Via     string         `json:"via,omitempty"` // what it leads to, where no process of it is known: "container web", "tunnel wg0"
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
	f, err := newFinder(inv)
	if err != nil {
		return Found{}, err
	}
	chain, because := ancestors(os.Getpid())
	if len(chain) > 0 {
		chain[0].kinds = []Kind{Session} // what quaywall itself listens on or dialled is its own affair
	}
	ways := f.follow(chain)
	if because == "" && !hasSession(ways) {
		because = fmt.Sprintf("none of the %d processes from this one up holds a connection from outside", len(chain))
		if i := slices.IndexFunc(chain, func(p process) bool { return p.elsewhere }); i >= 0 {
			because = fmt.Sprintf("process %d (%s) lives in another network namespace", chain[i].pid, chain[i].name)
		}
	}
	if because != "" {
		ways = append(ways, f.live(ways)...)
	}
	ways = f.withCarriers(ways)
	slices.SortFunc(ways, compare)
	return Found{Ways: ways, Because: because}, nil
}

func hasSession(ways []Way) bool {
	return slices.ContainsFunc(ways, func(w Way) bool { return w.Kind == Session })
}

func compare(a, b Way) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Proto, b.Proto), a.Local.Compare(b.Local), a.Peer.Compare(b.Peer))
}

// finder is what Find knows of the sockets and addresses of the host.
type finder struct {
	inv    *inventory.Inventory
	locals map[netip.Addr][]string // this host's addresses, and the interfaces that have them
	socks  []sockets.Socket
	ports  sockets.PortRange
	flows  func() []recheck.Flow             // what connection tracking knows; nothing where it can't be asked
	owners func() map[uint64]sockets.Process // of all sockets, by inode
	seen   map[int]bool                      // processes that were followed
}

func newFinder(inv *inventory.Inventory) (*finder, error) {
	socks, err := sockets.List()
	if err != nil {
		return nil, fmt.Errorf("finding the way in: %w", err)
	}
	return &finder{
		inv: inv, locals: localsOf(inv), socks: socks, ports: sockets.EphemeralPorts(), seen: map[int]bool{},
		flows:  sync.OnceValue(func() []recheck.Flow { flows, _ := conntrack.List(); return flows }),
		owners: sync.OnceValue(func() map[uint64]sockets.Process { owners, _ := sockets.Owners(); return owners }),
	}, nil
}

// heldBy are the ways in through sockets that these processes hold. A socket that several hold is told once, with the
// process furthest from init.
func (f *finder) heldBy(chain []process) []Way {
	var ways []Way
	told := map[uint64]bool{}
	for _, p := range chain {
		for _, s := range f.socks {
			if !p.inodes[s.Inode] || told[s.Inode] {
				continue
			}
			told[s.Inode] = true
			found := f.datagrams(s, p)
			if kind, ok := f.kindOf(s, p); ok {
				found = append(found, f.way(kind, s))
			}
			for _, w := range found {
				w.PID, w.Process = p.pid, p.name
				ways = append(ways, w)
			}
		}
	}
	return ways
}

// kindOf tells what a socket of a process is to us, if anything.
func (f *finder) kindOf(s sockets.Socket, p process) (Kind, bool) {
	switch {
	case s.Listening:
		// Sockets that init listens on are kept for services it would start: nobody came in by them.
		return Listener, slices.Contains(p.kinds, Listener) && p.pid != 1 && !s.Local.Addr().IsLoopback()
	case !s.Connected || !f.isOutside(s.Remote.Addr()):
		return 0, false
	case f.isInbound(s):
		return Session, true
	}
	return Dialled, slices.Contains(p.kinds, Dialled)
}

// live are all connections from outside that aren't among the ways already, and that somebody has accepted: until then the
// kernel alone has them, and they have no inode.
func (f *finder) live(ways []Way) []Way {
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

func (f *finder) way(kind Kind, s sockets.Socket) Way {
	w := Way{Kind: kind, Proto: s.Proto, Local: s.Local, inode: s.Inode}
	if kind != Listener {
		w.Peer, w.Interfaces = s.Remote, f.interfacesOf(s)
	}
	return w
}

// isOutside tells whether an address is another machine's (a container is one).
func (f *finder) isOutside(a netip.Addr) bool {
	_, local := f.locals[a.WithZone("")]
	return !local && !a.IsLoopback() && !a.IsUnspecified()
}

// isInbound tells whether the peer made a connection. The kernel doesn't keep that, but a port that something listens
// on, or that it wouldn't have chosen itself, is one that was dialled. Where both ports could have been chosen by either
// side, the peer is taken to have dialled: counting one way too many is the smaller mistake.
func (f *finder) isInbound(s sockets.Socket) bool {
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
