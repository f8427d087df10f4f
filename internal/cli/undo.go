package cli

import (
	"github.com/spf13/cobra"

	"quaywall/internal/apply"
)

// undoCommand is what apply starts, detached, to take an unconfirmed change back. It is not for people.
func (a *app) undoCommand() *cobra.Command {
	return &cobra.Command{
		Use:    apply.UndoCommand + " ID",
		Short:  "wait for a confirmation, and take the change back without",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.host().WaitAndUndo(cmd.Context(), args[0], a.env.Stderr)
		},
	}
}
