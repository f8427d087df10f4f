package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/compile"
	"quaywall/internal/diag"
	"quaywall/internal/files"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/kernel"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
)

// Options are what a person asks for.
type Options struct {
	Policy       string        // the policy file
	Given        bool          // the person named it: without, one that isn't there means the built-in default
	Backend      string        // Auto, NFT, IPTables or the name of a backend
	AllowLockout bool          // go on where the way in would be cut
	Back         int           // instead of Policy the one in force so many policies ago, as of History; 0 for none
	Confirm      time.Duration // take the change back unless it is confirmed in this time; 0 for never
	Wait         time.Duration // how long to wait for another quaywall

	// Observe has the policy judged, counted and logged, and denies nothing. With Back, Boot or Follow it counts only where
	// nothing is recorded: a policy that is put in force by those is observed, or enforced, as it was.
	Observe bool

	// Boot is for who can't see whether the policy lets anybody in, a unit most often: a policy that was taken back, or gone
	// back from, is not put in force again, but the one that was kept then.
	Boot bool

	// Follow is for who keeps a policy in force: only what the host has may have changed, so that a policy that is in force
	// already is not asked whether it cuts a way in. Where the current record is not Over any more, since somebody stopped
	// quaywall, or put another policy in force, the error is ErrOvertaken.
	Follow bool
	Over   string

	// Kept is with Follow, for where what is recorded as in force can't be read any more, and the policy file holds something
	// else: the record as it was. Its policy is put in force instead of the file's.
	Kept *store.Record
}

// LogGroup is the NFLOG group that denied packets are sent to.
const LogGroup = 86

// Step is a step that was taken.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// change is a change in the making: what Apply and Plan have in common.
type change struct {
	host *Host
	opts Options
	ns   *namespace

	state store.State
	back  *store.Record // what is gone back to, or stands in; nil where a file is put in force

	record   *store.Record // the current one; nil where there is none
	honoured bool          // an overdue change was taken back first

	policy   *policy.Policy
	sources  policy.Sources
	loaded   diag.List // warnings about the policy alone
	warnings diag.List // these, and those about the policy on this host
	inv      *inventory.Inventory
	chosen   reading   // what the backend of this change holds now
	others   []reading // what all others hold
	why      string    // why this backend

	rules    *ruleset.Ruleset
	expected *kernel.Listing // what reading gives once the rules are in force
	pickUp   time.Time       // since when untracked flows of containers may go on; zero where they may not
	cut      compile.Cut     // live connections that must not come back
	denied   denied

	found guard.Found
	blind error // why the ways in are not known
	cuts  []guard.Cut

	told    sync.Mutex // for what follows
	notices []string
	steps   []Step
}

func (c *change) close() {
	c.ns.close()
	c.denied.running.close()
}

func (c *change) note(format string, args ...any) {
	c.told.Lock()
	defer c.told.Unlock()
	c.notices = append(c.notices, fmt.Sprintf(format, args...))
}

// noteUnseen names what no policy reaches: whoever reads one that denies everything takes it for closed.
func (c *change) noteUnseen(inv *inventory.Inventory) {
	for _, n := range inv.Unseen {
		c.note("Docker's network %q is %s on %s: no rule of this host sees what goes to and from its containers; "+
			"filter inside of them, or in front of this host", n.Name, n.Driver, n.Parent)
	}
}

// step takes one step. Some are taken at the same time.
func (c *change) step(name string, f func() error) error {
	c.told.Lock()
	if c.host.OnStep != nil {
		c.host.OnStep(name)
	}
	c.told.Unlock()
	start := time.Now()
	err := f()
	c.told.Lock()
	defer c.told.Unlock()
	c.steps = append(c.steps, Step{name, time.Since(start)})
	return err
}

// prepare does all that changes nothing: afterwards it is known what would be put in force, and that the kernel takes it.
func (c *change) prepare(ctx context.Context) error {
	if err := c.step("load", func() error { return c.load(ctx) }); err != nil {
		return err
	}
	if c.chosen.err != nil {
		return fmt.Errorf("reading what %s holds: %w", c.chosen.backend.Name(), c.chosen.err)
	}
	return c.plan(ctx)
}

// load reads the policy, what is on this host, and what is in force, all at a time.
func (c *change) load(ctx context.Context) error {
	var group errgroup.Group
	group.Go(c.loadPolicy)
	group.Go(func() error { return c.takeInventory(ctx) })
	var backend kernel.Backend
	group.Go(func() error {
		return c.ns.run(func() (err error) { backend, c.why, err = c.host.choose(ctx, c.opts.Backend); return err })
	})
	readings := c.host.readAll(ctx, c.ns)
	if err := group.Wait(); err != nil {
		return err
	}
	c.chosen, c.others = readingOf(readings, backend)
	return nil
}

// takeInventory lists what is on this host. It must be all that its goroutine does.
func (c *change) takeInventory(ctx context.Context) error {
	return c.ns.run(func() error {
		inv, err := c.host.Inventory(ctx)
		if err == nil && c.record != nil {
			inv = inv.Remembering(c.record.Networks)
		}
		c.inv = inv
		return err
	})
}

// networks are what is to be remembered for the time before Docker is there: what it says, or has said last. A bridge with a
// name of its own may be somebody else's by then.
func (c *change) networks() []inventory.Network {
	if !c.inv.Docker.Reachable {
		if c.record == nil {
			return nil
		}
		return c.record.Networks
	}
	var all []inventory.Network
	for _, n := range c.inv.Networks {
		if inventory.IsDockerBridgeName(n.Bridge) {
			all = append(all, n)
		}
	}
	return all
}

// loadPolicy reads the policy file. Where nobody named one and none is there, the policy is the built-in default.
func (c *change) loadPolicy() error {
	if c.opts.Follow || c.opts.Boot {
		c.observeAsBefore()
	}
	switch {
	case c.back != nil:
		return c.loadKept(c.back)
	case c.opts.Back > 0:
		return c.loadPast()
	}
	if !c.opts.Given {
		if _, err := os.Stat(c.opts.Policy); errors.Is(err, fs.ErrNotExist) {
			c.policy = policy.Default()
			return nil
		}
	}
	c.policy, c.sources, c.loaded = policy.Load(files.Host{}, c.opts.Policy)
	c.warnings = c.loaded
	if err := c.invalid(c.loaded); err != nil {
		return err
	}
	return c.rejected()
}

// observeAsBefore has a policy that nobody is there for be observed, or enforced, as what was in force before it.
func (c *change) observeAsBefore() {
	switch {
	case c.record != nil:
		c.opts.Observe = c.record.Observed
	case !c.opts.Observe && c.wasObserved():
		c.opts.Observe = true
		c.note("what was in force last was only observed, and its record can't be read, or counts no more: the policy is observed, " +
			"and denies nothing, until somebody applies it")
	}
}

func (c *change) invalid(list diag.List) error {
	if !list.HasErrors() {
		return nil
	}
	return &InvalidError{File: c.opts.Policy, List: list, Sources: c.sources}
}

// file is the policy's file as records keep it.
func (c *change) file() string {
	if c.back != nil {
		return c.back.File
	}
	if c.policy.File == "" {
		return ""
	}
	if abs, err := filepath.Abs(c.policy.File); err == nil {
		return abs
	}
	return c.policy.File
}

// look finds the ways in that the policy would cut. That they can't be found is no error yet: a plan may be made. A policy
// that is observed cuts none.
func (c *change) look() error {
	if c.opts.Observe {
		return nil
	}
	c.found, c.blind = c.host.WaysIn(c.inv)
	if c.blind == nil {
		c.cuts = c.cutBy(c.policy)
	}
	return nil
}

// cutBy tells which ways in a policy would cut, with the processes that they lead to.
func (c *change) cutBy(p *policy.Policy) []guard.Cut {
	cuts := guard.Check(c.found.Ways, p, c.inv)
	if len(cuts) == 0 {
		return nil
	}
	_ = guard.Name(c.found.Ways) // a way without a name is told as well
	return guard.Check(c.found.Ways, p, c.inv)
}

// plan compiles and tries, and looks meanwhile for whom the policy would cut: mostly there is nobody. What earlier applies
// left in the rules (a time for old flows, connections that were cut) stays as it is if nothing else changes; else it is
// made anew.
func (c *change) plan(ctx context.Context) error {
	since, asIs := pickUps(c.host, c.record, c.inForce()), c.cutInForce()
	var done bool
	var group errgroup.Group
	group.Go(func() error {
		return c.ns.run(func() (err error) { done, err = c.try(ctx, since[0], asIs); return err })
	})
	group.Go(func() error { return c.ns.run(c.look) })
	group.Go(func() error { return c.ns.run(c.findDenied) })
	if err := group.Wait(); err != nil {
		return err
	}
	c.spare()
	if done && asIs.ID != "" {
		return nil
	}
	return c.ns.apart(func() error {
		fresh := c.freshCut(ctx)
		if fresh.ID == "" && asIs.ID == "" { // the first is tried
			if since = since[1:]; done {
				return nil
			}
		}
		for _, t := range since {
			if done, err := c.try(ctx, t, fresh); done || err != nil {
				return err
			}
		}
		return nil
	})
}

// try compiles and has the kernel try the rules; it is done where they are what is in force. What a kernel may lack for
// cutting connections is no reason to stay without the policy.
func (c *change) try(ctx context.Context, pickUp time.Time, cut compile.Cut) (done bool, err error) {
	c.pickUp, c.cut = pickUp, cut
	err = c.step("compile", c.compile)
	if err == nil {
		err = c.step("preflight", func() error { return c.preflight(ctx) })
	}
	if err == nil || cut.ID == "" {
		return err == nil && c.unchanged(), err
	}
	if _, without := c.try(ctx, pickUp, compile.Cut{}); without != nil {
		return false, err
	}
	c.note("connections that are ended may come back, since this kernel can't keep them from it: %v", err)
	return true, nil
}

func (c *change) compile() error {
	rules, list := compile.Compile(c.policy, c.inv, compile.Options{PickUp: !c.pickUp.IsZero(), LogGroup: LogGroup, Cut: c.cut, Observe: c.opts.Observe})
	if err := c.invalid(list); err != nil {
		return err
	}
	c.rules = rules
	c.warnings = slices.Concat(c.loaded, list)
	c.warnings.Sort()
	return nil
}

func (c *change) preflight(ctx context.Context) error {
	b := c.chosen.backend
	err := c.host.Scratch(func() (err error) { c.expected, err = b.Preflight(ctx, c.rules); return err })
	return explained(ctx, b, err)
}

// inForce tells whether anything of quaywall's is in the kernel, by whichever backend.
func (c *change) inForce() bool {
	return c.chosen.holds() || len(c.strays()) > 0
}

// strays are the readings of other backends that hold something.
func (c *change) strays() []reading {
	var all []reading
	for _, r := range c.others {
		if r.holds() {
			all = append(all, r)
		}
	}
	return all
}

// unchanged tells whether the kernel holds just what is planned.
func (c *change) unchanged() bool {
	return c.chosen.holds() && len(c.strays()) == 0 && Compare(c.chosen.listing, c.expected).None()
}

// pickUpTime is how long flows from before the first apply may go on untracked: a TCP connection that is silent for
// longer is rare, and the rule lets strangers send to containers what belongs to no connection.
const pickUpTime = 24 * time.Hour

// pickUps are the possible values of Record.PickUp for a change, the one to try first first. On a host where nothing of
// quaywall's was in force since it was booted nothing may have used conntrack, and every flow looks new (design trap 38).
func pickUps(h *Host, current *store.Record, inForce bool) []time.Time {
	switch {
	case current == nil && inForce: // the record is lost: as it is, if nothing else changes
		return []time.Time{h.Now(), {}}
	case current == nil || current.Boot != h.Boot && !inForce:
		return []time.Time{h.Now()}
	case current.PickUp.IsZero() || current.Boot != h.Boot:
		return []time.Time{{}}
	}
	since := current.PickUp.Add(h.jumped(current.Stamp))
	if h.Now().Sub(since) < pickUpTime {
		return []time.Time{since}
	}
	return []time.Time{since, {}}
}
