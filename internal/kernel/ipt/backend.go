// Package ipt puts a ruleset into the kernel by iptables-restore, ip6tables-restore and ipset, in both variants of
// iptables.
//
//	b := ipt.New(ipt.NFT, ipt.Options{})
//	if err := b.Probe(ctx); err != nil { … }
//	err := b.Commit(ctx, rules)
//
// A commit fills new sets under temporary names and gives them their names when they are complete; then one restore for
// each family replaces chains and jumps; then the sets of before go. A set's name holds a hash of its content: one that is
// there already, and is still what it was, is used again. Whenever this ends, killed or refused, packets meet the old policy
// or the new one; what is left over is taken away by the next commit.
//
// Be aware: each family switches for itself, and where a policy rejects or drops in front of connection tracking, the
// tables filter, security and raw switch just before. A rate for all packets together, as that of the log, counts for each
// family and each table by itself. Tables and built-in chains that iptables-nft made for a jump go with it, marked by chains
// called QUAYWALL+…; a table that iptables-legacy made stays, empty, for only unloading a kernel module would take it away.
// iptables-legacy holds the lock /run/xtables.lock while it works; a commit waits for it as long as Options say, for each
// family, then fails with nothing changed. Two quaywalls at once must be kept apart by the caller.
package ipt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
)

// Variant is one of the two programs called iptables.
type Variant string

// The variants: rules in nf_tables, and rules in the kernel's older ip_tables.
const (
	NFT    Variant = "nft"
	Legacy Variant = "legacy"
)

// DefaultWait is how long a lock is waited for.
const DefaultWait = 10 * time.Second

// Options are how a Backend works. The zero value is fit for use.
type Options struct {
	Wait time.Duration // for the lock of iptables-legacy, in whole seconds; 0 is DefaultWait
}

// Backend is kernel.Backend by iptables and ipset.
type Backend struct {
	variant Variant
	wait    time.Duration
}

var _ kernel.Backend = (*Backend)(nil)

// New is a backend for one variant.
func New(v Variant, o Options) *Backend {
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	return &Backend{variant: v, wait: o.Wait}
}

// Name is "iptables-nft" or "iptables-legacy".
func (b *Backend) Name() string { return "iptables-" + string(b.variant) }

// tries is how often a commit starts again because somebody changed rules between its reading and its writing.
const tries = 3

// Commit puts a ruleset in force.
func (b *Backend) Commit(ctx context.Context, rs *ruleset.Ruleset) error {
	return b.commitOver(ctx, rs, nil)
}

// Mend reads, and commits where that is amiss.
func (b *Backend) Mend(ctx context.Context, amiss func(*kernel.Listing) bool, wanted func() (*ruleset.Ruleset, error)) error {
	var now *state
	read := func() (*kernel.Listing, error) {
		var err error
		if now, err = b.tables(ctx); err != nil {
			return nil, err
		}
		return now.listing()
	}
	return kernel.ReadAndCommit(b.Name(), read, amiss, wanted, func(rs *ruleset.Ruleset) error { return b.commitOver(ctx, rs, now) })
}

func (b *Backend) commitOver(ctx context.Context, rs *ruleset.Ruleset, now *state) error {
	rules, err := render.Render(rs)
	if err != nil {
		return err
	}
	return b.commit(ctx, rules, now)
}

// commit puts rules in force in the place of what was read a moment ago; nil for not. Should somebody have changed that in
// between, the programs refuse, and it is read anew.
func (b *Backend) commit(ctx context.Context, rules *render.Rules, now *state) error {
	before, err := b.fill(ctx, rules.Sets)
	if err != nil {
		return err
	}
	err = b.switchOver(ctx, rules, now)
	for i := 1; err != nil && i < tries && ctx.Err() == nil && jumpMoved(err); i++ {
		err = b.switchOver(ctx, rules, nil)
	}
	err = errors.Join(err, b.tidy())
	if err != nil {
		// The sets made for this commit are in nobody's use. What can't be destroyed now is left over for the next commit.
		return errors.Join(err, b.destroyBut(ctx, before))
	}
	return b.destroyBut(ctx, names(rules.Sets))
}

func names(sets []render.Set) []string {
	var all []string
	for _, s := range sets {
		all = append(all, s.Name)
	}
	return all
}

// switchOver replaces the chains and jumps of both families. now is what is there, nil where that was not read yet.
func (b *Backend) switchOver(ctx context.Context, rules *render.Rules, now *state) error {
	if now == nil {
		var err error
		if now, err = b.tables(ctx); err != nil {
			return err
		}
	}
	if err := b.restore(ctx, now, map[ruleset.Family]*render.Family{ruleset.IPv4: &rules.IPv4, ruleset.IPv6: &rules.IPv6}); err != nil {
		return b.putBack(ctx, now, err)
	}
	return nil
}

// putBack gives families the rules again that they had, after one of them refused new ones.
func (b *Backend) putBack(ctx context.Context, before *state, cause error) error {
	ctx = context.WithoutCancel(ctx)
	now, err := b.tables(ctx)
	if err == nil {
		changed := map[ruleset.Family]*render.Family{}
		for _, f := range families {
			if !before.same(now, f) {
				changed[f] = before.family(f)
			}
		}
		err = b.restore(ctx, now, changed)
	}
	if err != nil {
		return fmt.Errorf("%w\nputting the old rules back failed too: %w\nA part of the new policy may be in force: apply again, or stop", cause, err)
	}
	return fmt.Errorf("%w (the old policy is in force)", cause)
}

// restore feeds the restore programs what makes families of what there is now: both at once, or one after the other where
// each would wait for the other's lock.
func (b *Backend) restore(ctx context.Context, now *state, want map[ruleset.Family]*render.Family) error {
	var calls []call
	for _, f := range families {
		if want[f] == nil {
			continue
		}
		if payload := want[f].Payload(now.present(f)); len(payload) > 0 {
			calls = append(calls, b.restoring(f, payload))
		}
	}
	if b.variant == NFT {
		return b.refusals(calls, b.runAll(ctx, calls))
	}
	for i := range calls {
		if err := b.refusals(calls[i:i+1], b.runAll(ctx, calls[i:i+1])); err != nil {
			return err
		}
	}
	return nil
}

// refusals is what the restore programs refused.
func (b *Backend) refusals(calls []call, results []sysexec.Result) error {
	var all []error
	for i, c := range calls {
		all = append(all, b.refusal(c.tool.family, c.input, results[i].Err))
	}
	return errors.Join(all...)
}

// Remove takes everything of quaywall's out of the kernel.
func (b *Backend) Remove(ctx context.Context) error {
	now, err := b.tables(ctx)
	if err != nil {
		return err
	}
	nothing := map[ruleset.Family]*render.Family{}
	for _, f := range families {
		empty := render.EmptyFamily(f)
		nothing[f] = &empty
	}
	if err := b.restore(ctx, now, nothing); err != nil {
		return err
	}
	return errors.Join(b.destroyBut(ctx, nil), b.tidy())
}
