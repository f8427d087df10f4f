package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"quaywall/internal/agent"
	"quaywall/internal/apply"
	"quaywall/internal/denied"
	"quaywall/internal/lock"
	"quaywall/internal/repair"
	"quaywall/internal/watch/changes"
	"quaywall/internal/watch/paths"
)

const agentLong = `Stays, and keeps the policy in force. It follows interfaces, addresses and Docker's networks, takes up a policy or a set
file that was changed, and puts quaywall's rules back when somebody else changes them. Docker's own rules it puts back as
well, unless the policy says otherwise (docker-repair). What happens is logged, a line each, to standard error, with
--json to standard output. So is each packet that the policy denies and logs, a hundred a second at most; "quaywall log"
shows them.

Where a policy is in force already the agent keeps that one, else it puts the policy in force. What "quaywall stop" took
out, or what was taken back or rolled back, stays so until somebody applies a policy or changes its file. A policy that was
edited is put in force five seconds after the last change, unless somebody applies it before. A policy with errors, or one
that would cut off somebody who is logged in, is not put in force, and the one of before stays; nor is one in which a set
has lost all of its entries.

A program that takes quaywall's rules out again and again is named, and not fought for ever: mending waits longer and
longer, up to a minute. Docker that is not there, or not yet, is normal. Where the agent is started by systemd
(Type=notify), it says when it is ready, and that it is alive. It ends by SIGTERM; what is in force stays in force.`

func (a *app) agentCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "agent",
		Short:   "stay and keep the policy in force",
		Long:    agentLong,
		Example: lines("quaywall agent", "quaywall agent --json --policy /etc/quaywall/policy.yaml"),
		Args:    arguments(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.agent(cmd.Context()) },
	}
}

func (a *app) agent(ctx context.Context) error {
	if err := apply.Privileged(); err != nil {
		return err
	}
	policy, err := filepath.Abs(a.opts.policy)
	if err != nil {
		return err
	}
	only, err := lock.Single(a.opts.runDir, "agent")
	if err != nil {
		return fmt.Errorf("starting the agent: %w", err)
	}
	watcher, err := paths.Open()
	if err != nil {
		return errors.Join(err, only.Close())
	}
	h := a.host()
	p := agent.Places{Host: h, DockerHost: a.opts.dockerHost, LockFile: a.xtablesLock(), Files: watcher, Repair: repair.Local(h.Store, h.Boot)}
	host := agent.Local(p, a.logger())
	host.Notify = notify
	if every, err := daemon.SdWatchdogEnabled(false); err == nil {
		host.Watchdog = every / 2
	}
	packets := denied.NewRecorder(apply.LogGroup, denied.In(a.opts.runDir), host.Log)
	host.Know = packets.Know
	sources := append(agent.Sources(p), agent.Source{Name: "denied packets", Means: "they are told neither here nor by quaywall log",
		Watch: func(ctx context.Context, hint func(agent.Hint, string)) error {
			return packets.Run(ctx, func() { hint(0, "") })
		}})
	host.Log.Info("the agent begins", "version", a.env.Version, "process", os.Getpid())
	err = agent.New(host, agent.Config{Policy: policy, Given: a.opts.policyGiven, Backend: a.opts.backend}).Run(ctx, sources)
	return errors.Join(err, only.Close())
}

// notify tells the service manager. Where there is none, or it is gone, nobody has to know.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// xtablesLock is the file that iptables-legacy locks.
func (a *app) xtablesLock() string {
	if path := a.env.Getenv("XTABLES_LOCKFILE"); path != "" {
		return path
	}
	return changes.DefaultLockFile
}
