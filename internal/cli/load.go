package cli

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/files"
	"quaywall/internal/policy"
)

// loaded is a policy that was read, and what was said about it.
type loaded struct {
	policy   *policy.Policy
	sources  policy.Sources
	warnings diag.List
}

// load reads the policy that the flags name. Where they name none and none is in its usual place, it is the built-in
// default. A policy with mistakes is a failure that shows them.
func (a *app) load() (loaded, error) {
	if !a.opts.policyGiven {
		if _, err := os.Stat(a.opts.policy); errors.Is(err, fs.ErrNotExist) {
			return loaded{policy: policy.Default()}, nil
		}
	}
	p, sources, list := policy.Load(files.Host{}, a.opts.policy)
	if list.HasErrors() {
		return loaded{}, &failure{status: Usage, err: invalidPolicy(a.opts.policy, list, ""), list: list, source: sources.Text}
	}
	return loaded{p, sources, list}, nil
}

// nothingChanged is what a command that could have changed something says where it didn't.
const nothingChanged = "nothing was changed"

// invalidPolicy sums up what is wrong with a policy, and what is in force; "" for a command that never changes anything.
func invalidPolicy(file string, list diag.List, left string) error {
	errs := 0
	for _, d := range list {
		if d.Severity == diag.Error {
			errs++
		}
	}
	parts := []string{count(errs, "error")}
	if w := len(list) - errs; w > 0 {
		parts = append(parts, count(w, "warning"))
	}
	text := file + ": " + strings.Join(parts, ", ")
	if left != "" {
		text += "; " + left
	}
	return errors.New(text)
}

// name is the policy's file, or what stands in for one.
func (l loaded) name() string {
	if l.policy.File == "" {
		return "the built-in default policy"
	}
	return l.policy.File
}
