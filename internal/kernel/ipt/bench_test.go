package ipt

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// portPolicy is a gate that drops UDP to n ports, by way of so many chains.
func portPolicy(n, chains int) *ruleset.Ruleset {
	udp := ruleset.ProtoMatch{Proto: 17}
	m := ruleset.Map{Name: "ports", Key: ruleset.Port}
	table := ruleset.Table{Name: "quaywall", Chains: []ruleset.Chain{{
		Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149},
		Rules: []ruleset.Rule{{Matches: []ruleset.Match{udp}, Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}}},
	}}}
	for i := range chains {
		table.Chains = append(table.Chains, ruleset.Chain{Name: fmt.Sprintf("class%d", i), Rules: []ruleset.Rule{{Counter: true}}})
	}
	for i := range n {
		port := uint16(1000 + 3*i)
		m.Elements = append(m.Elements, ruleset.Element{Ports: netset.Ports{First: port, Last: port},
			Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: fmt.Sprintf("class%d", i*7919%chains)}})
	}
	table.Maps = []ruleset.Map{m}
	return &ruleset.Ruleset{Tables: []ruleset.Table{table}}
}

// BenchmarkPortMap is the time of a UDP packet that the gate drops.
func BenchmarkPortMap(b *testing.B) {
	for _, v := range []Variant{NFT, Legacy} {
		for _, n := range []int{10, 16, 32, 100, 1000, 10000} {
			for _, chains := range []int{1, 4, n} {
				b.Run(fmt.Sprintf("%s/ports=%d/chains=%d", v, n, chains), func(b *testing.B) {
					host, client := netns.New(b), netns.New(b)
					netns.Veth(b, host, "eth0", client, "eth0")
					host.Addr(b, "eth0", "192.0.2.1/24")
					client.Addr(b, "eth0", "192.0.2.2/24")
					host.Do(b, func() {
						if err := New(v, Options{}).Commit(b.Context(), portPolicy(n, chains)); err != nil {
							b.Fatal(err)
						}
					})
					var conns []net.Conn
					client.Do(b, func() {
						for i := range 10 {
							c, err := net.Dial("udp", fmt.Sprintf("192.0.2.1:%d", 1000+3*(i*(n-1)/9)))
							if err != nil {
								b.Fatal(err)
							}
							conns = append(conns, c)
						}
					})
					payload := []byte("x")
					best := time.Hour
					for range b.N {
						start := time.Now()
						for i := range 500 {
							conns[i%10].Write(payload)
						}
						best = min(best, time.Since(start)/500)
					}
					b.ReportMetric(float64(best.Nanoseconds()), "ns/packet")
					for _, c := range conns {
						c.Close()
					}
				})
			}
		}
	}
}

// setPolicy is a gate that drops packets of n sources.
func setPolicy(n int) *ruleset.Ruleset {
	var list netset.Builder
	for i := range n {
		list.AddAddr(netip.AddrFrom4([4]byte{10 + byte(i>>21), byte(i >> 13), byte(i >> 5), byte(i<<3) + 1}))
	}
	addrs, _ := list.Set()
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name: "quaywall",
		Chains: []ruleset.Chain{{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: []ruleset.Rule{
			{Matches: []ruleset.Match{ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "banned-4"}}},
		}}},
		Sets: []ruleset.Set{{Name: "banned-4", Key: ruleset.Addr4, Addrs: addrs}},
	}}}
}

// BenchmarkSet is the time of a commit with a large set, and of its reading, against "ipset restore" of the same entries.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 10000, 100000, 1000000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rs := setPolicy(n)
			var plain strings.Builder
			fmt.Fprintf(&plain, "create plain hash:net maxelem %d\n", n)
			for _, p := range rs.Tables[0].Sets[0].Addrs.Prefixes() {
				fmt.Fprintf(&plain, "add plain %s\n", p)
			}
			var ours, theirs, reading time.Duration
			for range b.N {
				netns.Run(b, func() {
					start := time.Now()
					if _, err := sysexec.Run(b.Context(), sysexec.Command{Path: "ipset", Args: []string{"restore"},
						Stdin: strings.NewReader(plain.String())}); err != nil {
						b.Fatal(err)
					}
					theirs += time.Since(start)
				})
				netns.Run(b, func() {
					start := time.Now()
					backend := New(NFT, Options{})
					if err := backend.Commit(b.Context(), rs); err != nil {
						b.Fatal(err)
					}
					ours += time.Since(start)
					start = time.Now()
					if _, err := backend.Read(b.Context()); err != nil {
						b.Fatal(err)
					}
					reading += time.Since(start)
				})
			}
			b.ReportMetric(theirs.Seconds()*1000/float64(b.N), "ms/ipset-restore")
			b.ReportMetric(ours.Seconds()*1000/float64(b.N), "ms/commit")
			b.ReportMetric(reading.Seconds()*1000/float64(b.N), "ms/read")
			b.ReportMetric(float64(ours)/float64(theirs), "ratio")
		})
	}
}
