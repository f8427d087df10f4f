package scenario

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"quaywall/internal/store"
	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

var (
	kills     = flag.Int("kills", 27, "how often chaos kills quaywall, over all backends")
	chaosTime = flag.Duration("chaos", 0, "how long chaos goes on at least, with each backend")
	chaosSeed = flag.Uint64("seed", 0, "the seed of chaos; 0 for another one each time")
)

// chaosPolicies differ in what Docker publishes. All of them let SSH in, and none lets anybody to 9000 and 8082.
var chaosPolicies = []struct {
	text string
	rows func(*world) []lab.Row
}{
	{lines("version: 1", "inbound:", "  - allow: [ssh, 8080]"), func(w *world) []lab.Row {
		return []lab.Row{open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"), denied(w.outside, "203.0.113.1:8081", "default")}
	}},
	{lines("version: 1", "inbound:", "  - allow: [ssh, 8081]"), func(w *world) []lab.Row {
		return []lab.Row{open(w.outside, "[2001:db8:1::1]:8081", "web", "policy.yaml:3"), open(w.outside, "203.0.113.1:8081", "web", "policy.yaml:3"),
			denied(w.outside, "[2001:db8:1::1]:8080", "default")}
	}},
	{lines("version: 1", "inbound:", "  - allow: [ssh, 8081]", "  - reject: 8080"), func(w *world) []lab.Row {
		return []lab.Row{open(w.outside, "203.0.113.1:8081", "web", "policy.yaml:3"), rejected(w.outside, "203.0.113.1:8080", "policy.yaml:4")}
	}},
}

func deniedInChaos(w *world) []lab.Row {
	return []lab.Row{
		denied(w.outside, "203.0.113.1:9000", "default"), denied(w.outside, "[2001:db8:1::1]:9000", "default"),
		denied(w.outside, "203.0.113.1:8082", "default"), denied(w.outside, "[2001:db8:1::1]:8082", "default"),
		denied(w.outside, "203.0.113.1:8090", "default"), denied(w.neighbour, "172.17.0.2:80", direct),
	}
}

// chaos is a host on which quaywall is killed again and again, whatever it does, while others do what they like: see
// mischief_test.go.
type chaos struct {
	*world
	rng           *rand.Rand
	web           *lab.Node
	agent         *firewall.Process // nil where it is dead
	span          time.Duration     // what an apply takes, or a little more
	clients       []dialler
	killed        int
	dialled       int
	mischief      map[string]int // how often others did something, by what it was
	guest         *lab.Node      // a container that comes and goes, with a network of its own; nil where it isn't there
	story, agents []string
}

// TestChaos: nobody gets in whom the policies deny, SSH goes on, and at each quiet moment the next apply and the agent bring
// everything in order. `make chaos` is its long form.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("chaos: -seed %d", seed)
	onEach(t, func(t *testing.T, v variant) {
		c := newChaos(t, v, rand.New(rand.NewPCG(seed, uint64(slices.Index(variants, v)))))
		defer c.tell()
		talks := c.talk("203.0.113.1:22", "[2001:db8:1::1]:22")
		c.dial()
		end := time.Now().Add(*chaosTime)
		for i, due := 1, max(1, *kills/len(variants)); (c.killed < due || time.Now().Before(end)) && !t.Failed(); i++ {
			c.act()
			if i%12 == 0 {
				c.quiet()
			}
		}
		c.quiet()
		c.hear()
		c.stillTalks(talks)
		t.Logf("chaos: %d kills, %d times dialled what is denied, %v", c.killed, c.dialled, c.mischief)
	})
}

func newChaos(t *testing.T, v variant, rng *rand.Rand) *chaos {
	t.Helper()
	w := oneHost(t, v, lab.Engine{LiveRestore: true}, "9000/tcp")
	c := &chaos{world: w, rng: rng, mischief: map[string]int{}}
	c.web = w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:81", "8082:82"}, Serve: []string{"80/tcp", "81/tcp", "82/tcp"}})
	w.mark()
	begin := time.Now()
	w.apply(chaosPolicies[0].text)
	c.span = time.Since(begin)
	c.startAgent()
	// What it never saw whole the agent can't put back.
	w.until("a snapshot of Docker's rules", func() bool {
		_, err := os.Stat(filepath.Join(w.host.Dir, "state", "docker-rules.json"))
		return err == nil
	})
	return c
}

// act does something at random, those that are listed more often more often.
func (c *chaos) act() {
	c.Helper()
	apply, confirm := []string{"apply", "--allow-lockout"}, []string{"apply", "--allow-lockout", "--confirm", "2s"}
	actions := []func(){
		func() { c.choose(); c.kills(apply...) }, func() { c.choose(); c.kills(apply...) }, func() { c.choose(); c.kills(apply...) },
		func() { c.choose(); c.kills(confirm...) }, func() { c.choose(); c.runs(confirm...); c.killUndo() },
		func() { c.choose(); c.runs(confirm...); c.kills("confirm") },
		func() { c.kills("rollback", "--allow-lockout") }, func() { c.kills("rollback", "--allow-lockout") },
		c.killAgent, c.killAgent, func() { c.startAgent(); c.pause(); c.killAgent() },
		func() { c.flush("iptables -t nat -F"); c.pause(); c.killAgent() },
		func() { c.flush("iptables -F"); c.pause(); c.killAgent() },
		func() { c.choose(); c.pause() },
	}
	switch n := c.rng.IntN(25); {
	case n < 2:
		actions = []func(){c.flushEverything, c.restartEngine, c.stop, c.stop}
	case n < 7:
		actions = []func(){c.unplug, c.jump, c.comeOrGo}
	}
	actions[c.rng.IntN(len(actions))]()
}

func (c *chaos) note(format string, args ...any) {
	c.story = append(c.story, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

func (c *chaos) pause() { time.Sleep(time.Duration(c.rng.Int64N(int64(c.span)))) }

// choose has another policy in the file, which the agent may take up.
func (c *chaos) choose() int {
	i := c.rng.IntN(len(chaosPolicies))
	c.note("policy %d", i)
	replace(c.world, chaosPolicies[i].text)
	return i
}

// kills runs quaywall and kills it at any moment.
func (c *chaos) kills(args ...string) {
	c.Helper()
	p, err := c.fw.Start(c.Context(), args...)
	if err != nil {
		c.Fatal(err)
	}
	c.pause()
	c.end(strings.Join(args, " "), p)
}

func (c *chaos) end(what string, p *firewall.Process) {
	killed := p.Kill()
	if killed {
		c.killed++
	}
	c.note("%s: killed %v: %s", what, killed, strings.TrimSpace(p.Log()))
}

func (c *chaos) runs(args ...string) {
	c.Helper()
	ran, err := c.fw.Run(c.Context(), args...)
	if err != nil {
		c.Fatal(err)
	}
	c.note("%v: %d %s", args, ran.Code, strings.TrimSpace(ran.Stderr))
}

// killUndo kills the process that waits to take a change back.
func (c *chaos) killUndo() {
	state, err := store.Open(c.host.Dir + "/state").State()
	if err != nil || state.Pending == nil || state.Pending.PID == 0 {
		return
	}
	c.pause()
	_, err = c.host.Exec(c.Context(), "kill", "-KILL", strconv.Itoa(state.Pending.PID))
	c.note("undo %d killed: %v", state.Pending.PID, err)
	if err == nil {
		c.killed++
	}
}

func (c *chaos) startAgent() {
	c.Helper()
	if c.agent != nil {
		return
	}
	p, err := c.fw.Start(c.Context(), "agent")
	if err != nil {
		c.Fatal(err)
	}
	c.note("the agent starts")
	c.agent = p
}

func (c *chaos) killAgent() {
	if c.agent == nil {
		c.startAgent()
		return
	}
	c.agents = append(c.agents, c.agent.Log())
	c.end("agent", c.agent)
	c.agent = nil
}

func (c *chaos) dial() {
	c.Helper()
	c.clients = c.dialAll(deniedInChaos(c.world))
}

// hear ends the dialling, and sees that nobody got in.
func (c *chaos) hear() {
	c.Helper()
	in, dialled := c.hangUp(c.clients)
	c.clients, c.dialled = nil, c.dialled+dialled
	if seen := c.strangers(); in > 0 || len(seen) > 0 {
		c.Errorf("%d got in whom every policy denies; servers saw %+v", in, seen)
	}
}

// strangers are those whom servers saw since this was asked last, and whom every policy denies.
func (c *chaos) strangers() []agent.Answer {
	c.Helper()
	return append(c.intruders(c.host, netip.Addr{}, 9000), c.intruders(c.web, netip.MustParseAddr(lab.NeighbourAddr4), 82)...)
}

// quiet lets things settle with an agent and an apply that nobody kills, and sees that the host does what the policy says.
func (c *chaos) quiet() {
	c.Helper()
	c.startAgent()
	i := c.choose()
	c.note("quiet, %d kills", c.killed)
	c.runs("confirm") // what waits for that would be taken back later
	c.quaywall(0, "apply", "--allow-lockout")
	c.until("the policy is in force", c.mended)
	rows := chaosPolicies[i].rows(c.world)
	c.until("Docker's ports are back", func() bool {
		d, err := rows[0].Dial()
		if err != nil {
			c.Fatal(err)
		}
		d.Timeout = time.Second
		r, err := c.outside.Dial(c.Context(), d)
		return err == nil && r.Outcome == lab.Open
	})
	c.check(slices.Concat(rows, deniedInChaos(c.world), c.deniedGuest())...)
}

func (c *chaos) tell() {
	if !c.Failed() {
		return
	}
	c.Logf("what was done:\n%s", strings.Join(c.story[max(0, len(c.story)-60):], "\n"))
	if c.agent != nil {
		c.agents = append(c.agents, c.agent.Log())
	}
	c.Logf("the agents:\n%s", strings.Join(c.agents[max(0, len(c.agents)-4):], "\n---\n"))
}
