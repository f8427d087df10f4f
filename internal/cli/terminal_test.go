package cli_test

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/pty"
)

// screen is a terminal with the program in it, as a person over SSH has it.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys *os.File // the person's end
	text chan string
	seen strings.Builder
}

// sits starts the program in a terminal on the machine.
func (m machine) sits(t *testing.T, args string) *screen {
	t.Helper()
	person, line, err := pty.Open(40, 120)
	must(t, err)
	defer line.Close()
	s := &screen{t: t, cmd: command(m.dir, strings.Fields(args)...), keys: person, text: make(chan string, 1000)}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = line, line, line
	s.cmd.SysProcAttr = pty.Session()
	m.Do(t, func() { must(t, s.cmd.Start()) })
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait(); s.keys.Close() })
	go func() {
		defer close(s.text)
		for buf := make([]byte, 4096); ; {
			n, err := person.Read(buf)
			if err != nil {
				return // the program's end of the terminal is closed
			}
			s.text <- string(buf[:n])
		}
	}()
	return s
}

// shows waits until the screen has shown a text.
func (s *screen) shows(text string) {
	s.t.Helper()
	for timer := time.After(30 * time.Second); !strings.Contains(s.seen.String(), text); {
		select {
		case more, ok := <-s.text:
			if !ok {
				s.t.Fatalf("the program ended and never showed %q, but\n%s", text, s.seen.String())
			}
			s.seen.WriteString(more)
		case <-timer:
			s.t.Fatalf("the program does not show %q, but\n%s", text, s.seen.String())
		}
	}
}

func (s *screen) types(keys string) {
	s.t.Helper()
	_, err := s.keys.WriteString(keys)
	must(s.t, err)
}

// cooked sets the terminal as shells do when they bring a job to the foreground: keys come by the line.
func (s *screen) cooked() {
	s.t.Helper()
	raw, err := s.keys.SyscallConn()
	must(s.t, err)
	must(s.t, raw.Control(func(fd uintptr) {
		mode, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err == nil {
			mode.Lflag |= unix.ICANON | unix.ECHO
			err = unix.IoctlSetTermios(int(fd), unix.TCSETS, mode)
		}
		if err != nil {
			s.t.Error(err)
		}
	}))
}

// ends waits for the program's end.
func (s *screen) ends(status ...int) {
	s.t.Helper()
	timer := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); !slices.Contains(status, got) {
		s.t.Errorf("status %d, want %v; the screen:\n%s", got, status, s.seen.String())
	}
}

// TestCountdownOnTerminal: what a person answers counts, and so does what others do meanwhile.
func TestCountdownOnTerminal(t *testing.T) {
	for _, test := range []struct {
		name   string
		what   func(m machine, s *screen)
		status int
		shows  string
		stays  bool // the policy stays in force
	}{
		{"y", func(_ machine, s *screen) { s.types("y") }, 0, "confirmed", true},
		{"y, after a shell has changed the terminal", func(_ machine, s *screen) { s.cooked(); s.shows("58 s left"); s.types("y") }, 0, "confirmed", true},
		{"n", func(_ machine, s *screen) { s.types("n") }, 1, "it was declined", false},
		{"confirmed in another shell", func(m machine, _ *screen) { m.quaywall(t, "confirm") }, 0, "in another shell", true},
		{"stopped in another shell", func(m machine, _ *screen) { m.quaywall(t, "stop") }, 1, "stopped", false},
		{"Ctrl-C, and confirmed then", func(m machine, s *screen) {
			s.types("\x03")
			s.shows("Not confirmed.")
			m.quaywall(t, "confirm").expect(t, 0, []string{"stays in force"}, nil)
		}, 0, "unless before that", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			write(t, m.dir, "policy.yaml", webPolicy)
			s := m.sits(t, "apply --confirm 60s policy.yaml")
			s.shows("s left")
			test.what(m, s)
			s.shows(test.shows)
			s.ends(test.status)
			st := m.quaywall(t, "status")
			if got := strings.Contains(st.stdout, "in force since"); got != test.stays || strings.Contains(st.stdout, "Not confirmed") {
				t.Errorf("status says\n%s", st.stdout)
			}
		})
	}
}

// TestTerminalIsClosed: the countdown ends with its terminal, and the change is taken back all the same.
func TestTerminalIsClosed(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	s := m.sits(t, "apply --confirm 3s policy.yaml")
	s.shows("s left")
	must(t, s.keys.Close())
	s.ends(0, 1) // on a slow machine the time is over before the signal is there
	m.await(t, "status", "nobody confirmed it in time")
	m.quaywall(t, "status").expect(t, 0, []string{"none in force"}, nil)
}

// TestNoTerminal: without a person to ask, apply answers at once.
func TestNoTerminal(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	s := m.sits(t, "apply --json --confirm 60s policy.yaml")
	s.shows(`"seconds_left": 60`)
	s.ends(0)
	m.quaywall(t, "apply --confirm 60s policy.yaml").expect(t, 0, []string{"To keep the policy, run within"}, []string{})
}

// TestStatusOfTheAgent: status tells of an agent that runs and of what it repaired last; one that died is not taken for
// alive, and what it repaired is told on.
func TestStatusOfTheAgent(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	m.quaywall(t, "apply policy.yaml").expect(t, 0, nil, []string{})
	m.quaywall(t, "status").expect(t, 0, []string{"does not run"}, nil)
	agent := m.agent(t)
	m.await(t, "status", "follows interfaces, rules")
	m.Output(t, "nft", "flush", "ruleset")
	m.await(t, "status", "quaywall's missing; mended in")
	m.Output(t, "nft", "flush", "ruleset") // the first one may have been found by the agent's first look, which knows no author
	m.await(t, "status", "after nft (process")
	r := m.quaywall(t, "status --json")
	r.expect(t, 0, []string{`"running": true`, `"rules": "quaywall"`, `"by": "nft (process `, `"took_ns": `, `"verb": "allow"`}, nil)
	m.quaywall(t, "status --exit-code").expect(t, 0, []string{"in force since", "runs since", "after nft (process", "journalctl"}, nil)
	must(t, agent.Process.Kill())
	_ = agent.Wait()
	m.quaywall(t, "status").expect(t, 0, []string{"does not run", "quaywall's missing; mended in"}, nil)
	m.quaywall(t, "status --json").expect(t, 0, []string{`"running": false`}, nil)
	m.agent(t)
	m.await(t, "status", "follows interfaces, rules")
	m.quaywall(t, "status").expect(t, 0, []string{"runs since", "quaywall's missing; mended in"}, nil)
}

// agent starts the agent on the machine.
func (m machine) agent(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := command(m.dir, "agent", "--policy", "policy.yaml")
	m.Do(t, func() { must(t, cmd.Start()) })
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// TestWatch: looks follow each other until the person has seen enough, or nobody reads them any more.
func TestWatch(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	m.quaywall(t, "apply policy.yaml").expect(t, 0, nil, []string{})
	for _, keys := range []string{"q", "\x03"} {
		s := m.sits(t, "status --watch")
		s.shows("q ends")
		s.types(keys)
		s.shows("\x1b[?1049l") // the screen of before is back
		s.ends(0)
	}
	s := m.sits(t, "status --watch")
	s.shows("in force")
	m.quaywall(t, "stop")
	s.shows("none in force")
	must(t, s.keys.Close())
	s.ends(0)

	cmd := command(m.dir, "status", "--watch")
	out, err := cmd.StdoutPipe()
	must(t, err)
	m.Do(t, func() { must(t, cmd.Start()) })
	lines := bufio.NewReader(out)
	for looks := 0; looks < 2; {
		line, err := lines.ReadString('\n')
		must(t, err)
		if strings.Contains(line, "\x1b") {
			t.Errorf("an escape sequence in %q", line)
		}
		if strings.Contains(line, "none in force") {
			looks++
		}
	}
	must(t, out.Close()) // as head(1) does
	must(t, cmd.Wait())
}
