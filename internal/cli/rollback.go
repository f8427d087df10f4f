package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
)

const rollbackLong = `Puts a policy in force again that was in force before: the one before, or with N the N-th before, as --list numbers them.
The last ten are kept. One that nobody confirmed is listed, and has no number: apply it again where it is wanted. It is one atomic apply, with its checks and its lock-out guard, for what is on this host now; what
fills a policy's sets is read as it is now.

While a change waits for its confirmation, the policy before is the one of before that change. The policy's file is left as
it is: the next apply of a person puts in force what it holds, a boot doesn't. With nothing in force before, use stop.`

// HistoryAnswer is what "rollback --list --json" says.
type HistoryAnswer struct {
	Policies []apply.Past `json:"policies"` // the latest first
}

func (a *app) rollbackCommand() *cobra.Command {
	var f applyFlags
	var list bool
	cmd := &cobra.Command{
		Use:     "rollback [N]",
		Short:   "go back to the policy before",
		Long:    rollbackLong,
		Example: lines("quaywall rollback", "quaywall rollback --list", "quaywall rollback 3 --confirm 60s"),
		Args:    arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if list {
				return a.history()
			}
			f.back = 1
			if len(args) > 0 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return misusedf(cmd, "%q: use a number as quaywall rollback --list tells", args[0])
				}
				f.back = n
			}
			return a.apply(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&list, "list", false, "list the policies to go back to")
	confirmFlag(cmd, &f.confirm)
	flags.BoolVar(&f.allowLockout, "allow-lockout", false, "go on where the policy cuts the way you came in")
	waitFlag(cmd, &f.wait)
	return cmd
}

func (a *app) history() error {
	all, err := a.host().History()
	if err != nil {
		f := &failure{status: Failed, doing: "listing the policies to go back to", err: err}
		if errors.Is(err, fs.ErrPermission) {
			f.next = "run it as root: what was in force is kept where only root can read it"
		}
		return f
	}
	if all == nil {
		all = []apply.Past{}
	}
	a.answer(HistoryAnswer{all}, func(w io.Writer, s style) {
		if len(all) == 0 {
			fmt.Fprintln(w, "no other policy is recorded to go back to")
			return
		}
		rows := [][]cell{{{"N", s.faint}, {"IN FORCE FROM", s.faint}, {"POLICY", s.faint}, {"BACKEND", s.faint}}}
		for _, p := range all {
			number, name := strconv.Itoa(p.Number), apply.PolicyName(p.File, p.Hash)
			if p.Observed {
				name += ", observed"
			}
			if p.Unconfirmed {
				number, name = "-", name+", not confirmed"
			}
			rows = append(rows, plain(number, p.When.Format(time.DateTime), name, p.Backend))
		}
		table(w, rows)
	})
	return nil
}
