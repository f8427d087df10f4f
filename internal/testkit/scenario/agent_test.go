package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

// eventually is how long the agent may take to notice something on a busy machine.
const eventually = 30 * time.Second

// agentOf starts an agent and waits until it has said something.
func agentOf(w *world, said string) *firewall.Agent {
	w.Helper()
	a, err := w.fw.Agent(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if w.Failed() {
			w.Log(a.Log())
		}
	})
	w.until(said, func() bool { return strings.Contains(a.Log(), said) })
	return a
}

// until waits for something.
func (w *world) until(what string, holds func() bool) {
	w.Helper()
	w.within(eventually, what, holds)
}

func (w *world) within(limit time.Duration, what string, holds func() bool) {
	w.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// mended tells whether all of quaywall's is in force, as status sees it.
func (w *world) mended() bool {
	ran, err := w.fw.Run(w.Context(), "status", "--exit-code", "--json")
	return err == nil && ran.Code == 0 && strings.Contains(ran.Stdout, `"in_force": true`)
}

// TestAgent: on a host without Docker. What somebody does to the rules is undone; a changed policy is put in force,
// however it is written, one with mistakes or that locks somebody out is not; what somebody stopped stays stopped.
func TestAgent(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := shellHost(t, v)
		if v.legacy {
			w = oneHost(t, v, lab.Engine{})
			w.servesShells()
		}
		policy := func(lines ...string) string {
			return strings.Join(append([]string{"version: 1", "inbound:", "  - allow: 2222"}, lines...), "\n") + "\n"
		}
		if err := w.fw.Write(policy()); err != nil {
			t.Fatal(err)
		}
		a := agentOf(w, "the policy is in force")
		w.check(denied(w.outside, "203.0.113.1:22", "default"))
		for _, d := range damages(v) {
			before := strings.Count(a.Log(), "they are back")
			w.host.MustExec(t, "sh", "-c", d.damage)
			w.until(d.damage, func() bool { return strings.Count(a.Log(), "they are back") > before })
			if !w.mended() {
				t.Errorf("%s was not mended\n%s", d.damage, a.Log())
			}
			if d.after != "" {
				w.host.MustExec(t, "sh", "-c", d.after)
			}
		}

		replace(w, policy("  - allow: ssh"))
		w.until("a renamed policy", func() bool { return strings.Count(a.Log(), "the policy is in force") == 2 })
		w.check(open(w.outside, "203.0.113.1:22", "host", "policy.yaml:4"))
		replace(w, policy("  - alow: ssh"))
		w.until("a mistake", func() bool { return strings.Contains(a.Log(), "the policy has errors") })
		w.try(open(w.outside, "203.0.113.1:22", "host", "the policy of before"))

		leave := visit(w, "203.0.113.1:2222").stays()
		replace(w, lines("version: 1", "inbound:", "  - allow: 9000"))
		w.until("a policy that locks somebody out", func() bool { return strings.Contains(a.Log(), "the policy was not put in force") })
		w.try(open(w.outside, "203.0.113.1:22", "host", "the policy of before"))
		leave()
		replace(w, policy())

		w.quaywall(0, "stop")
		w.until("a stop", func() bool { return strings.Contains(a.Log(), "quaywall was stopped") })
		replace(w, policy("  - allow: 9000"))
		time.Sleep(time.Second)
		w.gone("stop")
		w.quaywall(0, "apply", "--allow-lockout")
		w.host.MustExec(t, "sh", "-c", damages(v)[0].damage)
		w.until("after an apply", w.mended)
		if err := a.End(t.Context(), "TERM"); err != nil {
			t.Error(err)
		}
		if !w.mended() {
			t.Error("the agent's end took the policy out")
		}
	})
}

// stays has somebody log in and stay, until the function that it gives is called.
func (v visitor) stays() (leave func()) {
	v.Helper()
	job, err := v.outside.Start(v.Context(), agent.Request{Shell: &agent.Shell{Dial: v.to, Args: []string{"sleep", "600"}}})
	if err != nil {
		v.Fatal(err)
	}
	v.until("a shell", func() bool { _, err := v.host.Exec(v.Context(), "pgrep", "-fx", "sleep 600"); return err == nil })
	return func() {
		var r agent.ShellResult
		if err := job.Stop(&r); err != nil {
			v.Error(err)
		}
	}
}

// replace writes the policy as an editor does: a new file, renamed.
func replace(w *world, text string) {
	w.Helper()
	temp := filepath.Join(filepath.Dir(w.fw.Policy), ".policy.tmp")
	err := os.WriteFile(temp, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(temp, w.fw.Policy)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// TestAgentAndDocker: the agent is there before Docker. Networks that come later, by whatever name their bridge has, are
// followed, and so are interfaces that come later; Docker's restart changes nothing.
func TestAgentAndDocker(t *testing.T) {
	t.Parallel()
	w := oneHost(t, variants[0], lab.Engine{})
	if err := w.host.StopEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.fw.Write(lines("version: 1", "inbound:", "  - allow: published", "    network: late", "egress:", "  - allow: 80", "    network: late",
		"defaults: {egress: deny}")); err != nil {
		t.Fatal(err)
	}
	a := agentOf(w, "the policy is in force")
	if !strings.Contains(a.Log(), "Docker gives no answer") {
		t.Errorf("that Docker is absent is not said:\n%s", a.Log())
	}
	if err := w.host.StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("Docker came", func() bool { return strings.Contains(a.Log(), "Docker answers") })
	w.network(lab.Network{Name: "late", Subnets: []string{"172.30.0.0/24"}, Options: map[string]string{"com.docker.network.bridge.name": "qwlate"}})
	late := w.run(lab.Container{Name: "web", Networks: []string{"late"}, IP: "172.30.0.9", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
	early := w.run(lab.Container{Name: "other", Publish: []string{"9090:80"}, Serve: []string{"80/tcp"}})
	w.until("the network was noticed", func() bool {
		ran, err := w.fw.Run(t.Context(), "plan", "--exit-code", "--json")
		return err == nil && ran.Code == 0
	})
	rows := []lab.Row{open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"), denied(w.outside, "203.0.113.1:9090", "default"),
		open(late, lab.OutsideAddr4+":80", "outside", "policy.yaml:6"), denied(early, lab.OutsideAddr4+":80", "policy.yaml:8")}
	w.check(rows...)
	applies := strings.Count(a.Log(), "the policy is in force")
	if err := w.host.KillEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("Docker is gone", func() bool { return strings.Count(a.Log(), "Docker gives no answer") == 2 })
	if n := strings.Count(a.Log(), "the policy is in force"); n != applies {
		t.Errorf("without Docker's answer another policy was put in force:\n%s", a.Log())
	}
	if !w.mended() {
		t.Errorf("the policy is not in force:\n%s", a.Log())
	}
	if err := w.host.StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("Docker is back", func() bool { return strings.Count(a.Log(), "Docker answers") == 2 })
	time.Sleep(4 * time.Second)
	if strings.Contains(a.Log(), "Docker's rules") {
		t.Errorf("what Docker writes itself was not left to it:\n%s", a.Log())
	}
}
