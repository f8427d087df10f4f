package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quaywall/internal/kernel"
	"quaywall/internal/ruleset"
)

// ErrOvertaken is the cause of the error of a change with Options.Follow that another quaywall was faster than.
var ErrOvertaken = errors.New("another quaywall put something else in force, or stopped it")

// Mended is what Mend found and did.
type Mended struct {
	Missing int      // rules, chains and sets that the kernel lacked of what is recorded
	Added   int      // that it had beside them
	Changed bool     // what is recorded was put in force again
	Notices []string // sentences without a full stop
}

// Mend puts what is recorded in force again, as it is recorded, where the kernel holds something else. It neither reads
// the policy nor asks Docker, so that it is done within milliseconds; then connections end that were made in the gap and
// that the policy denies. A change that nobody confirmed in time is taken back first. Where nothing is to be in force, or
// was since this boot, there is nothing to mend. found is called when something is amiss, before it is mended.
func (h *Host) Mend(ctx context.Context, wait time.Duration, found func()) (*Mended, error) {
	done := &Mended{}
	err := h.locked(ctx, "mending the rules", wait, func(c *change) error {
		c.honour(ctx)
		err := c.mend(context.WithoutCancel(ctx), done, found)
		done.Notices = c.notices
		return err
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (c *change) mend(ctx context.Context, done *Mended, found func()) error {
	if c.record == nil || c.record.Boot != c.host.Boot {
		return nil
	}
	b, err := c.host.backend(c.record.Backend)
	if err != nil {
		return err
	}
	err = c.insist(ctx, b, func(d Difference) {
		if !done.Changed {
			done.Missing, done.Added, done.Changed = len(d.Added)+len(d.Sets), len(d.Missing), true
			found()
		}
	})
	if err == nil && (done.Changed || c.honoured) {
		c.endDeniedSince(ctx)
	}
	return err
}

// mendTries is how often in a row rules are put back while somebody takes them away.
const mendTries = 3

// insist puts the recorded ruleset back, and once more where that fails or where it is gone when it is looked for: who
// flushed rules may be at it still, and be faster.
func (c *change) insist(ctx context.Context, b kernel.Backend, amiss func(Difference)) error {
	var err error
	for range mendTries {
		if err = c.putRecordBack(ctx, b, amiss); err == nil || errors.Is(err, kernel.ErrLocked) {
			return err
		}
	}
	if !errors.Is(err, errNotThere) {
		return err
	}
	return &FailedError{Doing: "mending the rules", Err: err, Next: "end what takes quaywall's rules away",
		Left: "they were put back, and the kernel held something else a moment later"}
}

// putRecordBack commits the recorded ruleset where the kernel holds something else, tells amiss before, and looks whether it
// is there then.
func (c *change) putRecordBack(ctx context.Context, b kernel.Backend, amiss func(Difference)) error {
	whole := true
	err := b.Mend(ctx, func(held *kernel.Listing) bool {
		d := Compare(held, &c.record.Listing)
		if whole = d.None(); !whole {
			amiss(d)
		}
		return !whole
	}, func() (*ruleset.Ruleset, error) { return c.recordedRules(c.record) })
	if err != nil || whole {
		return err
	}
	held, err := b.Read(ctx)
	if err != nil {
		return fmt.Errorf("reading what %s holds: %w", b.Name(), err)
	}
	if !Compare(&c.record.Listing, held).None() {
		return mismatch(&c.record.Listing, held)
	}
	return nil
}

// Locked runs f while no other quaywall changes this host.
func (h *Host) Locked(ctx context.Context, wait time.Duration, f func() error) error {
	var err error
	locked := h.locked(ctx, "taking the lock", wait, func(*change) error { err = f(); return nil })
	return errors.Join(locked, err)
}

// Privileged tells whether this process may change rules at all; the error says what it needs.
func Privileged() error { return checkPrivilege() }
