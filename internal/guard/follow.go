package guard

import (
	"net/netip"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/recheck"
	"quaywall/internal/watch/sockets"
)

// follow finds the ways in of a process and its ancestors, and where they hold none those of whoever is at the other end
// of what they hold.
func (f *finder) follow(chain []process) []Way {
	for _, p := range chain {
		f.seen[p.pid] = true
	}
	ways := f.heldBy(chain)
	var ends []int
	for _, p := range chain {
		if p.elsewhere {
			outer, holders := f.leadingTo(p)
			ways, ends = append(ways, outer...), append(ends, holders...)
		}
	}
	if hasSession(ways) {
		return ways
	}
	for _, pid := range slices.Concat(ends, f.otherEnds(chain), f.showing(chain)) {
		if f.seen[pid] {
			continue
		}
		next, _ := ancestors(pid)
		for i := range next[min(1, len(next)):] {
			next[i+1].kinds = []Kind{Session} // that its parent listens, or has dialled somebody, is no way to here
		}
		ways = append(ways, f.follow(next)...)
	}
	return ways
}

// showing are the processes that show the terminals which these have open: sshd for a client that is attached to tmux or
// screen, whose server has that client's terminal open.
func (f *finder) showing(chain []process) (pids []int) {
	var terminals []terminal
	for _, p := range chain {
		terminals = append(terminals, terminalsOf(p.pid)...)
	}
	if len(terminals) == 0 {
		return nil
	}
	for _, pid := range sockets.Processes() {
		shown := screensOf(pid)
		if !f.seen[pid] && slices.ContainsFunc(terminals, func(t terminal) bool { return slices.ContainsFunc(shown, t.is) }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// otherEnds are the processes at the other end of connections to these that never leave this host.
func (f *finder) otherEnds(chain []process) (pids []int) {
	for _, p := range chain {
		for _, s := range f.socks {
			if p.inodes[s.Inode] && s.Connected && !f.isOutside(s.Remote.Addr()) && f.isInbound(s) {
				pids = append(pids, f.holders(s.Remote, s.Local)...)
			}
		}
	}
	return pids
}

// holders are the processes of this network namespace that have a connection with these two ends.
func (f *finder) holders(local, remote netip.AddrPort) (pids []int) {
	for _, s := range f.socks {
		if s.Connected && s.Local == local && s.Remote == remote {
			if owner, ok := f.owners()[s.Inode]; ok {
				pids = append(pids, owner.PID)
			}
		}
	}
	return pids
}

// leadingTo are the ways by which connections come to a process that lives in another network namespace, most often a
// container's: those that connection tracking passes on to there, and the processes of this namespace that made one
// (docker-proxy).
func (f *finder) leadingTo(p process) (ways []Way, holders []int) {
	socks, _ := sockets.ListOf(p.pid) // where they can't be listed, no way is found
	for _, s := range socks {
		if !p.inodes[s.Inode] || !s.Connected || s.Remote.Addr().IsLoopback() {
			continue
		}
		holders = append(holders, f.holders(s.Remote, s.Local)...)
		for _, flow := range f.flows() {
			if flow.Reply.Proto == s.Proto && flow.Reply.Src == s.Local && flow.Reply.Dst == s.Remote && f.isOutside(flow.Orig.Src.Addr()) {
				w := f.dialled(flow)
				w.PID, w.Process, w.Via = p.pid, p.name, ""
				ways = append(ways, w)
			}
		}
	}
	return ways, holders
}

// dialled is the way that a connection is, as connection tracking knows it.
func (f *finder) dialled(flow recheck.Flow) Way {
	s := sockets.Socket{Proto: flow.Orig.Proto, Local: flow.Orig.Dst, Remote: flow.Orig.Src}
	w := f.way(Session, s)
	for _, p := range f.inv.Published {
		if p.Proto == s.Proto && p.Port == s.Local.Port() && (p.Addr.IsUnspecified() || p.Addr == s.Local.Addr()) {
			w.Via = "container " + p.Container
		}
	}
	return w
}

// datagrams are who talks to a process by a UDP socket that is bound, and not connected: as connection tracking knows, or
// where that knows nobody, as sshd told the process when it was started.
func (f *finder) datagrams(s sockets.Socket, p process) (ways []Way) {
	if s.Proto != protoUDP || !s.Listening || s.Local.Addr().IsLoopback() {
		return nil
	}
	if ways = f.datagramsTo(s); len(ways) > 0 {
		return ways
	}
	peer, ok := startedBy(p.pid)
	if !ok || !f.isOutside(peer) {
		return nil
	}
	s.Remote = netip.AddrPortFrom(peer, anyPort)
	for _, to := range listenerTargets(Way{Local: s.Local}, f.inv) {
		if to.addr.Is4() == peer.Is4() && (to.iface == routeTo(peer, netip.Addr{}) || !s.Local.Addr().IsUnspecified()) {
			s.Local = netip.AddrPortFrom(to.addr, s.Local.Port())
			return []Way{f.way(Session, s)}
		}
	}
	return nil
}

// anyPort stands for the port of a client that may have any.
const anyPort = 49152

// datagramsTo are the flows to a bound UDP socket.
func (f *finder) datagramsTo(s sockets.Socket) (ways []Way) {
	for _, flow := range f.flows() {
		to := flow.Reply.Src // as the socket has it
		any := s.Local.Addr().IsUnspecified() && (s.Local.Addr().Is6() || to.Addr().Is4())
		if flow.Orig.Proto == protoUDP && to.Port() == s.Local.Port() && (any || to.Addr() == s.Local.Addr().WithZone("")) &&
			f.isOutside(flow.Orig.Src.Addr()) && !f.isOutside(to.Addr()) {
			w := f.dialled(flow)
			w.Via = ""
			ways = append(ways, w)
		}
	}
	return ways
}

// withCarriers adds the ways that others go through, and what those go through in turn.
func (f *finder) withCarriers(ways []Way) []Way {
	for i := 0; i < len(ways); i++ {
		if ways[i].Kind != Session {
			continue
		}
		for _, more := range slices.Concat(f.intoContainer(ways[i]), f.tunnelled(ways[i])) {
			if !slices.ContainsFunc(ways, func(w Way) bool { return compare(w, more) == 0 }) {
				ways = append(ways, more)
			}
		}
	}
	return ways
}

// intoContainer are the connections from outside into the container that a session comes from: one of them may be that of
// whoever goes on from there to this host.
func (f *finder) intoContainer(w Way) (ways []Way) {
	from := w.Peer.Addr()
	isContainer := func(n inventory.Network) bool {
		return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(from) })
	}
	if !slices.ContainsFunc(f.inv.Networks, isContainer) {
		return nil
	}
	for _, flow := range f.flows() {
		if flow.Reply.Src.Addr() == from && flow.Orig.Src.Addr() != from && f.isOutside(flow.Orig.Src.Addr()) {
			ways = append(ways, f.dialled(flow))
		}
	}
	for _, s := range f.socks { // docker-proxy's
		if owner, ok := f.owners()[s.Inode]; ok && s.Connected && s.Remote.Addr() == from && !f.isInbound(s) && !f.seen[owner.PID] {
			chain, _ := ancestors(owner.PID)
			ways = append(ways, f.heldBy(chain[:min(1, len(chain))])...)
		}
	}
	return ways
}

// tunnelled are the connections by which the packets of a tunnel come in that a way goes through.
func (f *finder) tunnelled(w Way) (ways []Way) {
	for _, i := range f.inv.Interfaces {
		if !slices.Contains(w.Interfaces, i.Name) {
			continue
		}
		switch i.Kind {
		case "tun":
			for _, pid := range sockets.Processes() {
				if carries(pid, i.Name) {
					chain, _ := ancestors(pid)
					ways = append(ways, f.heldBy(chain[:min(1, len(chain))])...)
				}
			}
		case "wireguard", "vxlan", "geneve", "bareudp":
			ways = append(ways, f.ofKernel("tunnel "+i.Name)...)
		}
	}
	return ways
}

// ofKernel are the UDP ports that no process has, but the kernel itself, for its tunnels.
func (f *finder) ofKernel(via string) (ways []Way) {
	for _, s := range f.socks {
		if _, owned := f.owners()[s.Inode]; owned || s.Proto != protoUDP || !s.Listening {
			continue
		}
		for _, w := range append(f.datagramsTo(s), f.way(Listener, s)) {
			w.Via = via
			ways = append(ways, w)
		}
	}
	return ways
}
