// Package units has the units of systemd that put a policy in force at boot and keep it there, and installs them.
//
//	err := units.Install(ctx, units.Options{Program: "/usr/sbin/quaywall"})
//	real, err := units.IsRealStop(ctx, "quaywall.service")
//
// Be aware: with a Root, as for an image or a package, files are written and systemctl is not called. Installing neither
// starts anything nor touches rules; Remove stops the units, which takes the policy out.
package units

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quaywall/internal/sysexec"
)

//go:embed quaywall.service quaywall-agent.service
var texts embed.FS

// names in the order in which they are started.
var names = []string{"quaywall.service", "quaywall-agent.service"}

// dir is where an administrator's units are.
const dir = "/etc/systemd/system"

// Options say what to install, and where.
type Options struct {
	Program string // absolute path of quaywall, as the units call it
	Root    string // a folder in place of /; then systemd isn't told
}

func (o Options) path(name string) string { return filepath.Join(o.Root, dir, name) }

// text is a unit's file.
func (o Options) text(name string) (string, error) {
	text, err := texts.ReadFile(name)
	return strings.ReplaceAll(string(text), "@PROGRAM@", o.Program), err
}

// Install writes the units and has them started at boot. It gives the files that it wrote.
func Install(ctx context.Context, o Options) ([]string, error) {
	if !filepath.IsAbs(o.Program) || strings.ContainsAny(o.Program, " \t\n\"'\\%$") {
		return nil, fmt.Errorf("a unit can't call %q: put the program somewhere with a plain absolute path", o.Program)
	}
	var written []string
	for _, name := range names {
		text, err := o.text(name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(o.path(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(o.path(name), []byte(text), 0o644)
		}
		if err != nil {
			return written, fmt.Errorf("installing %s: %w", name, err)
		}
		written = append(written, o.path(name))
	}
	return written, o.systemctl(ctx, []string{"daemon-reload"}, append([]string{"enable"}, names...))
}

// Remove stops the units and takes their files away. Units that are not installed are no error.
func Remove(ctx context.Context, o Options) (removed []string, err error) {
	var there []string
	for _, name := range names {
		if _, err := os.Stat(o.path(name)); err == nil {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return nil, nil
	}
	if err := o.systemctl(ctx, append([]string{"disable", "--now"}, there...)); err != nil {
		return nil, err
	}
	for _, name := range there {
		if err := os.Remove(o.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		removed = append(removed, o.path(name))
	}
	return removed, o.systemctl(ctx, []string{"daemon-reload"})
}

func (o Options) systemctl(ctx context.Context, calls ...[]string) error {
	if o.Root != "" {
		return nil
	}
	for _, args := range calls {
		if _, err := sysexec.Run(ctx, sysexec.Command{Path: "systemctl", Args: args}); err != nil {
			return fmt.Errorf("systemctl %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}

// IsRealStop tells whether a unit that is being stopped is to stay so: neither is it restarted, nor does the host go down.
// Where systemd doesn't tell, the error says why.
func IsRealStop(ctx context.Context, unit string) (bool, error) {
	state, err := sysexec.Run(ctx, sysexec.Command{Path: "systemctl", Args: []string{"is-system-running"}})
	var failed *sysexec.Error
	if err != nil && !errors.As(err, &failed) { // a degraded system ends with a status other than 0
		return false, fmt.Errorf("asking systemd whether the host goes down: %w", err)
	}
	if strings.TrimSpace(string(state)) == "stopping" {
		return false, nil
	}
	jobs, err := sysexec.Run(ctx, sysexec.Command{Path: "systemctl", Args: []string{"list-jobs", "--plain", "--no-legend"}})
	if err != nil {
		return false, fmt.Errorf("asking systemd for its jobs: %w", err)
	}
	return isStopped(string(jobs), unit)
}

// isStopped reads lines such as "1234 quaywall.service restart running".
func isStopped(jobs, unit string) (bool, error) {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) >= 3 && f[1] == unit {
			return f[2] == "stop", nil
		}
	}
	return false, fmt.Errorf("systemd has no job for %s: it is not being stopped", unit)
}
