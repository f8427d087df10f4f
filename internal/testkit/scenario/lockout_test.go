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
	w.servesShellsAt(shellPort)
}

func (w *world) servesShellsAt(port string) {
	w.Helper()
	if err := w.host.ServeShells(w.Context(), ":"+port); err != nil {
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

// TestLockOutBy: whatever puts a policy in force asks whether it cuts the way in. The undo of a change that nobody confirms
// doesn't, and so it is told beforehand.
func TestLockOutBy(t *testing.T) {
	t.Parallel()
	w := bareHost(t, variants[0])
	closed, kept := lines(append(inbound("allow: ssh"), "established: keep")...), lines(inbound("allow: 2222")...)
	l, command := w.newLogin()
	w.serveSSH(w.host, "2222").ssh(w.outside, "2222", "root@203.0.113.1", command)
	l.begun()
	expect := func(code int, says []string, args ...string) {
		t.Helper()
		r := l.quaywall(args...)
		for _, text := range says {
			if !strings.Contains(r.Output, text) {
				t.Errorf("quaywall %v: what was said lacks %q:\n%s", args, text, r.Output)
			}
		}
		if r.Code != code {
			t.Errorf("quaywall %v ended with %d, want %d:\n%s", args, r.Code, code, r.Output)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := w.fw.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	sshd := []string{"sshd (process ", "port 2222/tcp, from 203.0.113.2", "add to inbound: - {allow: 2222/tcp, from: 203.0.113.2}"}
	undo := []string{"unless it is confirmed, ", "comes back, which cuts the way in: sshd (process ", "port 2222/tcp, from 203.0.113.2"}

	write(closed)
	for _, command := range []string{"apply", "start", "restart"} {
		expect(3, sshd, command)
	}
	expect(3, sshd, "apply", "--boot")
	expect(3, sshd, "apply", "--dry-run")
	w.gone("applies that were refused")

	w.apply(closed) // with --allow-lockout
	write(kept)
	expect(0, undo, "apply", "--confirm", "2s")
	w.check(denied(w.outside, "203.0.113.1:22", "default"))
	waitForOpen(w, "203.0.113.1:22")
	expect(0, nil, "status") // the session goes on
	expect(0, nil, "apply")
	expect(3, sshd, "rollback")
	w.check(denied(w.outside, "203.0.113.1:22", "default"))

	write(lines(inbound("allow: 2222", "allow: ssh")...))
	expect(0, nil, "apply", "--confirm", "60s")
	expect(0, nil, "rollback") // to what it comes from
	expect(0, nil, "stop")

	l.end()
	w.within(patience, "the end of the session", func() bool { _, err := w.host.Exec(t.Context(), "pgrep", "-f", l.dir); return err != nil })
	write(lines("version: 1", "inbound: []"))
	w.quaywall(0, "apply", "--boot") // nobody is here who could be cut off
	w.check(denied(w.outside, "203.0.113.1:2222", "default"))
	w.stop()
}

// TestAgentCutsNobodyOff: an edited policy that would cut off who is logged in stays out. The agent's log and status say who.
func TestAgentCutsNobodyOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		comes  func(s sshd, command string)
		closes []string // rules that close the way
		says   string
	}{
		{"ssh", func(s sshd, command string) { s.ssh(s.w.outside, "2222", "root@203.0.113.1", command) },
			[]string{"{allow: 2222, from: 192.168.50.2}"}, "port 2222/tcp, from 203.0.113.2"},
		{"mosh", func(s sshd, command string) { s.mosh(s.w.outside, "2001:db8:1::1", command) },
			[]string{"allow: 2222"}, "port 60001/udp, from 2001:db8:1::2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := bareHost(t, variants[0])
			l, command := w.newLogin()
			tt.comes(w.serveSSH(w.host, "2222"), command)
			l.begun()
			if err := w.fw.Write(lines(inbound("allow: 2222", "allow: 60001/udp", "allow: ssh")...)); err != nil {
				t.Fatal(err)
			}
			a := agentOf(w, "the policy is in force")
			replace(w, lines(inbound(tt.closes...)...))
			w.until("a policy that cuts somebody off", func() bool {
				return strings.Contains(a.Log(), "the policy was not put in force: what is in force stays")
			})
			w.try(open(w.outside, "203.0.113.1:22", "host", "the policy of before"))
			for what, text := range map[string]string{"the log": a.Log(), "status": w.quaywall(0, "status").Stdout} {
				if !strings.Contains(text, "(process ") || !strings.Contains(text, tt.says) {
					t.Errorf("%s does not say who would be cut off (%s):\n%s", what, tt.says, text)
				}
			}
			replace(w, lines(inbound(append(tt.closes, "{allow: 2222/tcp, from: 203.0.113.2}", `{allow: 60001/udp, from: "2001:db8:1::2"}`)...)...))
			w.until("a policy that cuts nobody off", func() bool { return strings.Count(a.Log(), "the policy is in force") == 2 })
			l.end()
			if err := a.End(t.Context(), "TERM"); err != nil {
				t.Error(err)
			}
			w.quaywall(0, "stop")
		})
	}
}
