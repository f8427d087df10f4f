package conformance

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// matchPriority is where the rules of the cases stand.
var matchPriority = map[ruleset.Hook]int{ruleset.Prerouting: -149, ruleset.Forward: -10, ruleset.Output: -149}

// testMatches puts the cases of each hook into one ruleset, told apart by the sources of their packets, sends the packets
// and compares what was counted.
func testMatches(t *testing.T, s Subject) {
	groups := map[ruleset.Hook][]numbered{}
	var alone []numbered
	tried := map[string]bool{}
	for i, build := range cases() {
		c := numbered{build(self(i)), self(i)}
		for _, m := range c.matches {
			tried[reflect.TypeOf(m).Name()] = true
		}
		if c.alone {
			alone = append(alone, c)
		} else {
			groups[c.hook] = append(groups[c.hook], c)
		}
	}
	for _, name := range matchTypes(t) {
		if !tried[name] && name != reflect.TypeFor[ruleset.Opaque]().Name() {
			t.Errorf("the match %s has no case", name)
		}
	}
	for hook, group := range groups {
		t.Run(hook.String(), func(t *testing.T) { runCases(t, s, hook, group) })
	}
	for _, c := range alone {
		t.Run(c.name, func(t *testing.T) { runCases(t, s, c.hook, []numbered{c}) })
	}
}

// matchTypes are the types that implement ruleset.Match, by the source of the package.
func matchTypes(t *testing.T) []string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	path := filepath.Join(filepath.Dir(here), "..", "..", "ruleset", "match.go")
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "match" {
			names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
	if len(names) < 10 {
		t.Fatalf("found the matches %v only", names)
	}
	return names
}

// numbered is a case with the number that its addresses, its chain and its lines have.
type numbered struct {
	matchCase
	me self
}

func (c numbered) line(n int) string { return fmt.Sprintf("case%d:%d", c.me, n) }

// rules count packets that match, then all others. These go on, so that they are answered, where answers can't be taken
// for packets of the case.
func (c numbered) rules() []ruleset.Rule {
	rest := ruleset.Verdict{Kind: ruleset.Accept}
	if c.alone {
		rest.Kind = ruleset.Drop
	}
	return []ruleset.Rule{
		{Matches: c.matches, Counter: true, Verdict: ruleset.Verdict{Kind: ruleset.Drop}, Origin: ruleset.Origin{Line: c.line(1), Note: c.name}},
		{Counter: true, Verdict: rest, Origin: ruleset.Origin{Line: c.line(2)}},
	}
}

// dispatch sends the packets of a case to its chain.
func (c numbered) dispatch() []ruleset.Rule {
	to := ruleset.Verdict{Kind: ruleset.Goto, Chain: fmt.Sprint("case", c.me)}
	from := func(f ruleset.Family, prefix string) ruleset.Rule {
		m := ruleset.AddrMatch{Field: ruleset.Src, Family: f, Addrs: netset.MustParse(prefix)}
		return ruleset.Rule{Matches: []ruleset.Match{m}, Verdict: to}
	}
	return []ruleset.Rule{
		from(ruleset.IPv4, c.me.v4(0).String()+"/24"),
		from(ruleset.IPv6, c.me.v6(0, 0).String()+"/48"),
	}
}

func matchRuleset(hook ruleset.Hook, group []numbered) *ruleset.Ruleset {
	table := ruleset.Table{Name: "quaywall"}
	base := ruleset.Chain{Name: "gate", Base: &ruleset.Base{Hook: hook, Priority: matchPriority[hook]}, Rules: noise}
	for _, c := range group {
		for _, set := range c.sets { // cases may share one
			if !slices.ContainsFunc(table.Sets, func(o ruleset.Set) bool { return o.Name == set.Name }) {
				table.Sets = append(table.Sets, set)
			}
		}
		if c.alone {
			base.Rules = append(base.Rules[:len(base.Rules):len(base.Rules)], c.rules()...)
			continue
		}
		base.Rules = append(base.Rules[:len(base.Rules):len(base.Rules)], c.dispatch()...)
		table.Chains = append(table.Chains, ruleset.Chain{Name: fmt.Sprint("case", c.me), Rules: c.rules()})
	}
	table.Chains = append([]ruleset.Chain{base}, table.Chains...)
	return &ruleset.Ruleset{Tables: []ruleset.Table{table}}
}

func runCases(t *testing.T, s Subject, hook ruleset.Hook, group []numbered) {
	w := newWorld(t)
	prepared := map[uintptr]bool{}
	for _, c := range group {
		if f := reflect.ValueOf(c.prepare).Pointer(); c.prepare != nil && !prepared[f] {
			prepared[f] = true
			c.prepare(t, w)
		}
	}
	s.commit(t, w.host, matchRuleset(hook, group))
	want := map[string]uint64{}
	number := 0
	for _, c := range group {
		for n, probes := range map[int][]probe{1: c.hits, 2: c.misses} {
			want[c.line(n)] += uint64(len(probes))
		}
		for _, p := range append(c.misses[:len(c.misses):len(c.misses)], c.hits...) {
			number++
			p.own = hook == ruleset.Output
			p.send(t, w, c.me, number)
		}
	}
	got := s.countersUntil(t, w.host, want)
	for _, c := range group {
		for n, what := range map[int]string{1: "matched", 2: "did not match"} {
			if line := c.line(n); got[line].Packets != want[line] {
				t.Errorf("%s: %d packets %s, want %d", c.name, got[line].Packets, what, want[line])
			}
		}
	}
}

// countersUntil reads the counters until they are as wanted, or for a while.
func (s Subject) countersUntil(t *testing.T, host *netns.NS, want map[string]uint64) map[string]kernel.PacketCount {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(settle) {
		counters := s.read(t, host).Counters
		if same(counters, want) || time.Now().After(deadline) {
			return counters
		}
	}
}

func same(got map[string]kernel.PacketCount, want map[string]uint64) bool {
	for line, n := range want {
		if got[line].Packets != n {
			return false
		}
	}
	return true
}
