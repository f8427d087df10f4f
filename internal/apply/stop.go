package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quaywall/internal/sysexec"
)

// Stopped is what Stop did.
type Stopped struct {
	Removed   []string `json:"removed"`   // the backends whose rules were taken out; none where nothing was in force
	Cancelled bool     `json:"cancelled"` // a change no longer waits for a confirmation
	Notices   []string `json:"notices,omitempty"`
}

// Stop takes everything of quaywall's out of the kernel, whichever backend put it there, and looks whether it is gone.
// Records are kept. A full disk doesn't keep anybody from stopping.
func (h *Host) Stop(ctx context.Context, wait time.Duration) (*Stopped, error) {
	const doing = "taking quaywall's rules out"
	var done *Stopped
	err := h.locked(ctx, doing, wait, func(c *change) error {
		done = &Stopped{Cancelled: c.state.Pending != nil}
		err := c.stop(context.WithoutCancel(ctx), done)
		done.Notices = c.notices
		return err
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (c *change) stop(ctx context.Context, done *Stopped) error {
	record := c.forget()
	removed, err := c.removeAll(ctx)
	done.Removed = removed
	if slices.Contains(removed, "iptables-legacy") {
		c.note("iptables-legacy keeps the tables that it had to make, empty: only unloading its kernel modules takes them away")
	}
	if err != nil {
		return &FailedError{Doing: "taking quaywall's rules out", Err: c.host.withPayload(err), Left: "some are still there",
			Next: "see quaywall status, and stop again"}
	}
	if err := record(); err != nil {
		return &FailedError{Doing: "taking quaywall's rules out", Err: err, Left: "they were taken out, but that is not recorded",
			Next: "stop again once " + c.host.Store.Dir() + " can be written: until then the agent, or the end of the time for a confirmation, may bring rules back"}
	}
	return nil
}

// forget prepares the record that nothing is in force. Where there is no space for it, everything is forgotten instead:
// a change that waits for its confirmation must not come back.
func (c *change) forget() func() error {
	if c.state.IsZero() {
		return func() error { return nil }
	}
	next, err := c.host.Store.Prepare(c.state.Stopped())
	if err != nil {
		c.note("%v: what was in force is forgotten", err)
		return c.host.Store.Forget
	}
	return next.Commit
}

// removeAll takes out what any backend holds and looks again.
func (c *change) removeAll(ctx context.Context) (removed []string, err error) {
	var errs []error
	for _, r := range c.host.readAll(ctx, c.ns) {
		if r.holds() {
			removed = append(removed, r.backend.Name())
		}
		// Also where nothing is listed: a commit that was killed may have left something that is in no rule's use.
		if err := r.backend.Remove(ctx); !errors.Is(err, sysexec.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, err
	}
	for _, r := range c.host.readAll(ctx, c.ns) {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("reading what %s holds: %w", r.backend.Name(), r.err))
		}
		if r.holds() {
			errs = append(errs, fmt.Errorf("%s still holds %d rules and chains", r.backend.Name(), len(r.listing.Rules)))
		}
	}
	return removed, errors.Join(errs...)
}
