package compile_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/compile"
	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// TestObservedDeniesNothing leads random packets through the rules of observed policies. All come through, and each that the
// policy denies is counted by its line, and logged as one that would be denied.
func TestObservedDeniesNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	denied := 0
	for i := range uint64(300) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed+i, 1)), inv: testHost()}
		p := g.policy()
		rs, list := compile.Compile(p, g.inv, compile.Options{LogGroup: 86, Observe: true})
		if list.HasErrors() {
			t.Fatal(list)
		}
		if kinds := verdicts(&rs.Tables[0]); slices.ContainsFunc(kinds, denies) {
			t.Fatalf("seed %d: the rules have verdicts %v", seed+i, kinds)
		}
		byGate := judgedAtTheGate(p)
		for range 200 {
			pk := g.packet()
			d := eval.Evaluate(byGate, g.inv, pk)
			if d.Verb != policy.Allow {
				denied++
			}
			if msg := observed(&rs.Tables[0], p, g.inv, pk, d); msg != "" {
				t.Fatalf("seed %d: %s\n%s", seed+i, msg, describe(p, d.Section))
			}
		}
	}
	if denied < 10_000 {
		t.Errorf("of 60,000 packets %d are denied: that proves little", denied)
	}
}

// judgedAtTheGate is a policy of which nothing is judged in front of connection tracking, and that decides alike.
func judgedAtTheGate(p *policy.Policy) *policy.Policy {
	other := *p
	const unused = 254 // a protocol that no packet here is of
	first := policy.Rule{Verb: policy.Allow, What: []policy.Traffic{{Proto: unused}}}
	other.Inbound = append([]policy.Rule{first}, p.Inbound...)
	return &other
}

func denies(k ruleset.Kind) bool {
	return k == ruleset.Drop || k == ruleset.TCPReset || k == ruleset.Unreachable
}

// verdicts are all verdicts in a table.
func verdicts(table *ruleset.Table) (all []ruleset.Kind) {
	for _, ch := range table.Chains {
		for _, r := range ch.Rules {
			if r.Lookup == nil {
				all = append(all, r.Verdict.Kind)
			}
		}
	}
	for _, m := range table.Maps {
		for _, e := range m.Elements {
			all = append(all, e.Verdict.Kind)
		}
	}
	return all
}

// observed says what is wrong about what became of a packet, "" for nothing.
func observed(table *ruleset.Table, p *policy.Policy, inv *inventory.Inventory, pk packet.Packet, want eval.Decision) string {
	got, err := walk(table, inv, pk)
	if err != nil {
		return err.Error()
	}
	var lines []string
	switch {
	case want.Verb != policy.Allow && want.Origin == "":
		lines = []string{ruleset.Always}
	case want.Origin != "" && !unrestricted(p, want.Section):
		lines = []string{want.Origin}
	}
	// What is malformed, and dialled to a container's own address, would be denied by the one or the other.
	if got.Kind != ruleset.Accept || !slices.Equal(slices.Compact(got.Lines), lines) {
		return fmt.Sprintf("packet %+v\nevaluated: %s by %v (%s)\nwalked: %s %v by %v", pk, want.Verb, lines, want.Why, got.Kind, got.Lines, got.Path)
	}
	told := slices.ContainsFunc(got.Logs, func(l string) bool { return strings.HasPrefix(l, "quaywall would ") })
	if denied := want.Verb != policy.Allow; told && !denied || denied && !told && !p.Log.IsZero() {
		return fmt.Sprintf("packet %+v is logged by %q, and the policy says %s", pk, got.Logs, want.Verb)
	}
	return ""
}

// Each way of denying has its own line and its own word; what is not observed is said.
func TestObserved(t *testing.T) {
	t.Parallel()
	const text = `version: 1
sets: {banned: [203.0.113.66]}
inbound:
  - deny: any
    from: banned
  - deny: 81
    log: true
  - reject: 82
  - reject: 83
    log: true
  - allow: 84
    limit: 10/minute
  - allow: 22
egress:
  - reject: 25
outbound:
  - deny: 25
`
	p, list := policy.Parse("policy.yaml", []byte(text))
	if list.HasErrors() {
		t.Fatal(list)
	}
	p.Raw.NFT = policy.RawFile{Pos: p.Inbound[0].Pos, Path: "/raw.nft", Text: "add rule"}
	inv := testHost()
	cut := compile.Cut{ID: "0123abcd", Flows: []ruleset.Flow{{Client: netip.MustParseAddr("203.0.113.9"), Proto: policy.TCP,
		Server: netip.MustParseAddrPort("192.0.2.1:22")}}}
	rs, list := compile.Compile(p, inv, compile.Options{LogGroup: 86, Observe: true, Cut: cut})
	if rs.Raw.NFT != "" || len(list) != 1 || !strings.Contains(list[0].Message, "raw.nft") {
		t.Errorf("of hand-written rules it makes %q, and says %v", rs.Raw.NFT, list)
	}
	if kinds := verdicts(&rs.Tables[0]); slices.ContainsFunc(kinds, denies) {
		t.Errorf("the rules have verdicts %v", kinds)
	}
	for _, c := range []struct {
		packet string
		flags  uint8
		lines  string
		logs   string
	}{
		{"tcp 203.0.113.66:9 -> 192.0.2.1:22 in eth0", packet.SYN, "policy.yaml:4", "quaywall would deny"},
		{"tcp 203.0.113.9:9 -> 192.0.2.1:81 in eth0", packet.SYN, "policy.yaml:6", "quaywall would deny policy.yaml:6"},
		{"tcp 203.0.113.9:9 -> 192.0.2.1:82 in eth0", packet.SYN, "policy.yaml:8", "quaywall would deny"},
		{"tcp 203.0.113.9:9 -> 192.0.2.1:83 in eth0", packet.SYN, "policy.yaml:9", "quaywall would reject policy.yaml:9"},
		{"tcp 203.0.113.9:9 -> 192.0.2.1:84 in eth0", packet.SYN, "policy.yaml:11 over the limit of policy.yaml:11", "quaywall would deny"},
		{"tcp 203.0.113.9:9 -> 192.0.2.1:22 in eth0", packet.SYN, "policy.yaml:13", ""},
		{"tcp [2001:db8::9]:9 -> [2001:db8::1]:99 in eth0", packet.SYN, "default", "quaywall would deny"},
		{"tcp 203.0.113.9:9 -> 192.0.2.1:22 in eth0", packet.SYN | packet.FIN, "always", "quaywall would deny"},
		{"tcp 203.0.113.9:9 -> 127.0.0.1:22 in eth0", packet.SYN, "always", "quaywall would deny"},
		{"tcp 203.0.113.9:9 -> 172.17.0.2:22 in eth0", packet.SYN, "always", "quaywall would deny"},
		{"tcp 172.17.0.2:9 -> 203.0.113.9:25 in docker0", packet.SYN, "policy.yaml:15", "quaywall would deny"},
		{"tcp 192.0.2.1:9 -> 203.0.113.9:25 from host", packet.SYN, "policy.yaml:17", "quaywall would deny"},
	} {
		q, err := packet.Parse(c.packet)
		if err != nil {
			t.Fatal(err)
		}
		pk := q.Packet
		if pk.Flags = c.flags; pk.In == "" {
			pk.Out = "eth0"
		}
		got, err := walkOver(&rs.Tables[0], inv, pk, true)
		if err != nil || got.Kind != ruleset.Accept || strings.Join(got.Lines, " ") != c.lines || strings.Join(got.Logs, ", ") != c.logs {
			t.Errorf("%s: %s, counted by %q, logged by %q, %v", c.packet, got.Kind, got.Lines, got.Logs, err)
		}
	}
}
