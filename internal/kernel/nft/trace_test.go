package nft

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"quaywall/internal/packet"
	"quaywall/internal/rate"
	"quaywall/internal/testkit/netns"
)

func wantedTrace(t *testing.T, filters ...string) TraceWanted {
	t.Helper()
	w := TraceWanted{Rate: rate.Rate{Count: 10, Per: time.Second, Burst: 10}, Time: time.Minute}
	for _, text := range filters {
		f, err := packet.ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		w.Filters = append(w.Filters, f)
	}
	return w
}

func TestTraceFilters(t *testing.T) {
	ns := netns.New(t)
	for _, test := range []struct {
		filter       string
		in, out      bool
		words, lacks []string
	}{
		{"", true, true, []string{"meta nfproto ipv4 goto mark", "meta nfproto ipv6 goto mark", "priority -399"}, nil},
		{"tcp 192.0.2.0/24 -> :80 in eth0", true, false, []string{`iifname "eth0"`, "ip saddr 192.0.2.0/24", "tcp dport 80"}, []string{"ipv6 goto", "ip6 "}},
		{"udp :53 -> 2001:db8::1 from host", false, true, []string{"ip6 daddr 2001:db8::1", "udp sport 53"}, []string{"ip daddr"}},
		{"icmp6/1/4 state invalid", true, true, []string{"icmpv6 type destination-unreachable", "icmpv6 code", "ct state invalid", "priority -199"}, []string{"ipv4 goto"}},
	} {
		ns.Do(t, func() {
			tracing, err := Trace(wantedTrace(t, test.filter))
			if err != nil {
				t.Fatalf("%q: %v", test.filter, err)
			}
			text := ns.Output(t, "nft", "list", "table", "inet", TraceTable)
			in, out, _ := strings.Cut(text, "chain output")
			for i, x := range []struct {
				rules string
				has   bool
			}{{in, test.in}, {out, test.out}} {
				if strings.Contains(x.rules, "goto mark") != x.has {
					t.Errorf("%q: rules at hook %d: %v, want %v:\n%s", test.filter, i, !x.has, x.has, text)
				}
			}
			for _, word := range append(test.words, "flags owner", "limit rate 10/second burst 10 packets", "timeout 1m") {
				if !strings.Contains(text, word) {
					t.Errorf("%q lacks %q:\n%s", test.filter, word, text)
				}
			}
			for _, word := range test.lacks {
				if strings.Contains(strings.ReplaceAll(text, "elements = { ipv4", ""), word) {
					t.Errorf("%q has %q:\n%s", test.filter, word, text)
				}
			}
			if err := tracing.Stop(); err != nil {
				t.Error(err)
			}
			if left := ns.Output(t, "nft", "list", "ruleset"); left != "" {
				t.Errorf("%q leaves\n%s", test.filter, left)
			}
		})
	}
}

// TestTraceLeftOver: a table that a killed trace has left (before Linux 5.12) is taken out by the next, and by Remove; that of one
// which runs is nobody's.
func TestTraceLeftOver(t *testing.T) {
	ns := netns.New(t)
	leave := func() { ns.Output(t, "nft", "add table inet "+TraceTable+"; add chain inet "+TraceTable+" old") }
	ns.Do(t, func() {
		leave()
		tracing, err := Trace(wantedTrace(t, "tcp"))
		if err != nil {
			t.Fatal(err)
		}
		if text := ns.Output(t, "nft", "list", "ruleset"); strings.Contains(text, "chain old") || !strings.Contains(text, "flags owner") {
			t.Errorf("behind what was left, the rules are\n%s", text)
		}
		if _, err := Trace(wantedTrace(t, "tcp")); !errors.Is(err, ErrTracing) {
			t.Errorf("a second trace: %v", err)
		}
		if err := New().Remove(context.Background()); err != nil {
			t.Errorf("removing beside a trace: %v", err)
		}
		if text := ns.Output(t, "nft", "list", "ruleset"); !strings.Contains(text, TraceTable) {
			t.Error("Remove took out the table of a trace that runs")
		}
		if err := tracing.Stop(); err != nil {
			t.Error(err)
		}
		leave()
		if err := New().Remove(context.Background()); err != nil {
			t.Error(err)
		}
		if left := ns.Output(t, "nft", "list", "ruleset"); left != "" {
			t.Errorf("Remove leaves\n%s", left)
		}
	})
}

func TestRulePlaces(t *testing.T) {
	ns := netns.New(t)
	ns.Feed(t, "*filter\n:A - [0:0]\n-A INPUT -p tcp -j A\n-A INPUT -j A\n-A A -j RETURN\nCOMMIT\n", "iptables-nft-restore")
	ns.Do(t, func() {
		places, err := RulePlaces()
		if err != nil {
			t.Fatal(err)
		}
		got := map[RulePlace]int{}
		for _, p := range places {
			got[p]++
		}
		if len(places) != 3 || got[RulePlace{"INPUT", 1}] != 1 || got[RulePlace{"INPUT", 2}] != 1 || got[RulePlace{"A", 1}] != 1 {
			t.Errorf("%v", places)
		}
	})
}
