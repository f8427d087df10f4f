package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
)

const confirmLong = `Keeps a change that "apply --confirm" made: it is no longer taken back.`

func (a *app) confirmCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "confirm",
		Short:   "keep what apply --confirm put in force",
		Long:    confirmLong,
		Example: lines("quaywall confirm"),
		Args:    arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := a.host().Confirm(cmd.Context(), "", wait)
			if err != nil {
				return a.explained(err)
			}
			a.settled()
			a.notices(done.Notices)
			a.answer(done, func(w io.Writer, s style) {
				fmt.Fprintf(w, "%s: %s stays in force\n", s.good("confirmed"), apply.PolicyName(done.File, done.Hash))
			})
			return nil
		},
	}
	waitFlag(cmd, &wait)
	return cmd
}
