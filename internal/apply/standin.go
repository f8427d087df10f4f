package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"quaywall/internal/guard"
)

// errRejected is the cause of not putting a policy in force without a person.
var errRejected = errors.New("was taken back, or gone back from, and nobody applied it since")

// rejected tells whether only a person may put the policy in force.
func (c *change) rejected() error {
	w := c.policy.Written
	if !c.opts.Boot || !slices.Contains(c.state.Rejected, w) || c.record != nil && c.record.Written == w {
		return nil
	}
	return fmt.Errorf("%s %w", PolicyName(c.policy.File, c.policy.Hash), errRejected)
}

// wantsStandIn tells whether the policy that was in force last has to stand in for the one that is asked for: where that
// was rejected, and where nothing is in force since the host was booted and it has mistakes or, at boot, would cut somebody
// off. That somebody sees the mistakes, or that a stranger has come in, is no reason to be open.
func (c *change) wantsStandIn(ctx context.Context, err error) bool {
	var invalid *InvalidError
	var refused *RefusedError
	if errors.Is(err, errRejected) {
		return true
	}
	fails := errors.As(err, &invalid) || errors.As(err, &refused) && c.opts.Boot
	return fails && c.opts.Back == 0 && c.record != nil && c.record.Boot != c.host.Boot && !c.holdsAnything(ctx)
}

// standIn puts the policy of the current record in force; cause is why.
func (c *change) standIn(ctx context.Context, cause error) error {
	if c.record == nil {
		return &FailedError{Doing: "putting the policy in force", Err: cause, Left: "nothing is in force, as before it",
			Next: "apply it once more to have it in force"}
	}
	name := PolicyName(c.record.File, c.record.Hash)
	c.denied.forget()
	c.back, c.denied, c.cuts = c.record, denied{}, nil
	err := c.prepare(ctx)
	if err == nil {
		err = c.carryOut(ctx)
	}
	var unreadable *InvalidError
	if errors.As(err, &unreadable) {
		err = c.putRecorded(ctx)
	}
	if errors.Is(cause, errRejected) && err == nil {
		c.note("%v: %s, the policy before, is in force; apply it once more to have it in force", cause, name)
		return nil
	}
	left := name + ", which was in force before, is in force"
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		err = fmt.Errorf("%w\n%s", err, refused.Next())
		fallthrough
	case err != nil:
		left = fmt.Sprintf("%s, which was in force before, was not put in force either: %v", name, err)
	}
	if errors.As(cause, &refused) {
		c.note("%s", left)
		return cause
	}
	var invalid *InvalidError
	if errors.As(cause, &invalid) {
		told := *invalid
		told.Left = left
		return &told
	}
	return &FailedError{Doing: "putting the policy in force", Err: cause, Left: left}
}

// putRecorded puts the current record's ruleset in force as it was, where its policy can't be read any more: what fills
// sets is not kept with it. Since no policy is there to be asked whether it cuts the way in, nobody may have come in, but at
// a boot.
func (c *change) putRecorded(ctx context.Context) error {
	b, err := c.host.backend(c.record.Backend)
	if err != nil {
		return err
	}
	if held, err := b.Read(ctx); err != nil || !Compare(&c.record.Listing, held).None() {
		if err := c.mayPutRecorded(ctx); err != nil {
			return err
		}
		c.adopt()
		if err := c.step("commit", func() error { return c.putRecordBack(ctx, b, func(Difference) {}) }); err != nil {
			return c.host.withPayload(err)
		}
	}
	if c.record.Boot == c.host.Boot {
		return nil
	}
	return c.step("record", c.renew)
}

func (c *change) mayPutRecorded(ctx context.Context) error {
	if c.holdsAnything(ctx) {
		return errors.New("its files can't be read any more; what is in force stays")
	}
	if c.opts.Boot && c.record.Boot != c.host.Boot { // as in comesBack
		return nil
	}
	found, err := guard.Found{}, errors.New("what is on this host is not known")
	if c.inv != nil {
		found, err = c.host.WaysIn(c.inv)
	}
	if (err != nil || len(found.Ways) > 0) && !c.opts.AllowLockout {
		return errors.Join(errors.New("its files can't be read any more, so that nothing tells whether it would cut the way in; "+
			"where you have another one, use --allow-lockout"), err)
	}
	return nil
}
