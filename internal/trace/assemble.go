package trace

import (
	"encoding/binary"
	"slices"
	"time"

	"quaywall/internal/kernel/nft"
	"quaywall/internal/netfilter"
	"quaywall/internal/watch/nftrace"
)

// seen is a packet of which events come, in their order; those of quaywall's own table are left out.
type seen struct {
	id      uint32
	print   string
	first   nftrace.Event // the first event of all, with the packet as it was when it was marked
	events  []nftrace.Event
	cut     bool // there were more events than are kept
	ended   bool // it got to a socket of the host, or out of it
	last    nftrace.Event
	begun   time.Time
	touched time.Time
}

const (
	maxEvents = 1000            // that are kept of a packet
	maxOpen   = 1000            // packets that events are awaited of
	patience  = time.Second / 2 // for the next event of a packet
)

// assembler puts events together to packets. The kernel names packets by numbers that it uses again, and iptables-legacy
// doesn't name them at all: then they are known by what no rule changes.
type assembler struct{ open []*seen }

// add takes an event, and gives the packets of which no more will come.
func (a *assembler) add(e nftrace.Event, now time.Time) []*seen {
	own := !e.Legacy && e.Family == netfilter.Inet && e.Table == nft.TraceTable
	var print string
	if e.Header != nil {
		print = fingerprint(e.Header)
	}
	begins := own && e.Header != nil && e.Chain != nft.TraceInput && e.Chain != nft.TracePostrouting
	var done []*seen
	s := a.find(e, print, begins)
	if begins && (s == nil || !s.loops(e)) {
		if s != nil && s.id == e.ID { // the number is that of another packet now
			done = append(done, a.close(s))
		}
		s = &seen{id: e.ID, print: print, first: e, last: e, begun: now}
		if len(a.open) == maxOpen {
			done = append(done, a.close(a.open[0]))
		}
		a.open = append(a.open, s)
	}
	if s == nil {
		return done // somebody else has it traced
	}
	if !e.Legacy {
		s.id = e.ID
	}
	s.touched = now
	s.take(e, own)
	if s.isOver() {
		done = append(done, a.close(s))
	}
	return done
}

// take keeps an event.
func (s *seen) take(e nftrace.Event, own bool) {
	if own {
		s.ended = e.Chain == nft.TraceInput || e.Chain == nft.TracePostrouting
		if e.Header != nil {
			s.last = e
		}
		return
	}
	s.ended = false
	if e.Header != nil {
		s.last = e
	}
	if len(s.events) == maxEvents {
		s.cut = true
		return
	}
	s.events = append(s.events, e)
}

// loopback is the index of lo in each network namespace.
const loopback = 1

// loops tells whether a packet that the host sends to itself comes back in.
func (s *seen) loops(e nftrace.Event) bool {
	return s.ended && s.last.Out == loopback && e.In == loopback
}

// isOver tells whether no more events can come.
func (s *seen) isOver() bool {
	if s.ended {
		return s.last.Out != loopback
	}
	if len(s.events) == 0 {
		return false
	}
	v := s.events[len(s.events)-1].Verdict
	return v != nil && v.Kind == netfilter.Drop
}

// find finds the packet that an event is of: by its number, or by what no rule changes. The youngest counts.
func (a *assembler) find(e nftrace.Event, print string, begins bool) *seen {
	var same *seen
	for _, s := range slices.Backward(a.open) {
		switch {
		case begins && s.print == print && s.loops(e):
			return s
		case !e.Legacy && s.id == e.ID:
			return s
		case same == nil && print != "" && s.print == print && !begins:
			same = s
		}
	}
	return same
}

func (a *assembler) close(s *seen) *seen {
	a.open = slices.DeleteFunc(a.open, func(x *seen) bool { return x == s })
	return s
}

// silent gives the packets that nothing was heard of for some time; with all, every one.
func (a *assembler) silent(now time.Time, all bool) []*seen {
	var done []*seen
	for _, s := range slices.Clone(a.open) {
		if all || now.Sub(s.touched) > patience {
			done = append(done, a.close(s))
		}
	}
	return done
}

// fingerprint is what of a packet's headers no rule rewrites: neither addresses, ports and checksums, nor TTL, DSCP and ECN.
func fingerprint(b []byte) string {
	var kept, rest []byte
	var proto byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := min(int(b[0]&0xf)*4, len(b))
		proto, rest = b[9], b[header:]
		kept = append(kept, 4, b[2], b[3], b[4], b[5], b[6]&0x3f, b[7], proto)
	case len(b) >= 40 && b[0]>>4 == 6:
		proto, rest = b[6], b[40:]
		kept = binary.BigEndian.AppendUint32(kept, binary.BigEndian.Uint32(b)&0xfffff)
		kept = append(kept, 6, b[4], b[5], proto)
	default:
		return ""
	}
	const tcp = 6
	if proto == tcp && len(rest) >= 14 {
		return string(append(append(kept, rest[4:12]...), rest[13]))
	}
	return string(append(kept, rest[min(8, len(rest)):min(20, len(rest))]...))
}
