package apply

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
)

// endDeniedSince ends the live connections that the policy of the current record denies, after its rules were put back as
// they were recorded: those that a looser policy let in, or the gap where there was none. Mostly there are none, which is
// found out first: Docker's rules may be waiting for their mending. Where there are any it is an apply of that policy as it
// was kept, so that they can't come back; else the rules stay as they are. What goes wrong is told: the policy is in force.
func (c *change) endDeniedSince(ctx context.Context) {
	if c.record == nil || c.record.Observed || c.host.Running == nil {
		return
	}
	again := c.asKept()
	err := again.glance(ctx)
	again.denied.running.close()
	if err == nil && len(again.denied.flows) > 0 {
		again = c.asKept()
		defer func() { again.denied.running.close() }()
		err = again.endDeniedAgain(ctx)
	}
	for _, n := range again.notices {
		c.note("%s", n)
	}
	if err != nil {
		c.note("connections that the policy denies may go on: %v", c.host.withPayload(err))
	}
	c.state = again.state
}

// asKept is an apply of the policy of the current record, as it was kept, by nobody.
func (c *change) asKept() *change {
	host := *c.host
	host.WaysIn = host.Logins // this process may be an agent, or one that has no parents any more
	return &change{host: &host, ns: c.ns, state: c.state, record: c.record, back: c.record,
		opts: Options{Backend: c.record.Backend, Follow: true}}
}

// glance finds the connections that the policy denies, and leaves everything else of an apply out.
func (c *change) glance(ctx context.Context) error {
	var group errgroup.Group
	group.Go(c.loadPolicy)
	group.Go(func() error { return c.takeInventory(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return c.ns.apart(c.findDenied)
}

// endDeniedAgain is the apply.
func (c *change) endDeniedAgain(ctx context.Context) error {
	err := c.prepare(ctx)
	if err != nil || len(c.denied.flows) == 0 {
		return err
	}
	if err = c.endFound(ctx); err == nil {
		c.note("%d live connections that the policy denies were ended", c.ended().Connections)
	}
	return err
}

// endFound ends what prepare found. Without Docker's answer the rules in force are better than those that could be made.
func (c *change) endFound(ctx context.Context) error {
	if c.inv.Docker.Problem != "" {
		return c.host.Running.End(c.denied.running, c.denied.flows)
	}
	return c.carryOut(ctx)
}

// took tells whether a step was taken.
func (c *change) took(step string) bool {
	return slices.ContainsFunc(c.steps, func(s Step) bool { return s.Name == step })
}
