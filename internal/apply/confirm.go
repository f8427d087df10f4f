package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"quaywall/internal/store"
)

// PendingStatus is a change that waits for its confirmation.
type PendingStatus struct {
	ID       string    `json:"id"`
	Until    time.Time `json:"until"`
	SecsLeft int       `json:"seconds_left"`
	Base     string    `json:"base"`    // the policy file to go back to; "" for the built-in default, or for nothing in force
	Removes  bool      `json:"removes"` // nothing was in force before: quaywall's rules will be taken out
	Alive    bool      `json:"process_alive"`
	Overdue  bool      `json:"overdue"` // the time is over, and the process that should have taken it back is gone
}

func (h *Host) pendingStatus(state store.State) *PendingStatus {
	p := state.Pending
	if p == nil {
		return nil
	}
	s := &PendingStatus{ID: p.ID, Until: h.until(p), Removes: p.Base == "", Alive: h.Alive(p.PID, p.Task), Overdue: h.overdue(p)}
	if !s.Overdue {
		s.SecsLeft = int((p.Deadline - h.Uptime() + time.Second - 1) / time.Second)
	}
	if record, err := h.Store.Record(p.Base); p.Base != "" && err == nil {
		s.Base = record.File
	}
	return s
}

// ErrNothingPending is the cause of the error of a confirmation that nothing waits for.
var ErrNothingPending = errors.New("no change waits for a confirmation")

// Confirmed is what Confirm did.
type Confirmed struct {
	File    string   `json:"file"` // the policy that stays in force
	Hash    string   `json:"hash"`
	Notices []string `json:"notices,omitempty"`
}

// Confirm ends the waiting of a change, of that ID or with "" of any: it stays. After its time it is taken back, and that
// is an error.
func (h *Host) Confirm(ctx context.Context, pending string, wait time.Duration) (*Confirmed, error) {
	var done *Confirmed
	err := h.locked(ctx, "confirming the change", wait, func(c *change) error {
		if err := c.waits(pending); err != nil {
			return err
		}
		if h.overdue(c.state.Pending) {
			return c.tooLate(ctx)
		}
		c.state = c.state.Confirmed()
		done = &Confirmed{Notices: c.notices}
		if c.record != nil {
			done.File, done.Hash = c.record.File, c.record.Hash
		}
		return h.Store.Set(c.state)
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// waits tells whether a change of that ID, or with "" any, waits for its confirmation; the error is ErrNothingPending.
func (c *change) waits(pending string) error {
	switch p := c.state.Pending; {
	case p != nil && (pending == "" || pending == p.ID):
		return nil
	case p == nil && c.state.Undone != nil:
		return fmt.Errorf("%w: the last one was taken back at %s: %s", ErrNothingPending,
			c.host.when(c.state.Undone.Stamp).Format(time.DateTime), c.state.Undone.Why)
	}
	return ErrNothingPending
}

// Decline takes a change of that ID back at once, as if its time were over.
func (h *Host) Decline(ctx context.Context, pending string, wait time.Duration) error {
	return h.locked(ctx, "taking the change back", wait, func(c *change) error {
		if err := c.waits(pending); err != nil {
			return err
		}
		why := "it was declined"
		if h.overdue(c.state.Pending) {
			why = ""
		}
		return c.goBack(ctx, why)
	})
}

func (c *change) tooLate(ctx context.Context) error {
	until := c.host.until(c.state.Pending).Format(time.DateTime)
	if err := c.goBack(ctx, ""); err != nil {
		return err
	}
	return &FailedError{Doing: "confirming the change", Err: fmt.Errorf("its time was over at %s", until),
		Left: "the policy of before is in force again", Next: "apply it once more"}
}

// goBack is takeBack for somebody who asked for something.
func (c *change) goBack(ctx context.Context, why string) error {
	if err := c.takeBack(context.WithoutCancel(ctx), why); err != nil {
		return &FailedError{Doing: "taking back the change that was not confirmed", Err: err, Left: "it is in force still",
			Next: "apply the policy of before"}
	}
	c.endDeniedSince(context.WithoutCancel(ctx))
	return nil
}

// Times of the process that waits for a confirmation.
const (
	glance    = time.Second      // between two looks at whether the change was confirmed
	undoWait  = 10 * time.Minute // for another quaywall that holds the lock
	undoTries = 30
	undoPause = 2 * time.Second // between two tries
)

// WaitAndUndo takes the pending change of a task back once its time is over, unless it is confirmed before. It is what
// the process does that Apply starts; what it does is told on log.
func (h *Host) WaitAndUndo(ctx context.Context, task string, log io.Writer) error {
	say := func(format string, args ...any) {
		fmt.Fprintf(log, "%s %s\n", h.Now().Format(time.RFC3339), fmt.Sprintf(format, args...))
	}
	last, ok := h.awaitDeadline(ctx, task)
	if !ok {
		return ctx.Err()
	}
	var err error
	for range undoTries {
		var taken bool
		if taken, err = h.undo(ctx, last, say); err == nil {
			if taken {
				say("nobody confirmed the change in time: the policy of before is in force again")
			}
			return nil
		}
		say("%v", err)
		if !sleep(ctx, undoPause) {
			break
		}
	}
	return err
}

// awaitDeadline waits until the pending change of a task is overdue, and gives what was recorded then. It is false where
// nothing waits for a confirmation any more. A record that is lost in the meantime doesn't end the task.
func (h *Host) awaitDeadline(ctx context.Context, task string) (last store.State, ok bool) {
	for {
		state, err := h.Store.State()
		switch {
		case err != nil, isLost(state) && last.Pending != nil:
		case state.Pending == nil || state.Pending.Task != task:
			return last, false
		default:
			last = state
		}
		if last.Pending != nil && h.overdue(last.Pending) {
			return last, true
		}
		if !sleep(ctx, glance) {
			return last, false
		}
	}
}

// isLost tells whether a state says nothing of what a person decided, so that a change may still wait for that.
func isLost(s store.State) bool { return s.Pending == nil && !s.Decided }

// sleep waits; it is false where the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// undo takes a pending change back if it is still the one, as it was last seen on the disk. Where that is lost by now, the
// change is taken back unless it was taken out: a stop that found no space on the disk removes the record.
func (h *Host) undo(ctx context.Context, last store.State, say func(string, ...any)) (taken bool, err error) {
	err = h.locked(ctx, "taking the unconfirmed change back", undoWait, func(c *change) error {
		if isLost(c.state) && c.holdsAnything(ctx) {
			c.recall(last)
		}
		p := c.state.Pending
		if p == nil || p.Task != last.Pending.Task || !h.overdue(p) {
			return nil
		}
		taken = true
		err := c.goBack(ctx, "")
		for _, n := range c.notices {
			say("%s", n)
		}
		return err
	})
	return taken, err
}

// recall takes up a state that was lost since. It may have been read before the change was made, whose record is the latest.
func (c *change) recall(last store.State) {
	c.state = last
	ids, err := c.host.Store.History()
	if err != nil || len(ids) == 0 || ids[len(ids)-1] == last.Pending.Base {
		return
	}
	c.state = last.InForce(ids[len(ids)-1])
	if record, err := c.host.Store.Record(c.state.Current); err == nil {
		c.record = record
	}
}
