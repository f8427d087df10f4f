package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const stopLong = `Takes everything of quaywall's out of the kernel, and nothing else: the rules of Docker and of others stay what they are.
The host is then as open as it was before quaywall. A change that waits for its confirmation no longer does.`

func (a *app) stopCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "stop",
		Short:   "take everything of quaywall's out of the kernel",
		Long:    stopLong,
		Example: lines("quaywall stop"),
		Args:    arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := a.host().Stop(cmd.Context(), wait)
			if err != nil {
				return a.explained(err)
			}
			a.settled()
			a.notices(done.Notices)
			if done.Removed == nil {
				done.Removed = []string{}
			}
			a.answer(done, func(w io.Writer, s style) {
				if len(done.Removed) == 0 {
					fmt.Fprintln(w, "nothing of quaywall's was in the kernel")
					return
				}
				fmt.Fprintf(w, "%s: the rules were taken out (%s)\n", s.strong("stopped"), strings.Join(done.Removed, ", "))
			})
			return nil
		},
	}
	waitFlag(cmd, &wait)
	return cmd
}
