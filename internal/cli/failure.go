package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/diag"
)

// The exit statuses. They are part of the interface: scripts rely on them.
const (
	Done        = 0
	Failed      = 1
	Usage       = 2
	Refused     = 3
	Differences = 4
)

// ExitStatus explains the exit statuses, for the help and the man pages.
const ExitStatus = `Exit status:
  0  done
  1  failed, nothing changed (or rolled back, and it says so)
  2  wrong usage or invalid policy
  3  refused for safety
  4  something was found (plan, status, diff, doctor --exit-code; fmt --check; audit --fail-on)
`

// failure is the end of a command that did not do what it was asked to.
type failure struct {
	status int
	doing  string // what was being done, "reading the policy"
	err    error  // what went wrong; nil where the answer itself has told
	next   string // what to do next, a sentence without a full stop
	list   diag.List
	cuts   []CutAnswer
	notes  []string                 // what else there is to tell, sentences without a full stop
	source func(file string) []byte // the texts that list is about; nil where there are none
}

func (f *failure) Error() string {
	var parts []string
	if f.doing != "" {
		parts = append(parts, f.doing)
	}
	if f.err != nil {
		parts = append(parts, f.err.Error())
	}
	return strings.Join(parts, ": ")
}

func (f *failure) Unwrap() error { return f.err }

// misused is the failure of a command line that cannot be meant.
func misused(cmd *cobra.Command, err error) error {
	return &failure{status: Usage, err: err, next: "see " + cmd.CommandPath() + " --help"}
}

func misusedf(cmd *cobra.Command, format string, args ...any) error {
	return misused(cmd, fmt.Errorf(format, args...))
}

// differences is the end of a command that was asked to tell differences by its status.
func differences() error { return &failure{status: Differences} }

// arguments makes a wrong number of arguments wrong usage, with a sentence of our own.
func arguments(atMost int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) <= atMost:
			return nil
		case atMost == 0:
			return misusedf(cmd, "%s takes no arguments, not %s", cmd.Name(), quoted(args[0]))
		}
		return misusedf(cmd, "%s takes one argument, not %d", cmd.Name(), len(args))
	}
}

// report shows how a command ended and gives its exit status.
func (a *app) report(err error) int {
	if err == nil {
		return Done
	}
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{status: Failed, err: err}
	}
	if f.err == nil && len(f.list) == 0 {
		return f.status
	}
	if a.opts.json {
		a.reportJSON(f)
	} else {
		a.reportText(f)
	}
	return f.status
}

// ErrorAnswer is what an error is in JSON, on standard error.
type ErrorAnswer struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody is what went wrong.
type ErrorBody struct {
	Status      int         `json:"exit_status"`
	Doing       string      `json:"doing,omitempty"` // what was being done
	Message     string      `json:"message"`
	Next        string      `json:"next,omitempty"` // what to do
	Diagnostics diag.List   `json:"diagnostics,omitempty"`
	Cuts        []CutAnswer `json:"cuts,omitempty"`    // ways in that the policy would cut
	Notices     []string    `json:"notices,omitempty"` // what else there is to tell: sentences without a full stop
}

func (a *app) reportJSON(f *failure) {
	body := ErrorBody{Status: f.status, Doing: f.doing, Next: f.next, Diagnostics: f.list, Cuts: f.cuts, Notices: f.notes}
	if f.err != nil {
		body.Message = f.err.Error()
	}
	writeJSON(a.env.Stderr, ErrorAnswer{Error: body})
}

func (a *app) reportText(f *failure) {
	source := f.source
	if source == nil {
		source = func(string) []byte { return nil }
	}
	a.diagnostics(f.list, source)
	a.notices(f.notes)
	fmt.Fprintf(a.env.Stderr, "%s %s\n", a.onStderr().bad("quaywall:"), f.Error())
	if f.next != "" {
		fmt.Fprintf(a.env.Stderr, "  %s\n", f.next)
	}
}
