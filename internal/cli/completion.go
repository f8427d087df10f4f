package cli

import (
	"bytes"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const completionLong = `Prints a script that completes commands, flags and their values in a shell. "make install" puts them where the shells look.`

// CompletionAnswer is what `completion --json` says.
type CompletionAnswer struct {
	Shell  string `json:"shell"`
	Script string `json:"script"`
}

// shells are the shells that completions exist for.
func shells() []string { return []string{"bash", "zsh", "fish"} }

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "print the completions of a shell",
		Long:      completionLong,
		Example:   lines("quaywall completion bash > /usr/share/bash-completion/completions/quaywall"),
		ValidArgs: shells(),
		Args:      arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			script, err := completion(cmd, args)
			if err != nil {
				return err
			}
			a.answer(CompletionAnswer{args[0], script}, func(w io.Writer, _ style) { _, _ = io.WriteString(w, script) })
			return nil
		},
	}
}

func completion(cmd *cobra.Command, args []string) (string, error) {
	if len(args) == 0 {
		return "", misusedf(cmd, "name a shell: %s", strings.Join(shells(), ", "))
	}
	var b bytes.Buffer
	var err error
	switch args[0] {
	case "bash":
		err = cmd.Root().GenBashCompletionV2(&b, true)
	case "zsh":
		err = cmd.Root().GenZshCompletion(&b)
	case "fish":
		err = cmd.Root().GenFishCompletion(&b, true)
	default:
		err = misusedf(cmd, "there are no completions for %s; use %s", quoted(args[0]), strings.Join(shells(), ", "))
	}
	return b.String(), err
}
