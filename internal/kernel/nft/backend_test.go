package nft

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/kernel/conformance"
	"quaywall/internal/netset"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

func commit(t *testing.T, ns *netns.NS, rs *ruleset.Ruleset) {
	t.Helper()
	ns.Do(t, func() {
		if err := New().Commit(context.Background(), rs); err != nil {
			t.Fatal(err)
		}
	})
}

func read(t *testing.T, ns *netns.NS) *kernel.Listing {
	t.Helper()
	var l *kernel.Listing
	ns.Do(t, func() {
		var err error
		if l, err = New().Read(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	return l
}

func preflight(t *testing.T, rs *ruleset.Ruleset) (l *kernel.Listing, err error) {
	t.Helper()
	netns.Run(t, func() { l, err = New().Preflight(context.Background(), rs) })
	return l, err
}

// The sets that a preflight tries are short; their summaries are those of the whole.
func TestPreflightOfLargeSets(t *testing.T) {
	rs := withSet(5000, 2)
	planned, err := preflight(t, rs)
	if err != nil {
		t.Fatal(err)
	}
	ns := netns.New(t)
	commit(t, ns, rs)
	got := read(t, ns)
	if diff := cmp.Diff(planned, got); diff != "" || got.Sets["big"].Elements != 5000 {
		t.Errorf("%d elements; planned (-), read (+):\n%s", got.Sets["big"].Elements, diff)
	}
}

// The kernel's refusal names the rule and the policy line, and comes with the whole payload.
func TestRefusalNamesTheLine(t *testing.T) {
	rs := conformance.Sample()
	rs.Tables[0].Chains[1].Rules[0].Verdict = ruleset.Verdict{Kind: ruleset.Goto, Chain: "nowhere"}
	netns.Run(t, func() {
		err := New().Commit(context.Background(), rs)
		var refused *kernel.PayloadError
		if !errors.As(err, &refused) {
			t.Fatalf("got %v", err)
		}
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("the cause is %v, want ENOENT", refused.Err)
		}
		want := `add rule inet quaywall web meta nfproto ipv4 ip saddr 198.51.100.0/24 counter goto nowhere comment "policy.yaml:8"`
		if refused.Text() != want {
			t.Errorf("line %d: %s\nwant %s", refused.Line, refused.Text(), want)
		}
		for _, part := range []string{"add table inet quaywall\n", "add set inet quaywall office { type ipv4_addr; flags interval; }\n",
			"add element inet quaywall office { 192.0.2.0, … } # 6 elements\n", "policy.yaml:9"} {
			if !strings.Contains(refused.Payload, part) {
				t.Errorf("no %q in the payload:\n%s", part, refused.Payload)
			}
		}
	})
}

// Every message may be refused; the first one is what counts, and the answers' queue holds them all.
func TestManyRefusals(t *testing.T) {
	rs := withRules(20_000)
	for i := range rs.Tables[0].Chains {
		for j := range rs.Tables[0].Chains[i].Rules {
			rs.Tables[0].Chains[i].Rules[j].Lookup = nil
			rs.Tables[0].Chains[i].Rules[j].Verdict = ruleset.Verdict{Kind: ruleset.Goto, Chain: "nowhere"}
		}
	}
	netns.Run(t, func() {
		err := New().Commit(context.Background(), rs)
		var refused *kernel.PayloadError
		if !errors.As(err, &refused) || !strings.Contains(refused.Text(), "add rule inet quaywall gate iifname @bridges goto nowhere") {
			t.Fatalf("got %v, want the first rule", err)
		}
	})
}

// A limit knows its sources after a change of other rules, and forgets them when its rate changes.
func TestLimitsAreKept(t *testing.T) {
	rules := func(count uint32, line int) *ruleset.Ruleset {
		rs := conformance.Sample()
		limit := ruleset.SourceRateMatch{Family: ruleset.IPv4, Name: "ssh", Rate: rate.Rate{Count: count, Per: time.Hour, Burst: 5}}
		rs.Tables[0].Chains[1].Rules[0].Matches = []ruleset.Match{limit}
		rs.Tables[0].Chains[1].Rules[1].Origin.Line = fmt.Sprintf("policy.yaml:%d", line)
		return rs
	}
	ns := netns.New(t)
	sources := func() bool {
		return strings.Contains(ns.Output(t, "nft", "list", "table", "inet", "quaywall"), "198.51.100.7")
	}
	commit(t, ns, rules(10, 9))
	ns.Output(t, "nft", "add element inet quaywall sources/ssh-ip { 198.51.100.7 }")
	commit(t, ns, rules(10, 99))
	if !sources() {
		t.Error("the source is forgotten after a change of another rule")
	}
	if l := read(t, ns); len(l.Sets) != 3 || !strings.Contains(strings.Join(l.Rules, "\n"), "policy.yaml:99") {
		t.Errorf("the change is not in force, or the limit is listed: %v\n%s", l.Sets, strings.Join(l.Rules, "\n"))
	}
	commit(t, ns, rules(20, 99))
	if sources() {
		t.Error("the source is still known though the rate has changed")
	}
}

// A change beside a set leaves the set and the base chain where they are: their handles stay.
func TestWhatStaysTheSameStays(t *testing.T) {
	ns := netns.New(t)
	handles := func() (kept string) {
		for line := range strings.Lines(ns.Output(t, "nft", "-a", "list", "table", "inet", "quaywall")) {
			for _, name := range []string{"set big ", "set bridges ", "chain gate ", "table inet "} {
				if strings.Contains(line, name) {
					kept += line
				}
			}
		}
		return kept
	}
	commit(t, ns, withSet(100, 2))
	before := handles()
	commit(t, ns, withSet(100, 3))
	if after := handles(); after != before || strings.Count(before, "handle") != 4 {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	commit(t, ns, withSet(101, 3))
	if after := handles(); after == before {
		t.Errorf("another set has the same handle: %s", after)
	}
}

// What nft prints can be loaded by nft again, and is the same then: every form is one that nft knows.
func TestReadableByNFT(t *testing.T) {
	rs := conformance.Sample()
	rs.Tables[0].Sets = append(rs.Tables[0].Sets,
		ruleset.Set{Name: "wild", Key: ruleset.Iface, Ifaces: []string{"br-*", "wg0"}},
		ruleset.Set{Name: "v6", Key: ruleset.Addr6, Addrs: netset.MustParse("2001:db8::/32 ff00::/8 fe80::1-fe80::9")},
		ruleset.Set{Name: "pairs", Key: ruleset.IfaceAddr4, Pairs: []ruleset.IfaceSubnet{{Iface: "docker0", Subnet: netset.MustParse("172.17.0.0/16 10.0.0.1-10.0.0.9")}}})
	for _, m := range everyMatch() {
		rs.Tables[0].Chains[1].Rules = append(rs.Tables[0].Chains[1].Rules, ruleset.Rule{
			Matches: []ruleset.Match{m}, Counter: true, Log: &ruleset.Log{Group: 86, Prefix: "quaywall deny policy.yaml:7"},
			Origin: ruleset.Origin{Line: "policy.yaml:7", Note: "a note with ümlaut"},
		})
	}
	ns, again := netns.New(t), netns.New(t)
	commit(t, ns, rs)
	printed := ns.Output(t, "nft", "list", "table", "inet", "quaywall")
	again.Feed(t, printed, "nft", "-f", "-")
	if got := again.Output(t, "nft", "list", "table", "inet", "quaywall"); got != printed {
		t.Errorf("printed, loaded and printed again:\n%s", cmp.Diff(printed, got))
	}
	for _, part := range []string{
		`comment "policy.yaml:3: the office, everything"`, `22 counter packets 0 bytes 0 comment "policy.yaml:5: administration" : accept`,
		"192.0.2.0/28, 192.0.2.77", "203.0.113.9-203.0.113.17", `"br-*"`, `"docker0" . 172.17.0.0/16`, "ff00::/8",
		"update @sources/ssh-ip6 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 10/minute burst 7 packets }",
		`log prefix "quaywall deny policy.yaml:7" group 86`, "fib daddr type @addrtype/local_broadcast", "socket wildcard 0",
	} {
		if !strings.Contains(printed, part) {
			t.Errorf("nft does not print %q:\n%s", part, printed)
		}
	}
}

// everyMatch is one match of each kind, or several.
func everyMatch() []ruleset.Match {
	minute := rate.Rate{Count: 10, Per: time.Minute, Burst: 7}
	code := uint8(4)
	return []ruleset.Match{
		ruleset.FamilyMatch{Family: ruleset.IPv6},
		ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"eth*"}},
		ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"eth*", "lo"}},
		ruleset.IfaceMatch{Field: ruleset.In, Set: "wild", Not: true},
		ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse("10.0.0.0/8 192.0.2.1-192.0.2.9")},
		ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Set: "v6"},
		ruleset.IfaceAddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "pairs"},
		ruleset.ProtoMatch{Proto: 50},
		ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{3, 11, 12}},
		ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{1}, Code: &code},
		ruleset.TCPFlagsMatch{Mask: 0x12, Value: 2, Not: true},
		ruleset.CtStateMatch{States: ruleset.StateEstablished | ruleset.StateRelated},
		ruleset.DNATMatch{Not: true},
		ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeLocal | ruleset.TypeBroadcast},
		ruleset.SocketMatch{},
		ruleset.RateMatch{Rate: minute},
		ruleset.SourceRateMatch{Family: ruleset.IPv4, Name: "ssh", Rate: minute},
		ruleset.SourceRateMatch{Family: ruleset.IPv6, Name: "ssh", Rate: minute},
	}
}

// A caller that gives up is not kept.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	netns.Run(t, func() {
		if _, err := New().Read(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Read: %v", err)
		}
		if err := New().Commit(ctx, conformance.Sample()); !errors.Is(err, context.Canceled) {
			t.Errorf("Commit: %v", err)
		}
	})
}
