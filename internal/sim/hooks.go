package sim

import (
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// The places of connection tracking in a hook, between the chains.
const (
	priorityTrack = -200 // prerouting, output
	priorityDst   = -100 // prerouting, output
	prioritySrc   = 100  // postrouting, input
)

// atHook leads the packet through a hook: all base chains by priority, connection tracking and translation between them.
func (w *walk) atHook(h netfilter.Hook) fate {
	chains := w.s.hooks[hookKey{w.pk.family, h}]
	w.hops = append(w.hops, Hop{w.leg, hookNames[h]})
	first := h == netfilter.Prerouting || h == netfilter.Output
	track, nat := first, h != netfilter.Forward
	place := prioritySrc
	if first {
		place = priorityDst
	}
	out := w.pk.out // the hook shows the interface of before, whatever routing anew makes of it
	for _, c := range chains {
		if track && c.Base.Priority >= priorityTrack {
			track = false
			w.tracked()
		}
		if nat && c.Base.Priority >= place {
			nat = false
			if f := w.translated(h, out); f != accepted {
				return f
			}
		}
		if c.Base.Type == netfilter.NAT {
			continue
		}
		before := w.pk
		w.pk.out = out
		f := w.base(c, h)
		w.pk.out = before.out
		if f != accepted {
			return f
		}
		if c.routes && (w.pk.mark != before.mark || w.pk.tuple != before.tuple) && !w.reroute() {
			return dropped
		}
	}
	if track {
		w.tracked()
	}
	if nat {
		return w.translated(h, out)
	}
	return accepted
}

// tracked has connection tracking see the packet.
func (w *walk) tracked() {
	if w.pk.untracked || w.pk.ct != nil || w.pk.state == packet.Invalid {
		return
	}
	if w.pk.state == packet.Untracked {
		w.pk.untracked = true
		return
	}
	w.pk.ct = w.connection()
}

// translated runs the translation of a hook. A packet of the host's whose destination it rewrote is routed anew.
func (w *walk) translated(h netfilter.Hook, out string) fate {
	dst, now := w.pk.dst, w.pk.out
	w.pk.out = out
	f := w.translations(w.s.nats[hookKey{w.pk.family, h}], h)
	w.pk.out = now
	if f == accepted && h == netfilter.Output && w.pk.dst != dst && !w.reroute() {
		return dropped
	}
	return f
}

// atBridge leads the packet through the hooks of a bridge. The interfaces there are its ports.
func (w *walk) atBridge(h netfilter.Hook) fate {
	chains := w.s.bridge[h]
	if len(chains) == 0 {
		return accepted
	}
	before := w.pk
	w.pk.in, w.pk.out = w.pk.inPort, w.pk.outPort
	defer func() { w.pk.in, w.pk.out = before.in, before.out }()
	for _, c := range chains {
		if f := w.base(c, h); f != accepted {
			return f
		}
	}
	return accepted
}

// atDevice leads the packet through the chains of a device, before or behind everything else.
func (w *walk) atDevice(h netfilter.Hook, device string) fate {
	devices := w.s.ingest[hookKey{w.pk.family, h}]
	if device == "" || len(devices[device]) == 0 {
		return accepted
	}
	before := w.pk
	w.pk.in, w.pk.out, w.pk.ct = device, "", nil
	if h == netfilter.Egress {
		w.pk.in, w.pk.out = "", device
	}
	defer func() { w.pk.in, w.pk.out, w.pk.ct = before.in, before.out, before.ct }()
	for _, c := range devices[device] {
		if f := w.base(c, h); f != accepted {
			return f
		}
	}
	return accepted
}
