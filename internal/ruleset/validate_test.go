package ruleset

import (
	"fmt"
	"strings"
	"testing"

	"quaywall/internal/netset"
)

// sound is a table in which everything leads somewhere.
func sound() Table {
	return Table{
		Name: "quaywall",
		Chains: []Chain{
			{Name: "gate", Base: &Base{Prerouting, -149}, Rules: []Rule{
				{Matches: []Match{AddrMatch{Field: Src, Family: IPv6, Set: "six"}, IfaceMatch{Field: In, Set: "nics"}}, Verdict: Verdict{Drop, ""}},
				{Matches: []Match{ProtoMatch{Proto: 6}}, Lookup: &Lookup{DstPort, "ports"}},
				{Lookup: &Lookup{Src, "addrs"}},
				{Verdict: Verdict{Goto, "last"}},
			}},
			{Name: "web", Rules: []Rule{{Verdict: Verdict{Continue, ""}}, {Verdict: Verdict{Jump, "last"}}}},
			{Name: "last", Rules: []Rule{{Verdict: Verdict{Accept, ""}}}},
		},
		Sets: []Set{{Name: "six", Key: Addr6}, {Name: "nics", Key: Iface}},
		Maps: []Map{
			{Name: "ports", Key: Port, Elements: []Element{
				{Ports: netset.Ports{First: 1, Last: 2}, Verdict: Verdict{Goto, "web"}}, {Ports: netset.Ports{First: 3, Last: 3}},
			}},
			{Name: "addrs", Key: Addr4, Elements: []Element{{Addrs: ipRange("192.0.2.1-192.0.2.9"), Verdict: Verdict{Accept, ""}}}},
		},
	}
}

func TestValidate(t *testing.T) {
	cases := []struct {
		breaks func(t *Table)
		want   string
	}{
		{func(t *Table) {}, ""},
		{func(t *Table) { t.Chains[0].Rules[3].Verdict.Chain = "nowhere" }, "chain gate, rule 4: there is no chain nowhere"},
		{func(t *Table) { t.Chains[1].Rules[1].Verdict.Chain = "gate" }, "chain web, rule 2: leads to the base chain gate"},
		{func(t *Table) { t.Chains[2].Rules[0].Verdict = Verdict{Goto, "web"} }, "leads back to itself"},
		{func(t *Table) { t.Chains[0].Rules[1].Lookup.Map = "m" }, "chain gate, rule 2: there is no map m"},
		{func(t *Table) { t.Chains[0].Rules[1].Lookup.By = Src }, "chain gate, rule 2: map ports holds something else"},
		{func(t *Table) { t.Chains[0].Rules[1].Matches = nil }, "chain gate, rule 2: looks up ports of no protocol"},
		{func(t *Table) { t.Chains[0].Rules[1].Verdict = Verdict{Accept, ""} }, "chain gate, rule 2: a look-up and a verdict"},
		{func(t *Table) { t.Chains[0].Rules[3].Matches = []Match{PortMatch{Field: DstPort}} }, "chain gate, rule 4: ports of no protocol"},
		{func(t *Table) { t.Sets = t.Sets[1:] }, "chain gate, rule 1: there is no set six"},
		{func(t *Table) { t.Sets[0].Key = Addr4 }, "chain gate, rule 1: set six holds something else"},
		{func(t *Table) { t.Sets[1].Name = "" }, "a set has no name"},
		{func(t *Table) { t.Sets[1].Name = "web" }, "the name web is there twice"},
		{func(t *Table) { t.Maps[1].Name = "twentycharactersname" }, "the name of map twentycharactersname is longer than 19 bytes"},
		{func(t *Table) { t.Maps[0].Elements[0].Verdict.Chain = "x" }, "map ports, element 1: there is no chain x"},
		{func(t *Table) { t.Maps[0].Elements[1].Verdict.Kind = TCPReset }, "map ports, element 2: reject with tcp reset can't stand in a map"},
		{func(t *Table) { t.Maps[0].Elements[1].Ports.First = 2 }, "map ports, element 2: overlaps the one before"},
		{func(t *Table) { t.Maps[0].Elements[1].Ports.First = 9 }, "map ports, element 2: not a valid interval"},
		{func(t *Table) { t.Chains[0].Base.Hook = Output }, "chain gate, rule 1: the interface that a packet comes in by isn't known in output"},
		{func(t *Table) {
			t.Chains[2].Rules[0].Matches = []Match{CtStateMatch{States: StateNew}}
			t.Chains[0].Base.Priority = -300
		}, "chain last, rule 1: a packet's connection isn't known in prerouting at priority -300"},
		{func(t *Table) {
			t.Chains[2].Rules[0].Matches = []Match{DNATMatch{}}
			t.Chains[0].Base.Priority = -200
		}, "a packet's connection isn't known in prerouting at priority -200"},
		{func(t *Table) { t.Chains[1].Rules[0].Matches = []Match{IfaceMatch{Field: Out}} }, "chain web, rule 1: the interface that a packet leaves by isn't known in prerouting"},
		{func(t *Table) { t.Chains[2].Rules[0].Matches = []Match{SocketMatch{}}; t.Chains[0].Base.Hook = Forward }, "chain last, rule 1: a packet's socket isn't known in forward"},
		{func(t *Table) { t.Maps[1].Key = Addr6 }, "map addrs, element 1: not a valid interval"},
	}
	for _, c := range cases {
		table := sound()
		c.breaks(&table)
		err := (&Ruleset{Tables: []Table{table}}).Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), "table quaywall: ") || !strings.Contains(err.Error(), c.want)):
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

func TestDepth(t *testing.T) {
	for depth, ok := range map[int]bool{MaxDepth: true, MaxDepth + 1: false} {
		table := Table{Name: "t", Chains: []Chain{{Name: "c1", Base: &Base{}}}}
		for i := 2; i <= depth; i++ {
			name := fmt.Sprintf("c%d", i)
			table.Chains[i-2].Rules = []Rule{{Verdict: Verdict{Goto, name}}}
			table.Chains = append(table.Chains, Chain{Name: name})
		}
		if err := (&Ruleset{Tables: []Table{table}}).Validate(); (err == nil) != ok {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

func TestLongestPath(t *testing.T) {
	table := sound()
	// gate's two rules, the jump from web, last; the goto in gate is shorter.
	if got := table.LongestPath(); got != 5 {
		t.Errorf("%d rules, want 5", got)
	}
	table.Chains[1].Rules = append(table.Chains[1].Rules, Rule{}) // met after the jump came back
	if got := table.LongestPath(); got != 6 {
		t.Errorf("%d rules, want 6", got)
	}
}

func TestPrune(t *testing.T) {
	table := sound()
	table.Chains = append(table.Chains, Chain{Name: "stray", Rules: []Rule{{Lookup: &Lookup{Src, "lost"}}, {Verdict: Verdict{Goto, "last"}}}})
	table.Sets = append(table.Sets, Set{Name: "unused"})
	table.Maps = append(table.Maps, Map{Name: "lost"})
	table.Prune()
	if len(table.Chains) != 3 || len(table.Sets) != 2 || len(table.Maps) != 2 {
		t.Errorf("left over: %+v", table)
	}
}
