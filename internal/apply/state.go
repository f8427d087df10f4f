package apply

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"quaywall/internal/store"
)

// readState reads which policy should be in force. Damaged files are told and count as absent; with mend they are put
// aside.
func (c *change) readState(mend bool) error {
	state, err := c.host.Store.State()
	if err := c.damaged(err, mend); err != nil {
		return err
	}
	c.state = state
	if state.Current == "" {
		return nil
	}
	record, err := c.host.Store.Record(state.Current)
	if err == nil {
		c.record = record
	}
	return c.damaged(err, mend)
}

// damaged notes a damaged file; other errors go through.
func (c *change) damaged(err error, mend bool) error {
	var d *store.DamagedError
	if !errors.As(err, &d) {
		return err
	}
	aside := ""
	if mend {
		if name, err := d.PutAside(); err == nil && name != "" {
			aside = "; it was put aside as " + name
		}
	}
	c.note("%v%s: going on as if it were not there", d, aside)
	return nil
}

// honour does what is overdue: a change that nobody confirmed and whose process died before it took it back, or that a
// boot came between. If its time is not over, but the process is gone, there is a new one. It never stands in the way of
// a new policy: what fails is told, and forgotten.
func (c *change) honour(ctx context.Context) {
	p := c.state.Pending
	if p == nil {
		return
	}
	if !c.host.overdue(p) {
		if !c.host.Alive(p.PID, p.ID) {
			c.rearm()
		}
		return
	}
	if err := c.takeBack(context.WithoutCancel(ctx), ""); err != nil {
		c.note("taking back the change that nobody confirmed failed: %v", err)
		c.state.Pending = nil
		return
	}
	c.note("the change that nobody confirmed was taken back first")
	if u := c.state.Undone; p.Boot != c.host.Boot && c.opts.Back == 0 && u != nil {
		c.unconfirmed = u.Hash
	}
}

// stateWith is the state once a record is in force. That a change was taken back is told until the next one.
func (c *change) stateWith(id string) store.State {
	s := c.state.InForce(id)
	if c.unconfirmed != "" && c.back != nil {
		s.Undone = c.state.Undone
	}
	return s
}

// overdue tells whether the time for a confirmation is over. A boot ends it.
func (h *Host) overdue(p *store.Pending) bool {
	return p.Boot != h.Boot || h.Uptime() >= p.Deadline
}

// rearm starts the process of a pending change again.
func (c *change) rearm() {
	pid, err := c.host.Watchdog(c.state.Pending.ID)
	if err == nil {
		p := *c.state.Pending
		p.PID = pid
		c.state.Pending = &p
		err = c.host.Store.Set(c.state)
	}
	if err != nil {
		c.note("the process that takes back the unconfirmed change is gone, and starting another failed: %v", err)
		return
	}
	c.note("the process that takes back the unconfirmed change was gone; there is a new one")
}

// arm makes sure that the change is taken back unless it is confirmed. The policy to go back to stays the one that was in
// force before the first unconfirmed change.
func (c *change) arm() error {
	p := store.Pending{
		ID: newPendingID(), Base: c.state.Current, Boot: c.host.Boot,
		Deadline: c.host.Uptime() + c.opts.Confirm, Until: c.host.Now().Add(c.opts.Confirm).Truncate(time.Second),
	}
	switch {
	case c.state.Pending != nil:
		p.Base = c.state.Pending.Base
	case c.record == nil && c.inForce():
		c.note("the policy in force is not recorded: without a confirmation quaywall's rules will be taken out")
		p.Base = ""
	}
	before := c.state
	armed := before
	armed.Pending = &p
	// On the disk first: a process that is killed right after it was started leaves its task behind.
	if err := c.host.Store.Set(armed); err != nil {
		return err
	}
	pid, err := c.host.Watchdog(p.ID)
	if err != nil {
		return errors.Join(fmt.Errorf("starting the process that would take the change back: %w", err), c.host.Store.Set(before))
	}
	p.PID = pid
	c.state = armed
	return c.host.Store.Set(armed)
}

func newPendingID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails: see its documentation
	return hex.EncodeToString(id)
}

// takeBack puts the policy of before the first unconfirmed change in force, once. why is "" where its time is over.
func (c *change) takeBack(ctx context.Context, why string) error {
	undone := store.Undone{When: c.host.Now(), Why: cmp.Or(why, "nobody confirmed it in time")}
	if c.record != nil {
		undone.File, undone.Hash = c.record.File, c.record.Hash
	}
	if c.state.Pending.Boot != c.host.Boot {
		undone.Why = "the host was booted before anybody confirmed it"
	}
	if err := c.restore(ctx, c.state.Pending.Base); err != nil {
		return c.host.withPayload(err)
	}
	c.state = c.state.TakenBack(undone)
	c.record = nil
	if err := c.host.Store.Set(c.state); err != nil {
		// The task must not be done twice. To forget everything needs no space on the disk.
		return errors.Join(err, c.host.Store.Forget())
	}
	return c.readState(true)
}

// restore makes a record's ruleset the only one of quaywall's in the kernel. Without a record there is to be nothing; a
// record that can't be read any more is treated like that, since whoever waits for this may be locked out.
func (c *change) restore(ctx context.Context, id string) error {
	keep, err := c.recommitRecord(ctx, id)
	if err := c.damaged(err, true); err != nil {
		return err
	}
	var errs []error
	for _, r := range c.host.readAll(ctx, c.ns) {
		if r.backend.Name() != keep && (r.holds() || r.err != nil) {
			errs = append(errs, r.backend.Remove(ctx))
		}
	}
	return errors.Join(errs...)
}

// recommitRecord puts a recorded ruleset in force and gives the name of its backend; "" where there is no record.
func (c *change) recommitRecord(ctx context.Context, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	record, err := c.host.Store.Record(id)
	if err != nil {
		return "", err
	}
	rules, err := c.host.Store.Ruleset(id)
	if err != nil {
		return "", err
	}
	b, err := c.host.backend(record.Backend)
	if err == nil {
		err = b.Commit(ctx, rules)
	}
	if err != nil {
		return "", err
	}
	got, err := b.Read(ctx)
	if err == nil && !Compare(&record.Listing, got).None() {
		// Nothing better can be put there: it is told, and not tried again and again.
		c.note("%v", mismatch(&record.Listing, got))
	}
	return b.Name(), err
}
