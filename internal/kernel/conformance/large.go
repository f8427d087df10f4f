package conformance

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// Trap 33: so many ports, each with so many sources.
const (
	manyPorts   = 2000
	manySources = 200
)

// manySource is a source of a port of its own; none is next to another one, so that none can be put together.
func manySource(port, n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24+uint32(port*manySources+n)*2)
	return netip.AddrFrom4(b)
}

// testLarge puts a policy of many ports with many sources in force: it gets there, it is read back, it judges, and it goes.
func testLarge(t *testing.T, s Subject) {
	w := newWorld(t)
	rs := largeRules()
	took := func(what string, since time.Time) {
		t.Logf("%s took %s", what, time.Since(since).Round(time.Millisecond))
	}
	start := time.Now()
	planned := s.preflight(t, rs)
	took("Preflight", start)
	start = time.Now()
	w.host.Do(t, func() {
		if err := s.Backend.Commit(context.Background(), rs); err != nil {
			t.Fatal("Commit: ", err)
		}
	})
	took("Commit", start)
	start = time.Now()
	s.inForce(t, w.host, planned)
	took("Read", start)
	want := map[string]uint64{"default": 0}
	for i, port := range []int{0, 1, 777, manyPorts - 1} {
		for _, n := range []int{0, manySources - 1} {
			tcp(uint16(1000+port)).from(manySource(port, n)).send(t, w, 1, 10*i+n)
			want[fmt.Sprintf("policy.yaml:%d", port+3)]++
			tcp(uint16(1000+port)).from(manySource((port+1)%manyPorts, n)).send(t, w, 1, 10*i+n)
			want["default"]++
		}
	}
	s.expect(t, w.host, want)
	start = time.Now()
	s.remove(t, w.host)
	took("Remove", start)
	if l := s.read(t, w.host); l.Present {
		t.Errorf("still there after Remove: %d rules", len(l.Rules))
	}
}

// largeRules has what the compiler makes of a rule for each port with a list of its own: a map of ports, and for each of
// them a chain with a map of sources.
func largeRules() *ruleset.Ruleset {
	accept, drop := ruleset.Verdict{Kind: ruleset.Accept}, ruleset.Verdict{Kind: ruleset.Drop}
	rest := ruleset.Rule{Counter: true, Verdict: drop, Origin: ruleset.Origin{Line: "default"}}
	gate := ruleset.Chain{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}}
	gate.Rules = append(noise[:len(noise):len(noise)],
		ruleset.Rule{Matches: one(ruleset.ProtoMatch{Proto: 6}), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}}, rest)
	table := ruleset.Table{Name: "quaywall", Chains: []ruleset.Chain{gate}, Maps: []ruleset.Map{{Name: "ports", Key: ruleset.Port}}}
	for port := range manyPorts {
		name, number := fmt.Sprint("port", port), uint16(1000+port)
		table.Maps[0].Elements = append(table.Maps[0].Elements, ruleset.Element{
			Ports: netset.Ports{First: number, Last: number}, Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: name}})
		sources := ruleset.Map{Name: name, Key: ruleset.Addr4}
		for n := range manySources {
			a := manySource(port, n)
			sources.Elements = append(sources.Elements, ruleset.Element{
				Addrs: netipx.IPRangeFrom(a, a), Verdict: accept, Origin: ruleset.Origin{Line: fmt.Sprintf("policy.yaml:%d", port+3)}})
		}
		table.Maps = append(table.Maps, sources)
		table.Chains = append(table.Chains, ruleset.Chain{Name: name, Rules: []ruleset.Rule{
			{Lookup: &ruleset.Lookup{By: ruleset.Src, Map: name}}, rest}})
	}
	return &ruleset.Ruleset{Tables: []ruleset.Table{table}}
}
