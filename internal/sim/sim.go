// Package sim leads one packet through a host: its rules in the kernel's order, its routes, address translation, and what
// is there to take it, then the answer's way back.
//
//	s := sim.New(host) // once for a snapshot
//	trace := s.Explain(query, sim.Options{})
//
// What a packet meets is what the kernel calls: netdev ingress, bridge netfilter, all base chains of a hook by priority
// whoever made them, translation at its fixed places (-100 and 100) with the first chain that translates winning, the
// routing decision with its rules, tables and sysctls, a listening socket, or docker-proxy, whose own connection to the
// container is then followed as well.
//
// Be aware: what isn't known is never guessed to be harmless. A match that isn't understood, or that asks for what the
// snapshot or the packet doesn't tell, holds and doesn't hold: both ways are followed, and where they end differently the
// verdict is unknown, with the rule in doubt named. Limits and the like are taken as a first packet meets them; that, and
// facts that are missing from a snapshot, are told as assumptions. Connections are taken to begin with the rules as they
// are: a packet in state established belongs to one that its own first packet would make now. Base chains of equal
// priority are called in the reverse order of their tables, as the kernel does with what was registered later. Fragments
// come whole, traffic control, XDP and policies of IPsec are not looked at, and of several next hops the first is taken. A
// packet is given up after a million rules, with the verdict unknown.
package sim

import (
	"net/netip"
	"sync"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// Sim is a host, prepared for questions. It may be asked by several goroutines at once.
type Sim struct {
	host   *snapshot.Host
	hooks  map[hookKey][]*chain // base chains in the order in which the kernel calls them
	nats   map[hookKey][]*chain // those of them that translate
	bridge map[netfilter.Hook][]*chain
	ingest map[hookKey]map[string][]*chain // of Ingress and Egress, by device
	sets   map[*netfilter.Set]*set
	named  map[string]*netfilter.Set // those of ipset
	net    *network

	// Made when they are asked for.
	containers func() map[netip.Addr]*snapshot.Container
	listening  func() map[snapshot.Port][]*snapshot.Socket
}

type hookKey struct {
	family uint8 // nfIPv4 or nfIPv6
	hook   netfilter.Hook
}

// NFPROTO_*.
const (
	nfIPv4 = 2
	nfIPv6 = 10
)

// Options say how a question is answered.
type Options struct {
	// All has every rule that was looked at in the path, not only those that matched or nearly did.
	All bool
	// Fast passes over rules of long chains that can't match for their port or address, and leaves chains out of the path in
	// which nothing matched: for many questions.
	Fast bool
	// Ended tells why the answer is not wanted any longer, which becomes Explain's error: the Err of a context. nil for never.
	Ended func() error
}

// New prepares a host.
func New(host *snapshot.Host) *Sim {
	s := &Sim{host: host, sets: map[*netfilter.Set]*set{}, named: map[string]*netfilter.Set{}}
	for _, x := range host.Rules.Sets {
		s.named[x.Name] = x
		s.sets[x] = newSet(x)
	}
	s.index()
	s.net = newNetwork(host)
	s.containers, s.listening = sync.OnceValue(s.byAddress), sync.OnceValue(s.byPort)
	return s
}

// byAddress finds containers by their addresses.
func (s *Sim) byAddress() map[netip.Addr]*snapshot.Container {
	all := make(map[netip.Addr]*snapshot.Container, len(s.host.Containers))
	for i := range s.host.Containers {
		for _, e := range s.host.Containers[i].Networks {
			for _, a := range e.Addrs {
				all[a] = &s.host.Containers[i]
			}
		}
	}
	return all
}

// byPort finds sockets by their ports.
func (s *Sim) byPort() map[snapshot.Port][]*snapshot.Socket {
	all := make(map[snapshot.Port][]*snapshot.Socket, len(s.host.Sockets))
	for i := range s.host.Sockets {
		k := &s.host.Sockets[i]
		at := snapshot.Port{Proto: k.Proto, Port: k.Port}
		all[at] = append(all[at], k)
	}
	return all
}

// Explain leads a packet through the host. A query that can't be filled in from what is known of the host is an error.
func (s *Sim) Explain(q packet.Query, o Options) (trace *Trace, err error) {
	d, err := s.derive(q)
	if err != nil {
		return nil, err
	}
	defer ended(&err)
	return s.explore(q, d, o), nil
}

// maxRuns bounds the ways that are followed for what isn't known.
const maxRuns = 64

// usualSteps is how long a way mostly is, there and back.
const usualSteps = 32

// explore follows every way that doubts leave open, until all is in doubt that could be.
func (s *Sim) explore(q packet.Query, d derived, o Options) *Trace {
	var choices []choice
	var first *result
	looked := 0
	for run := 0; ; run++ {
		w := &walk{s: s, o: o, looked: &looked, choices: choices, derived: d, steps: make([]Step, 0, usualSteps)}
		r := w.runOrGiveUp(d)
		if looked > maxLooked {
			return r.trace(q, d)
		}
		if first == nil {
			first = r
		} else {
			first.merge(r, w.lastChoice())
		}
		choices = nextChoices(w.choices)
		if choices == nil || first.open() {
			break
		}
		if run == maxRuns {
			first.merge(&result{verdict: Unknown}, w.choices[0].doubt)
			break
		}
	}
	return first.trace(q, d)
}

// choice is a question that nothing answers, and the answer that is tried.
type choice struct {
	pick, of int
	doubt    doubt
}

// doubt is a rule that may match or not, or a thing that may be so or not.
type doubt struct {
	place Place
	why   string // what isn't known
}

// nextChoices is the next way to try: the last choice that has another answer takes it. nil where all were tried.
func nextChoices(tried []choice) []choice {
	for i := len(tried) - 1; i >= 0; i-- {
		if tried[i].pick+1 < tried[i].of {
			next := append([]choice(nil), tried[:i+1]...)
			next[i].pick++
			return next
		}
	}
	return nil
}
