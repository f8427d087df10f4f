package apply_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/kernel"
	"quaywall/internal/recheck"
)

// observe applies the policy file so that it is only observed.
func (w *world) observe(t *testing.T) *apply.Result {
	t.Helper()
	o := w.options()
	o.Observe = true
	return w.mustApply(t, o)
}

// denies tells whether the rules in the kernel deny anything: what they deny goes to a chain of its own.
func (w *world) denies(t *testing.T) bool {
	t.Helper()
	if w.nft.held == nil {
		t.Fatal("the kernel holds nothing")
	}
	return slices.ContainsFunc(w.nft.held.Rules, func(r string) bool { return strings.HasPrefix(r, "denied ") })
}

// mayDeny sees that status, record and kernel agree on whether anything is denied.
func (w *world) mayDeny(t *testing.T, when string, want bool) {
	t.Helper()
	s := w.status(t)
	if s.InForce != want || s.Observed == want || s.HasDrift() || w.denies(t) != want {
		t.Errorf("%s: the kernel denies: %v, status: in force %v, observed %v, drift %v", when, w.denies(t), s.InForce, s.Observed, s.Drift)
	}
}

// TestObserve: what is observed stays so for whoever keeps a policy in force, and is enforced by a person's apply.
func TestObserve(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.write(t, 80)
		planned := w.options()
		planned.Observe = true
		if p, err := w.Plan(t.Context(), planned); err != nil || !p.Observed || p.Observing {
			t.Errorf("plan %+v, %v", p, err)
		}
		if r := w.observe(t); !r.Observed || !r.Changed {
			t.Errorf("%+v", r)
		}
		w.mayDeny(t, "observed", false)
		if r := w.observe(t); r.Changed {
			t.Error("twice is not once")
		}
		follow := func() apply.Options {
			o := w.options()
			o.Follow, o.Over = true, w.state(t).Current
			return o
		}
		w.write(t, 80, 81)
		if r := w.mustApply(t, follow()); !r.Changed || !r.Observed {
			t.Errorf("the agent follows the file: %+v", r)
		}
		w.mayDeny(t, "followed", false)
		w.nft.held = nil
		w.mend(t)
		w.mayDeny(t, "mended", false)
		w.reboot()
		boot := w.options()
		boot.Boot = true
		w.mustApply(t, boot)
		w.mayDeny(t, "booted", false)
		w.reboot()
		w.overwrite(t, w.policy, broken)
		if _, err := w.Apply(t.Context(), boot); err == nil {
			t.Error("a broken policy was put in force")
		}
		w.mayDeny(t, "booted with a broken policy", false)
		w.write(t, 80, 81)
		w.pass(time.Minute)
		if p, err := w.Plan(t.Context(), w.options()); err != nil || !p.Observing || p.Observed || !p.Changed {
			t.Errorf("plan %+v, %v", p, err)
		}
		if r := w.mustApply(t, w.options()); !r.Changed || r.Observed {
			t.Errorf("%+v", r)
		}
		w.mayDeny(t, "enforced", true)
		if s := w.status(t); !s.Since.Equal(w.now) {
			t.Errorf("in force since %v, which is when it was only observed", s.Since)
		}
		w.mustApply(t, follow())
		w.mayDeny(t, "enforced and followed", true)
	})
}

// The built-in default policy, which has no file, is observed like any other.
func TestObserveTheDefault(t *testing.T) {
	inNamespace(t, func(w *world) {
		o := w.options()
		o.Given, o.Observe = false, true
		w.mustApply(t, o)
		w.mayDeny(t, "observed", false)
		w.reboot()
		o.Boot, o.Observe = true, false
		w.mustApply(t, o)
		w.mayDeny(t, "booted", false)
		o.Boot = false
		w.mustApply(t, o)
		w.mayDeny(t, "enforced", true)
	})
}

// A record that was lost makes no policy enforced that was observed: the agent remembers.
func TestObserveWithoutARecord(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.write(t, 80)
		w.observe(t)
		id := w.state(t).Current
		record, err := w.Store.Record(id)
		if err != nil {
			t.Fatal(err)
		}
		o := w.options()
		o.Follow, o.Over, o.Kept = true, id, record
		w.write(t, 99)
		w.Store.Drop(id)
		if s := w.status(t); s.InForce || !s.Observed {
			t.Errorf("of rules that nobody recorded status says: in force %v, observed %v", s.InForce, s.Observed)
		}
		w.mustApply(t, o)
		w.mayDeny(t, "as the agent has it", false)
		w.write(t, 80)
		o.Over, o.Kept, o.Observe = w.state(t).Current, nil, true
		w.Store.Drop(o.Over)
		w.mustApply(t, o)
		w.mayDeny(t, "as the agent remembers", false)
	})
}

// Nothing is cut by a policy that is observed: there is nothing to refuse, and no connection ends. Enforcing it is another
// matter.
func TestObserveCutsNothing(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.ways = []guard.Way{{Kind: guard.Session, PID: 812, Process: "sshd", Proto: 6,
			Local: dialled(2222).Orig.Dst, Peer: dialled(2222).Orig.Src, Interfaces: []string{"eth0"}}}
		running := &connections{live: []recheck.Flow{dialled(80), dialled(81)}}
		w.Running = running
		w.write(t, 80)
		if r := w.observe(t); r.Ended != nil {
			t.Errorf("ended %+v", r.Ended)
		}
		w.nft.held = nil
		w.mend(t)
		if len(running.ended) > 0 || len(w.nft.flows) > 0 {
			t.Errorf("ended %v, kept from coming back %v", running.ended, w.nft.flows)
		}
		if _, err := w.Apply(t.Context(), w.options()); err == nil || !strings.Contains(err.Error(), "sshd") {
			t.Errorf("enforcing it locks out: %v", err)
		}
		w.mayDeny(t, "refused", false)
		w.ways = nil
		if r := w.mustApply(t, w.options()); r.Ended == nil || r.Ended.Connections != 1 || len(w.nft.flows) != 1 {
			t.Errorf("%+v, %v", r.Ended, w.nft.flows)
		}
		w.observe(t)
		if len(w.nft.flows) > 0 {
			t.Errorf("what was ended before is denied still: %v", w.nft.flows)
		}
		w.mayDeny(t, "observed again", false)
	})
}

// What comes back, comes back as it was: by rollback, and for want of a confirmation.
func TestObservedComesBackObserved(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		w.pass(time.Minute)
		w.observe(t)
		w.pass(time.Minute)
		w.back(t, 1)
		w.mayDeny(t, "back to the same, enforced", true)
		w.pass(time.Minute)
		all, err := w.History()
		if err != nil || len(all) != 1 || !all[0].Observed {
			t.Errorf("history %+v, %v", all, err)
		}
		w.back(t, 1)
		w.mayDeny(t, "back to it, observed", false)
		w.pass(time.Minute)
		id := w.confirm(t, 80)
		w.mayDeny(t, "enforced on trial", true)
		w.pass(time.Minute)
		w.watchdog(t, id)
		w.mayDeny(t, "taken back", false)
	})
}

// TestObservedCounters say what lines would have done, those that are none of the policy's too.
func TestObservedCounters(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.write(t, 80)
		w.observe(t)
		want := map[string]string{"policy.yaml:3": "allow", "default": "would deny", "always": "would deny", "over the limit of policy.yaml:3": "would deny"}
		w.nft.bend = func(l *kernel.Listing) {
			l.Counters = map[string]kernel.PacketCount{}
			for line := range want {
				l.Counters[line] = kernel.PacketCount{Packets: 1}
			}
		}
		w.verbs(t, want)
	})
}

// What was only observed is not enforced by a boot, or by an agent, because its record is damaged; and what was enforced is
// not opened by that.
func TestObservedWithDamagedRecords(t *testing.T) {
	garble := func(t *testing.T, w *world, path string) { w.overwrite(t, path, "garbage") }
	record := func(w *world, id string) string { return filepath.Join(w.Store.Dir(), "records", id) }
	observed := func(t *testing.T, w *world) { w.put(t, 80); w.write(t, 81); w.observe(t) }
	enforced := func(t *testing.T, w *world) { w.write(t, 80); w.observe(t); w.put(t, 81) }
	current := func(t *testing.T, w *world) { garble(t, w, record(w, w.state(t).Current)) }
	for name, c := range map[string]struct {
		before, damage func(t *testing.T, w *world)
		denies         bool
	}{
		"observed, the record damaged": {observed, current, false},
		"enforced, the record damaged": {enforced, current, true},
		"observed, the record gone":    {observed, func(t *testing.T, w *world) { w.Store.Drop(w.state(t).Current) }, false},
		"observed, the state damaged":  {observed, func(t *testing.T, w *world) { garble(t, w, w.Store.StateFile()) }, false},
		"enforced, the state damaged":  {enforced, func(t *testing.T, w *world) { garble(t, w, w.Store.StateFile()) }, true},
		"observed, all gone": {observed, func(t *testing.T, w *world) {
			if err := os.RemoveAll(w.Store.Dir()); err != nil {
				t.Fatal(err)
			}
		}, true},
		"observed, stopped": {observed, func(t *testing.T, w *world) {
			if _, err := w.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}, false},
		"observed since a boot, the record damaged": {func(t *testing.T, w *world) {
			observed(t, w)
			w.reboot()
			w.overwrite(t, w.policy, broken)
			o := w.options()
			o.Boot = true
			if _, err := w.Apply(t.Context(), o); err == nil {
				t.Fatal("a broken policy was put in force")
			}
			w.write(t, 81)
		}, current, false},
		"enforced, another observed and taken back, the record damaged": {func(t *testing.T, w *world) {
			w.put(t, 80)
			w.write(t, 81)
			o := w.options()
			o.Observe, o.Confirm = true, time.Minute
			w.mustApply(t, o)
			if err := w.Decline(t.Context(), "", 0); err != nil {
				t.Fatal(err)
			}
			w.write(t, 82)
		}, current, true},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				c.before(t, w)
				c.damage(t, w)
				w.reboot()
				o := w.options()
				o.Boot = true
				r := w.mustApply(t, o)
				w.mayDeny(t, "booted", c.denies)
				if told := strings.Contains(strings.Join(r.Notices, " "), "was only observed"); told == c.denies {
					t.Errorf("told: %q", r.Notices)
				}
			})
		})
	}
	inNamespace(t, func(w *world) {
		observed(t, w)
		current(t, w)
		if err := w.follow(t); err != nil {
			t.Fatal(err)
		}
		w.mayDeny(t, "followed", false)
	})
}
