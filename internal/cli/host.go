package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
)

// host is the host that commands steer, with the steps told as the flags and the terminal ask for.
func (a *app) host() *apply.Host {
	h := apply.Local(apply.Config{StateDir: a.opts.stateDir, RunDir: a.opts.runDir, DockerHost: a.opts.dockerHost})
	switch {
	case a.opts.verbose:
		h.OnStep = func(step string) { fmt.Fprintln(a.env.Stderr, step) }
	case a.showsProgress():
		h.OnStep = func(step string) { fmt.Fprintf(a.env.Stderr, clearLine+"%s …", step) }
	}
	return h
}

// showsProgress tells whether the step at hand is shown on a line that is written over and over.
func (a *app) showsProgress() bool { return a.onStderr().on && !a.opts.json && !a.opts.verbose }

// settled takes the line of progress away.
func (a *app) settled() {
	if a.showsProgress() {
		fmt.Fprint(a.env.Stderr, clearLine)
	}
}

// defaultWait is how long a command waits for another quaywall.
const defaultWait = 30 * time.Second

func waitFlag(cmd *cobra.Command, wait *time.Duration) {
	*wait = defaultWait
	cmd.Flags().Var(&timeFlag{wait, 0}, "wait", "how long a `TIME` to wait for another quaywall that is changing this host")
}

func confirmFlag(cmd *cobra.Command, confirm *time.Duration) {
	cmd.Flags().Var(&timeFlag{confirm, time.Second}, "confirm", "take the change back unless it is confirmed within this `TIME`, as in 60s")
}

// timeFlag is a flag that takes a time, and says what is wrong with one.
type timeFlag struct {
	to      *time.Duration
	atLeast time.Duration
}

func (f *timeFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil && strings.Trim(text, "0123456789") == "" && text != "":
		return fmt.Errorf("write %ss", text)
	case err != nil:
		return errors.New("write a time, as in 60s or 5m")
	case d < f.atLeast:
		return fmt.Errorf("use %v or more", f.atLeast)
	}
	*f.to = d
	return nil
}

// String is "" for no time, so that no default is shown.
func (f *timeFlag) String() string {
	if f.to == nil || *f.to == 0 {
		return ""
	}
	return f.to.String()
}

// Type is what completions and help know it by.
func (f *timeFlag) Type() string { return "duration" }

// applyOptions are the options that plan and apply share.
func (a *app) applyOptions() apply.Options {
	return apply.Options{Policy: a.opts.policy, Given: a.opts.policyGiven, Backend: a.opts.backend}
}

// explained turns an error of package apply into the failure that a person sees.
func (a *app) explained(err error) error {
	a.settled()
	if err == nil {
		return nil
	}
	f := &failure{status: Failed, err: err}
	var invalid *apply.InvalidError
	var refused *apply.RefusedError
	var failed *apply.FailedError
	switch {
	case errors.As(err, &invalid):
		f = &failure{status: Usage, err: invalidPolicy(invalid.File, invalid.List, cmp.Or(invalid.Left, nothingChanged)), list: invalid.List,
			source: invalid.Sources.Text}
	case errors.As(err, &refused):
		f = &failure{status: Refused, err: refused, next: refused.Next(), cuts: cutAnswers(refused.Cuts)}
	case errors.As(err, &failed):
		f = &failure{status: Failed, doing: failed.Doing, err: fmt.Errorf("%w; %s", failed.Err, failed.Left), next: failed.Next}
	}
	var noted *apply.NotedError
	if errors.As(err, &noted) {
		f.notes = noted.Notices
	}
	return f
}

// CutAnswer is a way in that a policy would cut.
type CutAnswer struct {
	Text       string `json:"text"`
	Section    string `json:"section"`
	PolicyLine string `json:"policy_line"`     // that cuts it; "" for what always holds
	Add        string `json:"add,omitempty"`   // the line that would keep it open
	Above      string `json:"above,omitempty"` // the policy line that Add has to stand above; "" for anywhere in the section
}

func cutAnswers(cuts []guard.Cut) []CutAnswer {
	all := make([]CutAnswer, len(cuts))
	for i, c := range cuts {
		all[i] = CutAnswer{c.String(), c.Section.String(), c.Origin, c.Add, c.Above}
	}
	return all
}
