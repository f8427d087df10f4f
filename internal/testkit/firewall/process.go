package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"quaywall/internal/units"
)

// Process is a run of quaywall that goes on.
type Process struct {
	cmd *exec.Cmd
	out output
}

// output is what a process says, while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// Start starts a command of quaywall's. It ends with ctx.
func (f *Firewall) Start(ctx context.Context, args ...string) (*Process, error) {
	all, err := f.Args(ctx, args...)
	if err != nil {
		return nil, err
	}
	return f.start(ctx, all)
}

// StartDoomed starts a command of quaywall's that is killed before its Nth system call that matters. Calls count from when a
// file is there; with "" they all do. Its Log says "killed before the Nth" when it was.
func (f *Firewall) StartDoomed(ctx context.Context, n int, since string, args ...string) (*Process, error) {
	all, err := f.Args(ctx, args...)
	if err != nil {
		return nil, err
	}
	labhost, err := f.Host.Lab().Program(ctx, "quaywall/internal/testkit/cmd/labhost")
	if err != nil {
		return nil, err
	}
	return f.start(ctx, append([]string{labhost, "killat", strconv.Itoa(n), since}, all...))
}

// StartUnit runs what systemd would to start a unit of quaywall's, such as "quaywall.service". It ends with ctx.
func (f *Firewall) StartUnit(ctx context.Context, unit string) (*Process, error) {
	all, err := f.Args(ctx)
	if err != nil {
		return nil, err
	}
	files, err := units.Install(ctx, units.Options{Program: all[0], Flags: all[1:], Root: filepath.Join(f.Host.Dir, "root")})
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if filepath.Base(file) != unit {
			continue
		}
		text, err := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			if command, ok := strings.CutPrefix(line, "ExecStart="); ok && err == nil {
				return f.start(ctx, strings.Fields(command))
			}
		}
		return nil, errors.Join(err, fmt.Errorf("%s starts nothing", unit))
	}
	return nil, fmt.Errorf("no unit %s", unit)
}

func (f *Firewall) start(ctx context.Context, all []string) (*Process, error) {
	p := &Process{}
	var err error
	if p.cmd, err = f.Host.Command(ctx, all[0], all[1:]...); err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = 5 * time.Second // a program that outlives a killed quaywall may hold its output
	return p, p.cmd.Start()
}

// Log is what the process has said so far.
func (p *Process) Log() string {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.out.text.String()
}

// Wait waits for the process's end. An exit status other than 0 is an error.
func (p *Process) Wait() error { return p.cmd.Wait() }

// Kill ends the process as kill -9 does, wherever it is, and waits for its end. It tells whether there was something to kill.
func (p *Process) Kill() bool {
	// What enters the host's namespaces waits for its child, which is quaywall. Stopped, it can't start it meanwhile.
	entering := p.cmd.Process
	killed := entering.Signal(syscall.SIGSTOP) == nil
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", entering.Pid))
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if len(children) == 0 {
		_ = entering.Kill()
	}
	_ = entering.Signal(syscall.SIGCONT)
	var exit *exec.ExitError
	return errors.As(p.cmd.Wait(), &exit) && killed && exit.ExitCode() < 0
}
