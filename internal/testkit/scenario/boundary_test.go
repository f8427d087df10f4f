package scenario

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

var boundaries = flag.Bool("boundaries", false, "kill quaywall before each system call that matters, not before some of them")

// doomed is a host on which quaywall is killed before its Nth system call that matters, for one N after the other.
type doomed struct {
	*world
	now     string // the file that calls count from, for the agent
	clients []dialler
}

// TestKilledAtEachBoundary: kill -9 between two system calls of rollback and apply. The host is never open, SSH is never cut, and
// the next run brings everything in order. (`make chaos` tries each boundary, `make test` some.)
func TestKilledAtEachBoundary(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		d, talks := newDoomed(t, v)
		d.commands()
		d.closed()
		d.check(append(chaosPolicies[0].rows(d.world), deniedInChaos(d.world)...)...)
		d.stillTalks(talks)
	})
}

// TestAgentKilledAtEachBoundary: likewise, as the agent starts and as it puts Docker's rules back, or quaywall's own.
func TestAgentKilledAtEachBoundary(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		d, talks := newDoomed(t, v)
		d.agentStarts()
		d.repairs()
		d.closed()
		d.mends()
		d.check(append(chaosPolicies[0].rows(d.world), deniedInChaos(d.world)...)...)
		d.stillTalks(talks)
	})
}

func newDoomed(t *testing.T, v variant) (d doomed, talks []*agent.Job) {
	t.Helper()
	w := oneHost(t, v, lab.Engine{}, "9000/tcp")
	w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:81", "8082:82"}, Serve: []string{"80/tcp", "81/tcp", "82/tcp"}})
	w.mark()
	w.apply(chaosPolicies[1].text)
	w.apply(chaosPolicies[0].text)
	return doomed{w, filepath.Join(w.host.Dir, "now"), w.dialAll(deniedInChaos(w))}, w.talk("203.0.113.1:22", "[2001:db8:1::1]:22")
}

// closed ends the dialling, and sees that nobody got in so far.
func (d doomed) closed() {
	d.Helper()
	if in, dialled := d.hangUp(d.clients); in > 0 || dialled < 100 {
		d.Errorf("of %d who dialled what the policy denies %d got in", dialled, in)
	}
}

// each gives the numbers up to a highest one: all, or some, others each time.
func each(highest, some int) []int {
	step := max(1, highest/some)
	if *boundaries {
		step = 1
	}
	var all []int
	for n := rand.IntN(step); n <= highest; n += step {
		all = append(all, n)
	}
	return all
}

// start starts quaywall such that it dies before its Nth system call that matters, counted from when a file is there.
func (d doomed) start(n int, since string, args ...string) *firewall.Process {
	d.Helper()
	p, err := d.fw.StartDoomed(d.Context(), n, since, args...)
	if err != nil {
		d.Fatal(err)
	}
	return p
}

const wasKilled = "killed before the "

// commands kills apply and rollback, each before every call until it gets through.
func (d doomed) commands() {
	d.Helper()
	for _, args := range [][]string{{"rollback", "--allow-lockout"}, {"apply", "--allow-lockout", "--confirm", "60s"}} {
		highest := 0
		for _, n := range append(each(600, 20), 100000) {
			replace(d.world, chaosPolicies[1].text)
			p := d.start(n, "", args...)
			_ = p.Wait()
			ran, err := d.fw.Run(d.Context(), "status", "--json")
			if err != nil || !strings.Contains(ran.Stdout, `"in_force": true`) {
				d.Errorf("%v, %s: status says %s %s, %v", args, p.Log(), ran.Stdout, ran.Stderr, err)
			}
			if _, err := d.fw.Run(d.Context(), "confirm"); err != nil { // what waits for that would be taken back later
				d.Fatal(err)
			}
			replace(d.world, chaosPolicies[0].text)
			d.quaywall(0, "apply", "--allow-lockout")
			d.quaywall(0, "status", "--exit-code")
			if !strings.Contains(p.Log(), wasKilled) {
				break
			}
			highest = n
		}
		d.Logf("%v: killed up to call %d", args, highest)
	}
}

// agentStarts kills an agent that starts.
func (d doomed) agentStarts() {
	d.Helper()
	for _, n := range each(80, 5) {
		p := d.start(n, "", "agent")
		d.dies(p, n)
		if !d.mended() {
			d.Errorf("after the agent was killed at call %d as it started the policy is not in force:\n%s", n, p.Log())
		}
	}
}

// repairs kills an agent that puts Docker's rules back. The next one does.
func (d doomed) repairs() {
	d.Helper()
	whole := d.agentKnows()
	for _, n := range each(60, 3) {
		d.diesMending(n, "iptables -t nat -F; iptables -F")
		a := d.agent()
		d.until(fmt.Sprintf("Docker's rules after call %d", n), func() bool { return slices.Equal(dockersRules(d.world), whole) && d.mended() })
		a.Kill()
	}
}

// mends kills an agent that puts quaywall's own rules back. The next one does.
func (d doomed) mends() {
	d.Helper()
	for _, n := range each(60, 3) {
		d.diesMending(n, "for table in raw mangle; do iptables -t $table -F; ip6tables -t $table -F; done; nft delete table inet quaywall || true")
		a := d.agent()
		d.until(fmt.Sprintf("the policy after call %d", n), d.mended)
		a.Kill()
	}
}

// agentKnows waits until an agent has seen Docker's rules whole, and gives them.
func (d doomed) agentKnows() []string {
	d.Helper()
	a := d.agent()
	snapshot := filepath.Join(d.host.Dir, "state", "docker-rules.json")
	d.until("a snapshot", func() bool { _, err := os.Stat(snapshot); return err == nil })
	a.Kill()
	return dockersRules(d.world)
}

func (d doomed) agent() *firewall.Process {
	d.Helper()
	p, err := d.fw.Start(d.Context(), "agent")
	if err != nil {
		d.Fatal(err)
	}
	return p
}

// diesMending has an agent see damage, and die before the Nth call after that.
func (d doomed) diesMending(n int, damage string) {
	d.Helper()
	if err := os.RemoveAll(d.now); err != nil {
		d.Fatal(err)
	}
	p := d.start(n, d.now, "agent")
	d.until("the agent", func() bool { return strings.Contains(p.Log(), "Docker answers") })
	d.host.MustExec(d.T, "sh", "-c", "touch "+d.now+"; "+damage)
	d.dies(p, n)
}

// dies waits for an agent to be killed.
func (d doomed) dies(p *firewall.Process, n int) {
	d.Helper()
	d.until("it is killed at call "+strconv.Itoa(n), func() bool { return strings.Contains(p.Log(), wasKilled) })
	_ = p.Wait()
}
