package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"quaywall/internal/inventory"
	"quaywall/internal/kernel"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
)

// Status is what is in force on a host.
type Status struct {
	InForce  bool             `json:"in_force"`           // read from the kernel now; not for a policy that is observed
	Observed bool             `json:"observed,omitempty"` // the kernel holds a policy that is judged, counted and logged, and denies nothing
	Backend  string           `json:"backend,omitempty"`  // that holds it
	Since    time.Time        `json:"since,omitzero"`     // when the policy came in force; zero where that is not recorded
	Changed  time.Time        `json:"changed,omitzero"`   // when its rules were changed last, as networks, addresses and files ask for
	File     string           `json:"file,omitempty"`     // "" with Since: the built-in default policy
	Hash     string           `json:"hash,omitempty"`
	PickUp   time.Time        `json:"pick_up,omitzero"`
	Drift    *Difference      `json:"drift,omitempty"`  // what the kernel lacks of what is recorded, and has beside it; nil where they agree
	Others   []string         `json:"others,omitempty"` // further backends that hold something of quaywall's
	Sets     []SetStatus      `json:"sets,omitempty"`
	Counters []Counter        `json:"counters,omitempty"`
	Docker   inventory.Docker `json:"docker"`
	Pending  *PendingStatus   `json:"pending,omitempty"`
	Undone   *store.Undone    `json:"undone,omitempty"`
	Ended    *LastEnded       `json:"ended,omitempty"` // live connections that an apply ended last; nil for none yet
	Notices  []string         `json:"notices,omitempty"`
	Sources  policy.Sources   `json:"-"` // the texts that Counters' lines are of, as far as they were kept
}

// SetStatus is a set or map in the kernel.
type SetStatus struct {
	Name     string `json:"name"`
	Elements int    `json:"elements"`
}

// Counter is how many packets a line of the policy decided on.
type Counter struct {
	Line    string `json:"line"`           // "policy.yaml:12", "default"
	Verb    string `json:"verb,omitempty"` // "allow", "deny", "reject", or several, as in "deny, allow"; "" where it is not recorded. Observed: "would deny", "would reject"
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Holds tells whether the kernel holds rules of quaywall's.
func (s *Status) Holds() bool { return s.InForce || s.Observed }

// HasDrift tells whether the kernel holds something else than was put into it.
func (s *Status) HasDrift() bool { return s.Drift != nil || len(s.Others) > 0 }

// Status reads what is in force from the kernel. It changes nothing, and takes no lock.
func (h *Host) Status(ctx context.Context) (*Status, error) {
	const doing = "reading what is in force"
	if err := checkPrivilege(); err != nil {
		return nil, h.failed(ctx, doing, err)
	}
	c := &change{host: h, ns: here()}
	defer c.ns.close()
	if err := c.readState(false); err != nil {
		return nil, h.failed(ctx, doing, err)
	}
	found := make(chan *inventory.Inventory, 1)
	go func() { found <- c.lookAround(ctx) }()
	readings := h.readAll(ctx, c.ns)
	inv := <-found
	c.noteUnseen(inv)
	s := &Status{Pending: h.pendingStatus(c.state), Undone: c.undone(), Ended: h.lastEnded(), Docker: inv.Docker}
	if err := c.describe(s, readings); err != nil {
		return nil, h.failed(ctx, doing, err)
	}
	s.Notices = c.notices
	return s, nil
}

// lookAround takes the inventory. That nothing is known of the host is told like an engine's problem.
func (c *change) lookAround(ctx context.Context) *inventory.Inventory {
	var inv *inventory.Inventory
	err := c.ns.run(func() (err error) { inv, err = c.host.Inventory(ctx); return err })
	if err != nil {
		return &inventory.Inventory{Docker: inventory.Docker{Problem: err.Error()}}
	}
	return inv
}

// describe tells what the readings and the record mean together.
func (c *change) describe(s *Status, readings []reading) error {
	for _, r := range readings {
		switch {
		case r.err != nil && (c.record == nil || c.record.Backend == r.backend.Name()):
			return fmt.Errorf("reading what %s holds: %w", r.backend.Name(), r.err)
		case r.err != nil:
			c.note("it could not be read whether %s holds rules of quaywall's as well: %v", r.backend.Name(), r.err)
		}
	}
	held := slices.DeleteFunc(slices.Clone(readings), func(r reading) bool { return !r.holds() })
	// The recorded backend first: what others hold beside it is drift.
	slices.SortStableFunc(held, func(a, b reading) int { return cmp.Compare(c.rank(a), c.rank(b)) })
	live := &kernel.Listing{}
	for i, r := range held {
		if i > 0 {
			s.Others = append(s.Others, r.backend.Name())
			continue
		}
		live = r.listing
		s.Observed = c.observes(live)
		s.InForce, s.Backend, s.Sets, s.Counters = !s.Observed, r.backend.Name(), setStatus(live), c.counters(live, s.Observed)
	}
	c.compare(s, live)
	return nil
}

// observes tells whether rules in the kernel deny nothing: they count by a line of their own what would be denied always. The
// record is asked where somebody took all rules that count.
func (c *change) observes(live *kernel.Listing) bool {
	if len(live.Counters) == 0 {
		return c.record != nil && c.record.Observed
	}
	_, is := live.Counters[ruleset.Always]
	return is
}

func (c *change) rank(r reading) int {
	if c.record != nil && c.record.Backend == r.backend.Name() {
		return 0
	}
	return 1
}

// compare adds what the record says. What is in force by another backend than the recorded one is told by the notice.
func (c *change) compare(s *Status, live *kernel.Listing) {
	r := c.record
	switch {
	case r == nil && s.Holds():
		c.note("what is in force is not recorded in %s", c.host.Store.Dir())
		return
	case r == nil:
		return
	case !s.Holds() && r.Boot != c.host.Boot:
		c.note("the host was booted since %s was put in force, and nothing was since", PolicyName(r.File, r.Hash))
	case !s.Holds():
		c.note("%s was put in force, but the kernel holds nothing of it: somebody took it out", PolicyName(r.File, r.Hash))
	}
	s.File, s.Hash, s.PickUp, s.Sources = r.File, r.Hash, r.PickUp, r.Sources
	s.Since, s.Changed = c.host.since(r), c.host.when(r.Stamp)
	for _, t := range []*time.Time{&s.Since, &s.Changed} {
		if u := s.Undone; u != nil && u.When.After(*t) {
			*t = u.When // the policy came back then
		}
	}
	if s.Holds() && s.Backend != r.Backend {
		c.note("%s was put in force by %s, but %s holds rules of quaywall's", PolicyName(r.File, r.Hash), r.Backend, s.Backend)
	}
	if d := Compare(&r.Listing, live); !d.None() {
		s.Drift = &d
	}
}

// undone is the last change that was taken back, nil for none.
func (c *change) undone() *store.Undone {
	if c.state.Undone == nil {
		return nil
	}
	u := *c.state.Undone
	u.Stamp = store.Stamp{When: c.host.when(u.Stamp)}
	return &u
}

func setStatus(l *kernel.Listing) []SetStatus {
	all := make([]SetStatus, 0, len(l.Sets))
	for name, s := range l.Sets {
		all = append(all, SetStatus{name, s.Elements})
	}
	slices.SortFunc(all, func(a, b SetStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (c *change) counters(l *kernel.Listing, observed bool) []Counter {
	all := make([]Counter, 0, len(l.Counters))
	for line, n := range l.Counters {
		all = append(all, Counter{line, c.verbOf(line, observed), n.Packets, n.Bytes})
	}
	slices.SortFunc(all, func(a, b Counter) int { return compareLines(a.Line, b.Line) })
	return all
}

// verbOf tells what a line does, as Counter has it.
func (c *change) verbOf(line string, observed bool) string {
	if c.record == nil {
		return ""
	}
	verb := c.record.Verbs[line]
	if !observed || c.record.Verbs == nil {
		return verb
	}
	all := strings.Split(cmp.Or(verb, policy.Deny.String()), ", ") // lines that are none of the policy's deny
	for i, v := range all {
		if v != policy.Allow.String() {
			all[i] = policy.Would + v
		}
	}
	return strings.Join(all, ", ")
}

// compareLines orders FILE:LINE by file, then by number.
func compareLines(a, b string) int {
	fileA, lineA := splitLine(a)
	fileB, lineB := splitLine(b)
	return cmp.Or(cmp.Compare(fileA, fileB), cmp.Compare(lineA, lineB))
}

func splitLine(s string) (file string, line int) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == ':' {
			fmt.Sscanf(s[i+1:], "%d", &line)
			return s[:i], line
		}
	}
	return s, 0
}
