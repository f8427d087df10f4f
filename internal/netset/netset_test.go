package netset

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"
)

// randomRange is a small range at the beginning, in the middle or at the end of a family, so that ranges often meet, or
// one of many in 10.0.0.0/21.
func randomRange(r *rand.Rand) netipx.IPRange {
	if r.IntN(3) == 0 {
		first := num4(10<<24 | r.Uint32N(2048))
		return netipx.IPRangeFrom(first.addr(), (first + num4(r.Uint32N(4))).addr())
	}
	bases := []string{"0.0.0.0", "10.0.0.0", "255.255.255.224", "::", "2001:db8::ffff:ffff:ffff:fff0",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffe0"}
	a := netip.MustParseAddr(bases[r.IntN(len(bases))])
	for range r.IntN(20) {
		a = a.Next()
	}
	b := a
	for range r.IntN(12) {
		b = b.Next()
	}
	return netipx.IPRangeFrom(a, b)
}

// randomSets is one set in this package's form and in that of netipx.
func randomSets(t *testing.T, r *rand.Rand) (Set, *netipx.IPSet) {
	var b Builder
	var other netipx.IPSetBuilder
	for range r.IntN([]int{8, 8, 8, 400}[r.IntN(4)]) {
		x := randomRange(r)
		b.Add(x)
		other.AddRange(x)
	}
	s, err := b.Set()
	if err != nil {
		t.Fatal(err)
	}
	o, err := other.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// TestAgainstNetipx compares every operation with those of another library.
func TestAgainstNetipx(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	combine := func(a *netipx.IPSet, do func(*netipx.IPSetBuilder)) []netipx.IPRange {
		var b netipx.IPSetBuilder
		b.AddSet(a)
		do(&b)
		s, _ := b.IPSet()
		return s.Ranges()
	}
	for i := range 1500 {
		a, oa := randomSets(t, r)
		b, ob := randomSets(t, r)
		for _, c := range []struct {
			name string
			got  Set
			want []netipx.IPRange
		}{
			{"built", a, oa.Ranges()},
			{"union", a.Union(b), combine(oa, func(x *netipx.IPSetBuilder) { x.AddSet(ob) })},
			{"subtract", a.Subtract(b), combine(oa, func(x *netipx.IPSetBuilder) { x.RemoveSet(ob) })},
			{"intersect", a.Intersect(b), combine(oa, func(x *netipx.IPSetBuilder) { x.Intersect(ob) })},
			{"complement", a.Complement(), combine(oa, func(x *netipx.IPSetBuilder) { x.Complement() })},
		} {
			if !slices.Equal(c.got.Ranges(), c.want) {
				t.Fatalf("round %d: %s of %v and %v: got %v, want %v", i, c.name, a, b, c.got, c.want)
			}
		}
		if a.Overlaps(b) == a.Intersect(b).IsEmpty() {
			t.Fatalf("round %d: Overlaps of %v and %v", i, a, b)
		}
		probe := randomRange(r)
		if a.Contains(probe.From()) != oa.Contains(probe.From()) {
			t.Fatalf("round %d: Contains(%v) of %v", i, probe.From(), a)
		}
		if !slices.Equal(a.Prefixes(), oa.Prefixes()) {
			t.Fatalf("round %d: prefixes of %v", i, a)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		s, _ := randomSets(t, r)
		text, _ := s.MarshalText()
		var back Set
		if err := back.UnmarshalText(text); err != nil || !back.Equal(s) {
			t.Fatalf("%s came back as %v: %v", text, back, err)
		}
	}
}

func TestUnmappedAndZones(t *testing.T) {
	var b Builder
	b.AddAddr(netip.MustParseAddr("::ffff:192.0.2.1"))
	b.AddAddr(netip.MustParseAddr("fe80::1%eth0"))
	b.AddPrefix(netip.MustParsePrefix("192.0.2.8/30"))
	s, err := b.Set()
	if got := s.String(); err != nil || got != "192.0.2.1 192.0.2.8/30 fe80::1" {
		t.Errorf("%s %v", got, err)
	}
	if !s.Contains(netip.MustParseAddr("::ffff:192.0.2.1")) || !s.Contains(netip.MustParseAddr("fe80::1%eth1")) {
		t.Error("mapped addresses and zones count")
	}
	if s.Contains(netip.Addr{}) {
		t.Error("the zero address is in no set")
	}
}

func TestInvalidRanges(t *testing.T) {
	for _, r := range []netipx.IPRange{
		{},
		netipx.IPRangeFrom(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")),
		netipx.IPRangeFrom(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::1")),
		netipx.IPRangeFrom(netip.MustParseAddr("10.0.0.2"), netip.Addr{}),
	} {
		var b Builder
		b.Add(r)
		if s, err := b.Set(); err == nil {
			t.Errorf("%v gave %v", r, s)
		}
	}
}

func BenchmarkBuildAMillion(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	addrs := make([]netip.Addr, 1_000_000)
	for i := range addrs {
		addrs[i] = num4(r.Uint32()).addr()
	}
	b.ReportAllocs()
	for b.Loop() {
		OfAddrs(addrs...)
	}
}

func TestJoinPorts(t *testing.T) {
	p := func(first, last uint16) Ports { return Ports{First: first, Last: last} }
	for _, c := range []struct{ of, want []Ports }{
		{nil, nil},
		{[]Ports{p(80, 80), p(22, 22)}, []Ports{p(22, 22), p(80, 80)}},
		{[]Ports{p(81, 90), p(80, 80)}, []Ports{p(80, 90)}},
		{[]Ports{p(80, 90), p(82, 83), p(92, 92)}, []Ports{p(80, 90), p(92, 92)}},
		{[]Ports{p(1, 65535), p(0, 0)}, []Ports{AllPorts}},
		{[]Ports{p(65535, 65535), p(0, 65535), p(7, 7)}, []Ports{AllPorts}},
	} {
		if got := JoinPorts(c.of); !slices.Equal(got, c.want) {
			t.Errorf("%v joined is %v, want %v", c.of, got, c.want)
		}
	}
}
