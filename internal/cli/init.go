package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/exposure"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/watch"
)

const initLong = `Writes a first policy: SSH and ping come in, everything goes out, and the way by which you came in stays open, whatever it
is. What listens on this host now, and what Docker publishes, follows as commented lines: take the "# " away from what
others shall reach. With --minimal these lines are left out.

Nothing is put in force, and a policy that is there already is left as it is.`

// InitAnswer is what "init --json" says.
type InitAnswer struct {
	File    string   `json:"file"`
	Kept    []string `json:"kept"`              // the lines that keep the ways in open
	Offered []string `json:"offered"`           // the lines that are commented out
	Because string   `json:"because,omitempty"` // why every live connection counts as a way in; "" where the way in is known
}

func (a *app) initCommand() *cobra.Command {
	var minimal bool
	cmd := &cobra.Command{
		Use:     "init [FILE]",
		Short:   "write a first policy from what runs now",
		Long:    initLong,
		Example: lines("quaywall init", "quaywall init --minimal"),
		Args:    arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.opts.takePolicy(args)
			return a.init(cmd.Context(), minimal)
		},
	}
	cmd.Flags().BoolVar(&minimal, "minimal", false, "leave out the commented lines")
	return cmd
}

func (a *app) init(ctx context.Context, minimal bool) error {
	const doing = "writing a first policy"
	if _, err := os.Lstat(a.opts.policy); err == nil {
		return &failure{status: Refused, doing: doing, err: fmt.Errorf("%s is there already", a.opts.policy),
			next: "move it away, or name another file"}
	}
	v, text, err := a.firstPolicy(ctx, minimal)
	if err == nil {
		err = create(a.opts.policy, text)
	}
	if err != nil {
		return &failure{status: Failed, doing: doing, err: err}
	}
	a.answer(v, func(w io.Writer, s style) {
		fmt.Fprintf(w, "wrote %s\n", v.File)
		for _, line := range v.Kept {
			fmt.Fprintf(w, "  %s\n", line)
		}
		if v.Because != "" {
			fmt.Fprintf(w, "%s: %s, so every live connection counts\n", s.warn("the way you came in is not known"), v.Because)
		}
		fmt.Fprintf(w, "Read it, then: %s\n", s.strong(a.program()+" apply --confirm 60s"+a.repeated("policy", a.opts.policy, defaultPolicy, "QUAYWALL_POLICY")))
	})
	return nil
}

// firstPolicy makes up the policy's text from what runs on this host.
func (a *app) firstPolicy(ctx context.Context, minimal bool) (InitAnswer, string, error) {
	inv, err := watch.Inventory(ctx, a.opts.dockerHost)
	if err != nil {
		return InitAnswer{}, "", err
	}
	found, err := guard.Find(inv)
	if err != nil {
		return InitAnswer{}, "", err
	}
	_ = guard.Name(found.Ways) // a way without a name is told as well
	v := InitAnswer{File: a.opts.policy, Kept: keptLines(found.Ways), Offered: []string{}, Because: found.Because}
	if !minimal {
		if v.Offered, err = offeredLines(inv); err != nil {
			return InitAnswer{}, "", err
		}
	}
	return v, policyText(v), nil
}

// keptLines are the lines for the ways in, but for SSH, which the built-in default lets in anyway.
func keptLines(ways []guard.Way) []string {
	kept := []string{}
	for _, line := range guard.Lines(ways) {
		if !strings.HasPrefix(line, "- allow: ssh") {
			kept = append(kept, line)
		}
	}
	return kept
}

// offeredLines are lines for what can be dialled on this host and the built-in default does not let in.
func offeredLines(inv *inventory.Inventory) ([]string, error) {
	all, err := endpoints(inv)
	if err != nil {
		return nil, err
	}
	offered := []string{}
	for _, row := range exposure.Rows(policy.Default(), inv, all) {
		if !row.Reachable || len(row.Open) > 0 {
			continue
		}
		line := fmt.Sprintf("- allow: %s", portOf(row.Endpoint))
		if addr := row.Addr; addr.IsValid() && !addr.IsUnspecified() {
			line = fmt.Sprintf("- {allow: %s, to: %q}", portOf(row.Endpoint), addr)
		}
		offered = append(offered, line+ownerComment(row.Endpoint))
	}
	return offered, nil
}

func ownerComment(e exposure.Endpoint) string {
	switch {
	case e.Container:
		return "  # container " + e.Owner
	case e.Owner != "":
		return "  # " + e.Owner
	}
	return ""
}

// policyText puts lines into the text of the built-in default, behind its last inbound rule.
func policyText(v InitAnswer) string {
	var more strings.Builder
	for _, line := range v.Kept {
		more.WriteString("  " + line + "\n")
	}
	if len(v.Offered) > 0 {
		more.WriteString("  # What listens here now. Take the \"# \" away from what others shall reach; \"from\" says who.\n")
	}
	for _, line := range v.Offered {
		more.WriteString("  # " + line + "\n")
	}
	const last = "  - allow: ping\n"
	return strings.Replace(policy.DefaultText, last, last+more.String(), 1)
}

// create writes a file that is not there yet, whole or not at all.
func create(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return writeBeside(name, []byte(text), func(tmp *os.File) error {
		if err := tmp.Chmod(0o644); err != nil {
			return err
		}
		// A link, unlike a rename, refuses to replace what somebody else wrote meanwhile.
		err := os.Link(tmp.Name(), name)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already", name)
		}
		return err
	})
}
