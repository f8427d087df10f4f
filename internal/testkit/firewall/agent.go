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

// Agent is a running `quaywall agent`.
type Agent struct {
	firewall *Firewall
	cmd      *exec.Cmd
	log      log
}

// log is what the agent says, while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// Agent starts the agent. It ends with ctx, or by End.
func (f *Firewall) Agent(ctx context.Context, flags ...string) (*Agent, error) {
	all, err := f.Args(ctx, append([]string{"agent"}, flags...)...)
	if err != nil {
		return nil, err
	}
	a := &Agent{firewall: f}
	if a.cmd, err = f.Host.Command(ctx, all[0], all[1:]...); err != nil {
		return nil, err
	}
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	return a, a.cmd.Start()
}

// Log is what the agent has said so far.
func (a *Agent) Log() string {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	return a.log.text.String()
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
