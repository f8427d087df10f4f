package scenario

import (
	"net/netip"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// impatience is how long somebody who dials all the time waits for an answer before dialling anew: short, so that a host
// that is open for a moment gets a SYN in that moment. Whoever gets in without being answered in time is seen by the server.
const impatience = 100 * time.Millisecond

// dialler dials by somebody all the time what the policy denies.
type dialler struct {
	row lab.Row
	job *agent.Job
}

// dialAll begins to dial rows, each by several at a time.
func (w *world) dialAll(rows []lab.Row) []dialler {
	w.Helper()
	var all []dialler
	for _, row := range rows {
		d, err := row.Dial()
		if err != nil {
			w.Fatal(err)
		}
		d.Timeout = impatience
		job, err := row.From.Start(w.Context(), agent.Request{Load: &agent.Load{Dial: d, Workers: 4, Interval: time.Millisecond}})
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, dialler{row, job})
	}
	return all
}

// hangUp ends the dialling. It gives how many got in, by what they were told, and how many times was dialled.
func (w *world) hangUp(all []dialler) (in, dialled int) {
	w.Helper()
	for _, d := range all {
		var r agent.LoadResult
		if err := d.job.Stop(&r); err != nil {
			w.Fatalf("%v: %v", d.row, err)
		}
		in, dialled = in+r.OK, dialled+r.OK+r.Failed
		if r.OK > 0 {
			w.Logf("%v: %d of %d got in", d.row, r.OK, r.OK+r.Failed)
		}
	}
	return in, dialled
}

// intruders are those whom a node's servers saw at ports that nobody may reach, or from an address that may reach nothing.
func (w *world) intruders(node *lab.Node, from netip.Addr, ports ...uint16) []agent.Answer {
	w.Helper()
	seen, err := node.Seen(w.Context(), agent.Seen{Forget: true})
	if err != nil {
		w.Fatal(err)
	}
	var all []agent.Answer
	for _, a := range seen {
		for _, port := range ports {
			if a.Local.Port() == port {
				all = append(all, a)
			}
		}
		if a.Remote.Addr().Unmap() == from {
			all = append(all, a)
		}
	}
	return all
}

// talk begins to talk with the host's SSH, by each family.
func (w *world) talk(to ...string) []*agent.Job {
	w.Helper()
	var all []*agent.Job
	for _, addr := range to {
		d := agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(addr)}
		job, err := w.outside.Start(w.Context(), agent.Request{Stream: &agent.Stream{Dial: d, PingPong: true, Interval: 20 * time.Millisecond}})
		if err != nil {
			w.Fatalf("talking with %s: %v", addr, err)
		}
		all = append(all, job)
	}
	return all
}

// stillTalks sees that talks go on.
func (w *world) stillTalks(talks []*agent.Job) {
	w.Helper()
	now := time.Now()
	time.Sleep(silence)
	for _, job := range talks {
		var r agent.StreamResult
		if err := job.Stop(&r); err != nil || !r.Alive || !r.Last.After(now) {
			w.Errorf("a talk with SSH does not go on: %+v, %v", r, err)
		}
	}
}
