package scenario

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// TestTrap48 closes published ports while their servers send, and do nothing else: by Docker's DNAT, to another port and to
// the same one, and over IPv6 by docker-proxy. What stays allowed goes on. A container that speaks only later speaks to nobody
// then, also where somebody has flushed all rules in between.
func TestTrap48(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "shut", Publish: []string{"8080:80", "80:80"}, Serve: []string{"80/tcp"}})
		w.run(lab.Container{Name: "open", Publish: []string{"9000:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: [ssh, 80, 8080, 9000]"))
		stream := func(to string) *agent.Job {
			job, err := w.outside.Start(t.Context(), agent.Request{Stream: &agent.Stream{
				Dial: agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(to), Timeout: 10 * time.Second}}})
			if err != nil {
				t.Fatal(to, err)
			}
			return job
		}
		shut, open := map[string]*agent.Job{}, map[string]*agent.Job{}
		for _, to := range []string{"203.0.113.1:8080", "203.0.113.1:80", "[2001:db8:1::1]:8080", "[2001:db8:1::1]:80"} {
			shut[to] = stream(to)
		}
		later := w.speaksLater("203.0.113.1:80", 6*time.Second)
		for _, to := range []string{"203.0.113.1:9000", "[2001:db8:1::1]:9000"} {
			open[to] = stream(to)
		}
		time.Sleep(time.Second)
		var answer struct{ Ended struct{ Connections int } }
		if out := w.apply(lines("version: 1", "inbound:", "  - allow: [ssh, 9000]"), "--json").Stdout; json.Unmarshal([]byte(out), &answer) != nil || answer.Ended.Connections != len(shut)+1 {
			t.Errorf("%d connections were ended, want %d: %s", answer.Ended.Connections, len(shut)+1, out)
		}
		w.host.MustExec(t, "sh", "-c", ownRulesGo)
		w.quaywall(0, "apply", "--allow-lockout")
		begin := time.Now().Add(silence / 2)
		time.Sleep(2 * silence)
		for to, job := range shut {
			var r agent.StreamResult
			if err := job.Stop(&r); err == nil && r.Last.After(begin) {
				t.Errorf("the stream from %s goes on: %+v", to, r)
			}
		}
		for to, job := range open {
			var r agent.StreamResult
			if err := job.Stop(&r); err != nil || !r.Alive || !r.Last.After(begin) {
				t.Errorf("the stream from %s does not go on: %+v, %v", to, r, err)
			}
		}
		var r agent.HoldResult
		if err := later.Wait(&r); err != nil || r.Alive > 0 {
			t.Errorf("a connection that was ended came back once rules were flushed: %+v, %v", r, err)
		}
	})
}

// speaksLater is a connection to a server that says nothing for a while.
func (w *world) speaksLater(to string, after time.Duration) *agent.Job {
	w.Helper()
	job, err := w.outside.Start(w.Context(), agent.Request{Hold: &agent.Hold{
		Dial: agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(to)}, ServerFirst: after}})
	if err != nil {
		w.Fatal(err)
	}
	return job
}
