package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// VersionAnswer is what `version --json` says.
type VersionAnswer struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Example: lines("quaywall version"),
		Args:    arguments(0),
		RunE: func(*cobra.Command, []string) error {
			v := VersionAnswer{a.env.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			a.answer(v, func(w io.Writer, _ style) {
				fmt.Fprintf(w, "quaywall %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			})
			return nil
		},
	}
}
