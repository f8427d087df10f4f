package conformance

import (
	"errors"
	"os"
	"testing"
	"time"

	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/nflog"
)

// testLog: packets that a rule logs come out of their NFLOG group with their prefix, and go on.
func testLog(t *testing.T, s Subject) {
	w := newWorld(t)
	logs := listenToLog(t, w.host, 86)
	rule := ruleset.Rule{
		Matches: one(ruleset.ProtoMatch{Proto: 17}, ruleset.PortMatch{Field: ruleset.DstPort, Ports: ports(7, 7)}),
		Log:     &ruleset.Log{Group: 86, Prefix: "quaywall deny policy.yaml:7"}, Counter: true,
		Verdict: ruleset.Verdict{Kind: ruleset.Continue}, Origin: ruleset.Origin{Line: "log:1"},
	}
	after := ruleset.Rule{Counter: true, Verdict: ruleset.Verdict{Kind: ruleset.Drop}, Origin: ruleset.Origin{Line: "log:2"}}
	s.commit(t, w.host, &ruleset.Ruleset{Tables: []ruleset.Table{{Name: "quaywall", Chains: []ruleset.Chain{{
		Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149},
		Rules: append(noise[:len(noise):len(noise)], rule, after),
	}}}}})
	for i, p := range both(udp(7), udp(8)) {
		p.send(t, w, 1, i)
	}
	s.expect(t, w.host, map[string]uint64{"log:1": 2, "log:2": 4})
	for range 2 {
		if got := logs(); got != rule.Log.Prefix {
			t.Errorf("logged with the prefix %q, want %q", got, rule.Log.Prefix)
		}
	}
	if got := logs(); got != "" {
		t.Errorf("logged too much: %q", got)
	}
}

// listenToLog gives a function that waits for the next packet of a group and gives its prefix, "" for none.
func listenToLog(t *testing.T, ns *netns.NS, group uint16) func() string {
	t.Helper()
	var reader *nflog.Reader
	var err error
	ns.Do(t, func() { reader, err = nflog.Open(group) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	return func() string {
		logged, err := reader.Read(time.Now().Add(20 * settle))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ""
		case err != nil || len(logged) != 1:
			t.Fatalf("%d packets at a time, %v", len(logged), err)
		}
		return logged[0].Prefix
	}
}
