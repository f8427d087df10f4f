package cover

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"quaywall/internal/netset"
)

// A small world in which every packet can be tried: few addresses, a few protocols and ports, two interfaces.
var (
	worldAddrs  = []string{"10.0.0.0", "10.0.0.1", "255.255.255.255", "::", "2001:db8::1"}
	worldProtos = []int{1, 6, 17, 50, 132}
	worldPorts  = []uint16{0, 15, 16, 255, 4096, 65535}
)

type packet struct {
	proto     int
	port      uint16
	published bool
	from, to  netip.Addr
	in        string
}

func matches(r Region, p packet) bool {
	if len(r.Scope.On) > 0 && !globCovers(r.Scope.On[0], p.in) {
		return false
	}
	traffic := false
	for _, t := range r.Traffic {
		traffic = traffic || t.Proto == AnyProto || t.Proto == Published && p.published ||
			t.Proto == p.proto && t.First <= p.port && p.port <= t.Last
	}
	return traffic && contains(r.From, p.from) && contains(r.To, p.to)
}

func contains(parts []Addrs, a netip.Addr) bool {
	for _, p := range parts {
		if p.Set.Contains(a) {
			return true
		}
	}
	return false
}

// packets calls f for every packet of the world until it says no.
func packets(f func(packet) bool) {
	for _, proto := range worldProtos {
		for _, port := range worldPorts {
			for _, from := range worldAddrs {
				for _, to := range worldAddrs {
					for _, in := range []string{"eth0", "eth1"} {
						for _, published := range []bool{false, proto == 6 || proto == 17 || proto == 132} {
							if !f(packet{proto, port, published, netip.MustParseAddr(from), netip.MustParseAddr(to), in}) {
								return
							}
						}
					}
				}
			}
		}
	}
}

// world makes random regions. Sets that are used more than once have an ID.
type world struct {
	r     *rand.Rand
	named []Addrs
}

func (w *world) side() []Addrs {
	if w.r.IntN(3) > 0 {
		return []Addrs{Any}
	}
	parts := []Addrs{w.named[w.r.IntN(len(w.named))]}
	if w.r.IntN(3) == 0 {
		parts = append(parts, Addrs{Set: netset.MustParse(worldAddrs[w.r.IntN(len(worldAddrs))])})
	}
	return parts
}

func (w *world) traffic() Traffic {
	switch w.r.IntN(8) {
	case 0:
		return Traffic{AnyProto, 0, 65535}
	case 1:
		return Traffic{Published, 0, 65535}
	}
	proto := worldProtos[w.r.IntN(len(worldProtos))]
	a, b := worldPorts[w.r.IntN(len(worldPorts))], worldPorts[w.r.IntN(len(worldPorts))]
	if w.r.IntN(3) == 0 {
		a, b = 0, 65535
	}
	return Traffic{proto, min(a, b), max(a, b)}
}

func (w *world) region() Region {
	r := Region{Traffic: []Traffic{w.traffic()}, From: w.side(), To: w.side()}
	if w.r.IntN(3) == 0 {
		r.Traffic = append(r.Traffic, w.traffic())
	}
	if w.r.IntN(4) == 0 {
		r.Scope.On = []string{[]string{"eth0", "eth1", "eth*"}[w.r.IntN(3)]}
	}
	return r
}

func newWorld(seed uint64) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 1))}
	for i := range 6 {
		var b netset.Builder
		for _, a := range worldAddrs {
			if w.r.IntN(2) == 0 {
				b.AddAddr(netip.MustParseAddr(a))
			}
		}
		set, _ := b.Set()
		if w.r.IntN(3) == 0 {
			set = set.Complement()
		}
		if !set.IsEmpty() {
			w.named = append(w.named, Addrs{i + 1, set})
		}
	}
	w.named = append(w.named, Addrs{9, netset.All4()}, Addrs{10, netset.All6()})
	return w
}

// TestAgainstEveryPacket: a rule is said to be covered only if no packet of the world gets through to it; and where
// nothing but the finer points of addresses and ports between the world's stands against it, it is said.
func TestAgainstEveryPacket(t *testing.T) {
	covered, missed := 0, 0
	for seed := range uint64(250) {
		w := newWorld(seed)
		index := New()
		var rules []Region
		for range 12 {
			r := w.region()
			said := index.Covers(r)
			reaches := false
			packets(func(p packet) bool {
				if !matches(r, p) {
					return true
				}
				for _, earlier := range rules {
					if matches(earlier, p) {
						return true
					}
				}
				reaches = true
				return false
			})
			if said && reaches {
				t.Fatalf("seed %d: said to be covered, but a packet reaches it: %+v\nbehind %+v", seed, r, rules)
			}
			if said {
				covered++
			} else if !reaches {
				missed++
			}
			for _, earlier := range rules {
				alone := New()
				alone.Add(earlier)
				if got, want := Alone(earlier, r), alone.Covers(r); got != want {
					t.Fatalf("seed %d: %+v alone behind %+v: %t, with an index %t", seed, r, earlier, got, want)
				}
			}
			index.Add(r)
			rules = append(rules, r)
		}
	}
	if covered < 200 || missed > covered/2 {
		t.Errorf("%d were covered, %d were in this world but not said to be", covered, missed)
	}
}

func region(traffic Traffic, from, to string) Region {
	side := func(s string) []Addrs {
		if s == "any" {
			return []Addrs{Any}
		}
		return []Addrs{{Set: netset.MustParse(s)}}
	}
	return Region{Traffic: []Traffic{traffic}, From: side(from), To: side(to)}
}

// TestUnions are the ways in which several rules cover one.
func TestUnions(t *testing.T) {
	tcp := func(first, last uint16) Traffic { return Traffic{6, first, last} }
	all := tcp(0, 65535)
	in := func(r Region, s Scope) Region { r.Scope = s; return r }
	for _, c := range []struct {
		name  string
		rules []Region
		then  Region
		want  bool
	}{
		{"two halves of the ports", []Region{region(tcp(0, 32767), "any", "any"), region(tcp(32768, 65535), "any", "any")}, region(all, "any", "any"), true},
		{"a hole in the ports", []Region{region(tcp(0, 32767), "any", "any"), region(tcp(32769, 65535), "any", "any")}, region(all, "any", "any"), false},
		{"two halves of the sources", []Region{region(all, "10.0.0.0/9", "any"), region(all, "10.128.0.0/9", "any")}, region(tcp(80, 80), "10.0.0.0/8", "any"), true},
		{"sources of different ports", []Region{region(tcp(80, 81), "10.0.0.0/9", "any"), region(tcp(79, 80), "10.128.0.0/9", "any")}, region(tcp(80, 80), "10.0.0.0/8", "any"), true},
		{"both families", []Region{region(all, "0.0.0.0/0", "any"), region(all, "::/0", "any")}, region(all, "any", "any"), true},
		{"one family", []Region{region(all, "0.0.0.0/0", "any")}, region(all, "any", "any"), false},
		{"pairs of a source and a destination", []Region{region(all, "10.0.0.1", "10.1.0.0/16"), region(all, "10.0.0.1", "10.2.0.0/16")}, region(all, "10.0.0.1", "10.1.0.0/16 10.2.0.0/16"), true},
		{"pairs, a source and a destination", []Region{region(all, "10.0.0.1", "any"), region(all, "any", "10.1.0.1"), region(all, "10.0.0.2", "10.1.0.2")}, region(all, "10.0.0.1 10.0.0.2", "10.1.0.1 10.1.0.2"), true},
		{"a pair is missing", []Region{region(all, "10.0.0.1", "10.1.0.1"), region(all, "10.0.0.2", "10.1.0.2")}, region(all, "10.0.0.1 10.0.0.2", "10.1.0.1 10.1.0.2"), false},
		{"any protocol", []Region{region(Traffic{AnyProto, 0, 65535}, "any", "any")}, region(Traffic{Published, 0, 65535}, "any", "any"), true},
		{"published behind TCP alone", []Region{region(all, "any", "any")}, region(Traffic{Published, 0, 65535}, "any", "any"), false},
		{"published behind all that can be", []Region{region(all, "any", "any"), region(Traffic{17, 0, 65535}, "any", "any"), region(Traffic{132, 0, 65535}, "any", "any")}, region(Traffic{Published, 0, 65535}, "any", "any"), true},
		{"a port behind published", []Region{region(Traffic{Published, 0, 65535}, "any", "any")}, region(tcp(80, 80), "any", "any"), false},
		{"an interface of a glob", []Region{in(region(all, "any", "any"), Scope{On: []string{"eth*"}})}, in(region(all, "any", "any"), Scope{On: []string{"eth0", "eth1*"}}), true},
		{"an interface and all", []Region{in(region(all, "any", "any"), Scope{On: []string{"eth0"}})}, region(all, "any", "any"), false},
		{"a network and all", []Region{in(region(all, "any", "any"), Scope{Networks: []string{"a"}})}, region(all, "any", "any"), false},
		{"all and a network", []Region{region(all, "any", "any")}, in(region(all, "any", "any"), Scope{Networks: []string{"a"}}), true},
		{"this host behind addresses", []Region{region(all, "any", "10.0.0.0/8")}, in(region(all, "any", "any"), Scope{Kind: KindHost}), false},
		{"this host behind any", []Region{region(all, "any", "any")}, in(region(all, "any", "any"), Scope{Kind: KindHost}), true},
		{"addresses behind this host", []Region{in(region(all, "any", "any"), Scope{Kind: KindHost})}, region(all, "any", "10.0.0.1"), false},
		{"a network's own addresses behind any", []Region{region(all, "any", "any")}, in(region(all, "any", "any"), Scope{Kind: KindNetwork, Network: "a"}), false},
		{"a network's own addresses twice", []Region{in(region(all, "any", "any"), Scope{Kind: KindNetwork, Network: "a"})}, in(region(tcp(80, 80), "any", "any"), Scope{Kind: KindNetwork, Network: "a"}), true},
	} {
		index := New()
		for _, r := range c.rules {
			index.Add(r)
		}
		if got := index.Covers(c.then); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// TestManyScopes: beyond some number of them only the likeliest are compared, which must stay right.
func TestManyScopes(t *testing.T) {
	index := New()
	all := region(Traffic{AnyProto, 0, 65535}, "any", "any")
	for i := range 2 * manyScopes {
		all.Scope = Scope{On: []string{fmt.Sprintf("eth%d", i)}}
		if index.Covers(all) {
			t.Fatalf("%d: no rule was for it", i)
		}
		index.Add(all)
	}
	if !index.Covers(all) {
		t.Error("the same rule again is covered")
	}
	index.Add(region(Traffic{AnyProto, 0, 65535}, "any", "any"))
	if all.Scope = (Scope{On: []string{"wg0"}, Kind: KindHost}); !index.Covers(all) {
		t.Error("a rule without interfaces covers all of them")
	}
}

// BenchmarkCover: 10,000 rules of each kind that could take long.
func BenchmarkCover(b *testing.B) {
	const rules = 10000
	million := func() netset.Set {
		var s netset.Builder
		for i := range 1_000_000 {
			s.AddAddr(netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)}))
		}
		set, _ := s.Set()
		return set
	}()
	one := func(i int) []Addrs {
		return []Addrs{{Set: netset.OfAddrs(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 7), byte(i << 1)}))}}
	}
	port := func(i int) []Traffic { return []Traffic{{6, uint16(i), uint16(i)}} }
	for _, c := range []struct {
		name string
		rule func(i int) Region
	}{
		{"ports", func(i int) Region { return Region{Traffic: port(i), From: []Addrs{Any}, To: []Addrs{Any}} }},
		{"sources", func(i int) Region { return Region{Traffic: port(80), From: one(i), To: []Addrs{Any}} }},
		{"ranges", func(i int) Region {
			return Region{Traffic: []Traffic{{6, uint16(i), uint16(65535 - i)}}, From: one(i), To: []Addrs{Any}}
		}},
		{"pairs", func(i int) Region { return Region{Traffic: port(80), From: one(i), To: one(i * 7)} }},
		{"million", func(i int) Region {
			return Region{Traffic: port(i), From: []Addrs{{5, million}}, To: []Addrs{Any}}
		}},
		{"twoMillions", func(i int) Region {
			return Region{Traffic: port(i % 9), From: append(one(i), Addrs{5 + i%2, million}), To: []Addrs{Any}}
		}},
		{"behindAMillion", func(i int) Region {
			if i == 0 {
				return Region{Traffic: []Traffic{{AnyProto, 0, 65535}}, From: []Addrs{{5, million}}, To: []Addrs{Any}}
			}
			return Region{Traffic: port(i), From: []Addrs{Any}, To: []Addrs{Any}}
		}},
		{"scopes", func(i int) Region {
			return Region{Scope: Scope{On: []string{fmt.Sprint("eth", i)}}, Traffic: port(80), From: one(i), To: []Addrs{Any}}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				index := New()
				for i := range rules {
					if r := c.rule(i); !index.Covers(r) {
						index.Add(r)
					}
				}
			}
		})
	}
}
