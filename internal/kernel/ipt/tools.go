package ipt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/kernel"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
)

// This is the only file that knows what the programs say.

// families are both families, in the order in which they are changed.
var families = []ruleset.Family{ruleset.IPv4, ruleset.IPv6}

// tool is a program of a family: iptables-VARIANT-what.
type tool struct {
	family ruleset.Family
	what   string // "restore" or "save"
}

func program(f ruleset.Family, what string) tool { return tool{f, what} }

func (t tool) base() string {
	if t.family == ruleset.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

// path finds the program. Where no program names its variant, the plain one may be it.
func (b *Backend) path(ctx context.Context, t tool) (string, error) {
	named := fmt.Sprintf("%s-%s-%s", t.base(), b.variant, t.what)
	path, err := sysexec.Look(named)
	if err == nil {
		return path, nil
	}
	plain := t.base() + "-" + t.what
	if path, e := sysexec.Look(plain); e == nil {
		if v, _, e := version(ctx, path); e == nil && v == b.variant {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: install the package iptables", err)
}

// call is a program of iptables to be run.
type call struct {
	tool  tool
	input []byte
	args  []string
}

// run runs a program of iptables.
func (b *Backend) run(ctx context.Context, c call) ([]byte, error) {
	result := b.runAll(ctx, []call{c})[0]
	return result.Stdout, result.Err
}

// runAll runs programs of iptables at the same time: most of what they take is their start.
func (b *Backend) runAll(ctx context.Context, calls []call) []sysexec.Result {
	commands := make([]sysexec.Command, len(calls))
	for i, c := range calls {
		path, err := b.path(ctx, c.tool)
		if err != nil {
			return slices.Repeat([]sysexec.Result{{Err: err}}, len(calls))
		}
		commands[i] = sysexec.Command{Path: path, Args: c.args, Stdin: bytes.NewReader(c.input)}
	}
	return sysexec.RunAll(ctx, commands...)
}

// versionText is what "iptables --version" prints: iptables v1.8.9 (nf_tables). Before 1.8 there was no variant in it.
var versionText = regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)(?: \((nf_tables|legacy)\))?`)

// version asks a program of iptables for its variant and version.
func version(ctx context.Context, path string) (Variant, [3]int, error) {
	out, err := sysexec.Run(ctx, sysexec.Command{Path: path, Args: []string{"--version"}})
	if err != nil {
		return "", [3]int{}, err
	}
	m := versionText.FindStringSubmatch(string(out))
	if m == nil {
		return "", [3]int{}, fmt.Errorf("%s --version says %q, which isn't understood", path, strings.TrimSpace(string(out)))
	}
	var v [3]int
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1])
	}
	if m[4] == "nf_tables" {
		return NFT, v, nil
	}
	return Legacy, v, nil
}

// refusedLine is where the restore programs and ipset name the line they stumbled over.
var refusedLine = regexp.MustCompile(`(?:[Ee]rror occurred at line: |line |Error in line )(\d+)`)

// refusal makes the failure of a program into an error that shows the line.
func (b *Backend) refusal(f ruleset.Family, payload []byte, err error) error {
	var failed *sysexec.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &failed) || failed.Signal != 0:
		return fmt.Errorf("replacing the %s rules: %w", f, err)
	case lockHeld(failed):
		return fmt.Errorf("replacing the %s rules: %s waited %s for the lock of another iptables (/run/xtables.lock), "+
			"nothing was changed: %w: %w", f, b.Name(), b.wait, kernel.ErrLocked, err)
	}
	return fmt.Errorf("replacing the %s rules: %w", f, &kernel.PayloadError{
		Backend: b.Name(), Payload: string(payload), Line: lineOf(failed.Stderr), Err: errors.New(firstLines(failed.Stderr)),
	})
}

func lineOf(text string) int {
	m := refusedLine.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// firstLines leaves out the help that iptables-restore adds.
func firstLines(s string) string {
	lines := strings.Split(s, "\n")
	kept := lines[:0]
	for _, l := range lines {
		if !strings.HasPrefix(l, "Try `") && l != "" {
			kept = append(kept, l)
		}
	}
	return strings.Join(kept, "; ")
}

// lockHeld: exit status 4 is "resource problem", of which the lock is one.
func lockHeld(e *sysexec.Error) bool {
	return e.Code == 4 && strings.Contains(e.Stderr, "xtables lock")
}

// jumpMoved tells that a jump which was to be deleted, or a chain which was to be, wasn't as it had been read: somebody else
// was faster.
func jumpMoved(err error) bool {
	var refused *kernel.PayloadError
	if !errors.As(err, &refused) {
		return false
	}
	text := refused.Text()
	return strings.HasPrefix(text, "-D ") || strings.HasPrefix(text, "-X ") || text == "COMMIT" && strings.Contains(refused.Err.Error(), "RULE_DELETE")
}
