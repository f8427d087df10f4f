package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conformance"
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// prefixes is a set of n intervals, no two of which touch, spread over IPv4.
func prefixes(n int) netset.Set {
	var b netset.Builder
	step := uint32(1<<32/uint64(n)) &^ 3
	for i := range uint32(n) {
		first := i * step
		b.Add(netipx.IPRangeFrom(addr4(first), addr4(first+i%2))) // every other one is a /31
	}
	s, err := b.Set()
	if err != nil {
		panic(err)
	}
	return s
}

func addr4(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}

// withSet is a ruleset with a set of n intervals, and a rule of the policy line beside it.
func withSet(n, line int) *ruleset.Ruleset {
	rs := conformance.Sample()
	table := &rs.Tables[0]
	table.Sets = append(table.Sets, ruleset.Set{Name: "big", Key: ruleset.Addr4, Addrs: prefixes(n)})
	table.Chains[0].Rules = append([]ruleset.Rule{{
		Matches: []ruleset.Match{ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "big"}},
		Counter: true, Verdict: ruleset.Verdict{Kind: ruleset.Drop},
		Origin: ruleset.Origin{Line: fmt.Sprintf("policy.yaml:%d", line)},
	}}, table.Chains[0].Rules...)
	return rs
}

// withRules is a ruleset of chains with ten rules each, n rules in all, that differ and have lists.
func withRules(n int) *ruleset.Ruleset {
	rs := conformance.Sample()
	table := &rs.Tables[0]
	table.Maps[0].Elements = nil
	for i := range n / 10 {
		c := ruleset.Chain{Name: fmt.Sprint("chain", i)}
		for j := range 10 {
			port := uint16(j*3 + 1)
			ports := []netset.Ports{{First: port, Last: port}, {First: port + 100, Last: port + 200 + uint16(i)}}
			c.Rules = append(c.Rules, ruleset.Rule{
				Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: 17}, ruleset.PortMatch{Field: ruleset.DstPort, Ports: ports}},
				Counter: true, Origin: ruleset.Origin{Line: fmt.Sprintf("policy.yaml:%d", i*10+j)},
			})
		}
		table.Chains = append(table.Chains, c)
		table.Maps[0].Elements = append(table.Maps[0].Elements, ruleset.Element{
			Ports: netset.Ports{First: uint16(i), Last: uint16(i)}, Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: c.Name}})
	}
	return rs
}

// processor reports the processor time of an operation, of this process or of its children: on a busy machine the time that
// passes says little.
func processor(b *testing.B, who int) func() {
	used := func() float64 {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
	}
	before := used()
	return func() { b.ReportMetric((used()-before)/float64(b.N), "cpu-ms/op") }
}

func BenchmarkCommit(b *testing.B) {
	for _, bench := range []struct {
		name string
		rs   func() *ruleset.Ruleset
	}{
		{"small", conformance.Sample},
		{"1000 prefixes", func() *ruleset.Ruleset { return withSet(1000, 2) }},
		{"100000 prefixes", func() *ruleset.Ruleset { return withSet(100_000, 2) }},
		{"1000000 prefixes", func() *ruleset.Ruleset { return withSet(1_000_000, 2) }},
		{"10000 rules", func() *ruleset.Ruleset { return withRules(10_000) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			rs, backend, ctx := bench.rs(), New(), context.Background()
			netns.Run(b, func() {
				defer processor(b, unix.RUSAGE_SELF)()
				for b.Loop() {
					if err := backend.Commit(ctx, rs); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := backend.Remove(ctx); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		})
	}
}

// BenchmarkRecommit is a change of one rule beside a set.
func BenchmarkRecommit(b *testing.B) {
	for _, n := range []int{1000, 16_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n, " prefixes"), func(b *testing.B) {
			variants := []*ruleset.Ruleset{withSet(n, 2), withSet(n, 3)}
			backend, ctx, i := New(), context.Background(), 0
			netns.Run(b, func() {
				if err := backend.Commit(ctx, variants[1]); err != nil {
					b.Fatal(err)
				}
				defer processor(b, unix.RUSAGE_SELF)()
				for b.Loop() {
					if err := backend.Commit(ctx, variants[i%2]); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1000, 16_000, 1_000_000} {
		b.Run(fmt.Sprint(n, " prefixes"), func(b *testing.B) {
			backend, ctx := New(), context.Background()
			netns.Run(b, func() {
				if err := backend.Commit(ctx, withSet(n, 2)); err != nil {
					b.Fatal(err)
				}
				defer processor(b, unix.RUSAGE_SELF)()
				for b.Loop() {
					if _, err := backend.Read(ctx); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkProgram is what the program nft takes for the same sets.
func BenchmarkProgram(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n, " prefixes"), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "set.nft")
			list := strings.ReplaceAll(prefixes(n).String(), " ", ",\n")
			text := "table inet t { set big { type ipv4_addr; flags interval; elements = { " + list + " }; }; }\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			ns := netns.New(b)
			defer processor(b, unix.RUSAGE_CHILDREN)()
			for b.Loop() {
				ns.Output(b, "nft", "-f", path)
				b.StopTimer()
				ns.Output(b, "nft", "delete", "table", "inet", "t")
				b.StartTimer()
			}
		})
	}
}
