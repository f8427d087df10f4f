package apply

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/kernel/tracelog"
	"quaywall/internal/lock"
	"quaywall/internal/policy"
	"quaywall/internal/store"
)

// Result is what Apply did.
type Result struct {
	File       string               `json:"file"` // "" for the built-in default policy
	Hash       string               `json:"hash"`
	Backend    string               `json:"backend"`
	Why        string               `json:"why"`                // why this backend
	Changed    bool                 `json:"changed"`            // false: the kernel held just this already
	Observed   bool                 `json:"observed,omitempty"` // it is judged, counted and logged, and denies nothing
	Difference Difference           `json:"difference"`
	Replaced   []string             `json:"replaced,omitempty"` // other backends whose rules were taken out
	Ended      *Ended               `json:"ended,omitempty"`    // live connections that the policy denies; nil where they were not looked at
	PickUp     time.Time            `json:"pick_up,omitzero"`
	Docker     inventory.Docker     `json:"docker"`
	Pending    *PendingStatus       `json:"pending,omitempty"`
	Warnings   diag.List            `json:"warnings,omitempty"`
	Notices    []string             `json:"notices,omitempty"` // sentences without a full stop
	Steps      []Step               `json:"steps"`
	Sources    policy.Sources       `json:"-"` // for Warnings.Format
	Policy     *policy.Policy       `json:"-"`
	Inventory  *inventory.Inventory `json:"-"`

	record string // of what is in force
}

// Apply puts a policy in force. With the context ended it stops before anything is changed; once the kernel is being
// changed it goes on to the end. The Result is not nil where the error is one about a change that was tried.
func (h *Host) Apply(ctx context.Context, o Options) (*Result, error) {
	const doing = "putting the policy in force"
	var result *Result
	err := h.locked(ctx, doing, o.Wait, func(c *change) error {
		c.opts, c.back = o, o.Kept
		err := c.apply(ctx)
		if err != nil && c.honoured && !c.took("commit") {
			c.endDeniedSince(context.WithoutCancel(ctx))
		}
		if c.expected != nil {
			c.noteUnseen(c.inv)
			result = c.result()
		}
		return err
	})
	return result, err
}

// locked runs f with the lock held and the state read. Errors say what was being done.
func (h *Host) locked(ctx context.Context, doing string, wait time.Duration, f func(*change) error) error {
	if err := checkPrivilege(); err != nil {
		return h.failed(ctx, doing, err)
	}
	l, err := h.lock(ctx, wait)
	if err != nil {
		return h.failed(ctx, doing, err)
	}
	c := &change{host: h, ns: here()}
	defer c.close()
	if l.Squatter != nil {
		c.note("%v has taken the name of quaywall's lock; it is no quaywall: end it", l.Squatter)
	}
	if err := tracelog.Restore(h.RunDir); err != nil {
		c.note("a trace that was killed has left something: %v", err)
	}
	err = c.readState(true)
	if err == nil {
		err = f(c)
	}
	return c.failed(ctx, doing, errors.Join(err, l.Release()))
}

// lock takes the lock, and tells whom it waits for.
func (h *Host) lock(ctx context.Context, wait time.Duration) (*lock.Lock, error) {
	l, err := lock.Take(ctx, h.RunDir, 0)
	var busy *lock.BusyError
	if wait == 0 || !errors.As(err, &busy) {
		return l, err
	}
	if h.OnStep != nil {
		h.OnStep(fmt.Sprintf("waiting for %v", busy.Holder))
	}
	return lock.Take(ctx, h.RunDir, wait)
}

func (c *change) apply(ctx context.Context) error {
	c.honour(ctx)
	if c.opts.Follow && c.state.Current != c.opts.Over {
		return ErrOvertaken
	}
	err := c.prepare(ctx)
	if err == nil {
		err = c.carryOut(ctx)
	}
	if c.wantsStandIn(ctx, err) {
		return c.standIn(ctx, err)
	}
	return err
}

// carryOut does what was prepared.
func (c *change) carryOut(ctx context.Context) error {
	if err := c.refuse(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.unchanged() {
		if len(c.denied.flows) > 0 {
			c.endDenied(context.WithoutCancel(ctx))
			c.noteEnded()
		}
		return c.keep(context.WithoutCancel(ctx))
	}
	return c.enforce(context.WithoutCancel(ctx))
}

// refuse is the lock-out guard's decision, and that on sets which nobody emptied on purpose.
func (c *change) refuse() error {
	if err := c.emptied(); err != nil {
		return err
	}
	if c.blind == nil && len(c.cuts) == 0 || c.opts.Kept != nil || c.opts.Follow && c.record != nil && c.record.Hash == c.policy.Hash {
		return nil
	}
	if c.comesBack() {
		c.denied.forget() // whoever is here goes on
		return nil
	}
	err := &RefusedError{Cuts: c.cuts, Because: c.found.Because, Err: c.blind}
	if !c.opts.AllowLockout {
		return err
	}
	c.note("--allow-lockout: %v", strings.TrimPrefix(err.Error(), "refused, since "))
	return nil
}

// comesBack tells whether a boot only puts back in force what was in force before it. Who has a connection by now came while
// the host was open: were that a reason to leave it so, any stranger could.
func (c *change) comesBack() bool {
	return c.opts.Boot && c.record != nil && c.record.Boot != c.host.Boot && c.record.Hash == c.policy.Hash && !c.inForce()
}

// emptied finds sets that had entries, and have none in a policy that nobody asked for: a program that writes a set file
// failed more often than somebody wants nobody in it (design trap 2).
func (c *change) emptied() error {
	if !c.opts.Follow || c.record == nil || c.record.Boot != c.host.Boot {
		return nil
	}
	e := &EmptiedError{}
	for _, s := range c.policy.Sets {
		if n := c.record.Entries[s.Name]; n > 0 && s.Entries == 0 {
			e.Sets = append(e.Sets, fmt.Sprintf("%s (it had %d)", s.Name, n))
		}
	}
	if len(e.Sets) == 0 {
		return nil
	}
	return e
}

func entriesOf(p *policy.Policy) map[string]int {
	all := map[string]int{}
	for _, s := range p.Sets {
		all[s.Name] = s.Entries
	}
	return all
}

// keep ends a change that changes nothing in the kernel. What is recorded follows: a comment may have changed, or the
// record was lost.
func (c *change) keep(ctx context.Context) error {
	r := c.newRecord()
	known := c.record != nil && c.record.Hash == r.Hash && c.record.File == r.File && c.record.Backend == r.Backend &&
		c.record.Boot == r.Boot && c.record.PickUp.Equal(r.PickUp) && c.record.Cut == r.Cut && c.record.Observed == r.Observed &&
		reflect.DeepEqual(c.record.Networks, r.Networks)
	if err := c.armUnchanged(); err != nil {
		return err
	}
	if known && len(c.cut.Flows) == 0 && !c.settles() && (c.state.TakenUp == nil || c.opts.Follow || c.opts.Boot) {
		return nil
	}
	return c.step("record", func() error {
		c.recordCut(ctx)
		id, err := c.host.Store.Save(r, c.rules)
		if err == nil {
			c.state = c.stateWith(id)
			err = c.host.Store.Set(c.state)
		}
		return err
	})
}

// armUnchanged arms the undo where the policy is in force already, but nobody has confirmed it, or asked for it, so far.
func (c *change) armUnchanged() error {
	switch {
	case c.opts.Confirm == 0:
		return nil
	case c.state.Pending == nil && c.onTrial() == "":
		c.note("nothing changed, so there is nothing to confirm")
		return nil
	case c.state.Pending == nil:
		c.note("the agent took this policy up from its file at %s; unless it is confirmed, the one of before comes back",
			c.host.when(c.state.TakenUp.Stamp).Format(time.TimeOnly))
	}
	return c.step("arm", c.arm)
}

func (c *change) newRecord() store.Record {
	name, dir := c.policy.File, workingDir()
	if c.back != nil {
		name, dir = c.back.Name, c.back.Dir
	}
	now := c.host.stamp()
	return store.Record{
		Name: name, Dir: dir, Written: c.policy.Written, Entries: entriesOf(c.policy),
		Stamp: now, Since: c.inForceSince(now.When), File: c.file(), Hash: c.policy.Hash, Backend: c.chosen.backend.Name(),
		PickUp: c.pickUp, Cut: c.cut.ID, Listing: *c.expected, Sources: c.sources,
		Verbs: c.policy.Verbs(), Networks: c.networks(), Observed: c.opts.Observe,
	}
}

// inForceSince is when the policy came in force, which may be before this change: the host was another one, and it was
// put in force for that.
func (c *change) inForceSince(now time.Time) time.Time {
	if r := c.record; r != nil && r.Hash == c.policy.Hash && r.Observed == c.opts.Observe && r.Boot == c.host.Boot {
		return c.host.since(r)
	}
	return now
}

// enforce changes the kernel. All that may fail for want of space is done before.
func (c *change) enforce(ctx context.Context) error {
	before := c.state
	var id string
	err := c.step("record", func() (err error) { id, err = c.host.Store.Save(c.newRecord(), c.rules); return err })
	if err != nil && c.opts.Boot && !c.inForce() {
		return c.enforceUnrecorded(ctx, err)
	}
	if err != nil {
		return err
	}
	if c.opts.Confirm > 0 {
		if err := c.step("arm", c.arm); err != nil {
			return err
		}
	}
	next, err := c.host.Store.Prepare(c.stateWith(id))
	if err == nil {
		err = c.commit(ctx)
	}
	if err != nil {
		return errors.Join(err, c.disarm(before, next))
	}
	strays := c.step("switch", func() error { return c.removeStrays(ctx) })
	recorded := c.cut
	_ = c.step("cut", func() error { c.endDenied(ctx); return nil })
	if c.cut.ID != recorded.ID || len(c.cut.Flows) > len(recorded.Flows) {
		id, next = c.recordAgain(id, next)
	}
	err = c.step("finish", func() error { c.state = c.stateWith(id); return next.Commit() })
	c.noteEnded()
	if err = errors.Join(strays, err); err != nil {
		return &FailedError{Doing: "finishing", Err: err, Left: "the policy is in force", Next: "see quaywall status, and apply again"}
	}
	return nil
}

// enforceUnrecorded changes the kernel where the disk takes no record of it: at boot the host would stay open.
func (c *change) enforceUnrecorded(ctx context.Context, cause error) error {
	if err := c.commit(ctx); err != nil {
		return errors.Join(cause, err)
	}
	return &FailedError{Doing: "recording what is in force", Err: cause, Left: "the policy is in force",
		Next: "make room on the disk, or let it be written, and apply again"}
}

// recordAgain keeps a record of what was put in force in the place of one that is out of date. Where that fails the old one
// stays: the rules differ from it in the connections that were cut.
func (c *change) recordAgain(id string, next *store.Change) (string, *store.Change) {
	newer, err := c.host.Store.Save(c.newRecord(), c.rules)
	if err != nil {
		c.note("what is in force differs from what is recorded: %v", err)
		return id, next
	}
	again, err := c.host.Store.Prepare(c.stateWith(newer))
	if err != nil {
		c.note("what is in force differs from what is recorded: %v", err)
		return id, next
	}
	c.host.Store.Drop(id)
	return newer, again
}

// commit puts the rules into the kernel and looks whether they are there.
func (c *change) commit(ctx context.Context) error {
	if !c.inForce() {
		c.adopt()
	}
	err := c.step("commit", func() error { return c.chosen.backend.Commit(ctx, c.rules) })
	if err != nil {
		return c.unlessUnchanged(ctx, err)
	}
	var group errgroup.Group
	group.Go(func() error { return c.ns.run(c.findDenied) }) // once more: some were made since
	group.Go(func() error {
		return c.ns.run(func() error { return c.step("read", func() error { return c.verify(ctx) }) })
	})
	if err := group.Wait(); err != nil {
		return c.putBack(ctx, "reading back what was put in force", err)
	}
	return nil
}

// unlessUnchanged puts the policy of before back where a commit failed and changed something all the same: hand-written
// rules come after all others, and may be the ones that fail.
func (c *change) unlessUnchanged(ctx context.Context, cause error) error {
	now, err := c.chosen.backend.Read(ctx)
	if err == nil && Compare(c.chosen.listing, now).None() {
		return cause
	}
	return c.putBack(ctx, "putting the rules into the kernel", errors.Join(cause, err))
}

// adopt keeps flows alive that nothing in a packet shows to be old (design trap 38). Without it they have to be begun anew,
// so that it fails is only told.
func (c *change) adopt() {
	if err := c.step("adopt", c.host.Adopt); err != nil {
		c.note("UDP flows that ran before may be cut: %v", err)
	}
}

func (c *change) verify(ctx context.Context) error {
	got, err := c.chosen.backend.Read(ctx)
	if err == nil && !Compare(c.expected, got).None() {
		err = mismatch(c.expected, got)
	}
	return err
}

// putBack makes the kernel hold what it held before a commit that went wrong.
func (c *change) putBack(ctx context.Context, doing string, cause error) error {
	b := c.chosen.backend
	f := &FailedError{Doing: doing, Err: cause, Next: "apply again; if it stays, this is a bug worth reporting"}
	var err error
	switch {
	case !c.chosen.holds():
		err, f.Left = b.Remove(ctx), "what was put in was taken out again"
	case c.record == nil || c.record.Backend != b.Name():
		f.Left = "what the kernel holds was left there, since the policy of before is not recorded"
	default:
		err, f.Left = c.recommit(ctx), "the policy of before is in force again"
	}
	if err != nil {
		f.Err = errors.Join(cause, fmt.Errorf("putting the policy of before back: %w", c.host.withPayload(err)))
		f.Left = "it is not known what is in force"
		f.Next = "see quaywall status"
	}
	return f
}

func (c *change) recommit(ctx context.Context) error {
	rules, err := c.recordedRules(c.record)
	if err != nil {
		return err
	}
	return c.chosen.backend.Commit(ctx, rules)
}

// disarm puts the state of before back after a change that failed.
func (c *change) disarm(before store.State, next *store.Change) error {
	var err error
	if next != nil {
		err = next.Abort()
	}
	if c.opts.Confirm > 0 {
		c.state = before
		err = errors.Join(err, c.host.Store.Set(before))
	}
	return err
}

// removeStrays takes out what other backends hold. The new policy is in force by then: there is no gap.
func (c *change) removeStrays(ctx context.Context) error {
	for _, r := range c.others {
		if r.err != nil {
			c.note("it could not be read whether %s holds rules of quaywall's as well: %v", r.backend.Name(), r.err)
		}
	}
	for _, r := range c.strays() {
		if err := r.backend.Remove(ctx); err != nil {
			return fmt.Errorf("taking out what %s held: %w", r.backend.Name(), err)
		}
	}
	return nil
}

func (c *change) result() *Result {
	r := &Result{
		File: c.file(), Hash: c.policy.Hash, Backend: c.chosen.backend.Name(), Why: c.why, Changed: !c.unchanged(), Observed: c.opts.Observe,
		Difference: c.difference(), Ended: c.ended(), PickUp: c.pickUp, Docker: c.inv.Docker, Pending: c.host.pendingStatus(c.state),
		Warnings: c.warnings, Notices: c.notices, Steps: c.steps, Sources: c.sources, Policy: c.policy, Inventory: c.inv, record: c.state.Current,
	}
	for _, stray := range c.strays() {
		r.Replaced = append(r.Replaced, stray.backend.Name())
	}
	return r
}

func (c *change) difference() Difference { return Compare(c.chosen.listing, c.expected) }
