// Package units has the units of systemd that put a policy in force at boot and keep it there, and installs them.
//
//	err := units.Install(ctx, units.Options{Program: "/usr/sbin/quaywall"})
//	real, err := units.IsRealStop(ctx, "quaywall.service")
//
// Be aware: with a Root, as for an image or a package, files and links are made and systemctl is not called. Installing neither
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
	"slices"
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
	Program string   // absolute path of quaywall, as the units call it
	Flags   []string // that the units call it with, as in --policy=/srv/policy.yaml
	Reads   []string // absolute paths of further folders that these name, which have to be mounted first
	Writes  []string // likewise, and the program writes to them
	Root    string   // a folder in place of /; then systemd isn't told
}

func (o Options) path(name string) string { return filepath.Join(o.Root, dir, name) }

// text is a unit's file.
func (o Options) text(name string) (string, error) {
	text, err := texts.ReadFile(name)
	return strings.NewReplacer("@PROGRAM@", o.Program, "@FLAGS@", joined(" ", o.Flags), "@MOUNTS@", joined(" ", o.Reads)+joined(" ", o.Writes),
		"@WRITES@", joined(" -", o.Writes)).Replace(string(text)), err
}

// joined puts something in front of each word.
func joined(before string, words []string) string {
	text := ""
	for _, w := range words {
		text += before + w
	}
	return text
}

// check refuses words that systemd would take for several, or read otherwise.
func (o Options) check() error {
	if !filepath.IsAbs(o.Program) || !plain(o.Program) {
		return fmt.Errorf("a unit can't call %q: put the program somewhere with a plain absolute path", o.Program)
	}
	for _, w := range slices.Concat(o.Flags, o.Reads, o.Writes) {
		if !plain(w) {
			return fmt.Errorf("a unit can't be given %q: use names without spaces, quotes, \\, %% and $", w)
		}
	}
	return nil
}

func plain(word string) bool { return !strings.ContainsAny(word, " \t\n\"'\\%$;") }

// Install writes the units and has them started at boot. It gives the files and links that it made.
func Install(ctx context.Context, o Options) ([]string, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var made []string
	for _, name := range names {
		text, err := o.text(name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(o.path(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(o.path(name), []byte(text), 0o644)
		}
		if err != nil {
			return made, fmt.Errorf("installing %s: %w", name, err)
		}
		made = append(made, o.path(name))
	}
	if o.Root == "" {
		return made, o.systemctl(ctx, []string{"daemon-reload"}, append([]string{"enable"}, names...))
	}
	for _, name := range names {
		link, err := o.enable(name)
		if err != nil {
			return made, fmt.Errorf("having %s started at boot: %w", name, err)
		}
		made = append(made, link)
	}
	return made, nil
}

// enable makes the link that systemctl would make, which may not be there where an image is built.
func (o Options) enable(name string) (link string, err error) {
	link, err = o.link(name)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(link), 0o755)
	}
	if err == nil {
		err = gone(link)
	}
	if err == nil {
		err = os.Symlink(filepath.Join(dir, name), link)
	}
	return link, err
}

// link is what has a unit started at boot.
func (o Options) link(name string) (string, error) {
	text, err := texts.ReadFile(name)
	for line := range strings.Lines(string(text)) {
		if target, ok := strings.CutPrefix(line, "WantedBy="); ok {
			return o.path(filepath.Join(strings.TrimSpace(target)+".wants", name)), nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("%s is wanted by nothing", name))
}

// gone removes a file that may not be there.
func gone(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
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
		link, err := o.link(name)
		if err := errors.Join(err, gone(link), gone(o.path(name))); err != nil {
			return removed, err
		}
		_ = os.Remove(filepath.Dir(link)) // where nothing else is in it
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
