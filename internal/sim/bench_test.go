package sim_test

import (
	"testing"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/dockerhost"
)

// A host of 11,000 rules: 1,000 containers with five published ports each.
const (
	benchContainers = 1000
	benchPorts      = 5
)

// BenchmarkExplain is one question, its host read but not prepared.
func BenchmarkExplain(b *testing.B) {
	h := many(b)
	q := queries(b)
	b.ResetTimer()
	for i := range b.N {
		if _, err := sim.New(h).Explain(q[i%len(q)], sim.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExplainMany is each of many questions.
func BenchmarkExplainMany(b *testing.B) {
	s := sim.New(many(b))
	q := queries(b)
	b.ResetTimer()
	for i := range b.N {
		tr, err := s.Explain(q[i%len(q)], sim.Options{Fast: true})
		if err != nil || tr.Verdict != sim.Accept || tr.DeliveredTo.Kind != "container" {
			b.Fatal(tr, err)
		}
	}
}

func many(b *testing.B) *snapshot.Host {
	h := dockerhost.Make(benchContainers, benchPorts)
	tables, problems := iptsave.Parse(h.Rules, iptsave.Options{Family: netfilter.IPv4})
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	h.Host.Rules.Tables = tables
	return &h.Host
}

func queries(b *testing.B) []packet.Query {
	all := make([]packet.Query, benchContainers*benchPorts)
	for i := range all {
		q, err := packet.Parse(dockerhost.Packet(i))
		if err != nil {
			b.Fatal(err)
		}
		all[i] = q
	}
	return all
}
