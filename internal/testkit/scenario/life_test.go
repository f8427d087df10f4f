package scenario

import (
	"context"
	"path/filepath"
	"testing"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// event is something that happens to a host's rules in its life.
type event struct {
	name  string
	long  bool // only in the long form
	play  func(w *world)
	waits bool // without docker-proxy, what is published is unreachable until Docker is restarted
	loses bool // quaywall's gate is gone with everything else
}

// lifeFact is how a host was after an event.
type lifeFact struct {
	Event   string `json:"event"`
	Engine  string `json:"engine"`  // its configuration
	Works   bool   `json:"works"`   // what the policy allows is reachable right after it
	Held    bool   `json:"held"`    // what it denies stayed closed, without anybody's help
	Noticed bool   `json:"noticed"` // status said that rules of quaywall's were lost
}

var lifePolicy = lines("version: 1", "inbound:", "  - allow: 8080", "  - reject: 8082")

// events come in this order: what they leave behind is part of the next one's beginning, as on a host.
func events() []event {
	shell := func(script string) func(w *world) {
		return func(w *world) { w.host.MustExec(w.T, "sh", "-ec", script) }
	}
	return []event{
		{name: "a network is made, a container runs", long: true, play: func(w *world) {
			w.network(lab.Network{Name: "late", Subnets: []string{"172.28.0.0/24"}})
			w.run(lab.Container{Name: "late", Networks: []string{"late"}, Publish: []string{"8083:80"}, Serve: []string{"80/tcp"}})
		}},
		{name: "Docker restarts", play: restartDocker},
		{name: "Docker is killed and started", long: true, play: func(w *world) {
			w.engine(w.host.KillEngine, w.host.StartEngine)
		}},
		{name: "apply while Docker is stopped, Docker starts later", play: func(w *world) {
			w.engine(w.host.StopEngine)
			w.mark()
			w.quaywall(0, "stop")
			w.found = w.found.Foreign()
			w.apply(lifePolicy)
			w.engine(w.host.StartEngine)
		}},
		{name: "iptables -P FORWARD ACCEPT", long: true, play: shell("iptables -P FORWARD ACCEPT")},
		{name: "iptables -t nat -F", play: shell("iptables -t nat -F"), waits: true},
		{name: "iptables -F", long: true, play: shell("iptables -F")},
		{name: "iptables-restore of a save from before", long: true, play: func(w *world) {
			w.host.MustExec(w.T, "iptables-restore", filepath.Join(w.host.Dir, "before"))
		}},
		{name: "everything is flushed", play: (*world).flushAll, waits: true, loses: true},
	}
}

// restartDocker is what makes Docker write all of its rules anew.
func restartDocker(w *world) {
	w.engine(w.host.StopEngine, w.host.StartEngine)
}

// TestLife: whatever happens to Docker and to its rules, what the policy denies stays closed. Only where quaywall's own rules
// are gone as well it doesn't; then status says so, and apply puts them back. What the policy allows goes on, or is there again
// when Docker was restarted. (The iptables backends answer `reject` in FORWARD, where Docker's jumps come to stand before
// theirs: status calls that drift, and until the next apply such a packet is dropped.)
func TestLife(t *testing.T) {
	onEachConfig(t, configs()[:4], func(t *testing.T, v variant, e lab.Engine) {
		e.LiveRestore = true
		w := oneHost(t, v, e)
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:81", "8082:82"}, Serve: []string{"80/tcp", "81/tcp", "82/tcp"}})
		w.host.MustExec(t, "sh", "-ec", "iptables-save >"+filepath.Join(w.host.Dir, "before"))
		w.mark()
		w.apply(lifePolicy)
		for _, event := range events() {
			if !*whole && event.long {
				continue
			}
			event.play(w)
			w.survives(e, event)
			w.mark()
		}
		w.quaywall(0, "stop")
		w.try(open(w.outside, "203.0.113.1:8081", "web", "nothing is in force"))
	})
}

// survives sees how the host is after an event, and sets it right for the next one.
func (w *world) survives(e lab.Engine, event event) {
	w.Helper()
	status, err := w.fw.Run(w.Context(), "status", "--exit-code")
	if err != nil {
		w.Fatal(err)
	}
	waits := event.waits && e.NoProxy && (event.loses || !dockerByNft())
	fact := lifeFact{Event: event.name, Engine: configName(e), Noticed: status.Code == 4,
		Works: w.howManyOpen(allowedInLife(w, e), !waits) == len(allowedInLife(w, e)),
		Held:  w.howManyOpen(deniedInLife(w), event.loses) == 0}
	w.measured(fact)
	if fact.Works == waits {
		w.Errorf("after %q what the policy allows is reachable: %v", event.name, fact.Works)
	}
	if fact.Held == event.loses {
		w.Errorf("after %q what the policy denies is closed: %v", event.name, fact.Held)
	}
	if mayDrift := event.loses || w.variant.backend == "iptables"; fact.Noticed && !mayDrift || event.loses && !fact.Noticed {
		w.Errorf("after %q status ended with %d:\n%s%s", event.name, status.Code, status.Stdout, status.Stderr)
	}
	w.mend(e, fact)
}

// mend does what a person would after such an event.
func (w *world) mend(e lab.Engine, fact lifeFact) {
	w.Helper()
	if fact.Noticed {
		w.mark()
		w.apply(lifePolicy)
		w.quaywall(0, "status", "--exit-code")
		w.try(rejected(w.outside, "203.0.113.1:8082", "policy.yaml:4"))
	}
	if !fact.Works {
		restartDocker(w)
		w.try(allowedInLife(w, e)...)
	}
	if n := w.howManyOpen(deniedInLife(w), false); n > 0 {
		w.Errorf("after %q, apply and a restart of Docker as needed, %d rows are open that should not be", fact.Event, n)
	}
}

func allowedInLife(w *world, e lab.Engine) []lab.Row {
	rows := []lab.Row{open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3")}
	if !e.NoProxy {
		rows = append(rows, open(w.outside, "[2001:db8:1::1]:8080", "web", "policy.yaml:3"))
	}
	return rows
}

func deniedInLife(w *world) []lab.Row {
	return []lab.Row{denied(w.outside, "203.0.113.1:8081", "default"), denied(w.neighbour, "172.17.0.2:80", direct),
		denied(w.outside, "[2001:db8:1::1]:8081", "default"), denied(w.outside, "203.0.113.1:22", "default"),
		denied(w.outside, "203.0.113.1:8082", "policy.yaml:4")}
}

// howManyOpen tries rows. Silence is believed sooner where it is expected.
func (w *world) howManyOpen(rows []lab.Row, expected bool) int {
	w.Helper()
	for i := range rows {
		rows[i].Want = map[bool]agent.Outcome{true: lab.Open, false: lab.Denied}[expected]
	}
	n := 0
	for _, r := range w.lab.Probe(w.Context(), rows) {
		if r.Err != nil {
			w.Fatal(r.Err)
		}
		if r.Got.Outcome == lab.Open {
			n++
		}
	}
	return n
}

// engine does things to dockerd one after the other.
func (w *world) engine(steps ...func(context.Context) error) {
	w.Helper()
	for _, step := range steps {
		if err := step(w.Context()); err != nil {
			w.Fatal(err)
		}
	}
}
