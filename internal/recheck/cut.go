package recheck

import (
	"net/netip"
	"slices"

	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// Cut gives what keeps denied connections from coming back once connection tracking has forgotten them, each once: the
// two ends as whoever dialled sees them and, where the destination was rewritten, as the server's own packets show them.
//
// A datagram doesn't show whether it answers one. Where both sides may well begin (one port at both ends, as VPNs and
// DNS forwarders have it, or a port of this host that the kernel may have chosen) nothing is kept from coming back: what
// this host or a container sends to a client then begins a connection of its own, which outbound or egress judge.
func (j *Judge) Cut(denied []Flow) []ruleset.Flow {
	var all []ruleset.Flow
	seen := map[ruleset.Flow]bool{}
	add := func(proto uint8, server netip.AddrPort, client netip.Addr) {
		f := ruleset.Flow{Proto: proto, Server: server, Client: client}
		if !seen[f] {
			seen[f] = true
			all = append(all, f)
		}
	}
	for _, f := range denied {
		to, back := f.Orig, f.Reply
		if dialled, ok := j.dialled(f); f.MidStream && ok && dialled == f.Reply {
			to, back = f.Reply, f.Orig
		}
		if !j.mayComeBack(to, back) {
			continue
		}
		add(to.Proto, to.Dst, to.Src.Addr())
		if back.Src != to.Dst && !j.isLocal(back.Dst.Addr()) {
			add(back.Proto, back.Src, back.Dst.Addr())
		}
	}
	return all
}

// mayComeBack tells whether a connection would go on unless something kept it from that.
func (j *Judge) mayComeBack(to, back Tuple) bool {
	switch to.Proto {
	case policy.TCP:
		return true
	case policy.UDP, policy.SCTP, policy.UDPLite:
	default:
		return false
	}
	serves := j.isLocal(to.Dst.Addr()) || j.isContainer(back.Src.Addr())
	either := to.Src.Port() == to.Dst.Port() || j.host.Ephemeral(to.Dst.Port()) && !j.isPublished(to.Proto, to.Dst)
	return serves && !either
}

func (j *Judge) isContainer(a netip.Addr) bool {
	for _, n := range j.inv.Networks {
		if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(a) }) {
			return true
		}
	}
	return false
}

// StillDenied are those of the flows which were cut under an earlier policy that this one denies as well. Where a
// destination was rewritten it isn't known to what dialled port a flow belongs: it stays as long as anything of its
// client stays that was dialled.
func (j *Judge) StillDenied(cut []ruleset.Flow) []ruleset.Flow {
	clients := map[netip.Addr]bool{}
	var still, rewritten []ruleset.Flow
	for _, f := range cut {
		if j.isContainer(f.Server.Addr()) && !j.isLocal(f.Server.Addr()) {
			rewritten = append(rewritten, f)
			continue
		}
		if j.tuple(Tuple{f.Proto, netip.AddrPortFrom(f.Client, 0), f.Server}).Denied {
			still = append(still, f)
			clients[f.Client] = true
		}
	}
	for _, f := range rewritten {
		if clients[f.Client] {
			still = append(still, f)
		}
	}
	return still
}
