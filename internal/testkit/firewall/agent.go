package firewall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
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
	p := &Process{}
	if p.cmd, err = f.Host.Command(ctx, all[0], all[1:]...); err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	return p, p.cmd.Start()
}

// Log is what the process has said so far.
func (p *Process) Log() string {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.out.text.String()
}

// Agent is a running `quaywall agent`.
type Agent struct {
	*Process
	firewall *Firewall
}

// Agent starts the agent. It ends with ctx, or by End.
func (f *Firewall) Agent(ctx context.Context, flags ...string) (*Agent, error) {
	p, err := f.Start(ctx, append([]string{"agent"}, flags...)...)
	return &Agent{p, f}, err
}

// PID is the agent's process, on its host.
func (a *Agent) PID() (int, error) {
	text, err := os.ReadFile(filepath.Join(a.firewall.Host.Dir, "run", "agent.lock"))
	if err != nil {
		return 0, err
	}
	var holder struct {
		PID int `json:"pid"`
	}
	err = json.Unmarshal(text, &holder)
	return holder.PID, err
}

// End ends the agent by a signal, such as TERM or KILL, and waits for it.
func (a *Agent) End(ctx context.Context, signal string) error {
	pid, err := a.PID()
	if err != nil {
		return err
	}
	if _, err := a.firewall.Host.Exec(ctx, "kill", "-"+signal, strconv.Itoa(pid)); err != nil {
		return err
	}
	err = a.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && signal != "KILL" {
		return fmt.Errorf("the agent ended with %w:\n%s", err, a.Log())
	}
	return nil
}
