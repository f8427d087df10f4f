package firewall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

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
