package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/repair"
	"quaywall/internal/watch"
)

// start finds out what is to be in force. Starting an agent is no apply where a policy is in force already: it keeps
// that one. Where none was since the host was booted, it puts the policy in force, unless somebody took it out.
func (a *Agent) start() {
	a.begun = a.host.Now()
	a.resyncAt = a.begun.Add(resync)
	a.repairs = a.host.Published().Repairs
	a.pending.add(Links|Docker|Files|Record, a.begun.Add(-time.Minute)) // at once
	a.inForce = a.recorded()
	record := a.inForce.Record
	switch {
	case a.inForce.Stopped:
		a.sayStopped()
	case record != nil && a.inForce.ThisBoot && (!a.explicit || record.File == a.target.File):
		a.adopt()
	default:
		a.readPolicy()
		a.pickUpAt = time.Time{}
	}
	a.dirty = true
}

// recorded reads what is recorded, and when an unconfirmed change is to be looked after. What can't be read, or is gone,
// stays what it was: that a record is damaged doesn't mean that nothing is to be in force. The next apply makes it anew.
func (a *Agent) recorded() InForce {
	f, err := a.host.InForce()
	if before := a.inForce; err == nil && f.Current == "" && !f.Stopped && (before.Record != nil || before.Stopped) {
		err = errors.New("it is gone")
	}
	if err != nil {
		a.say("record", slog.LevelError, "what is recorded as in force can't be read: all stays as it is, and the next apply records it anew",
			"error", err)
		a.dirty, f.Damaged = true, true
		f.Record, f.ThisBoot, f.Stopped = a.inForce.Record, a.inForce.ThisBoot, a.inForce.Stopped && f.Current == ""
	} else {
		a.unsay("record")
	}
	a.honourAt = time.Time{}
	if f.Pending {
		a.honourAt = a.host.Now().Add(f.Left + grace)
	}
	return f
}

// readRecord finds out whether another quaywall put something in force, or took it out.
func (a *Agent) readRecord() {
	before := a.inForce
	a.inForce = a.recorded()
	switch r := a.inForce.Record; {
	case a.inForce.Stopped && !before.Stopped:
		a.sayStopped()
	case r != nil && (before.Record == nil || r.ID != before.Record.ID):
		a.adopt()
	}
}

func (a *Agent) sayStopped() {
	a.say("stopped", slog.LevelWarn, "quaywall was stopped: nothing is kept in force until somebody applies a policy")
}

// adopt takes up the policy that is in force. Where its file holds another one by now, since it was rolled back or edited
// while no agent looked, that one is left alone until it changes or somebody applies it.
func (a *Agent) adopt() {
	r := a.inForce.Record
	a.unsay("stopped")
	if r.File != "" {
		a.target.File, a.target.Given = r.File, true
	}
	if a.backend == apply.Auto {
		a.target.Backend = r.Backend
	}
	a.policy = Loaded{}
	a.readPolicy()
	a.held, a.pickUpAt = "", time.Time{}
	if a.policy.hash() != r.Hash {
		a.held = a.policy.hash()
	}
	a.dirty, a.disorder = true, true // its rules may have been changed before it was known that they are to stay
}

// filesRounds bounds how often a policy is read again since reading it showed further folders to watch.
const filesRounds = 3

// readPolicy reads the policy. Folders are watched before what counts is read.
func (a *Agent) readPolicy() {
	before := a.policy.hash()
	for range filesRounds {
		a.policy = a.host.Load(a.target)
		if !a.host.Watch(a.policy.Paths) {
			break
		}
	}
	if err := a.policy.Err; err != nil {
		a.say("policy", slog.LevelError, "the policy has errors: what is in force stays", "file", a.target.File, "error", err)
		return
	}
	if a.unsay("policy") {
		a.host.Log.Info("the policy has no errors any more", "file", a.target.File)
	}
	if hash := a.policy.hash(); hash != before {
		a.dirty, a.retry, a.retryAt, a.pickUpAt = true, 0, time.Time{}, time.Time{}
		if a.isEdited() {
			a.pickUpAt = a.host.Now().Add(settling)
		}
		if hash != a.held {
			a.held = ""
		}
		if hash == a.inForce.Undone {
			a.held = hash
		}
	}
}

// settling is how long a policy that was edited is left to whoever edited it: an apply in this time comes first, with its
// checks and its confirmation. It begins anew with each change of the file.
const settling = 5 * time.Second

// isEdited tells whether somebody edited the policy since it was put in force. That what fills sets has changed doesn't
// count: programs write such files, and nobody is there to apply them.
func (a *Agent) isEdited() bool {
	r, p := a.inForce.Record, a.policy.Policy
	return r != nil && p != nil && a.inForce.ThisBoot && !a.inForce.Stopped && p.Written != r.Written
}

// convergesAt is the earliest time at which the policy may be put in force.
func (a *Agent) convergesAt() time.Time {
	if a.pickUpAt.After(a.retryAt) {
		return a.pickUpAt
	}
	return a.retryAt
}

// join makes the inventory of what was listed. An engine that gives no answer has not lost its networks: what it said
// last counts, as far as the bridges are there.
func (a *Agent) join(l Listing) {
	if d := l.Docker.Docker; a.docker.Docker != d || a.docker.Since.IsZero() {
		a.docker = DockerSeen{d, a.host.Now()}
	}
	switch d := l.Docker.Docker; {
	case d.Reachable:
		a.answer = l.Docker
		a.say("docker", slog.LevelInfo, "Docker answers", "version", d.Version)
	case a.answer.Docker.Reachable:
		a.say("docker", slog.LevelWarn, "Docker gives no answer: what is known of its networks stays in force", "problem", d.Problem)
		l.Docker = a.answer
	case d.Problem != "":
		a.say("docker", slog.LevelWarn, "Docker gives no answer: what is in force stays", "problem", d.Problem)
	default:
		a.say("docker", slog.LevelInfo, "there is no Docker here")
	}
	a.inv = watch.Join(l.Links, l.Docker)
	if a.applied == nil || !reflect.DeepEqual(relevant(a.inv), relevant(a.applied)) {
		a.dirty = true
	}
}

// relevant leaves out of an inventory what no rule depends on: the ends of containers, which come and go with them, and
// whether an interface is up.
func relevant(inv *inventory.Inventory) inventory.Inventory {
	r := *inv
	r.Docker.Problem = ""
	r.Interfaces = slices.DeleteFunc(slices.Clone(inv.Interfaces), func(i inventory.Interface) bool {
		return i.Kind == "veth" && i.Master != ""
	})
	for i := range r.Interfaces {
		r.Interfaces[i].Up, r.Interfaces[i].Index = false, 0
	}
	return r
}

// keepsRules tells whether what is in force is better than what could be made now: it was made with Docker's answer, and
// this agent never got one. What is not recorded could not be mended.
func (a *Agent) keepsRules() bool {
	return !a.inForce.Damaged && !a.inv.Docker.Reachable && a.inv.Docker.Problem != "" && a.inForce.Record != nil && a.inForce.ThisBoot &&
		a.inForce.Record.Hash == a.policy.hash()
}

// knowsMore tells whether the record of what is in force is damaged, and this agent remembers it.
func (a *Agent) knowsMore() bool { return a.inForce.Damaged && a.inForce.Record != nil }

// converge puts the policy in force as the host is now.
func (a *Agent) converge(ctx context.Context) {
	switch {
	case a.inForce.Stopped:
		a.settle()
		return
	case a.inv == nil:
		return
	case a.lacksPolicy(): // the one of before stands in, whatever the file holds
	case a.policy.Policy == nil:
		a.becomeReady()
		return
	case a.held == a.policy.hash() && !a.knowsMore():
		a.say("held", slog.LevelWarn, "the policy file holds something else than what is in force: quaywall apply puts it in force",
			"file", a.target.File)
		a.settle()
		return
	case a.inForce.Pending && a.isEdited():
		// Nothing that somebody edits comes on top of what they are looking at, to be confirmed with it.
		a.becomeReady()
		return
	case a.keepsRules():
		a.settle()
		return
	}
	target := a.target
	target.Boot = a.lacksPolicy()
	target.Observe = a.inForce.Record != nil && a.inForce.Record.Observed
	if a.held == a.policy.hash() && !target.Boot {
		target.Kept = a.inForce.Record
	}
	r, err := a.host.Apply(ctx, target, a.inForce.Current, a.inv)
	switch {
	case errors.Is(err, apply.ErrOvertaken):
		a.pending.add(Record, a.host.Now().Add(-time.Minute)) // at once
		return
	case err != nil:
		a.failed(err)
		if target.Boot { // another one may be in force by now
			a.pending.add(Record, a.host.Now().Add(-time.Minute))
		}
		return
	}
	a.unsay("apply")
	a.unsay("held")
	a.applied = a.inv
	a.told(r)
	a.settle()
	a.inForce = a.recorded()
	if rec := a.inForce.Record; rec != nil && rec.Hash != r.Hash {
		a.adopt() // another quaywall was faster
	}
}

// lacksPolicy tells whether nothing was put in force since the boot, where something was in force before it: a unit that
// does that at boot may have failed, or not be installed.
func (a *Agent) lacksPolicy() bool {
	return !a.inForce.Stopped && a.inForce.Record != nil && !a.inForce.ThisBoot
}

// settle notes that there is nothing more to do for now.
func (a *Agent) settle() {
	a.dirty, a.retry, a.retryAt = false, 0, time.Time{}
	a.becomeReady()
}

func (a *Agent) becomeReady() {
	if !a.ready {
		a.ready = true
		a.host.Notify("READY=1")
	}
}

// failed tells what keeps the policy out. What is wrong with the policy stays so until something changes; anything else is
// tried again, what was refused for somebody's safety once a minute.
func (a *Agent) failed(err error) {
	var invalid *apply.InvalidError
	var refused *apply.RefusedError
	var emptied *apply.EmptiedError
	switch {
	case errors.As(err, &emptied):
		a.say("apply", slog.LevelError, "a set was emptied, which nobody may have meant: what is in force stays; quaywall apply puts the policy "+
			"in force as it is", "file", a.target.File, "problem", emptied)
		a.settle()
		return
	case errors.As(err, &invalid):
		a.say("apply", slog.LevelError, "the policy was not put in force: it has errors, or does not fit this host", "file", a.target.File,
			"error", err, "in_force", invalid.Left)
		a.settle()
		return
	case errors.As(err, &refused):
		a.say("apply", slog.LevelError, "the policy was not put in force: what is in force stays", "file", a.target.File, "error", err,
			"next", "quaywall apply --allow-lockout, from where you have another way in")
		a.retry = longRetry
	default:
		a.say("apply", slog.LevelError, "putting the policy in force failed", "file", a.target.File, "error", err)
		a.retry = min(max(2*a.retry, firstRetry), longRetry)
	}
	a.retryAt = a.host.Now().Add(a.retry)
	a.becomeReady()
}

// told logs what an apply did.
func (a *Agent) told(r *apply.Result) {
	if len(r.Notices) > 0 {
		a.say("notices", slog.LevelWarn, strings.Join(r.Notices, "; "))
	}
	a.tellWarnings(r)
	if !r.Changed {
		return
	}
	file := r.File
	if file == "" {
		file = "the built-in default"
	}
	args := []any{"file", file, "hash", r.Hash, "backend", r.Backend, "added", len(r.Difference.Added),
		"removed", len(r.Difference.Missing), "sets", len(r.Difference.Sets)}
	if entries := a.entriesLine(r.Policy); entries != "" {
		args = append(args, "entries", entries)
	}
	what := "the policy is in force"
	if r.Observed {
		what = "the policy is observed, and denies nothing"
	}
	a.host.Log.Info(what, args...)
}

func (a *Agent) tellWarnings(r *apply.Result) {
	if len(r.Warnings) == 0 {
		a.unsay("warnings")
		return
	}
	texts := make([]string, len(r.Warnings))
	for i, d := range r.Warnings {
		d.Hint = "" // for who applies a policy; check and plan give it
		texts[i] = d.Error()
	}
	a.say("warnings", slog.LevelWarn, "the policy has warnings", "problems", repair.Line(texts))
}

// entriesLine tells which of the policy's sets have another number of entries than before: "banned 100 -> 98".
func (a *Agent) entriesLine(p *policy.Policy) string {
	var parts []string
	if before := a.inForce.Record; before != nil && p != nil {
		for _, s := range p.Sets {
			if n, was := before.Entries[s.Name]; was && n != s.Entries {
				parts = append(parts, fmt.Sprintf("%s %d -> %d", s.Name, n, s.Entries))
			}
		}
	}
	return strings.Join(parts, ", ")
}

// mend puts quaywall's rules back where somebody changed them.
func (a *Agent) mend(ctx context.Context) {
	a.disorder = false
	if a.inForce.Stopped || a.inForce.Record == nil {
		return
	}
	noticed := a.noticed
	if a.noticed = (time.Time{}); noticed.IsZero() {
		noticed = a.host.Now()
	}
	g := glance{agent: a, may: a.mayGlance()}
	m, err := a.host.Mend(ctx, func() { g.start(ctx) })
	g.end()
	now := a.host.Now()
	if err != nil {
		a.say("mend", slog.LevelError, "mending quaywall's rules failed", "error", err)
		a.fight.mended(now)
		a.disorder, a.fight.rest = true, max(a.fight.rest, firstRest)
		return
	}
	a.unsay("mend")
	for _, n := range m.Notices {
		a.host.Log.Warn(n)
	}
	if len(m.Notices) > 0 {
		a.pending.add(Record, now)
	}
	if !m.Changed {
		return
	}
	suspect := a.suspect(Own, noticed)
	a.repaired(Repair{Rules: "quaywall", Missing: m.Missing, Added: m.Added, By: suspect}, noticed)
	by := orUnknown(suspect)
	a.host.Log.Warn("somebody changed quaywall's rules: they are back", "missing", m.Missing, "too_much", m.Added, "by", by)
	if a.fight.mended(now) {
		a.host.Log.Error("quaywall's rules are taken out again and again: mending waits before it goes on; end one of the two",
			"by", by, "wait", a.fight.rest)
	}
}
