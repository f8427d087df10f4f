package apply

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
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
		if !c.host.Alive(p.PID, p.Task) {
			c.rearm()
		}
		return
	}
	if err := c.takeBack(context.WithoutCancel(ctx), ""); err != nil {
		c.note("taking back the change that nobody confirmed failed: %v", err)
		c.state.Pending = nil
		return
	}
	c.honoured = true
	c.note("the change that nobody confirmed was taken back first")
}

// stateWith is the state once a record is in force. What a person asks for is no longer one that was taken back; whoever
// goes back doesn't want what was in force, and has seen what there was to see of a change that waits.
func (c *change) stateWith(id string) store.State {
	s := c.state
	if c.settles() {
		s.Pending = nil
	}
	if !c.opts.Follow && !c.opts.Boot {
		s = s.Wanted()
	}
	if c.takesUp() {
		s.TakenUp = &store.TakenUp{Stamp: c.host.stamp(), Base: cmp.Or(c.onTrial(), s.Current)}
	}
	if c.opts.Back > 0 && c.record != nil {
		s = s.Reject(c.record.Written)
	}
	if c.opts.Observe {
		s = s.Observing(id)
	}
	return s.InForce(id)
}

// wasObserved tells whether what was in force last was only observed, where that record can't be read any more, or there is
// none: nobody who only observed a policy is to be locked out by it.
func (c *change) wasObserved() bool {
	if c.state.Current != "" {
		return slices.Contains(c.state.Observed, c.state.Current)
	}
	all, err := c.host.candidates("", c.state.Unconfirmed)
	return err == nil && len(all) > 0 && all[0].Observed
}

// takesUp tells whether this is a policy that nobody asked for, from a file that somebody edited.
func (c *change) takesUp() bool {
	return c.opts.Follow && c.record != nil && c.record.Written != c.policy.Written
}

// trial is how long a policy that an agent took up counts as one that nobody has seen the effects of.
const trial = time.Hour

// onTrial is the record to go back to from a policy that an agent took up a while ago; "" where a person asked for what is
// in force, or has lived with it for long.
func (c *change) onTrial() string {
	if t := c.state.TakenUp; t != nil && c.host.ago(t.Stamp) < trial {
		return t.Base
	}
	return ""
}

// settles tells whether going back ends the waiting for a confirmation.
func (c *change) settles() bool {
	return c.opts.Back > 0 && c.opts.Confirm == 0 && c.state.Pending != nil
}

// overdue tells whether the time for a confirmation is over. A boot ends it.
func (h *Host) overdue(p *store.Pending) bool {
	return p.Boot != h.Boot || h.Uptime() >= p.Deadline
}

// rearm starts the process of a pending change again.
func (c *change) rearm() {
	pid, err := c.host.Watchdog(c.state.Pending.Task)
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
// force before the first unconfirmed change, and so does the process that will do it: should this change fail, the one
// before waits on as if nothing had been.
func (c *change) arm() error {
	p := store.Pending{
		ID: newID(), Base: c.state.Current, Boot: c.host.Boot,
		Deadline: c.host.Uptime() + c.opts.Confirm, Until: c.host.Now().Add(c.opts.Confirm).Truncate(time.Second),
	}
	if first := c.state.Pending; first != nil {
		p.Base, p.Task, p.PID = first.Base, first.Task, first.PID
	} else {
		p.Task, p.Base = p.ID, cmp.Or(c.onTrial(), p.Base)
		if c.record == nil && c.inForce() {
			c.note("the policy in force is not recorded: without a confirmation quaywall's rules will be taken out")
			p.Base = ""
		}
	}
	before := c.state
	armed := before
	armed.Pending = &p
	// On the disk first: a process that is killed right after it was started leaves its task behind.
	if err := c.host.Store.Set(armed); err != nil {
		return err
	}
	if !c.host.Alive(p.PID, p.Task) {
		pid, err := c.host.Watchdog(p.Task)
		if err == nil {
			p.PID = pid
			err = c.host.Store.Set(armed)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("starting the process that would take the change back: %w", err), c.host.Store.Set(before))
		}
	}
	c.state = armed
	c.warnOfUndo(p.Base)
	return nil
}

// warnOfUndo tells beforehand where the policy that comes back without a confirmation would cut the way in that there is
// now. It comes back all the same: who asks for an undo wants that policy rather than one that nobody could confirm.
func (c *change) warnOfUndo(base string) {
	r, err := c.host.Store.Record(base)
	if base == "" || err != nil || r.Observed {
		return
	}
	p, _, list := Kept(r)
	if list.HasErrors() {
		return
	}
	var cuts []string
	for _, cut := range c.cutBy(p) {
		cuts = append(cuts, cut.Closes())
	}
	if len(cuts) > 0 {
		c.note("unless it is confirmed, %s comes back, which cuts the way in: %s; confirm it in time, or have another way in",
			PolicyName(r.File, r.Hash), strings.Join(cuts, "; "))
	}
}

func newID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails: see its documentation
	return hex.EncodeToString(id)
}

// takeBack puts the policy of before the first unconfirmed change in force, once. why is "" where its time is over.
func (c *change) takeBack(ctx context.Context, why string) error {
	undone := store.Undone{Stamp: c.host.stamp(), Why: cmp.Or(why, "nobody confirmed it in time")}
	written := ""
	if c.record != nil {
		undone.File, undone.Hash, written = c.record.File, c.record.Hash, c.record.Written
	}
	if c.state.Pending.Boot != c.host.Boot {
		undone.Why = "the host was booted before anybody confirmed it"
	}
	if err := c.restore(ctx, c.state.Pending.Base); err != nil {
		return c.host.withPayload(err)
	}
	c.state = c.state.TakenBack(undone, written)
	c.record = nil
	if err := c.host.Store.Set(c.state); err != nil {
		// The task must not be done twice. To forget everything needs no space on the disk.
		return errors.Join(err, c.host.Store.Forget())
	}
	if err := c.readState(true); err != nil || c.record == nil || c.record.Boot == c.host.Boot {
		return err
	}
	return c.renew()
}

// renew records that the current record's ruleset is in force since this boot.
func (c *change) renew() error {
	rules, err := c.recordedRules(c.record)
	if err != nil {
		return err
	}
	r := *c.record
	r.Stamp = c.host.stamp()
	r.Since = r.When
	if !r.PickUp.IsZero() {
		r.PickUp = r.When
	}
	id, err := c.host.Store.Save(r, rules)
	if err == nil && r.Observed {
		c.state = c.state.Observing(id)
	}
	if err == nil {
		err = c.host.Store.Set(c.state.InForce(id))
	}
	if err != nil {
		return err
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
	rules, err := c.recordedRules(record)
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
