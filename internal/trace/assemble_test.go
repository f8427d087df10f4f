package trace

import (
	"testing"
	"time"

	"quaywall/internal/kernel/nft"
	"quaywall/internal/netfilter"
	"quaywall/internal/watch/nftrace"
)

// udp is a packet's headers: source and destination port, and the IP header's number.
func udp(from, to, number byte) []byte {
	return []byte{0x45, 0, 0, 48, 0, number, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0, from, 0, to, 0, 28, 0, 0, 'h', 'e', 'l', 'l', 'o'}
}

func mark(id uint32, header []byte) nftrace.Event {
	return nftrace.Event{ID: id, Family: netfilter.Inet, Table: nft.TraceTable, Chain: "mark", Handle: 1, Header: header, In: 2}
}

func end(id uint32, chain string, out int) nftrace.Event {
	return nftrace.Event{ID: id, Family: netfilter.Inet, Table: nft.TraceTable, Chain: chain, Kind: nftrace.Policy, Header: udp(1, 2, 1), Out: out}
}

func rule(id uint32, v netfilter.VerdictKind) nftrace.Event {
	return nftrace.Event{ID: id, Family: netfilter.IPv4, Table: "filter", Chain: "INPUT", Handle: 3, Verdict: &netfilter.Verdict{Kind: v}}
}

func legacy(header []byte) nftrace.Event {
	return nftrace.Event{Legacy: true, Family: netfilter.IPv4, Table: "nat", Chain: "PREROUTING", Number: 1, Header: header}
}

func TestAssemble(t *testing.T) {
	now := time.Unix(0, 0)
	for _, test := range []struct {
		name   string
		events []nftrace.Event
		done   []int // how many events each packet has that is complete
		open   int
	}{
		{"what another traces", []nftrace.Event{rule(5, netfilter.Accept), legacy(udp(1, 2, 1))}, nil, 0},
		{"dropped", []nftrace.Event{mark(1, udp(1, 2, 1)), rule(1, netfilter.Continue), rule(1, netfilter.Drop)}, []int{2}, 0},
		{"on its way", []nftrace.Event{mark(1, udp(1, 2, 1)), rule(1, netfilter.Accept)}, nil, 1},
		{"delivered", []nftrace.Event{mark(1, udp(1, 2, 1)), rule(1, netfilter.Accept), end(1, nft.TraceInput, 0)}, []int{1}, 0},
		{"sent", []nftrace.Event{mark(1, udp(1, 2, 1)), end(1, nft.TracePostrouting, 3)}, []int{0}, 0},
		{"two at a time", []nftrace.Event{mark(1, udp(1, 2, 1)), mark(2, udp(1, 2, 2)), rule(1, netfilter.Continue), rule(2, netfilter.Drop),
			rule(1, netfilter.Continue), rule(1, netfilter.Drop)}, []int{1, 3}, 0},
		{"a number is used again", []nftrace.Event{mark(1, udp(1, 2, 1)), rule(1, netfilter.Accept), mark(1, udp(1, 2, 2)), rule(1, netfilter.Drop)}, []int{1, 1}, 0},
		{"legacy, rewritten", []nftrace.Event{mark(1, udp(1, 2, 1)), mark(2, udp(1, 2, 2)), legacy(udp(9, 8, 2)), rule(2, netfilter.Drop)}, []int{2}, 1},
	} {
		var a assembler
		var done []int
		for _, e := range test.events {
			for _, s := range a.add(e, now) {
				done = append(done, len(s.events))
			}
		}
		if len(done) != len(test.done) || len(a.open) != test.open {
			t.Errorf("%s: %v complete and %d open, want %v and %d", test.name, done, len(a.open), test.done, test.open)
			continue
		}
		for i := range done {
			if done[i] != test.done[i] {
				t.Errorf("%s: the packets have %v events, want %v", test.name, done, test.done)
			}
		}
	}
}

// TestAssembleIsBounded: neither packets of which nothing more comes nor packets of which too much comes fill the memory.
func TestAssembleIsBounded(t *testing.T) {
	var a assembler
	now := time.Unix(0, 0)
	for id := range uint32(3 * maxOpen) {
		a.add(mark(id+1, udp(1, 2, byte(id))), now)
	}
	if len(a.open) != maxOpen {
		t.Errorf("%d packets are kept, want %d", len(a.open), maxOpen)
	}
	if done := a.silent(now.Add(patience), false); len(done) != 0 {
		t.Errorf("%d packets were given up too early", len(done))
	}
	if done := a.silent(now.Add(2*patience), false); len(done) != maxOpen || len(a.open) != 0 {
		t.Errorf("%d packets were given up, and %d kept", len(done), len(a.open))
	}
	a.add(mark(1, udp(1, 2, 1)), now)
	for range 2 * maxEvents {
		a.add(rule(1, netfilter.Continue), now)
	}
	if s := a.silent(now, true)[0]; len(s.events) != maxEvents || !s.cut {
		t.Errorf("%d events are kept, cut: %v", len(s.events), s.cut)
	}
}

func TestFingerprint(t *testing.T) {
	if fingerprint(udp(1, 2, 1)) != fingerprint(udp(7, 9, 1)) {
		t.Error("a packet whose ports are rewritten is another one")
	}
	if fingerprint(udp(1, 2, 1)) == fingerprint(udp(1, 2, 2)) {
		t.Error("two packets are one")
	}
	for n := range 40 { // what is cut short is no reason to panic
		fingerprint(udp(1, 2, 1)[:min(n, 33)])
		fingerprint(append([]byte{0x60}, make([]byte, n)...))
	}
}
