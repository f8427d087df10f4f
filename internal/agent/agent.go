package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"quaywall/internal/inventory"
	"quaywall/internal/watch/docker"
)

// Times of the loop.
const (
	resync     = 10 * time.Minute // between two looks at everything, whether something was heard or not
	firstRetry = time.Second      // after an apply that failed; it doubles
	longRetry  = time.Minute
	grace      = 3 * time.Second // for the process that takes an unconfirmed change back
)

// Agent keeps a policy in force. Its fields belong to the goroutine of Run.
type Agent struct {
	host     *Host
	target   Target
	explicit bool // the person named the policy
	backend  string

	box      *mailbox
	listings chan listed
	pending  coalescer
	by       map[Hint]author // who changed rules last, by their kind
	said     map[string]said

	begun     time.Time
	sources   []string
	deaf      map[string]string // sources that tell nothing now, and why
	docker    DockerSeen
	noticed   time.Time // when it was heard that quaywall's rules were changed; zero for not
	repairs   []Repair  // the latest first
	published Report

	inForce  InForce
	policy   Loaded
	held     string               // the hash of what the policy files hold and what is not to be put in force
	inv      *inventory.Inventory // nil until everything was listed once
	answer   docker.Answer        // the last one that the engine gave
	last     Listing              // the last that was made
	applied  *inventory.Inventory // that the policy in force was made for
	dirty    bool                 // what is in force may not be what the policy says
	listing  bool                 // somebody is listing
	relist   bool                 // and has to again
	ready    bool
	fight    fight
	care     care // for Docker's rules
	known    known
	disorder bool // quaywall's rules have to be looked at, as soon as the fight allows it

	resyncAt, retryAt, honourAt, alarmAt time.Time
	pickUpAt                             time.Time // when a policy that was edited is put in force; zero for at once
	retry                                time.Duration
}

// author is a program that changed rules, and when that was heard.
type author struct {
	name string
	at   time.Time
}

// listed is a Listing or why there is none.
type listed struct {
	Listing
	err error
}

// Config is what a person may choose.
type Config struct {
	Policy  string // absolute path
	Given   bool   // the person named it
	Backend string // apply.Auto follows what is in force
}

// New makes an agent that does nothing yet.
func New(h *Host, c Config) *Agent {
	return &Agent{
		host: h, target: Target{File: c.Policy, Given: c.Given, Backend: c.Backend}, explicit: c.Given, backend: c.Backend,
		box: newMailbox(), listings: make(chan listed, 1), by: map[Hint]author{}, said: map[string]said{}, deaf: map[string]string{},
	}
}

// Run keeps the policy in force until ctx ends. What goes wrong is logged, and tried again.
func (a *Agent) Run(ctx context.Context, sources []Source) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, s := range sources {
		a.sources = append(a.sources, s.Name)
		group.Add(1)
		go func() {
			defer group.Done()
			s.follow(ctx, clock{a.host.Now, sleep}, a.host.Log, a.box.put, func(err error) { a.box.tell(s.Name, err) })
		}()
	}
	defer a.host.Notify("STOPPING=1")
	a.start()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			a.host.Log.Info("the agent ends; what is in force stays in force")
			return nil
		case l := <-a.listings:
			a.hear(ctx, l)
		case <-a.box.signal:
			a.take()
		case <-timer.C:
		}
		a.work(ctx)
		timer.Reset(max(0, a.next().Sub(a.host.Now())))
	}
}

// take puts the hints of the mailbox to those that wait.
func (a *Agent) take() {
	h, by, deaf := a.box.take()
	now := a.host.Now()
	for kind, name := range by {
		a.by[kind] = author{name, now}
	}
	maps.Copy(a.deaf, deaf)
	if h&Tables != 0 && strings.HasPrefix(a.inForceBackend(), "iptables") {
		h |= Own
	}
	if h&Own != 0 && a.noticed.IsZero() {
		a.noticed = now
	}
	a.care.heard(h, now)
	a.pending.add(h, now)
}

func (a *Agent) inForceBackend() string {
	if a.inForce.Record == nil {
		return ""
	}
	return a.inForce.Record.Backend
}

// work does what is due.
func (a *Agent) work(ctx context.Context) {
	now := a.host.Now()
	a.alarm(now)
	due := a.pending.take(now)
	if !now.Before(a.resyncAt) {
		due, a.dirty, a.resyncAt = All, true, now.Add(resync)
	}
	if due&Record != 0 {
		a.readRecord()
		a.tellFacts() // at once: packets are denied by that already
	}
	if due&Own != 0 || isOver(a.honourAt, now) {
		a.disorder, a.honourAt = true, time.Time{}
	}
	if a.disorder && !now.Before(a.fight.mayMend(now)) {
		a.mend(ctx)
	}
	if due&Files != 0 {
		a.readPolicy()
	}
	if due&(Links|Docker) != 0 || due&Tables != 0 && !a.care.looksSoon(now) || isOver(a.care.lookAt, now) {
		a.care.lookAt = time.Time{}
		a.list(ctx)
	}
	if a.dirty && !now.Before(a.convergesAt()) {
		a.converge(ctx)
	}
	a.tellFacts()
	a.publish()
}

func isOver(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

// next is when something has to be done even if nothing is heard.
func (a *Agent) next() time.Time {
	next := earlier(earlier(a.pending.next(), a.resyncAt), earlier(a.honourAt, a.alarmAt))
	next = earlier(next, a.care.lookAt)
	if a.disorder {
		next = earlier(next, a.fight.mayMend(a.host.Now()))
	}
	if at := a.convergesAt(); a.dirty && at.After(a.host.Now()) {
		next = earlier(next, at)
	}
	return next
}

// alarm tells the service manager that the loop goes round.
func (a *Agent) alarm(now time.Time) {
	if a.host.Watchdog == 0 || now.Before(a.alarmAt) {
		return
	}
	a.host.Notify("WATCHDOG=1")
	a.alarmAt = now.Add(a.host.Watchdog)
}

// list has somebody list what the host has; hear is told.
func (a *Agent) list(ctx context.Context) {
	if a.listing {
		a.relist = true
		return
	}
	a.listing = true
	go func() {
		l, err := a.host.List(ctx)
		a.listings <- listed{l, err}
	}()
}

// hear takes what was listed.
func (a *Agent) hear(ctx context.Context, l listed) {
	a.listing = false
	if a.relist {
		a.relist = false
		a.pending.add(Links, a.host.Now())
	}
	if l.err != nil {
		a.say("listing", slog.LevelError, "the interfaces can't be listed: what is in force stays", "error", l.err)
		a.pending.add(Links, a.host.Now().Add(firstRetry))
		return
	}
	a.unsay("listing")
	a.last = l.Listing
	a.join(l.Listing)
	if l.Docker.Docker.Reachable {
		a.careForDocker(ctx, factsOf(l.Listing), l.Docker.Local)
	}
}

// say logs what is not to be said again and again: once, until it is something else.
func (a *Agent) say(topic string, level slog.Level, message string, args ...any) {
	text := fmt.Sprint(message, args)
	if a.said[topic].text == text {
		return
	}
	a.said[topic] = said{level, text, sentence(message, args)}
	a.host.Log.Log(context.Background(), level, message, args...)
}

// unsay makes the next thing said on a topic news again. It tells whether something had been said.
func (a *Agent) unsay(topic string) bool {
	_, was := a.said[topic]
	delete(a.said, topic)
	return was
}
