package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/kernel"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
)

// fakeBackend is a kernel.Backend with a kernel of its own: transactional, and failing where it is told to.
type fakeBackend struct {
	name  string
	held  *kernel.Listing  // nil for nothing
	fail  map[string]error // by operation: probe, read, preflight, commit, remove; rest: a commit, when rules are in force already
	after func(op string)  // told after each operation that succeeded
	bend  func(*kernel.Listing)
	log   []string // operations that changed the kernel
	flows []ruleset.Flow
}

func newFake(name string) *fakeBackend { return &fakeBackend{name: name, fail: map[string]error{}} }

func (f *fakeBackend) Name() string { return f.name }

func (f *fakeBackend) Probe(context.Context) error { return f.fail["probe"] }

func (f *fakeBackend) done(op string) error {
	if err := f.fail[op]; err != nil {
		return err
	}
	if f.after != nil {
		f.after(op)
	}
	return nil
}

func (f *fakeBackend) Read(context.Context) (*kernel.Listing, error) {
	l := &kernel.Listing{}
	if f.held != nil {
		l = &kernel.Listing{Present: true, Rules: slices.Clone(f.held.Rules), Sets: maps.Clone(f.held.Sets),
			Counters: map[string]kernel.PacketCount{"policy.yaml:10": {Packets: 2}, "policy.yaml:9": {Packets: 1}}}
		if slices.ContainsFunc(l.Rules, func(r string) bool { return strings.Contains(r, `"line":"always"`) }) {
			l.Counters[ruleset.Always] = kernel.PacketCount{}
		}
	}
	if f.bend != nil {
		f.bend(l)
	}
	return l, f.done("read")
}

func (f *fakeBackend) Preflight(_ context.Context, rs *ruleset.Ruleset) (*kernel.Listing, error) {
	return listing(rs), f.done("preflight")
}

func (f *fakeBackend) Commit(ctx context.Context, rs *ruleset.Ruleset) error {
	if err := errors.Join(ctx.Err(), f.fail["commit"]); err != nil {
		return err
	}
	f.held, f.flows = listing(rs), nil
	for _, s := range rs.Tables[0].Sets {
		f.flows = append(f.flows, s.Flows...)
	}
	f.log = append(f.log, "commit")
	if err := f.fail["rest"]; err != nil {
		delete(f.fail, "rest")
		return err
	}
	return f.done("commit")
}

func (f *fakeBackend) Mend(ctx context.Context, amiss func(*kernel.Listing) bool, wanted func() (*ruleset.Ruleset, error)) error {
	return kernel.ReadAndCommit(f.Name(), func() (*kernel.Listing, error) { return f.Read(ctx) }, amiss, wanted,
		func(rs *ruleset.Ruleset) error { return f.Commit(ctx, rs) })
}

func (f *fakeBackend) Flows(context.Context) ([]ruleset.Flow, error) { return f.flows, f.fail["flows"] }

func (f *fakeBackend) AddFlows(_ context.Context, sets []ruleset.Set) error {
	for _, s := range sets {
		for _, flow := range s.Flows {
			if !slices.Contains(f.flows, flow) {
				f.flows = append(f.flows, flow)
			}
		}
	}
	return f.fail["flows"]
}

func (f *fakeBackend) Remove(context.Context) error {
	if err := f.fail["remove"]; err != nil {
		return err
	}
	if f.held != nil {
		f.log = append(f.log, "remove")
	}
	f.held = nil
	return f.done("remove")
}

// listing is a ruleset in the fake's own words.
func listing(rs *ruleset.Ruleset) *kernel.Listing {
	l := &kernel.Listing{Present: true, Sets: map[string]kernel.SetSummary{}}
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			for i, r := range c.Rules {
				text, err := json.Marshal(r)
				if err != nil {
					panic(err)
				}
				l.Rules = append(l.Rules, fmt.Sprintf("%s %d %s", c.Name, i, text))
			}
		}
		for _, s := range t.Sets {
			l.Sets[s.Name] = kernel.SetSummary{Elements: len(s.Addrs.Ranges()), Digest: s.Addrs.String()}
		}
		for _, m := range t.Maps {
			l.Sets[m.Name] = kernel.SetSummary{Elements: len(m.Elements), Digest: fmt.Sprint(m.Elements)}
		}
	}
	return l
}

// world is a host that exists in memory.
type world struct {
	*apply.Host
	dir       string
	nft, ipt  *fakeBackend
	clock     sync.Mutex // for what follows
	now       time.Time
	up        time.Duration
	looks     int
	ways      []guard.Way
	logins    []guard.Way
	blind     error
	watchdogs []string // the pending changes that a process was started for
	dead      bool     // those processes are gone
	policy    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), nft: newFake("nft"), ipt: newFake("iptables-nft"), now: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), up: time.Hour}
	w.policy = filepath.Join(w.dir, "policy.yaml")
	w.Host = &apply.Host{
		Store:     store.Open(filepath.Join(w.dir, "state")),
		RunDir:    filepath.Join(w.dir, "run"),
		Backends:  []kernel.Backend{w.nft, w.ipt},
		Inventory: func(context.Context) (*inventory.Inventory, error) { return hostInventory(), nil },
		WaysIn:    func(*inventory.Inventory) (guard.Found, error) { return guard.Found{Ways: w.ways}, w.blind },
		Logins:    func(*inventory.Inventory) (guard.Found, error) { return guard.Found{Ways: w.logins}, nil },
		Variant:   func(context.Context) (string, string) { return "iptables-nft", "the test says so" },
		Adopt:     func() error { return nil },
		Scratch:   func(f func() error) error { return f() },
		Watchdog: func(id string) (int, error) {
			w.watchdogs = append(w.watchdogs, id)
			return 4711, nil
		},
		Alive: func(pid int, id string) bool { return !w.dead && pid == 4711 && slices.Contains(w.watchdogs, id) },
		Now: func() time.Time {
			w.clock.Lock()
			defer w.clock.Unlock()
			return w.now
		},
		Uptime: func() time.Duration {
			w.clock.Lock()
			defer w.clock.Unlock()
			w.looks++
			return w.up
		},
		Boot: "boot-1",
	}
	return w
}

func hostInventory() *inventory.Inventory {
	return &inventory.Inventory{Interfaces: []inventory.Interface{
		{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}},
	}}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.clock.Lock()
	defer w.clock.Unlock()
	w.now, w.up = w.now.Add(d), w.up+d
}

// looked is how often somebody asked what time it is.
func (w *world) looked() int {
	w.clock.Lock()
	defer w.clock.Unlock()
	return w.looks
}

// reboot empties the kernel and starts its clock again.
func (w *world) reboot() {
	w.Boot += "'"
	w.up = time.Second
	w.nft.held, w.ipt.held = nil, nil
	w.dead = true
}

// write writes the policy: SSH in, and these ports.
func (w *world) write(t *testing.T, ports ...int) {
	t.Helper()
	text := "version: 1\ninbound:\n  - allow: ssh\n"
	for _, p := range ports {
		text += fmt.Sprintf("  - allow: %d/tcp\n", p)
	}
	if err := os.WriteFile(w.policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) options() apply.Options {
	return apply.Options{Policy: w.policy, Given: true, Backend: apply.Auto}
}

// put applies a policy of these ports and expects that to work.
func (w *world) put(t *testing.T, ports ...int) *apply.Result {
	t.Helper()
	w.write(t, ports...)
	return w.mustApply(t, w.options())
}

func (w *world) mustApply(t *testing.T, o apply.Options) *apply.Result {
	t.Helper()
	r, err := w.Apply(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rules is what the kernel holds, to compare with later.
func (w *world) rules() []string {
	if w.nft.held == nil {
		return nil
	}
	return slices.Clone(w.nft.held.Rules)
}

func (w *world) state(t *testing.T) store.State {
	t.Helper()
	s, err := w.Store.State()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
