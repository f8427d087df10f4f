package scenario

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/store"
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

// TestKilledAtEachBoundary: kill -9 between two system calls of rollback, apply and the process that takes a change back. The host
// is never open, SSH is never cut, and the next run brings everything in order. (`make chaos` tries each boundary, `make test` some.)
func TestKilledAtEachBoundary(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		d, talks := newDoomed(t, v)
		d.commands()
		d.undoes()
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
	step := 1
	if !*boundaries {
		step = max(1, highest/some)
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

const (
	wasKilled = "killed before the "
	inForce   = `"in_force": true`
)

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
			if err != nil || !strings.Contains(ran.Stdout, inForce) {
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

// undoes kills the process that takes a change back once its time is over, before every call until it gets through. Whoever comes
// next, here to confirm, takes it back, or finds that done.
func (d doomed) undoes() {
	d.Helper()
	base := d.hash()
	highest := 0
	for _, n := range append(each(400, 8), 100000) {
		replace(d.world, chaosPolicies[1].text)
		d.quaywall(0, "apply", "--allow-lockout", "--confirm", "10m")
		p := d.start(n, "", "undo", d.expire())
		_ = p.Wait()
		if ran := d.quaywall(0, "status", "--json"); !strings.Contains(ran.Stdout, inForce) {
			d.Errorf("%s: status says %s", p.Log(), ran.Stdout)
		}
		if ran, err := d.fw.Run(d.Context(), "confirm"); err != nil || ran.Code == 0 {
			d.Errorf("%s: confirmed after its time: %+v, %v", p.Log(), ran, err)
		}
		if now := d.hash(); now != base || !d.mended() {
			d.Errorf("%s: the policy of before is not in force, but %s", p.Log(), now)
		}
		replace(d.world, chaosPolicies[0].text)
		d.quaywall(0, "apply", "--allow-lockout")
		if !strings.Contains(p.Log(), wasKilled) {
			break
		}
		highest = n
	}
	d.Logf("undo: killed up to call %d", highest)
}

// hash is that of the policy in force.
func (d doomed) hash() string {
	d.Helper()
	var status struct{ Hash string }
	if err := json.Unmarshal([]byte(d.quaywall(0, "status", "--json").Stdout), &status); err != nil {
		d.Fatal(err)
	}
	return status.Hash
}

// expire ends the time of the change that waits, with its process, and gives that one's task.
func (d doomed) expire() string {
	d.Helper()
	s := store.Open(filepath.Join(d.host.Dir, "state"))
	state, err := s.State()
	if err != nil || state.Pending == nil {
		d.Fatalf("nothing waits: %+v, %v", state, err)
	}
	d.host.MustExec(d.T, "kill", "-KILL", strconv.Itoa(state.Pending.PID))
	state.Pending.Deadline = 0
	if err := s.Set(state); err != nil {
		d.Fatal(err)
	}
	return state.Pending.Task
}

// agentStarts kills an agent that starts, until it has seen everything.
func (d doomed) agentStarts() {
	d.Helper()
	d.untilThrough("an agent that starts", 80, 5, func(n int) bool {
		if err := os.RemoveAll(d.snapshot()); err != nil {
			d.Fatal(err)
		}
		p := d.start(n, "", "agent")
		return d.dies(p, func() bool { _, err := os.Stat(d.snapshot()); return err == nil })
	}, func(n int) {
		if !d.mended() {
			d.Errorf("after an agent that starts was killed at call %d the policy is not in force", n)
		}
	})
}

// repairs kills an agent that puts Docker's rules back. The next one does.
func (d doomed) repairs() {
	d.Helper()
	whole := d.agentKnows()
	d.untilThrough("an agent that mends Docker's rules", 60, 3, func(n int) bool {
		return d.diesMending(n, "iptables -t nat -F; iptables -F", "Docker's")
	}, func(n int) {
		a := d.agent()
		d.until(fmt.Sprintf("Docker's rules after call %d", n), func() bool { return slices.Equal(dockersRules(d.world), whole) && d.mended() })
		a.Kill()
	})
}

// ownRulesGo is somebody who takes the rules of quaywall's away, and no others.
const ownRulesGo = "for table in raw mangle; do iptables -t $table -F; ip6tables -t $table -F; done; nft delete table inet quaywall || true"

// mends kills an agent that puts quaywall's own rules back. The next one does.
func (d doomed) mends() {
	d.Helper()
	d.untilThrough("an agent that mends", 60, 3, func(n int) bool { return d.diesMending(n, ownRulesGo, "quaywall's") }, func(n int) {
		a := d.agent()
		d.until(fmt.Sprintf("the policy after call %d", n), d.mended)
		a.Kill()
	})
}

// untilThrough kills an agent at each call of those that it makes for something, or at some of the first, and looks each time
// what was left.
func (d doomed) untilThrough(what string, first, some int, dies func(n int) bool, look func(n int)) {
	d.Helper()
	highest := 0
	calls := each(first, some)
	if *boundaries {
		calls = each(1000, 0)
	}
	for _, n := range calls {
		killed := dies(n)
		look(n)
		if !killed {
			break
		}
		highest = n
	}
	d.Logf("%s: killed up to call %d", what, highest)
}

// agentKnows waits until an agent has seen Docker's rules whole, and gives them.
func (d doomed) agentKnows() []string {
	d.Helper()
	a := d.agent()
	d.until("a snapshot", func() bool { _, err := os.Stat(d.snapshot()); return err == nil })
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

// diesMending has an agent see damage, and die before the Nth call after that. It tells whether that was before somebody's rules
// were back.
func (d doomed) diesMending(n int, damage, whose string) bool {
	d.Helper()
	if err := os.RemoveAll(d.now); err != nil {
		d.Fatal(err)
	}
	p := d.start(n, d.now, "agent")
	d.until("the agent", func() bool { return strings.Contains(p.Log(), "Docker answers") })
	d.host.MustExec(d.T, "sh", "-c", "touch "+d.now+"; "+damage)
	return d.dies(p, func() bool { return strings.Contains(p.Log(), "somebody changed "+whose+" rules: they are back") })
}

// dies waits for an agent to be killed, or to be through with something. It tells whether it was killed before.
func (d doomed) dies(p *firewall.Process, through func() bool) bool {
	d.Helper()
	d.until("it is killed, or through", func() bool { return strings.Contains(p.Log(), wasKilled) || through() })
	killed := strings.Contains(p.Log(), wasKilled) && !through()
	if strings.Contains(p.Log(), wasKilled) {
		_ = p.Wait()
	} else {
		p.Kill()
	}
	return killed
}

// snapshot is the file of the agent's snapshot of Docker's rules.
func (d doomed) snapshot() string { return filepath.Join(d.host.Dir, "state", "docker-rules.json") }
