package apply

import (
	"context"
	"slices"
)

// endDeniedSince ends the live connections that the policy of the current record denies, after its rules were put back as
// they were recorded: those that a looser policy let in, or the gap where there was none. Where there are any it is an apply
// of that policy as it was kept, so that they can't come back; else the rules stay as they are. What goes wrong is told:
// the policy is in force.
func (c *change) endDeniedSince(ctx context.Context) {
	if c.record == nil || c.record.Observed || c.host.Running == nil {
		return
	}
	host := *c.host
	host.WaysIn = host.Logins // this process may be an agent, or one that has no parents any more
	again := &change{host: &host, ns: c.ns, state: c.state, record: c.record, back: c.record,
		opts: Options{Backend: c.record.Backend, Follow: true}}
	err := again.prepare(ctx)
	if n := len(again.denied.flows); err == nil && n > 0 {
		if err = again.endFound(ctx); err == nil {
			c.note("%d live connections that the policy denies were ended", again.ended().Connections)
		}
	}
	for _, n := range again.notices {
		c.note("%s", n)
	}
	if err != nil {
		c.note("connections that the policy denies may go on: %v", c.host.withPayload(err))
	}
	c.state = again.state
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
