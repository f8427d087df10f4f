package ipt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// fill makes sure that the sets are in the kernel, complete. It gives the names of quaywall's sets that were there before.
func (b *Backend) fill(ctx context.Context, sets []render.Set) (before []string, err error) {
	conn, err := dialIPSet()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if before, err = conn.own(); err != nil {
		return nil, err
	}
	if err := conn.destroyAll(slices.DeleteFunc(slices.Clone(before), func(name string) bool {
		return !strings.HasPrefix(name, render.TempPrefix)
	})); err != nil {
		return nil, err
	}
	jobs, err := conn.jobs(sets, before)
	if err != nil {
		return nil, err
	}
	for _, j := range conn.makeMany(ctx, jobs) {
		if err := b.make(ctx, conn, j); err != nil {
			return nil, errors.Join(err, b.destroyBut(ctx, before))
		}
	}
	return before, nil
}

// job is a set to be filled. One that is there under its name but holds something else was changed by somebody: a complete
// one takes its place at once, for it may be in use.
type job struct {
	set     *render.Set
	replace bool
}

// jobs are the sets that are not there as they should be.
func (c *ipsetConn) jobs(sets []render.Set, before []string) ([]job, error) {
	there := map[string]bool{}
	for _, name := range before {
		there[name] = true
	}
	var known []string
	for _, s := range sets {
		if there[s.Name] && s.Kind != render.Flows {
			known = append(known, s.Name)
		}
	}
	now, err := c.readMany(known)
	if err != nil {
		return nil, err
	}
	var jobs []job
	for i := range sets {
		if there[sets[i].Name] && sets[i].Kind == render.Flows {
			continue
		}
		if is := now[sets[i].Name]; is == nil || !is.is(&sets[i]) {
			jobs = append(jobs, job{&sets[i], is != nil})
		}
	}
	return jobs, nil
}

// make makes a set under a temporary name, fills it, and only then gives it its own: a set that is only half there never
// has a name that a rule could use.
func (b *Backend) make(ctx context.Context, conn *ipsetConn, j job) error {
	const temp = render.TempPrefix + "new"
	refused := func(err error) error {
		return fmt.Errorf("making the ipset %s: %w", j.set.Name,
			&kernel.PayloadError{Backend: b.Name(), Payload: j.set.Create() + "\n", Line: 1, Err: err})
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := conn.create(temp, j.set); err != nil {
		return refused(b.noIPSet(j.set, err))
	}
	if err := conn.add(temp, j.set); err != nil {
		return refused(err)
	}
	if !j.replace {
		return conn.two(cmdRename, temp, j.set.Name)
	}
	err := conn.two(cmdSwap, temp, j.set.Name)
	if errors.Is(err, errOtherType) {
		return conn.supplant(temp, j.set.Name)
	}
	if err != nil {
		return refused(err)
	}
	return conn.destroy(temp)
}

// supplant gives a set the name of one of another type. Such sets can't be swapped: the other one has to go first.
func (c *ipsetConn) supplant(from, name string) error {
	is, err := c.read(name)
	if err != nil {
		return err
	}
	if err := c.destroy(name); err != nil {
		return fmt.Errorf("there is an ipset %s already, which is of type %s and not quaywall's, and it can't be destroyed: %w. "+
			"Find who uses it (iptables-save), or rename it (ipset rename)", name, is.typeName, setError(err))
	}
	return c.two(cmdRename, from, name)
}

// setError says in words what the numbers of ipset's own errors mean.
func setError(err error) error {
	if errors.Is(err, errSetBusy) {
		return errors.New("a rule or another set uses it")
	}
	return err
}

// noIPSet says what to do where the kernel lacks a type of set.
func (b *Backend) noIPSet(s *render.Set, err error) error {
	modules := map[render.Kind]string{render.Nets: "ip_set_hash_net", render.IfaceNets: "ip_set_hash_netiface", render.PortBits: "ip_set_bitmap_port",
		render.Flows: "ip_set_hash_ipportip"}
	if errors.Is(err, errNoSubsystem) || errors.Is(err, errNoType) {
		return fmt.Errorf("this kernel has no ipset of type %s: load or install the modules ip_set, %s and xt_set, or use --backend nft", s.Kind, modules[s.Kind])
	}
	return err
}

// destroyBut destroys quaywall's sets but some, and but those that the rules of the other variant use.
func (b *Backend) destroyBut(ctx context.Context, keep []string) error {
	conn, err := dialIPSet()
	if err != nil {
		return err
	}
	defer conn.Close()
	now, err := conn.own()
	if err != nil {
		return err
	}
	doomed := slices.DeleteFunc(now, func(name string) bool { return slices.Contains(keep, name) })
	if len(doomed) == 0 {
		return nil
	}
	used := b.usedByTwin(ctx)
	return conn.destroyAll(slices.DeleteFunc(doomed, func(name string) bool { return used[name] }))
}

// usedByTwin are the sets that the rules of the other variant use. What can't be read is taken for none: then a set in
// use is only tried in vain.
func (b *Backend) usedByTwin(ctx context.Context) map[string]bool {
	twin := New(NFT, Options{})
	if b.variant == NFT {
		twin = New(Legacy, Options{})
	}
	s, err := twin.tables(ctx)
	if err != nil {
		return nil
	}
	return usedSets(append(s.lines(ruleset.IPv4), s.lines(ruleset.IPv6)...))
}

// patience is how long sets that no rule uses any more may still be in use: iptables-nft lets go of them some time after
// its rules are gone.
const patience = time.Second

// destroyAll destroys sets. One that stays in use is left for the next commit: it does no harm.
func (c *ipsetConn) destroyAll(names []string) error {
	names, err := c.destroyMany(names)
	if err != nil {
		return err
	}
	until := time.Now().Add(patience)
	for _, name := range names {
		for {
			err := c.destroy(name)
			if err == nil || errors.Is(err, errSetMissing) {
				break
			}
			if !errors.Is(err, errSetBusy) {
				return fmt.Errorf("destroying the ipset %s: %w", name, err)
			}
			if time.Now().After(until) {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return nil
}
