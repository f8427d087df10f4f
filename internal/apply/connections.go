package apply

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/kernel/sockdestroy"
	"quaywall/internal/recheck"
	"quaywall/internal/watch/host"
	"quaywall/internal/watch/sockets"
)

// Running is the connections that run on a host, and what they are judged by.
type Running struct {
	Flows   []recheck.Flow
	Sockets []sockets.Socket
	Host    recheck.Host

	since *conntrack.Begun // tells of those that begin later; nil for nothing
}

func (r *Running) close() {
	if r != nil {
		r.since.Close()
	}
}

// Connections lists and ends connections.
type Connections interface {
	// List lists those that run; with routes where the judgement needs them.
	List(routes bool) (*Running, error)
	// Begun lists those that began since others were listed: a walk through a table of 100,000 takes a third of a second. It
	// gives nil where that is not known. The sockets are all that there are now.
	Begun(since *Running) (*Running, error)
	// End closes the host's TCP sockets of connections, then has connection tracking forget them.
	End(r *Running, denied []recheck.Flow) error
}

// liveConnections are those of the network namespace of the calling thread.
type liveConnections struct{}

func (liveConnections) List(routes bool) (*Running, error) {
	since := conntrack.Listen() // before it is listed what there is
	r, err := listed()
	if err == nil && routes {
		r.Host.Routes, err = host.Routes()
	}
	if err != nil {
		since.Close()
		return nil, err
	}
	r.since = since
	return r, nil
}

func listed() (*Running, error) {
	flows, err := conntrack.List()
	if err != nil {
		return nil, err
	}
	return withSockets(flows, flows)
}

// withSockets adds what the host's sockets tell: beside flows, connections that connection tracking doesn't know of.
func withSockets(flows []recheck.Flow, known ...[]recheck.Flow) (*Running, error) {
	socks, err := sockets.List()
	if err != nil {
		return nil, err
	}
	return &Running{Flows: append(flows, untracked(socks, known)...), Sockets: socks,
		Host: recheck.Host{Listens: listeners(socks), Ephemeral: sockets.EphemeralPorts().Contains}}, nil
}

func (liveConnections) Begun(since *Running) (*Running, error) {
	flows, ok := since.since.Flows()
	if !ok {
		return nil, nil
	}
	return withSockets(flows, since.Flows, flows)
}

// pair is the two ends of a connection of the host.
type pair struct{ local, remote netip.AddrPort }

// untracked are the TCP connections of the host that connection tracking doesn't know: they ran before anything used it.
func untracked(socks []sockets.Socket, tracked [][]recheck.Flow) []recheck.Flow {
	unknown := map[pair]bool{}
	for _, s := range socks {
		if s.Proto == unix.IPPROTO_TCP && s.Connected && !s.Remote.Addr().IsLoopback() && s.Local.Addr() != s.Remote.Addr() {
			unknown[pair{s.Local, s.Remote}] = true
		}
	}
	for _, flows := range tracked {
		for i := 0; i < len(flows) && len(unknown) > 0; i++ {
			if f := &flows[i]; f.Orig.Proto == unix.IPPROTO_TCP { // whichever side began, each end sends one of these
				delete(unknown, pair{f.Orig.Src, f.Orig.Dst})
				delete(unknown, pair{f.Orig.Dst, f.Orig.Src})
				delete(unknown, pair{f.Reply.Src, f.Reply.Dst})
			}
		}
	}
	var all []recheck.Flow
	for e := range unknown {
		to := recheck.Tuple{Proto: unix.IPPROTO_TCP, Src: e.remote, Dst: e.local}
		all = append(all, recheck.Flow{Orig: to, Reply: to.Reversed(), MidStream: true})
	}
	return all
}

// listeners tells where something waits for connections. An IPv6 wildcard usually takes IPv4 as well.
func listeners(socks []sockets.Socket) func(uint8, netip.AddrPort) bool {
	type place struct {
		proto uint8
		at    netip.AddrPort
	}
	taken := map[place]bool{}
	for _, s := range socks {
		if s.Listening {
			taken[place{s.Proto, netip.AddrPortFrom(s.Local.Addr().WithZone(""), s.Local.Port())}] = true
		}
	}
	return func(proto uint8, at netip.AddrPort) bool {
		any4, any6 := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
		return taken[place{proto, at}] || taken[place{proto, any6}] || at.Addr().Is4() && taken[place{proto, any4}]
	}
}

func (liveConnections) End(r *Running, denied []recheck.Flow) error {
	doomed := make(map[pair]bool, 2*len(denied))
	var tracked []recheck.Flow
	for _, f := range denied {
		if f.Orig.Proto == unix.IPPROTO_TCP {
			doomed[pair{f.Orig.Src, f.Orig.Dst}], doomed[pair{f.Orig.Dst, f.Orig.Src}] = true, true
		}
		if f.ID != 0 {
			tracked = append(tracked, f)
		}
	}
	var socks []sockets.Socket
	for _, s := range r.Sockets {
		if s.Proto == unix.IPPROTO_TCP && !s.Listening && doomed[pair{s.Local, s.Remote}] {
			socks = append(socks, s)
		}
	}
	// Sockets first: the resets that they send are still of known connections, and pass.
	_, err := sockdestroy.Close(socks)
	if errors.Is(err, sockdestroy.ErrUnsupported) {
		err = nil // what keeps the connection from coming back ends it, when next either side sends
	}
	return errors.Join(err, conntrack.Forget(tracked))
}
