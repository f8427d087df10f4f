package scenario

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/lab"
)

// TestObserve: everything passes that passes without quaywall, by whatever the policy would deny it, and each packet is
// counted by the line that would. The log says which. Enforced, the same policy denies them.
func TestObserve(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{IPv6: true, IP6Tables: true}, "25/tcp", "26/tcp", "27/tcp", "53/udp")
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		rows := w.observedRows(web)
		w.try(rows...)
		policy := lines("version: 1", "sets: {banned: [203.0.113.3]}", "inbound:", "  - deny: any", "    from: banned", // 4
			"  - deny: 8080", "  - reject: 25", "  - deny: 26", "    log: true", "  - deny: 53/udp", // 6, 7, 8, 10
			"  - allow: 27", "    limit: 1/hour burst 1", "egress:", "  - reject: 80/tcp", "outbound:", "  - deny: 80/tcp", // 11, 14, 16
			"log: {denied: 1000/second burst 1000}")
		if err := w.fw.Write(policy); err != nil {
			t.Fatal(err)
		}
		w.quaywall(0, "apply", "--observe") // nobody is locked out, so nothing has to be allowed
		w.unchanged("apply --observe")
		a := agentOf(w, "Docker answers")
		w.mayBe(4, false)
		w.quaywall(2, "apply", "--observe", "--confirm", "60s")

		w.try(rows...)
		w.malformed()
		w.observedCounts(map[string]uint64{"policy.yaml:4": 1, "policy.yaml:6": 2, "policy.yaml:7": 2, "policy.yaml:8": 2, "policy.yaml:10": 2,
			"policy.yaml:11": 3, "over the limit of policy.yaml:11": 1, "policy.yaml:14": 2, "policy.yaml:16": 2, "always": 2 + w.direct()})
		for _, want := range []string{"would deny tcp 203.0.113.3:", "would reject tcp [2001:db8:1::2]:", "container web",
			"policy.yaml:8", "hygiene: no TCP sends these flags together", "more than the rule's limit came from this source"} {
			w.until(want, func() bool {
				return strings.Contains(strings.Join(strings.Fields(w.quaywall(0, "log", "-n", "1000").Stdout), " "), want)
			})
		}
		if !strings.Contains(a.Log(), `msg="would be rejected"`) {
			t.Errorf("the agent's log:\n%s", a.Log())
		}

		if err := w.fw.Write(policy + "hygiene: off\n"); err != nil { // the agent follows the file, and goes on observing
			t.Fatal(err)
		}
		w.until("the policy is observed", func() bool { return strings.Contains(a.Log(), "the policy is observed, and denies nothing") })
		w.mayBe(4, false)

		w.apply(policy)
		w.mayBe(0, true)
		w.try(enforced(rows, web)...)
		w.quaywall(0, "apply", "--observe")
		w.try(rows...)
		w.stop()
	})
}

// enforced is what becomes of the rows once the policy denies, those aside that come within a limit.
func enforced(rows []lab.Row, web *lab.Node) []lab.Row {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r lab.Row) bool { return strings.HasSuffix(r.To, ":27") })
	for i, r := range rows {
		rows[i].Want = lab.Denied
		if strings.HasSuffix(r.To, ":25") || r.From == web {
			rows[i].Want = lab.Rejected
		}
	}
	return rows
}

// observedRows are connections that the policy of the test denies, each by another line, and each a single new packet.
func (w *world) observedRows(web *lab.Node) []lab.Row {
	w.Helper()
	rows := []lab.Row{open(w.neighbour, "203.0.113.1:22", "host", "banned")}
	for _, a := range []string{"203.0.113.1", "[2001:db8:1::1]"} {
		rows = append(rows, open(w.outside, a+":8080", "web", "published"), open(w.outside, a+":25", "host", "a daemon"),
			open(w.outside, a+":26", "host", "a daemon"))
		rows = append(rows, by("udp", open(w.outside, a+":53", "host", "a daemon"))...)
	}
	rows = append(rows, open(w.outside, "203.0.113.1:27", "host", "limited"), open(w.outside, "203.0.113.1:27", "host", "limited"),
		open(w.outside, "[2001:db8:1::1]:27", "host", "limited, of another source"))
	for _, a := range []string{lab.OutsideAddr4, "[" + lab.OutsideAddr6 + "]"} {
		rows = append(rows, open(web, a+":80", "outside", "egress"), open(w.host, a+":80", "outside", "outbound"))
	}
	if w.direct() > 0 {
		rows = append(rows, open(w.neighbour, w.addr(web, false).String()+":80", "web", "a container's own address"))
	}
	return rows
}

// direct is how many connections to a container's own address Docker lets through: newer engines close these themselves.
func (w *world) direct() uint64 {
	if w.major() < 28 {
		return 1
	}
	return 0
}

// malformed sends a packet of each family that hygiene denies.
func (w *world) malformed() {
	w.Helper()
	client := crafter{w}
	if err := w.outside.Send(w.Context(), "eth0", client.way(lab.OutsideAddr4, lab.HostWAN4, 22).TCP(frame.SYN|frame.FIN),
		client.way(lab.OutsideAddr6, lab.HostWAN6, 22).TCP(frame.SYN|frame.FIN)); err != nil {
		w.Fatal(err)
	}
}

// observedStatus is what status --json says of it.
type observedStatus struct {
	InForce  bool `json:"in_force"`
	Observed bool
	Counters []struct {
		Line, Verb string
		Packets    uint64
	}
}

// mayBe sees how status calls the policy, and how it ends with --exit-code.
func (w *world) mayBe(code int, inForce bool) {
	w.Helper()
	var st observedStatus
	if out := w.quaywall(code, "status", "--exit-code", "--json").Stdout; json.Unmarshal([]byte(out), &st) != nil || st.InForce != inForce || st.Observed == inForce {
		w.Errorf("status: %s", out)
	}
}

// observedCounts sees that each line counted just these packets. By the default others are denied as well, of the lab's own.
func (w *world) observedCounts(want map[string]uint64) {
	w.Helper()
	var st observedStatus
	if err := json.Unmarshal([]byte(w.quaywall(0, "status", "--json").Stdout), &st); err != nil {
		w.Fatal(err)
	}
	got := map[string]uint64{}
	for _, c := range st.Counters {
		if c.Line != "default" {
			got[c.Line] = c.Packets
		}
		if would := strings.HasPrefix(c.Verb, "would "); would == (c.Line == "policy.yaml:11") {
			w.Errorf("%s is called %q", c.Line, c.Verb)
		}
	}
	if !maps.Equal(got, want) {
		w.Errorf("counted %v, want %v", got, want)
	}
}
