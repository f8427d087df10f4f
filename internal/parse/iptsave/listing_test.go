package iptsave

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/netfilter"
)

// TestListings: what iptables -L prints of a rule means what iptables-save does, but for interfaces without -v, and for what
// is told here.
func TestListings(t *testing.T) {
	for _, variant := range []string{"nft", "legacy6"} {
		saved, _ := Parse(readDump(t, variant+".save"), Options{Sets: testSets(t)})
		for _, how := range []string{"L", "Ln", "Lv", "Lnv", "M", "Mn", "Mv", "Mnv", "nat.L", "mangle.L"} {
			name := variant + "." + how
			table := "filter"
			if before, _, ok := strings.Cut(how, "."); ok {
				table = before
			}
			want := tableOf(saved, table)
			listed, problems := Parse(readDump(t, name), Options{Family: want.Family, Dialect: want.Dialect, Table: table, Sets: testSets(t)})
			if len(listed) != 1 || len(listed[0].Chains) != len(want.Chains) {
				t.Fatalf("%s: %d tables, %v", name, len(listed), problems)
			}
			same := 0
			for _, c := range want.Chains {
				same += compareListed(t, name, c, listed[0].Chain(c.Name))
			}
			if how == "Lnv" && same < map[string]int{"nft": 52, "legacy6": 9}[variant] {
				t.Errorf("%s: %d rules are the same", name, same)
			}
		}
	}
}

func tablesOf(t ...*netfilter.Table) []*netfilter.Table { return t }

func tableOf(tables []*netfilter.Table, name string) *netfilter.Table {
	for _, t := range tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// silent are rules that iptables lists without the match that they have, in one variant or both.
var silent = []string{"-m eui64", "--icmp-type any", "! --quota"}

// compareListed wants each rule to be the same, or in doubt.
func compareListed(t *testing.T, name string, saved, listed *netfilter.Chain) (same int) {
	t.Helper()
	if listed == nil || len(saved.Rules) != len(listed.Rules) {
		t.Fatalf("%s: chain %s: %+v", name, saved.Name, listed)
	}
	for i, want := range saved.Rules {
		got := listed.Rules[i]
		switch {
		case alike(want, got):
			same++
		case inDoubt(got) || slices.ContainsFunc(silent, func(s string) bool { return strings.Contains(want.Text, s) }):
		default:
			t.Errorf("%s\n  saved  %s\n  listed %s\n  %+v\n  %+v", name, want.Text, got.Text, want, got)
		}
	}
	return same
}

// alike tells whether two rules mean the same. Of stateful matches the texts differ.
func alike(a, b *netfilter.Rule) bool {
	if a.Comment != b.Comment || len(a.Matches) != len(b.Matches) || !reflect.DeepEqual(a.Actions, b.Actions) {
		return false
	}
	left := slices.Clone(b.Matches)
	for _, m := range a.Matches {
		at := slices.IndexFunc(left, func(n match) bool { return reflect.DeepEqual(withoutText(m), withoutText(n)) })
		if at < 0 {
			return false
		}
		left = slices.Delete(left, at, at+1)
	}
	return true
}

func withoutText(m match) match {
	if s, ok := m.(netfilter.Stateful); ok {
		s.Text = ""
		return s
	}
	return m
}

// inDoubt tells whether something of a rule isn't understood, or all that it does is nothing that a verdict depends on.
func inDoubt(r *netfilter.Rule) bool {
	return isOpaque(r) || slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool { _, ok := a.(netfilter.Note); return ok })
}

// TestListingsByHand: listings of old versions, and what people paste.
func TestListingsByHand(t *testing.T) {
	const v6 = "Chain INPUT (policy DROP)\ntarget     prot opt source               destination         \n" +
		"ACCEPT     all      anywhere             anywhere            state RELATED,ESTABLISHED \n" +
		"           tcp      anywhere             anywhere            tcp dpt:ssh \n"
	tables, problems := Parse("$ ip6tables -L\n"+v6, Options{Family: netfilter.IPv6})
	rules := tables[0].Chains[0].Rules
	if len(rules) != 2 || tables[0].Chains[0].Base.Policy != netfilter.Drop || len(problems) != 2 {
		t.Fatalf("%+v %v", tables[0].Chains[0], problems)
	}
	const lost = "-m listing --lost interfaces"
	for i, want := range []string{lost + " -m state --state RELATED,ESTABLISHED -j ACCEPT", lost + " -p tcp -m tcp --dport ssh"} {
		if rules[i].Text != want {
			t.Errorf("%q, want %q", rules[i].Text, want)
		}
	}
	checkMatches(t, rules[1], []match{netfilter.Opaque{Text: lost}, tcp, nums(dport, false, 22, 22)}, "listed")

	const nat = "Chain PREROUTING (policy ACCEPT 12 packets, 720 bytes)\n pkts bytes target     prot opt in     out     source               destination         \n" +
		" 100K   60M DOCKER     all  --  *      *       0.0.0.0/0            0.0.0.0/0            ADDRTYPE match dst-type LOCAL\n\n" +
		"Chain DOCKER (2 references)\n pkts bytes target     prot opt in     out     source               destination         \n" +
		"    3   180 DNAT       tcp  --  !docker0 *       0.0.0.0/0            0.0.0.0/0            tcp dpt:8080 /* two\nlines */ to:172.17.0.2:80\n"
	tables, problems = Parse(nat, Options{})
	if tableOf(tables, "nat") == nil || len(problems) != 2 {
		t.Fatalf("%v %v", tables, problems)
	}
	chains := tableOf(tables, "nat").Chains
	if r := chains[0].Rules[0]; r.Count != nil || r.Text != "-m addrtype --dst-type LOCAL -j DOCKER" || chains[0].Count.Packets != 12 {
		t.Errorf("%+v", r)
	}
	if r := chains[1].Rules[0]; r.Text != "! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80" ||
		r.Comment != "two\nlines" || *r.Count != (netfilter.Count{Packets: 3, Bytes: 180}) {
		t.Errorf("%+v", r)
	}
}
