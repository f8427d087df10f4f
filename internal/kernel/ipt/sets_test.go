package ipt

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
)

// noneLeft demands that there are just the sets of a listing.
func noneLeft(t *testing.T, want *kernel.Listing) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want.Sets)), slices.Sorted(slices.Values(sets(t)))); diff != "" {
		t.Errorf("sets, planned and in the kernel:\n%s", diff)
	}
}

func ipset(t *testing.T, args ...string) {
	t.Helper()
	if out, err := sysexec.Run(context.Background(), sysexec.Command{Path: "ipset", Args: args}); err != nil {
		t.Fatalf("ipset %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func iptables(t *testing.T, b *Backend, args ...string) {
	t.Helper()
	args = append([]string{"-w", "10", "-t", "mangle"}, args...)
	if out, err := sysexec.Run(context.Background(), sysexec.Command{Path: "iptables-" + string(b.variant), Args: args}); err != nil {
		t.Fatalf("iptables %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// oneRule is a gate with one rule that drops, and the sets it may name.
func oneRule(m ruleset.Match, sets ...ruleset.Set) *ruleset.Ruleset {
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name: "quaywall", Sets: sets,
		Chains: []ruleset.Chain{{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: []ruleset.Rule{
			{Matches: []ruleset.Match{m}, Counter: true, Origin: ruleset.Origin{Line: "p:1"}},
		}}},
	}}}
}

func fromSet(name string) ruleset.Match {
	return ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: name}
}

// Trap 30: a set of one name changes in size and type between two commits, up and down.
func TestSetThatChanges(t *testing.T) {
	addrs := func(n int) *ruleset.Ruleset {
		var list netset.Builder
		for i := range n {
			list.AddAddr(netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i << 2)}))
		}
		set, _ := list.Set()
		return oneRule(fromSet("office"), ruleset.Set{Name: "office", Key: ruleset.Addr4, Addrs: set})
	}
	verdicts := oneRule(ruleset.FamilyMatch{Family: ruleset.IPv4})
	verdicts.Tables[0].Chains[0].Rules[0].Lookup = &ruleset.Lookup{By: ruleset.Src, Map: "office"}
	verdicts.Tables[0].Maps = []ruleset.Map{{Name: "office", Key: ruleset.Addr4, Elements: []ruleset.Element{
		{Addrs: netset.MustParse("10.0.0.4").Ranges()[0], Origin: ruleset.Origin{Line: "p:2"}}}}}
	steps := []*ruleset.Ruleset{
		addrs(1), addrs(30000), addrs(2), addrs(0),
		oneRule(ruleset.IfaceMatch{Field: ruleset.In, Set: "office"}, ruleset.Set{Name: "office", Key: ruleset.Iface, Ifaces: []string{"eth0"}}),
		oneRule(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Set: "office"},
			ruleset.Set{Name: "office", Key: ruleset.Addr6, Addrs: netset.MustParse("2001:db8::/32")}),
		verdicts, addrs(1),
	}
	each(t, func(t *testing.T, b *Backend) {
		for _, rs := range steps {
			want := planned(t, b, rs)
			commit(t, b, rs)
			inForce(t, b, want)
			noneLeft(t, want)
		}
	})
}

// Trap 30: names over 31 characters, and two that only differ behind that.
func TestLongSetNames(t *testing.T) {
	long := strings.Repeat("abcdefghij", 5)
	rs := oneRule(fromSet(long+"1"),
		ruleset.Set{Name: long + "1", Key: ruleset.Addr4, Addrs: netset.MustParse("10.0.0.0/8")},
		ruleset.Set{Name: long + "2", Key: ruleset.Addr4, Addrs: netset.MustParse("11.0.0.0/8")})
	gate := &rs.Tables[0].Chains[0]
	gate.Rules = append(gate.Rules, ruleset.Rule{Matches: []ruleset.Match{fromSet(long + "2")}})
	each(t, func(t *testing.T, b *Backend) {
		want := planned(t, b, rs)
		commit(t, b, rs)
		inForce(t, b, want)
		if len(want.Sets) != 2 {
			t.Errorf("%v, want two sets", want.Sets)
		}
		for name := range want.Sets {
			if len(name) > 31 {
				t.Errorf("%s has %d characters", name, len(name))
			}
		}
	})
}

// Trap 30: somebody has made a set of another type, family or with timeouts under the name that a set of quaywall's will have.
func TestSetThatSomebodyMade(t *testing.T) {
	rs := oneRule(fromSet("office"), ruleset.Set{Name: "office", Key: ruleset.Addr4, Addrs: netset.MustParse("10.0.0.0/8 192.0.2.1")})
	for name, make := range map[string][][]string{
		"other type":   {{"create", "NAME", "hash:ip"}, {"add", "NAME", "192.0.2.1"}},
		"other family": {{"create", "NAME", "hash:net", "family", "inet6"}, {"add", "NAME", "2001:db8::/32"}},
		"timeouts":     {{"create", "NAME", "hash:net", "timeout", "600"}, {"add", "NAME", "10.0.0.0/8"}, {"add", "NAME", "192.0.2.1"}},
		"counters":     {{"create", "NAME", "hash:net", "counters"}, {"add", "NAME", "10.0.0.0/8"}, {"add", "NAME", "192.0.2.1"}},
		"no entries":   {{"create", "NAME", "hash:net", "timeout", "600"}},
		"a list":       {{"create", "NAME", "list:set"}},
		"no room":      {{"create", "NAME", "hash:net", "maxelem", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, b *Backend) {
				want := planned(t, b, rs)
				taken := slices.Collect(maps.Keys(want.Sets))[0]
				for _, args := range make {
					for i, a := range args {
						args = slices.Clone(args)
						args[i] = strings.ReplaceAll(a, "NAME", taken)
					}
					ipset(t, args...)
				}
				commit(t, b, rs)
				inForce(t, b, want)
				noneLeft(t, want)
			})
		})
	}
}

// A set of another type that somebody's rule uses can't be taken away, nor can its name be had: that is said, and nothing
// has changed.
func TestSetThatSomebodyUses(t *testing.T) {
	rs := oneRule(fromSet("office"), ruleset.Set{Name: "office", Key: ruleset.Addr4, Addrs: netset.MustParse("10.0.0.0/8")})
	each(t, func(t *testing.T, b *Backend) {
		taken := slices.Collect(maps.Keys(planned(t, b, rs).Sets))[0]
		commit(t, b, setPolicy(3))
		ipset(t, "create", taken, "hash:ip")
		iptables(t, b, "-N", "MINE")
		iptables(t, b, "-A", "MINE", "-m", "set", "--match-set", taken, "src", "-j", "DROP")
		before, setsBefore := read(t, b), sets(t)
		err := b.Commit(context.Background(), rs)
		if err == nil || !strings.Contains(err.Error(), taken) || !strings.Contains(err.Error(), "hash:ip") {
			t.Errorf("got %v", err)
		}
		unchanged(t, b, before, setsBefore)
		iptables(t, b, "-F", "MINE")
		time.Sleep(100 * time.Millisecond)
		commit(t, b, rs)
	})
}

// Trap 30: a set that somebody's rule uses stays, others are not kept waiting for it, and it goes as soon as it can.
func TestSetThatStaysInUse(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		commit(t, b, setPolicy(3))
		old := sets(t)[0]
		iptables(t, b, "-N", "MINE")
		iptables(t, b, "-A", "MINE", "-m", "set", "--match-set", old, "src", "-j", "DROP")
		commit(t, b, setPolicy(10))
		if now := sets(t); len(now) != 2 || !slices.Contains(now, old) {
			t.Errorf("sets %v, want %s and another one", now, old)
		}
		iptables(t, b, "-F", "MINE")
		want := planned(t, b, setPolicy(20))
		commit(t, b, setPolicy(20))
		noneLeft(t, want)
	})
}

// Trap 30: iptables-nft lets go of sets some time after its rules are gone. However often policies change, what is not in
// use any more goes.
func TestSetsGoInTheEnd(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		for n := range 20 {
			rs := setPolicy(5 + n)
			commit(t, b, rs)
			if now := sets(t); len(now) != 1 {
				t.Fatalf("after %d commits there are the sets %v", n+1, now)
			}
		}
		remove(t, b)
		if now := sets(t); len(now) > 0 {
			t.Errorf("after Remove there are the sets %v", now)
		}
	})
}

// What a killed run left, half filled or never used, goes with the next commit and with Remove; sets of others stay.
func TestSetsOfKilledRuns(t *testing.T) {
	const left, unused = render.TempPrefix + "new", "quaywall4-office-01234567"
	others := []string{"quaywall", "quaywall4-office", "office", "QUAYWALL"}
	each(t, func(t *testing.T, b *Backend) {
		for _, name := range others {
			ipset(t, "create", name, "hash:net")
		}
		for round, end := range []func(){func() { commit(t, b, setPolicy(3)) }, func() { remove(t, b) }, func() { commit(t, b, setPolicy(4)) }} {
			ipset(t, "create", left, "hash:net")
			ipset(t, "add", left, "10.0.0.0/8")
			ipset(t, "create", unused, "hash:net")
			end()
			if now := sets(t); slices.Contains(now, left) || slices.Contains(now, unused) {
				t.Errorf("round %d: sets %v", round, now)
			}
			for _, name := range others {
				ipset(t, "list", name)
			}
		}
	})
}

// A name of a set that stands in no rule is no part of what is in force.
func TestUsedSets(t *testing.T) {
	for spec, want := range map[string]string{
		"-m set --match-set quaywall4-a-01234567 src -j DROP":                                                   "[quaywall4-a-01234567]",
		"-m set ! --match-set quaywall4-a-01234567 src -m set --match-set quaywall6-b-01234567 dst,src -j DROP": "[quaywall4-a-01234567 quaywall6-b-01234567]",
		"-m set --match-set office src -j DROP":                                                                 "[]",
		"-j DROP":                                                                                               "[]",
	} {
		if got := fmt.Sprint(slices.Sorted(maps.Keys(usedSets([]string{spec})))); got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
}

// Where one of many sets can't be made, that one is named, and none of the others is left.
func TestOneBadSetOfMany(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		rs := manySets(200)
		var names []string
		for name := range planned(t, b, rs).Sets {
			names = append(names, name)
		}
		slices.Sort(names)
		ipset(t, "create", names[150], "hash:ip")
		ipset(t, "create", "mine", "list:set")
		ipset(t, "add", "mine", names[150])
		err := b.Commit(context.Background(), rs)
		if err == nil || !strings.Contains(err.Error(), names[150]) {
			t.Errorf("got %v, want an error about %s", err, names[150])
		}
		if left := sets(t); !slices.Equal(left, []string{names[150]}) {
			t.Errorf("sets %v are left", left)
		}
		ipset(t, "destroy", "mine")
		want := planned(t, b, rs)
		commit(t, b, rs)
		inForce(t, b, want)
		noneLeft(t, want)
		remove(t, b)
		if left := sets(t); len(left) > 0 {
			t.Errorf("after Remove there are %d sets", len(left))
		}
	})
}

// Sets that get no room for their names are made one by one, and so told apart.
func TestBatchThatFails(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		rs := manySets(100)
		want := planned(t, b, rs)
		ipset(t, "create", tempName(70-maxBatch), "hash:net", "family", "inet6") // somebody else is at it
		conn, err := dialIPSet()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		rules, err := render.Render(rs)
		if err != nil {
			t.Fatal(err)
		}
		var jobs []job
		for i := range rules.Sets {
			jobs = append(jobs, job{&rules.Sets[i], false})
		}
		if left := conn.makeMany(context.Background(), jobs); len(left) != maxBatch {
			t.Errorf("%d sets are left to be made, want %d", len(left), maxBatch)
		}
		commit(t, b, rs)
		inForce(t, b, want)
		noneLeft(t, want)
	})
}

// manySets is a gate of rules that have a set each.
func manySets(n int) *ruleset.Ruleset {
	rs := oneRule(ruleset.FamilyMatch{Family: ruleset.IPv4})
	t := &rs.Tables[0]
	for i := range n {
		name := fmt.Sprint("set", i)
		t.Sets = append(t.Sets, ruleset.Set{Name: name, Key: ruleset.Addr4, Addrs: netset.MustParse(fmt.Sprintf("10.0.%d.0/24 192.0.2.1", i))})
		t.Chains[0].Rules = append(t.Chains[0].Rules, ruleset.Rule{Matches: []ruleset.Match{fromSet(name)}})
	}
	return rs
}
