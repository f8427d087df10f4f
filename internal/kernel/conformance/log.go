package conformance

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
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

// Messages and attributes of nfnetlink_log.
const (
	logMessageConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1
	logCommand       = 1 // NFULA_CFG_CMD
	logBind          = 1 // NFULNL_CFG_CMD_BIND
	logThreshold     = 5 // NFULA_CFG_QTHRESH
	logPrefix        = 10
)

// listenToLog gives a function that waits for the next packet of a group and gives its prefix, "" for none.
func listenToLog(t *testing.T, ns *netns.NS, group uint16) func() string {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, attrs := range [][]netlink.Attribute{
		{{Type: logCommand, Data: []byte{logBind}}},
		{{Type: logThreshold, Data: []byte{0, 0, 0, 1}}}, // each packet at once
	} {
		data, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			t.Fatal(err)
		}
		header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
		m := netlink.Message{Header: netlink.Header{Type: logMessageConfig, Flags: netlink.Request | netlink.Acknowledge}, Data: append(header, data...)}
		if _, err := conn.Execute(m); err != nil {
			t.Fatal("listening to the log: ", err)
		}
	}
	var waiting []netlink.Message
	return func() string {
		if len(waiting) == 0 {
			if err := conn.SetReadDeadline(time.Now().Add(20 * settle)); err != nil {
				t.Fatal(err)
			}
			if waiting, err = conn.Receive(); err != nil || len(waiting) == 0 {
				return ""
			}
		}
		m := waiting[0]
		waiting = waiting[1:]
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range attrs {
			if a.Type == logPrefix {
				return string(a.Data[:len(a.Data)-1])
			}
		}
		return "no prefix"
	}
}
