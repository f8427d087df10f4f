package scenario

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// visitor is somebody who came in from outside by a process of the host that holds the connection, as by SSH.
type visitor struct {
	*world
	to agent.Dial
}

func visit(w *world, to string) visitor {
	w.Helper()
	return visitor{w, agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(to)}}
}

// quaywallBy runs quaywall in the visitor's session.
func (v visitor) quaywallBy(args ...string) agent.ShellResult {
	v.Helper()
	all, err := v.fw.Args(v.Context(), args...)
	if err != nil {
		v.Fatal(err)
	}
	r, err := v.outside.Shell(v.Context(), agent.Shell{Dial: v.to, Args: all})
	if err != nil {
		v.Fatal(err)
	}
	return r
}

const shellPort = "2222"

// shellHost is a host that lets people in at a port that is not SSH's.
func shellHost(t *testing.T, v variant) *world {
	w := bareHost(t, v)
	w.servesShells()
	return w
}

func (w *world) servesShells() {
	w.Helper()
	if err := w.host.ServeShells(w.Context(), ":"+shellPort); err != nil {
		w.Fatal(err)
	}
}

// TestLockOutIsRefused: apply names the way in that the policy would cut, and changes nothing.
func TestLockOutIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := shellHost(t, v)
		for _, to := range []string{"203.0.113.1:2222", "[2001:db8:1::1]:2222"} {
			person := visit(w, to)
			if err := w.fw.Write(lines("version: 1", "inbound:", "  - allow: ssh")); err != nil {
				t.Fatal(err)
			}
			r := person.quaywallBy("apply")
			if r.Code != 3 || !strings.Contains(r.Output, shellPort) || !strings.Contains(r.Output, "labhost") {
				t.Errorf("%s: apply ended with %d, want 3 and the name and port of the way in:\n%s", to, r.Code, r.Output)
			}
			w.gone("an apply that was refused")
			if err := w.fw.Write(lines("version: 1", "inbound:", "  - allow: "+shellPort)); err != nil {
				t.Fatal(err)
			}
			if r := person.quaywallBy("apply"); r.Code != 0 {
				t.Errorf("%s: apply of a policy that keeps the way in ended with %d:\n%s", to, r.Code, r.Output)
			}
			if r := person.quaywallBy("stop"); r.Code != 0 {
				t.Errorf("%s: stop ended with %d:\n%s", to, r.Code, r.Output)
			}
		}
	})
}

// TestTrap20Confirm: without a confirmation the old policy is back, also when the session died; with one the new policy
// stays. (A reboot and a jump of the clock are tested where the undo is.)
func TestTrap20Confirm(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := shellHost(t, v)
		w.apply(lines("version: 1", "inbound:", "  - allow: ["+shellPort+", ssh]"))
		person := visit(w, "203.0.113.1:2222")
		if err := w.fw.Write(lines("version: 1", "inbound:", "  - allow: "+shellPort)); err != nil {
			t.Fatal(err)
		}
		if r := person.quaywallBy("apply", "--confirm", "15s"); r.Code != 0 {
			t.Fatalf("apply --confirm ended with %d:\n%s", r.Code, r.Output)
		}
		w.check(denied(w.outside, "203.0.113.1:22", "default"))
		waitForOpen(w, "203.0.113.1:22")
		w.quaywall(0, "status", "--exit-code")
		if r := person.quaywallBy("apply", "--confirm", "60s"); r.Code != 0 {
			t.Fatalf("apply --confirm ended with %d:\n%s", r.Code, r.Output)
		}
		if r := person.quaywallBy("confirm"); r.Code != 0 {
			t.Fatalf("confirm ended with %d:\n%s", r.Code, r.Output)
		}
		w.check(denied(w.outside, "203.0.113.1:22", "default"))
		w.stop()
	})
}

// waitForOpen waits until a port answers again.
func waitForOpen(w *world, to string) {
	w.Helper()
	d := agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(to), Timeout: time.Second}
	for range 60 {
		if r, err := w.outside.Dial(w.Context(), d); err == nil && r.Outcome == lab.Open {
			return
		}
	}
	w.Fatalf("%s never opened again", to)
}
