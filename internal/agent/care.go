package agent

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/repair"
)

// How long Docker is given to write its rules itself.
const (
	settles  = 2 * time.Second        // after it was started, or found
	quiet    = time.Second            // after the last of its events: a container that starts or stops takes its time
	lasts    = 150 * time.Millisecond // that rules have to be missing which Docker doesn't touch for a single container
	lingers  = 3 * time.Second        // that rules of a container have to be missing
	stale    = 10 * time.Second       // that rules of what is gone have to be there: a container that starts has rules before Docker says that it runs
	longLook = time.Minute            // between two looks at rules that can't be mended
	lately   = time.Second            // a change of rules that what is found amiss now is put down to
)

// care is what is known of Docker's own rules.
type care struct {
	engineAt time.Time // when Docker was found last
	eventAt  time.Time // when it was last heard of
	changeAt time.Time // when rules were last heard to change
	baseline bool      // the rules were seen to be whole since Docker was found
	suspect  string    // what is wrong with them
	since    time.Time
	by       string    // who took rules away before that was noticed; "" where that is not known
	lookAt   time.Time // when to look again; zero for when something is heard
	fight    fight
}

// heard notes when Docker does something.
func (c *care) heard(h Hint, now time.Time) {
	if h&Docker != 0 {
		c.eventAt = now
	}
	if h&Tables != 0 {
		c.changeAt = now
	}
	if h&Engine != 0 {
		c.engineAt, c.baseline, c.suspect = now, false, ""
	}
}

// factsOf is what Docker's rules depend on, of networks that are here.
func factsOf(l Listing) repair.Facts {
	networks, published := l.Docker.In(l.Links)
	f := repair.Facts{Networks: networks, Published: published, Addrs: l.Docker.Addrs}
	here := func(bridge string) bool {
		return slices.ContainsFunc(networks, func(n inventory.Network) bool { return n.Bridge == bridge })
	}
	for _, i := range l.Links {
		if !here(i.Name) {
			f.Others = append(f.Others, i)
		}
	}
	for _, n := range l.Docker.Networks {
		if !here(n.Bridge) {
			f.Others = append(f.Others, inventory.Interface{Name: n.Bridge, Addrs: n.Subnets})
		}
	}
	return f
}

// careForDocker looks whether Docker's rules are what they have to be. What is missing for a while, and not since Docker
// is just at work, is mended.
func (a *Agent) careForDocker(ctx context.Context, f repair.Facts, local bool) {
	now, c := a.host.Now(), &a.care
	if a.repairMode() == policy.RepairOff {
		return
	}
	if !local {
		a.say("docker rules", slog.LevelInfo, "Docker is asked over the network, so it may be another host's: its rules are not looked after")
		return
	}
	if wait := c.engineAt.Add(settles); now.Before(wait) {
		c.lookAt = wait
		return
	}
	report, err := a.host.CheckDocker(ctx, f, !c.baseline)
	if err != nil {
		a.say("docker rules", slog.LevelWarn, "Docker's rules can't be looked at", "error", err)
		return
	}
	if report.Unmanaged || len(report.Problems) == 0 {
		c.baseline, c.suspect = true, ""
		if a.unsay("docker rules") {
			a.host.Log.Info("Docker's rules are whole again")
		}
		return
	}
	if report.Text() != c.suspect {
		c.by = a.suspect(Tables, now)
	}
	if wait := c.patience(report, now); now.Before(wait) {
		c.lookAt = wait
		return
	}
	a.mendDocker(ctx, f, report)
}

// repairMode is what the policy says; nothing is mended before a policy was read.
func (a *Agent) repairMode() policy.Repair {
	if a.policy.Policy == nil || a.inForce.Stopped {
		return policy.RepairOff
	}
	return a.policy.Policy.Repair
}

// patience is until when Docker is given time.
func (c *care) patience(r repair.Report, now time.Time) time.Time {
	if text := r.Text(); text != c.suspect {
		c.suspect, c.since = text, now
		if now.Sub(c.changeAt) < lately { // nothing has changed since then
			c.since = c.changeAt
		}
	}
	wait := c.since.Add(stale)
	switch {
	case r.Structural:
		wait = c.since.Add(lasts)
	case r.Missing:
		wait = c.since.Add(lingers)
	}
	if quietAt := c.eventAt.Add(quiet); quietAt.After(wait) {
		wait = quietAt
	}
	return wait
}

// looksSoon tells whether Docker's rules are looked at within so little time that a change of rules need not be looked at by
// itself.
func (c *care) looksSoon(now time.Time) bool {
	return !c.lookAt.IsZero() && c.lookAt.Before(now.Add(lasts))
}

// mayGlance tells whether Docker's rules can be judged by what was listed last: they were whole, and nothing but rules was
// heard to change since.
func (a *Agent) mayGlance() bool {
	c, docker := &a.care, a.last.Docker
	return c.baseline && c.suspect == "" && docker.Docker.Reachable && docker.Local && a.repairMode() != policy.RepairOff &&
		!a.listing && !a.pending.waits(Links|Docker|Engine) && !a.host.Now().Before(c.engineAt.Add(settles))
}

// glance is a look at Docker's rules beside the mending of quaywall's, whose own changes of rules are heard later: what is
// missing already can't have been missing since these.
type glance struct {
	agent  *Agent
	may    bool
	at     time.Time
	report chan repair.Report // nil where it was not begun
}

// start begins to look.
func (g *glance) start(ctx context.Context) {
	if !g.may || g.report != nil {
		return
	}
	a, report := g.agent, make(chan repair.Report, 1)
	g.at, g.report = a.host.Now(), report
	facts := factsOf(a.last)
	go func() {
		r, err := a.host.CheckDocker(ctx, facts, false)
		if err != nil {
			r = repair.Report{} // the look that comes later tells it
		}
		report <- r
	}()
}

// end notes what was seen.
func (g *glance) end() {
	if g.report == nil {
		return
	}
	r, c := <-g.report, &g.agent.care
	if r.Unmanaged || len(r.Problems) == 0 {
		return
	}
	c.by = g.agent.suspect(Tables, g.at)
	c.lookAt = c.patience(r, g.at)
}

// mendDocker mends, or tells where that is all the policy wants or all that can be done.
func (a *Agent) mendDocker(ctx context.Context, f repair.Facts, report repair.Report) {
	now, c := a.host.Now(), &a.care
	switch {
	case a.repairMode() == policy.RepairTell:
		a.say("docker rules", slog.LevelWarn, "Docker's rules are not what they were: restart Docker, or let docker-repair mend them",
			"problems", report.Text(), "by", orUnknown(c.by))
		return
	case !report.Mendable:
		a.say("docker rules", slog.LevelWarn, "Docker's rules don't agree with its networks and containers, and were not seen whole before: "+
			"restart Docker", "problems", report.Text())
		return
	}
	if wait := c.fight.mayMend(now); now.Before(wait) {
		c.lookAt = wait
		return
	}
	done, err := a.host.MendDocker(ctx, f, !report.Missing)
	longer := c.fight.mended(a.host.Now())
	switch {
	case err != nil:
		a.say("docker rules", slog.LevelError, "mending Docker's rules failed: restart Docker", "problems", report.Text(), "error", err)
		c.lookAt = a.host.Now().Add(longLook)
		return
	case done.Missing:
		a.say("docker rules", slog.LevelError, "not all of Docker's rules could be mended: restart Docker", "problems", done.Text())
	default:
		a.unsay("docker rules")
		a.repaired(Repair{Rules: "Docker", Mended: done.Mended, TakenOut: len(done.TakenOut), By: c.by}, c.since)
		c.suspect, c.lookAt = "", a.host.Now().Add(stale) // for what may be stale
		a.tellMended(done, report)
	}
	if longer {
		a.host.Log.Error("Docker's rules are taken away again and again: mending waits before it goes on; end who does it",
			"by", orUnknown(c.by), "wait", c.fight.rest)
	}
}

// tellMended logs what came back, and what went.
func (a *Agent) tellMended(done, before repair.Report) {
	if done.Mended > 0 {
		a.host.Log.Warn("somebody changed Docker's rules: they are back", "rules", done.Mended, "problems", before.Text(), "by", orUnknown(a.care.by))
	}
	if n := len(done.TakenOut); n > 0 {
		a.host.Log.Warn("somebody put rules back that Docker had for what is gone by now: they were taken out", "rules", n,
			"were", repair.Line(done.TakenOut), "by", orUnknown(a.care.by))
	}
}

// orUnknown names who changed rules, for a log.
func orUnknown(by string) string { return cmp.Or(by, "unknown") }
