package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/diag"
	"quaywall/internal/policy"
)

const checkLong = `Reads a policy with its fragments, set files and raw files, and shows everything that is wrong with it at once, each mistake
with its place and, where there is one, the nearest right spelling. It needs neither root nor Docker, and changes nothing.`

// CheckAnswer is what "check --json" says of a valid policy. An invalid one is an error with diagnostics.
type CheckAnswer struct {
	File     string    `json:"file"` // "" for the built-in default
	Hash     string    `json:"hash"` // SHA-256 over everything that the policy is made of
	Rules    int       `json:"rules"`
	Sets     int       `json:"sets"`
	Warnings diag.List `json:"warnings"`
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check [FILE]",
		Short:   "validate a policy",
		Long:    checkLong,
		Example: lines("quaywall check", "quaywall check policy.yaml"),
		Args:    arguments(1),
		RunE: func(_ *cobra.Command, args []string) error {
			a.opts.takePolicy(args)
			l, err := a.load()
			if err != nil {
				return err
			}
			a.showCheck(l)
			return nil
		},
	}
}

func (a *app) showCheck(l loaded) {
	v := CheckAnswer{File: l.policy.File, Hash: l.policy.Hash, Sets: len(l.policy.Sets), Warnings: l.warnings}
	for _, s := range []policy.Section{policy.Inbound, policy.Egress, policy.Outbound} {
		v.Rules += len(l.policy.Rules(s))
	}
	if v.Warnings == nil {
		v.Warnings = diag.List{}
	}
	a.answer(v, func(w io.Writer, s style) {
		a.diagnostics(l.warnings, l.sources.Text)
		parts := []string{count(v.Rules, "rule"), count(v.Sets, "set")}
		if n := len(l.warnings); n > 0 {
			parts = append(parts, s.warn(count(n, "warning")))
		}
		fmt.Fprintf(w, "%s: %s (%s)\n", l.name(), s.good("valid"), strings.Join(parts, ", "))
	})
}
