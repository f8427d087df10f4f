package scenario

import (
	"net/netip"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

var (
	s2Policy = lines(
		"version: 1",
		"inbound:",
		"  - allow: ssh",
		"  - allow: 8080", // 4
		"  - allow: ping")
	s2Wider = lines(
		"version: 1",
		"inbound:",
		"  - allow: [ssh, 9000]", // 3
		"  - allow: 8080/tcp",
		"  - allow: ping")
)

// TestS2 starts, changes and stops the firewall with containers running and connections alive.
func TestS2(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e)
		w.network(lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}})
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		mate := w.run(lab.Container{Name: "mate", Serve: []string{"80/tcp"}})
		api := w.run(lab.Container{Name: "api", Networks: []string{"back"}})
		w.run(lab.Container{Name: "db", Networks: []string{"back"}, IP: "172.30.0.9", Serve: []string{"80/tcp"}})
		w.mark()
		alive := func() {
			t.Helper()
			w.try(containersLive(w, web, mate, api)...)
			if r, err := api.Resolve(t.Context(), "db"); err != nil || len(r.Addrs) != 1 {
				t.Errorf("db in Docker's name service: %v, %v", r, err)
			}
		}
		alive()
		traffic := startTraffic(w, web, e)
		w.apply(s2Policy)
		alive()
		w.check(open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:4"), denied(w.outside, "203.0.113.1:9000", "default"))
		w.apply(s2Policy)
		w.apply(s2Wider)
		w.run(lab.Container{Name: "late", Publish: []string{"9000:80", "9001:81"}, Serve: []string{"80/tcp", "81/tcp"}})
		w.mark() // with quaywall in force: what Docker wrote for the new container is Docker's
		w.check(open(w.outside, "203.0.113.1:9000", "late", "policy.yaml:3"), denied(w.outside, "203.0.113.1:9001", "default"))
		w.apply(s2Wider)
		alive()
		w.found = w.found.Foreign()
		ran := w.quaywall(0, "stop")
		if diff := w.rules().WithoutEmpty().Diff(w.found); diff != "" {
			t.Errorf("after stop (%s) something is left:\n%s", ran.Stdout, diff)
		}
		w.mark()
		alive()
		w.try(open(w.outside, "203.0.113.1:9001", "late", "nothing is in force"))
		w.apply(s2Policy)
		w.stop()
		traffic.judge(t)
	})
}

// containersLive is what Docker gives containers, which no policy here takes away.
func containersLive(w *world, web, mate, api *lab.Node) []lab.Row {
	return append([]lab.Row{
		open(w.outside, "203.0.113.1:8080", "web", "published"), open(w.lan, "192.168.50.1:8080", "web", "published"),
		open(web, lab.OutsideAddr4+":80", "outside", "egress"), open(api, lab.LANAddr4+":80", "lan", "egress"),
		open(web, "203.0.113.1:8080", "web", "hairpin"), open(mate, "203.0.113.1:8080", "web", "a sibling by the host's address"),
		open(mate, "172.17.0.2:80", "web", "one bridge"), open(api, "172.30.0.9:80", "db", "one bridge"),
		denied(api, "172.17.0.2:80", "Docker's isolation"),
		open(w.host, "127.0.0.1:8080", "web", "the host itself"), open(w.host, "172.17.0.2:80", "web", "the host itself"),
	}, by("udp", open(web, lab.OutsideAddr4+":80", "outside", "egress"))...)
}

// traffic is what goes on all the while.
type traffic struct {
	names []string
	loads []*agent.Job
	flows []*agent.Job
}

func startTraffic(w *world, web *lab.Node, e lab.Engine) *traffic {
	w.Helper()
	var tr traffic
	to := func(text string) agent.Dial {
		return agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(text), Timeout: 10 * time.Second}
	}
	start := func(from *lab.Node, name string, r agent.Request) *agent.Job {
		w.Helper()
		job, err := from.Start(w.Context(), r)
		if err != nil {
			w.Fatalf("%s: %v", name, err)
		}
		tr.names = append(tr.names, name)
		return job
	}
	published := []string{"203.0.113.1:8080"}
	if !e.NoProxy {
		published = append(published, "[2001:db8:1::1]:8080") // untracked before the first apply
	}
	for _, addr := range published {
		tr.flows = append(tr.flows,
			start(w.outside, "stream from "+addr, agent.Request{Stream: &agent.Stream{Dial: to(addr)}}),
			start(w.outside, "talk with "+addr, agent.Request{Stream: &agent.Stream{Dial: to(addr), PingPong: true}}))
	}
	tr.flows = append(tr.flows, start(web, "download by a container", agent.Request{Stream: &agent.Stream{Dial: to(lab.OutsideAddr4 + ":80")}}))
	tr.loads = append(tr.loads, start(w.outside, "connections to 8080",
		agent.Request{Load: &agent.Load{Dial: to("203.0.113.1:8080"), Interval: 5 * time.Millisecond}}))
	return &tr
}

// silence is how long nothing has to come before a stream is believed to be cut: a busy machine is slow, and what TCP
// sends again may take a second or two.
const silence = 3 * time.Second

// judge sees that everything still goes on.
func (tr *traffic) judge(t *testing.T) {
	t.Helper()
	now := time.Now()
	time.Sleep(silence)
	for i, job := range tr.flows {
		var r agent.StreamResult
		if err := job.Stop(&r); err != nil || !r.Alive || !r.Last.After(now) {
			t.Errorf("%s does not go on: %+v, %v", tr.names[i], r, err)
		}
	}
	for _, job := range tr.loads {
		var r agent.LoadResult
		if err := job.Stop(&r); err != nil || r.Failed > 0 || r.OK == 0 {
			t.Errorf("the connections made all the while: %+v, %v", r, err)
		}
	}
}
