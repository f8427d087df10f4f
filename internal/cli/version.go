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
			v := a.version()
			a.answer(v, func(w io.Writer, _ style) { fmt.Fprintln(w, v) })
			return nil
		},
	}
}

func (a *app) version() VersionAnswer {
	return VersionAnswer{a.env.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
}

func (v VersionAnswer) String() string {
	return fmt.Sprintf("quaywall %s (%s, %s)", v.Version, v.Go, v.Platform)
}
