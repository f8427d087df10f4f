package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

var s3Policy = lines("version: 1", "inbound:", "  - allow: published")

// dockersRules are Docker's rules in order.
func dockersRules(w *world) []string {
	w.Helper()
	all, err := w.host.DockersRules(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return all
}

// repairable are the engines that S3 is tried with: IPv6 networks with rules of Docker's.
func repairable() []lab.Engine {
	return []lab.Engine{{}, {NoProxy: true}, {IPv6: true, IP6Tables: true}, {NoProxy: true, IPv6: true, IP6Tables: true}}
}

// losses are what another tool does to Docker's rules.
var losses = []struct{ what, script string }{
	{"a flush of filter", "for ipt in iptables ip6tables; do $ipt -F; done"},
	{"a flush of nat", "for ipt in iptables ip6tables; do $ipt -t nat -F; done"},
	{"chains deleted", "for ipt in iptables ip6tables; do for t in filter nat; do $ipt -t $t -F; $ipt -t $t -X; done; $ipt -P FORWARD ACCEPT; done"},
	{"a lost jump", "iptables -D FORWARD -j DOCKER-USER; iptables -D FORWARD -j DOCKER-FORWARD || iptables -D FORWARD -j DOCKER-ISOLATION-STAGE-1; " +
		"iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"},
}

// TestS3: another tool flushes the tables, or loads old ones. Quaywall's rules are back, and Docker's too, as they were,
// without restarting Docker or a container.
func TestS3(t *testing.T) {
	onEachConfig(t, repairable(), func(t *testing.T, v variant, e lab.Engine) {
		s := newS3(t, v, e)
		s.works()
		for _, d := range losses {
			s.mends(d.what, func() { s.host.MustExec(t, "sh", "-c", d.script) })
			s.works()
		}
		time.Sleep(2 * time.Second) // mending is no fight yet, but soon
		s.mends("everything flushed", s.flushAll)
		s.works()
		s.takesOutOld()
		s.works()
	})
}

// s3 is a host with an agent and containers.
type s3 struct {
	*world
	engine   lab.Engine
	web, api *lab.Node
	agent    *firewall.Agent
	whole    []string // Docker's rules as they have to be
}

// newS3 also saves the rules of a container that is gone then, in old.rules and old6.rules.
func newS3(t *testing.T, v variant, e lab.Engine) *s3 {
	w := oneHost(t, v, e)
	s := &s3{world: w, engine: e}
	back := lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}}
	if e.IPv6 {
		back.Subnets = append(back.Subnets, "fd00:30::/64")
	}
	w.network(back)
	s.web = w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
	s.api = w.run(lab.Container{Name: "api", Networks: []string{"back"}, Publish: []string{"9090:80"}, Serve: []string{"80/tcp"}})
	old := w.run(lab.Container{Name: "old", Publish: []string{"7070:80"}, Serve: []string{"80/tcp"}})
	if err := w.fw.Write(s3Policy); err != nil {
		t.Fatal(err)
	}
	w.host.MustExec(t, "iptables", "-I", "DOCKER-USER", "-s", "198.51.100.9", "-j", "DROP") // the administrator's, which nobody puts back
	w.host.MustExec(t, "sh", "-c", fmt.Sprintf("iptables-save > %[1]s/old.rules; ip6tables-save > %[1]s/old6.rules", w.host.Dir))
	w.host.MustExec(t, "iptables", "-D", "DOCKER-USER", "-s", "198.51.100.9", "-j", "DROP")
	s.agent = agentOf(w, "the policy is in force")
	snapshot := filepath.Join(w.host.Dir, "state", "docker-rules.json")
	w.until("a snapshot", func() bool { _, err := os.Stat(snapshot); return err == nil })
	if err := old.RemoveContainer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("a snapshot without the container", func() bool {
		text, err := os.ReadFile(snapshot)
		return err == nil && strings.Contains(string(text), `"past"`)
	})
	s.whole = dockersRules(w)
	return s
}

// works tries real packets.
func (s *s3) works() {
	s.Helper()
	s.check(open(s.outside, "203.0.113.1:8080", "web", "policy.yaml:3"), open(s.lan, "192.168.50.1:9090", "api", "policy.yaml:3"),
		denied(s.outside, "203.0.113.1:22", "default"))
	s.try(open(s.web, lab.OutsideAddr4+":80", "outside", "egress"), open(s.api, lab.OutsideAddr4+":80", "outside", "egress"),
		denied(s.api, "172.17.0.2:80", "Docker's isolation"))
	if s.engine.IPv6 {
		s.check(open(s.outside, "[2001:db8:1::1]:8080", "web", "policy.yaml:3"), open(s.lan, "[fd00:50::1]:9090", "api", "policy.yaml:3"))
		s.try(open(s.web, "["+lab.OutsideAddr6+"]:80", "outside", "egress"), open(s.api, "["+lab.OutsideAddr6+"]:80", "outside", "egress"))
	}
}

// mends does damage and waits until Docker's rules are what they were.
func (s *s3) mends(what string, damage func()) {
	s.Helper()
	before := strings.Count(s.agent.Log(), "somebody changed Docker's rules")
	damage()
	s.untilRules(what, func(is []string) bool {
		return strings.Count(s.agent.Log(), "somebody changed Docker's rules") > before && slices.Equal(is, s.whole)
	})
}

// untilRules waits for Docker's rules.
func (s *s3) untilRules(what string, holds func(is []string) bool) {
	s.Helper()
	var is []string
	defer func() {
		if s.Failed() {
			s.Logf("%s: Docker's rules (-before +are):\n%s", what, cmp.Diff(strings.Join(s.whole, "\n"), strings.Join(is, "\n")))
		}
	}()
	s.until(what, func() bool { is = dockersRules(s.world); return holds(is) })
}

// others look like Docker's, and are a second engine's or the administrator's.
var others = []string{
	"POSTROUTING -s 172.40.0.0/16 ! -o br-9876543210ab -j MASQUERADE",
	"POSTROUTING -s 10.0.3.5/32 -d 10.0.3.5/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
	"DOCKER ! -i br-9876543210ab -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.40.0.2:80",
	"DOCKER -p tcp -m tcp --dport 8001 -j DNAT --to-destination 172.17.0.2:8000",
}

// takesOutOld loads the rules of a container that is gone.
func (s *s3) takesOutOld() {
	s.Helper()
	s.host.MustExec(s.T, "sh", "-c", fmt.Sprintf("iptables-restore < %[1]s/old.rules; ip6tables-restore < %[1]s/old6.rules", s.host.Dir))
	for _, rule := range others {
		s.host.MustExec(s.T, "sh", "-c", "iptables -t nat -A "+rule)
	}
	s.untilRules("old rules loaded", func(is []string) bool {
		now := strings.Join(is, "\n")
		for _, rule := range others {
			if !strings.Contains(now, rule) {
				s.Errorf("%s went, too", rule)
			}
		}
		// The administrator's rule came with the old ones.
		return !strings.Contains(now, "7070") && len(is) == len(s.whole)+1+len(others)
	})
	s.until("what was taken out is told", func() bool { return strings.Contains(s.agent.Log(), "they were taken out") })
	s.until("quaywall's own rules", s.mended)
}
