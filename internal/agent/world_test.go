package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/denied"
	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/repair"
	"quaywall/internal/store"
	"quaywall/internal/watch/docker"
)

// world is a host that exists in memory, whose time passes when a test says so.
type world struct {
	*Agent
	t        *testing.T
	now      time.Time
	record   InForce
	damaged  error  // the record can't be read
	nothing  bool   // nor which one it is
	file     string // what the policy file holds, which is its hash too; "bad" is a mistake
	written  string // the hash of its text, where it isn't the file's
	repair   policy.Repair
	listing  Listing
	hung     bool     // listing takes for ever
	problems []string // what is wrong with Docker's rules
	stays    bool     // and can't be mended
	stale    bool     // they are about what is gone
	single   bool     // they are of single containers
	lists    int      // how often somebody listed
	refuses  error    // what apply says
	entries  int      // of the set that the policy has
	warnings diag.List
	checks   chan struct{} // an item for each look at Docker's rules
	flushed  bool          // somebody took quaywall's rules out
	mending  func()        // what happens while they are put back; nil for nothing
	did      []string
	applied  []*inventory.Inventory
	notified []string
	facts    denied.Facts
	reports  []Report
	log      bytes.Buffer
}

var began = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func newWorld(t *testing.T) *world {
	w := &world{t: t, checks: make(chan struct{}, 10_000), now: began, file: "one", listing: listingOf("bridge")}
	h := &Host{
		Now:     func() time.Time { return w.now },
		InForce: func() (InForce, error) { return w.stored() },
		Load:    func(Target) Loaded { return w.load() },
		Watch:   func([]string) bool { return false },
		List:    func(context.Context) (Listing, error) { w.lists++; return w.listing, nil },
		Apply: func(_ context.Context, to Target, over string, inv *inventory.Inventory) (*apply.Result, error) {
			return w.apply(to, over, inv)
		},
		Mend: func(_ context.Context, found func()) (*apply.Mended, error) { return w.mended(found) },
		CheckDocker: func(context.Context, repair.Facts, bool) (repair.Report, error) {
			defer func() { w.checks <- struct{}{} }()
			return repair.Report{Problems: slices.Clone(w.problems), Mendable: !w.stays, Missing: !w.stale, Structural: !w.stale && !w.single}, nil
		},
		MendDocker: func(_ context.Context, _ repair.Facts, dropStale bool) (repair.Report, error) {
			if dropStale != w.stale {
				w.t.Errorf("mending drops stale rules: %v", dropStale)
			}
			w.did = append(w.did, "mend Docker's")
			w.problems = nil
			if dropStale {
				return repair.Report{TakenOut: []string{"ip nat -A DOCKER -j DNAT"}}, nil
			}
			return repair.Report{Mended: 7}, nil
		},
		Kept:    func(r *store.Record) *policy.Policy { return &policy.Policy{Hash: "kept " + r.Hash} },
		Know:    func(f denied.Facts) { w.facts = f },
		Publish: func(r Report) error { w.reports = append(w.reports, r); return nil },
		Published: func() Report {
			if len(w.reports) == 0 {
				return Report{}
			}
			return w.reports[len(w.reports)-1]
		},
		Notify:   func(s string) { w.notified = append(w.notified, s) },
		Watchdog: 30 * time.Second,
		Log:      slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	w.Agent = New(h, Config{Policy: "/etc/quaywall/policy.yaml", Backend: apply.Auto})
	return w
}

func listingOf(networks ...string) Listing {
	l := Listing{Links: []inventory.Interface{{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}}}}
	l.Docker.Docker = inventory.Docker{Reachable: true, Version: "20.10.24"}
	l.Docker.Local = true
	for i, n := range networks {
		subnet := netip.MustParsePrefix(fmt.Sprintf("172.%d.0.0/16", 17+i))
		l.Links = append(l.Links, inventory.Interface{Name: "br-" + n, Kind: "bridge", Addrs: []netip.Prefix{subnet}})
		l.Docker.Networks = append(l.Docker.Networks, inventory.Network{Name: n, Bridge: "br-" + n, Subnets: []netip.Prefix{subnet}})
	}
	return l
}

// gone is a host whose engine gives no answer.
func gone(l Listing) Listing {
	l.Docker = docker.Answer{Docker: inventory.Docker{Problem: "Docker is not running"}}
	return l
}

func (w *world) load() Loaded {
	if w.file == "bad" {
		return Loaded{Err: errors.New("policy.yaml:3:5: a rule has no verb")}
	}
	p := &policy.Policy{File: "/etc/quaywall/policy.yaml", Hash: w.file, Written: cmp.Or(w.written, w.file), Repair: w.repair, Sets: []policy.Set{{Name: "banned", Entries: w.entries}}}
	return Loaded{Policy: p}
}

func (w *world) apply(to Target, over string, inv *inventory.Inventory) (*apply.Result, error) {
	if is, _ := w.stored(); is.Current != over {
		return nil, apply.ErrOvertaken
	}
	if w.refuses != nil {
		w.did = append(w.did, "refused")
		return nil, w.refuses
	}
	what := w.file
	standsIn := to.Boot && (w.file == "bad" || w.file == w.record.Undone)
	switch {
	case standsIn:
		what = w.record.Record.Hash
	case to.Kept != nil:
		what = to.Kept.Hash
	}
	verb := "apply "
	if to.Observe {
		verb = "observe "
	}
	w.did = append(w.did, verb+what)
	w.applied = append(w.applied, inv)
	before := w.record
	w.puts(what)
	w.record.Record.Observed = to.Observe
	w.record.Pending, w.record.Left, w.record.Undone = before.Pending, before.Left, before.Undone
	w.flushed = false
	if standsIn && w.file == "bad" {
		return nil, &apply.InvalidError{File: to.File, Left: what + " is in force"}
	}
	return &apply.Result{File: to.File, Hash: what, Backend: "nft", Changed: true, Observed: to.Observe, Policy: w.load().Policy, Warnings: w.warnings}, nil
}

// stored is what can be read of the record.
func (w *world) stored() (InForce, error) {
	is := w.record
	if is.Record != nil {
		is.Current = is.Record.ID
	}
	switch {
	case w.nothing:
		return InForce{}, w.damaged
	case w.damaged != nil:
		is.Record, is.ThisBoot = nil, false
	}
	return is, w.damaged
}

// puts records a policy as in force.
func (w *world) puts(hash string) {
	w.damaged, w.nothing = nil, false
	w.record = InForce{ThisBoot: true, Record: &store.Record{ID: hash, Hash: hash, File: "/etc/quaywall/policy.yaml", Backend: "nft",
		Written: cmp.Or(w.written, hash), Entries: map[string]int{"banned": w.entries}}}
}

func (w *world) mended(found func()) (*apply.Mended, error) {
	if !w.flushed || w.record.Record == nil || w.damaged != nil || w.nothing {
		return &apply.Mended{}, nil
	}
	found()
	if w.mending != nil {
		w.mending()
	}
	w.did = append(w.did, "mend")
	w.flushed = false
	return &apply.Mended{Missing: 3, Changed: true}, nil
}

// pass lets time go by, and the agent work whenever it wants to.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for range 10_000 {
		w.work(w.t.Context())
		if w.Agent.listing && !w.hung {
			w.hear(w.t.Context(), <-w.listings)
			continue
		}
		next := w.next()
		if next.IsZero() || next.After(end) {
			w.now = end
			return
		}
		if next.After(w.now) {
			w.now = next
		}
	}
	w.t.Fatal("the agent never rests")
}

// hints tells the agent something, and lets it settle.
func (w *world) hints(h Hint) {
	w.t.Helper()
	w.tell(h, "")
	w.pass(settling + 3*time.Second)
}

func (w *world) tell(h Hint, by string) {
	w.box.put(h, by)
	w.take()
}

// begin starts the agent, lets it settle and forgets what it did.
func (w *world) begin() {
	w.t.Helper()
	w.start()
	w.pass(3 * time.Second)
	w.did, w.lists = nil, 0
	w.log.Reset()
}

func (w *world) expect(what string, did ...string) {
	w.t.Helper()
	if !slices.Equal(w.did, did) {
		w.t.Errorf("%s: the agent did %q, want %q\n%s", what, w.did, did, w.log.String())
	}
	w.did = nil
}

// expectSaid counts the lines of the log that hold a text.
func (w *world) expectSaid(times int, text string) {
	w.t.Helper()
	if n := strings.Count(w.log.String(), text); n != times {
		w.t.Errorf("%q is said %d times, want %d:\n%s", text, n, times, w.log.String())
	}
}
