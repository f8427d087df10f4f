package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/guard"
	"quaywall/internal/kernel"
	"quaywall/internal/policy"
)

// InvalidError is a policy that can't be put in force on this host.
type InvalidError struct {
	File    string
	List    diag.List // errors and warnings
	Sources policy.Sources
	Left    string // what is in force now, a sentence without a full stop
}

func (e *InvalidError) Error() string { return e.List.Error() }

// RefusedError is a change that was refused for safety. Nothing was changed.
type RefusedError struct {
	Cuts    []guard.Cut // the ways in that the policy would cut
	Because string      // why every live connection counts as a way in; "" where the way in is known
	Err     error       // why the way in can't be told; then Cuts is empty
}

func (e *RefusedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("refused, since it can't be told whether the policy would lock you out: %v", e.Err)
	}
	lines := []string{"refused, since the policy would cut the way in:"}
	if e.Because != "" {
		lines[0] = "refused, since the policy would cut connections that may be the way in (" + e.Because + "):"
	}
	for _, c := range e.Cuts {
		lines = append(lines, "  "+c.String())
	}
	return strings.Join(lines, "\n")
}

func (e *RefusedError) Unwrap() error { return e.Err }

// Next is what to do about it.
func (e *RefusedError) Next() string {
	return "keep the way in open, or use --allow-lockout where you have another one"
}

// EmptiedError is a change with Options.Follow that would empty sets.
type EmptiedError struct {
	Sets []string // each with the number of entries that it had
}

func (e *EmptiedError) Error() string {
	return "no entries are left in what fills the set " + strings.Join(e.Sets, ", ")
}

// FailedError is a change that failed.
type FailedError struct {
	Doing string // "putting the policy in force"
	Err   error
	Left  string // what is in force now, a sentence without a full stop
	Next  string // what to do, a sentence without a full stop; "" where there is nothing to say
}

func (e *FailedError) Error() string { return fmt.Sprintf("%s: %v; %s", e.Doing, e.Err, e.Left) }

func (e *FailedError) Unwrap() error { return e.Err }

// NotedError is an error with what else there is to tell, as a Result has it.
type NotedError struct {
	Err     error
	Notices []string // sentences without a full stop
}

func (e *NotedError) Error() string { return e.Err.Error() }

func (e *NotedError) Unwrap() error { return e.Err }

const nothingChanged = "nothing was changed"

// interrupted is what becomes of any error once somebody ended the context: what it stopped says nothing.
type interrupted struct{ cause error }

func (interrupted) Error() string { return "interrupted" }

func (i interrupted) Unwrap() error { return i.cause }

// failed is the failure of a step before anything was changed.
func (h *Host) failed(ctx context.Context, doing string, err error) error {
	return (&change{host: h}).failed(ctx, doing, err)
}

// failed is the failure of a change, with what there is to tell. Errors that say what is in force go through as they are.
func (c *change) failed(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	left := nothingChanged
	if c.honoured {
		left = "nothing else was changed"
	}
	var invalid *InvalidError
	var refused *RefusedError
	var failed *FailedError
	switch {
	case errors.As(err, &invalid):
		told := *invalid
		told.Left = cmp.Or(told.Left, left)
		err = &told
	case errors.As(err, &refused), errors.As(err, &failed):
	case errors.Is(ctx.Err(), context.Canceled):
		err = &FailedError{Doing: doing, Err: interrupted{errors.Join(ctx.Err(), err)}, Left: left}
	default:
		err = &FailedError{Doing: doing, Err: c.host.withPayload(err), Left: left}
	}
	if len(c.notices) > 0 {
		err = &NotedError{Err: err, Notices: c.notices}
	}
	return err
}

// withPayload writes a refused payload into a file that the error then names.
func (h *Host) withPayload(err error) error {
	var refused *kernel.PayloadError
	if !errors.As(err, &refused) {
		return err
	}
	name := fmt.Sprintf("refused-%s-%s.txt", refused.Backend, h.Now().UTC().Format("20060102T150405Z"))
	for _, dir := range []string{h.RunDir, h.Store.Dir(), os.TempDir()} {
		path := filepath.Join(dir, name)
		if writeOnce(path, refused.Numbered()) == nil {
			return fmt.Errorf("%w (the payload with numbered lines is in %s)", err, path)
		}
	}
	return fmt.Errorf("%w (no folder could take the payload)", err)
}

// ErasePayloads removes the files of refused payloads.
func (h *Host) ErasePayloads() error {
	for _, dir := range []string{h.RunDir, h.Store.Dir()} {
		files, _ := filepath.Glob(filepath.Join(dir, "refused-*.txt")) // the pattern is a good one
		for _, path := range files {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeOnce makes a file that isn't there yet: in the folder for temporary files somebody else may have left a link.
func writeOnce(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

var errNotThere = errors.New("the kernel does not hold what was put into it")

// mismatch is a kernel that doesn't hold what was put into it.
func mismatch(expected, got *kernel.Listing) error {
	d := Compare(expected, got)
	const shown = 20
	lines := strings.Split(strings.TrimSuffix(d.String(), "\n"), "\n")
	if n := len(lines); n > shown {
		lines = append(lines[:shown], fmt.Sprintf("… and %d lines more", n-shown))
	}
	return fmt.Errorf("%w (- missing, + too much):\n%s", errNotThere, strings.Join(lines, "\n"))
}

// errNoRoot is what every command that talks to the kernel needs.
var errNoRoot = errors.New("this needs root (CAP_NET_ADMIN)")
