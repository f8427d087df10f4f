package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"quaywall/internal/denied"
	"quaywall/internal/lock"
	"quaywall/internal/units"
)

const installLong = `Installs two units of systemd, and has them started at boot: quaywall.service puts the policy in force before there is any
network and before Docker, quaywall-agent.service keeps it in force. They call this very program, where it is now, with the
global flags that install is given: --policy, --backend, --docker-host, --state-dir, --run-dir.
Nothing is started and no rule is touched; "systemctl start quaywall quaywall-agent" does that without a boot.

Restarting quaywall.service is one apply, and the policy stays in force while the host goes down; stopping it takes the
policy out.`

const uninstallLong = `Stops and removes the units of "quaywall install", takes everything of quaywall's out of the kernel, and removes what it
keeps on the disk: records, lock files, logs. The policy and the program stay; remove them by hand, or by your package
manager.`

// InstallAnswer is what "install --json" says.
type InstallAnswer struct {
	Installed []string `json:"installed"` // files and links that were made
}

// UninstallAnswer is what "uninstall --json" says.
type UninstallAnswer struct {
	Removed []string `json:"removed"` // files of units that were removed
	Policy  string   `json:"policy"`  // the policy file, which stays
}

func (a *app) installCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:     "install",
		Short:   "install systemd units on this host",
		Long:    installLong,
		Example: lines("quaywall install", "quaywall install --root /srv/image"),
		Args:    arguments(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.install(cmd, root) },
	}
	rootFlag(cmd, &root)
	return cmd
}

func rootFlag(cmd *cobra.Command, root *string) {
	cmd.Flags().StringVar(root, "root", "", "work on the files of a system in this `DIR`, and tell no systemd")
}

func (a *app) install(cmd *cobra.Command, root string) error {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return fmt.Errorf("finding this program's file: %w", err)
	}
	o := units.Options{Program: self, Root: root}
	if err := a.opts.tell(cmd, &o); err != nil {
		return err
	}
	written, err := units.Install(cmd.Context(), o)
	if err != nil {
		return err
	}
	a.answer(InstallAnswer{Installed: written}, func(w io.Writer, s style) {
		for _, path := range written {
			fmt.Fprintln(w, s.good("installed"), path)
		}
		if root == "" {
			fmt.Fprintf(w, "\nThey are started at boot. To start them now:\n\n    systemctl start quaywall quaywall-agent\n")
		}
	})
	return nil
}

func (a *app) uninstallCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:     "uninstall",
		Short:   "remove the units, the rules and the records",
		Long:    uninstallLong,
		Example: lines("quaywall uninstall"),
		Args:    arguments(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.uninstall(cmd.Context(), root) },
	}
	rootFlag(cmd, &root)
	return cmd
}

func (a *app) uninstall(ctx context.Context, root string) error {
	removed, err := units.Remove(ctx, units.Options{Root: root})
	if err == nil && root == "" {
		err = a.removeAll(ctx)
	}
	if err != nil {
		return a.explained(err)
	}
	if removed == nil {
		removed = []string{}
	}
	a.answer(UninstallAnswer{Removed: removed, Policy: a.opts.policy}, func(w io.Writer, s style) {
		for _, path := range removed {
			fmt.Fprintln(w, s.good("removed"), path)
		}
		if root == "" {
			fmt.Fprintf(w, "Nothing of quaywall's is in the kernel. The policy is still there: %s\n", a.opts.policy)
		}
	})
	return nil
}

// removeAll takes out what is in the kernel, then what is kept of it.
func (a *app) removeAll(ctx context.Context) error {
	h := a.host()
	if _, err := h.Stop(ctx, defaultWait); err != nil {
		return err
	}
	a.settled()
	if err := h.ErasePayloads(); err != nil {
		return err
	}
	if err := h.Store.Erase(); err != nil {
		return err
	}
	return lock.Erase(a.opts.runDir, "agent.lock", "undo.log", denied.FileName, denied.OlderName)
}

// unitStopCommand is what quaywall.service calls when it ends. It is not for people.
func (a *app) unitStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "unit-stop UNIT",
		Short:  "stop, unless the unit is restarted or the host goes down",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			really, err := units.IsRealStop(cmd.Context(), args[0])
			switch {
			case err != nil:
				a.notices([]string{err.Error(), "the policy stays in force; quaywall stop takes it out"})
				return nil
			case !really:
				a.notices([]string{"the unit is restarted, or the host goes down: the policy stays in force"})
				return nil
			}
			_, err = a.host().Stop(cmd.Context(), defaultWait)
			return a.explained(err)
		},
	}
}
