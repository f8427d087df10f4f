package apply_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/kernel"
	"quaywall/internal/testkit/netns"
)

// inNamespace runs a test in a network namespace of its own, since the lock belongs to one.
func inNamespace(t *testing.T, f func(*world)) {
	t.Helper()
	w := newWorld(t)
	netns.Run(t, func() { f(w) })
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	inNamespace(t, func(w *world) {
		first := w.put(t, 80)
		if !first.Changed || first.Backend != "nft" || first.File != w.policy || w.nft.held == nil {
			t.Errorf("the first: %+v", first)
		}
		state, _ := w.Store.State()
		second := w.mustApply(t, w.options())
		if second.Changed || !second.Difference.None() {
			t.Errorf("the second changed something: %v", second.Difference)
		}
		if got := strings.Join(w.nft.log, " "); got != "commit" {
			t.Errorf("the kernel was changed by %q", got)
		}
		if again, _ := w.Store.State(); !reflect.DeepEqual(again, state) {
			t.Errorf("the state was %+v, is %+v", state, again)
		}
		third := w.put(t, 80, 443)
		if !third.Changed || len(third.Difference.Sets) == 0 {
			t.Errorf("the third: %+v", third.Difference)
		}
		if now, _ := w.Store.State(); now.Current == state.Current {
			t.Errorf("the state is %+v after %+v", now, state)
		}
	})
}

// A comment in the policy changes its hash and no rule: what is recorded follows, the kernel is left alone.
func TestApplyRecordsWhatChangesNoRule(t *testing.T) {
	inNamespace(t, func(w *world) {
		first := w.put(t, 80)
		text, _ := os.ReadFile(w.policy)
		if err := os.WriteFile(w.policy, append(text, "# a comment\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		second := w.mustApply(t, w.options())
		if second.Changed || second.Hash == first.Hash {
			t.Errorf("changed %v, hash %s after %s", second.Changed, second.Hash, first.Hash)
		}
		if s, err := w.Status(t.Context()); err != nil || s.Hash != second.Hash || s.HasDrift() {
			t.Errorf("status %+v, %v", s, err)
		}
	})
}

// Trap 13: one wrong rule, and the whole policy is refused.
func TestApplyRefusesAnInvalidPolicy(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		before := w.rules()
		if err := os.WriteFile(w.policy, []byte("version: 1\ninbound:\n  - alow: ssh\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := w.Apply(t.Context(), w.options())
		var invalid *apply.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "policy.yaml:3:5") {
			t.Errorf("got %v", err)
		}
		if !slices.Equal(before, w.rules()) {
			t.Error("the kernel was changed")
		}
	})
}

func TestPolicyThatIsNotThere(t *testing.T) {
	inNamespace(t, func(w *world) {
		o := w.options()
		_, err := w.Apply(t.Context(), o)
		var invalid *apply.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("named by the person: %v, want an InvalidError", err)
		}
		o.Given = false
		r, err := w.Apply(t.Context(), o)
		if err != nil || r.File != "" || !r.Changed {
			t.Errorf("at its usual place: %+v, %v, want the built-in default", r, err)
		}
	})
}

func session() guard.Way {
	return guard.Way{Kind: guard.Session, PID: 812, Process: "sshd", Proto: 6,
		Local: netip.MustParseAddrPort("203.0.113.1:2222"), Peer: netip.MustParseAddrPort("198.51.100.7:50000"), Interfaces: []string{"eth0"}}
}

func TestGuard(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.ways = []guard.Way{session()}
		w.write(t, 80)
		o := w.options()
		_, err := w.Apply(t.Context(), o)
		var refused *apply.RefusedError
		if !errors.As(err, &refused) || len(refused.Cuts) != 1 || !strings.Contains(err.Error(), "sshd") || w.nft.held != nil {
			t.Fatalf("got %v, want a refusal", err)
		}
		if p, err := w.Plan(t.Context(), o); err != nil || len(p.Cuts) != 1 {
			t.Errorf("plan: %v, %v", p, err)
		}
		w.blind = errors.New("no sockets to be seen")
		if _, err := w.Apply(t.Context(), o); !errors.As(err, &refused) || refused.Err == nil {
			t.Errorf("blind: %v, want a refusal", err)
		}
		w.blind = nil
		o.AllowLockout = true
		r, err := w.Apply(t.Context(), o)
		if err != nil || len(r.Notices) != 1 || !strings.Contains(r.Notices[0], "sshd") || w.nft.held == nil {
			t.Errorf("with --allow-lockout: %+v, %v", r, err)
		}
		w.write(t, 2222)
		o.AllowLockout = false
		if _, err := w.Apply(t.Context(), o); err != nil {
			t.Errorf("a policy that keeps the way open: %v", err)
		}
	})
}

// Traps 18 and 19, and design "it is refused before anything is changed": an error at any point leaves the old policy in
// force, and says so.
func TestFailureLeavesTheOldPolicy(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		op, left string
		log      string // what was done to the kernel since
	}{
		{"preflight", "nothing was changed", ""},
		{"read", "nothing was changed", ""},
		{"commit", "nothing was changed", ""},
	} {
		t.Run(c.op, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				w.put(t, 80)
				before, state := w.rules(), w.state(t)
				w.nft.fail[c.op] = boom
				w.nft.log = nil
				w.write(t, 80, 443)
				_, err := w.Apply(t.Context(), w.options())
				var failed *apply.FailedError
				if !errors.As(err, &failed) || !errors.Is(err, boom) || failed.Left != c.left {
					t.Errorf("got %v, want %q", err, c.left)
				}
				if !slices.Equal(before, w.rules()) || !reflect.DeepEqual(w.state(t), state) || strings.Join(w.nft.log, " ") != c.log {
					t.Errorf("changed: log %v, state %+v", w.nft.log, w.state(t))
				}
				delete(w.nft.fail, c.op)
				if r := w.mustApply(t, w.options()); !r.Changed {
					t.Error("the next run changed nothing")
				}
			})
		})
	}
}

// A commit that fails when a part of it is in force, as hand-written rules may, which come last, is taken back.
func TestCommitThatFailsHalfway(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		before := w.rules()
		w.nft.fail["rest"] = errors.New("hand-written rules: no such set")
		w.write(t, 80, 443)
		_, err := w.Apply(t.Context(), w.options())
		var failed *apply.FailedError
		if !errors.As(err, &failed) || failed.Doing != "putting the rules into the kernel" || failed.Left != "the policy of before is in force again" ||
			!strings.Contains(err.Error(), "no such set") {
			t.Errorf("got %v", err)
		}
		if !slices.Equal(before, w.rules()) {
			t.Error("the policy of before is not back")
		}
	})
}

// Trap 35: "in force" is said only after it was read back.
func TestReadBackThatDiffers(t *testing.T) {
	lose := func(l *kernel.Listing) {
		if l.Present {
			l.Rules = l.Rules[1:]
		}
	}
	t.Run("with a policy of before", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.put(t, 80)
			before := w.rules()
			w.nft.after = func(op string) {
				if op == "commit" {
					w.nft.bend = lose
				}
			}
			w.write(t, 80, 443)
			_, err := w.Apply(t.Context(), w.options())
			var failed *apply.FailedError
			if !errors.As(err, &failed) || failed.Left != "the policy of before is in force again" || !strings.Contains(err.Error(), "\n- ") {
				t.Errorf("got %v", err)
			}
			if !slices.Equal(before, w.rules()) {
				t.Error("the policy of before is not back")
			}
		})
	})
	t.Run("the first policy", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.nft.bend = lose
			w.write(t, 80)
			_, err := w.Apply(t.Context(), w.options())
			var failed *apply.FailedError
			if !errors.As(err, &failed) || failed.Left != "what was put in was taken out again" || w.nft.held != nil {
				t.Errorf("got %v, held %v", err, w.nft.held)
			}
		})
	})
	t.Run("and can't be put back", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.nft.bend = lose
			w.nft.fail["remove"] = errors.New("stuck")
			w.write(t, 80)
			_, err := w.Apply(t.Context(), w.options())
			var failed *apply.FailedError
			if !errors.As(err, &failed) || failed.Left != "it is not known what is in force" || !strings.Contains(err.Error(), "stuck") {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestInterruption(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.write(t, 80)
		ctx, cancel := context.WithCancel(t.Context())
		w.OnStep = func(step string) {
			if step == "preflight" {
				cancel()
			}
		}
		if _, err := w.Apply(ctx, w.options()); !errors.Is(err, context.Canceled) || w.nft.held != nil {
			t.Errorf("before the commit: %v, held %v", err, w.nft.held != nil)
		}
		// What a phase makes of it, as a program that is killed, is nothing to tell.
		w.nft.fail["preflight"] = errors.New("signal: killed")
		if _, err := w.Apply(ctx, w.options()); err == nil || err.Error() != "putting the policy in force: interrupted; nothing was changed" {
			t.Errorf("got %v", err)
		}
		if _, err := w.Plan(ctx, w.options()); err == nil || err.Error() != "finding out what would change: interrupted; nothing was changed" {
			t.Errorf("got %v", err)
		}
		delete(w.nft.fail, "preflight")
		ctx, cancel = context.WithCancel(t.Context())
		w.OnStep = func(step string) {
			if step == "commit" {
				cancel()
			}
		}
		if r, err := w.Apply(ctx, w.options()); err != nil || !r.Changed || w.state(t).Current == "" {
			t.Errorf("during the commit: %v, want it done to the end", err)
		}
	})
}

func TestRefusedPayloadIsKept(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.write(t, 80)
		w.nft.fail["preflight"] = &kernel.PayloadError{Backend: "nft", Payload: "one\ntwo\n", Line: 2, Err: errors.New("no such expression")}
		_, err := w.Apply(t.Context(), w.options())
		files, _ := filepath.Glob(filepath.Join(w.RunDir, "refused-nft-*.txt"))
		if len(files) != 1 || !strings.Contains(err.Error(), files[0]) {
			t.Fatalf("error %v, files %v", err, files)
		}
		if text, err := os.ReadFile(files[0]); err != nil || string(text) != "    1  one\n    2  two\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
}

func TestBackends(t *testing.T) {
	missing := errors.New("no nf_tables in this kernel")
	for _, c := range []struct {
		name, ask string
		nftFails  bool
		want      string
		why       string
	}{
		{"auto", "auto", false, "nft", "nf_tables works here"},
		{"auto without nf_tables", "auto", true, "iptables-nft", "no nf_tables in this kernel; the test says so"},
		{"iptables", "iptables", false, "iptables-nft", "the test says so"},
		{"by name", "nft", true, "nft", "--backend nft"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				if c.nftFails {
					w.nft.fail["probe"] = missing
				}
				w.write(t, 80)
				o := w.options()
				o.Backend = c.ask
				r := w.mustApply(t, o)
				if r.Backend != c.want || r.Why != c.why {
					t.Errorf("%s (%s), want %s (%s)", r.Backend, r.Why, c.want, c.why)
				}
			})
		})
	}
}

// A change of the backend leaves no gap: the new one is in before the old one goes.
func TestSwitchingBackends(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		var order []string
		w.ipt.after = func(op string) { order = append(order, "iptables "+op) }
		w.nft.after = func(op string) {
			if op != "read" { // the backends are read at a time
				order = append(order, "nft "+op)
			}
		}
		o := w.options()
		o.Backend = apply.IPTables
		r := w.mustApply(t, o)
		if !r.Changed || !slices.Equal(r.Replaced, []string{"nft"}) || w.nft.held != nil || w.ipt.held == nil {
			t.Errorf("replaced %v, nft holds %v, iptables %v", r.Replaced, w.nft.held != nil, w.ipt.held != nil)
		}
		got := strings.Join(order, ", ")
		if !strings.HasSuffix(got, "iptables commit, iptables read, nft remove") {
			t.Errorf("order: %s", got)
		}
		w.nft.held = w.ipt.held // as a crash before the removal would leave it
		if s, err := w.Status(t.Context()); err != nil || !slices.Equal(s.Others, []string{"nft"}) || !s.HasDrift() {
			t.Errorf("status %+v, %v", s, err)
		}
		if r := w.mustApply(t, o); !r.Changed || w.nft.held != nil {
			t.Error("the next run left the old backend's rules")
		}
	})
}

func TestStop(t *testing.T) {
	inNamespace(t, func(w *world) {
		if s, err := w.Stop(t.Context(), 0); err != nil || len(s.Removed) != 0 {
			t.Errorf("with nothing in force: %+v, %v", s, err)
		}
		w.put(t, 80)
		w.ipt.held = w.nft.held
		s, err := w.Stop(t.Context(), 0)
		if err != nil || !slices.Equal(s.Removed, []string{"nft", "iptables-nft"}) || w.nft.held != nil || w.ipt.held != nil {
			t.Errorf("%+v, %v", s, err)
		}
		if got := w.state(t); got.Current != "" || !got.Removed {
			t.Errorf("state %+v", got)
		}
		w.put(t, 80)
		w.nft.fail["remove"] = errors.New("stuck")
		var failed *apply.FailedError
		if _, err := w.Stop(t.Context(), 0); !errors.As(err, &failed) || failed.Left != "some are still there" || w.state(t).Current == "" {
			t.Errorf("got %v", err)
		}
	})
}

// Trap 38: flows that ran before the first apply go on for a day, until the policy changes after that.
func TestPickUp(t *testing.T) {
	inNamespace(t, func(w *world) {
		began := w.now
		if r := w.put(t, 80); !r.PickUp.Equal(began) {
			t.Errorf("the first apply: %v, want %v", r.PickUp, began)
		}
		w.pass(23 * time.Hour)
		if r := w.put(t, 81); !r.PickUp.Equal(began) {
			t.Errorf("a change within a day: %v, want %v", r.PickUp, began)
		}
		w.pass(2 * time.Hour)
		if r := w.put(t, 81); r.Changed || !r.PickUp.Equal(began) {
			t.Errorf("the same after a day: changed %v, %v, want all as it was", r.Changed, r.PickUp)
		}
		if r := w.put(t, 82); !r.PickUp.IsZero() {
			t.Errorf("a change after a day: %v, want none", r.PickUp)
		}
		w.nft.held = nil
		if r := w.put(t, 82); !r.PickUp.IsZero() {
			t.Errorf("after somebody took the rules out: %v, want none", r.PickUp)
		}
		if _, err := w.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if r := w.put(t, 82); !r.PickUp.Equal(w.now) {
			t.Errorf("after stop: %v, want %v", r.PickUp, w.now)
		}
		w.reboot()
		w.pass(time.Hour)
		if r := w.put(t, 82); !r.PickUp.Equal(w.now) {
			t.Errorf("after a boot: %v, want %v", r.PickUp, w.now)
		}
		if err := w.Store.Forget(); err != nil {
			t.Fatal(err)
		}
		if r := w.put(t, 82); r.Changed || r.PickUp.IsZero() {
			t.Errorf("no record, and no change: changed %v, %v, want all as it was", r.Changed, r.PickUp)
		}
		if err := w.Store.Forget(); err != nil {
			t.Fatal(err)
		}
		if r := w.put(t, 83); !r.PickUp.IsZero() {
			t.Errorf("no record, and a change: %v, want none", r.PickUp)
		}
	})
}

func TestDamagedState(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		path := filepath.Join(w.Store.Dir(), "state.json")
		if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := w.Status(t.Context())
		if err != nil || !s.InForce || len(s.Notices) != 2 || !strings.Contains(s.Notices[0], path) {
			t.Errorf("status %+v, %v", s, err)
		}
		r := w.mustApply(t, w.options())
		if r.Changed || len(r.Notices) != 1 || !strings.Contains(r.Notices[0], "put aside") {
			t.Errorf("apply %+v", r)
		}
		if s, err := w.Status(t.Context()); err != nil || s.Hash == "" || len(s.Notices) != 0 {
			t.Errorf("afterwards %+v, %v", s, err)
		}
	})
}
