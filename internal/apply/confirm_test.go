package apply_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/store"
	"quaywall/internal/testkit/disk"
	"quaywall/internal/testkit/netns"
)

// confirm applies a policy of these ports, to be confirmed in a minute, and gives what the process knows it by that would
// take it back.
func (w *world) confirm(t *testing.T, ports ...int) string {
	t.Helper()
	w.write(t, ports...)
	o := w.options()
	o.Confirm = time.Minute
	r := w.mustApply(t, o)
	p := w.state(t).Pending
	if r.Pending == nil || p == nil || len(w.watchdogs) == 0 || p.Task != w.watchdogs[len(w.watchdogs)-1] || p.PID != 4711 {
		t.Fatalf("result %+v, state %+v, processes %v", r.Pending, p, w.watchdogs)
	}
	return p.Task
}

// watchdog does what the process of a pending change does.
func (w *world) watchdog(t *testing.T, id string) string {
	t.Helper()
	var log strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := w.WaitAndUndo(ctx, id, &log); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	return log.String()
}

func TestConfirmedChangeStays(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		id := w.confirm(t, 80, 443)
		after := w.rules()
		w.pass(59 * time.Second)
		done, err := w.Confirm(t.Context(), "", 0)
		if err != nil || done.File != w.policy {
			t.Fatalf("%+v, %v", done, err)
		}
		w.pass(time.Hour)
		w.watchdog(t, id)
		if !slices.Equal(after, w.rules()) {
			t.Error("the change did not stay")
		}
		if _, err := w.Confirm(t.Context(), "", 0); !errors.Is(err, apply.ErrNothingPending) {
			t.Errorf("a second time: %v", err)
		}
	})
}

// What an undo brings back may cut a way in that came with the change: that is said when it is armed, and it comes back all
// the same.
func TestUndoThatCutsTheWayIn(t *testing.T) {
	inNamespace(t, func(w *world) {
		const warning = "unless it is confirmed"
		w.put(t, 80)
		before := w.rules()
		w.ways = []guard.Way{session()}
		w.write(t, 80, 2222)
		o := w.options()
		o.Confirm = time.Minute
		r := w.mustApply(t, o)
		said := strings.Join(r.Notices, "\n")
		if !strings.Contains(said, warning) || !strings.Contains(said, "sshd (process 812), port 2222/tcp, from 198.51.100.7") ||
			strings.Contains(said, "add to inbound") {
			t.Errorf("with a policy of before that cuts the way in, it was said: %q", said)
		}
		w.pass(time.Minute)
		w.watchdog(t, w.state(t).Pending.Task)
		if !slices.Equal(before, w.rules()) {
			t.Error("the policy of before is not back")
		}
		w.put(t, 80, 2222)
		w.write(t, 2222)
		if r := w.mustApply(t, o); strings.Contains(strings.Join(r.Notices, "\n"), warning) {
			t.Errorf("with a policy of before that keeps the way in, it was said: %q", r.Notices)
		}
	})
}

// Trap 20: the policy of before is back, once, however it comes that nobody confirms.
func TestUnconfirmedChangeIsTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		when func(t *testing.T, w *world, id string)
	}{
		{"its process is there", func(t *testing.T, w *world, id string) {
			w.pass(time.Minute)
			if log := w.watchdog(t, id); !strings.Contains(log, "in force again") {
				t.Errorf("log %q", log)
			}
		}},
		{"its process is there, and another after it", func(t *testing.T, w *world, id string) {
			w.pass(time.Minute)
			w.watchdog(t, id)
			w.watchdog(t, id)
		}},
		{"its process was killed, and somebody confirms too late", func(t *testing.T, w *world, _ string) {
			w.pass(time.Minute)
			_, err := w.Confirm(t.Context(), "", 0)
			var failed *apply.FailedError
			if !errors.As(err, &failed) || failed.Left != "the policy of before is in force again" {
				t.Errorf("got %v", err)
			}
		}},
		{"the clock is set back", func(t *testing.T, w *world, id string) {
			w.now = w.now.Add(-24 * time.Hour)
			w.up += time.Minute
			w.watchdog(t, id)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				w.put(t, 80)
				before, state := w.rules(), w.state(t)
				id := w.confirm(t, 80, 443)
				w.nft.log = nil
				c.when(t, w, id)
				if !slices.Equal(before, w.rules()) {
					t.Error("the policy of before is not back")
				}
				got := w.state(t)
				if got.Current != state.Current || got.Pending != nil || got.Undone == nil || strings.Join(w.nft.log, " ") != "commit" {
					t.Errorf("state %+v, kernel changed by %v", got, w.nft.log)
				}
				if s, err := w.Status(t.Context()); err != nil || s.HasDrift() || s.Undone == nil || !s.InForce {
					t.Errorf("status %+v, %v", s, err)
				}
			})
		})
	}
}

func TestUnconfirmedFirstChangeIsTakenOut(t *testing.T) {
	inNamespace(t, func(w *world) {
		id := w.confirm(t, 80)
		if s, err := w.Status(t.Context()); err != nil || s.Pending == nil || !s.Pending.Removes || s.Pending.SecsLeft != 60 {
			t.Errorf("status %+v, %v", s, err)
		}
		w.pass(time.Minute)
		w.watchdog(t, id)
		if w.nft.held != nil || w.state(t).Current != "" {
			t.Error("the policy is still there")
		}
	})
}

func TestTheProcessWaits(t *testing.T) {
	inNamespace(t, func(w *world) {
		id := w.confirm(t, 80)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := w.WaitAndUndo(ctx, id, &strings.Builder{}); !errors.Is(err, context.DeadlineExceeded) || w.nft.held == nil {
			t.Errorf("within the time: %v, held %v", err, w.nft.held != nil)
		}
		w.watchdog(t, "the ID of another change") // ends at once
		if w.nft.held == nil {
			t.Error("taken back by a process of another change")
		}
	})
}

// A second change inside the time: the policy to go back to is the one of before the first.
func TestSecondChangeInsideTheTime(t *testing.T) {
	t.Run("with a confirmation of its own", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.put(t, 80)
			before := w.rules()
			first := w.confirm(t, 81)
			id := w.state(t).Pending.ID
			w.pass(30 * time.Second)
			second := w.confirm(t, 82)
			if first != second || id == w.state(t).Pending.ID || len(w.watchdogs) != 1 {
				t.Errorf("processes %v, changes %s and %s: want one process for both", w.watchdogs, id, w.state(t).Pending.ID)
			}
			w.pass(40 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := w.WaitAndUndo(ctx, first, io.Discard); !errors.Is(err, context.DeadlineExceeded) || w.state(t).Pending == nil {
				t.Errorf("after the first one's time: %v, %+v", err, w.state(t).Pending)
			}
			w.pass(40 * time.Second)
			w.watchdog(t, second)
			if !slices.Equal(before, w.rules()) {
				t.Error("the policy of before the first is not back")
			}
		})
	})
	t.Run("that fails", func(t *testing.T) {
		for _, op := range []string{"commit", "rest"} {
			inNamespace(t, func(w *world) {
				w.put(t, 80)
				before := w.rules()
				task := w.confirm(t, 81)
				pending := *w.state(t).Pending
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- w.WaitAndUndo(ctx, task, io.Discard) }()
				w.write(t, 82)
				o := w.options()
				o.Confirm = time.Minute
				w.nft.fail[op] = errors.New("boom")
				w.OnStep = func(step string) {
					if step == "commit" {
						time.Sleep(1200 * time.Millisecond) // the process looks in between
					}
				}
				if _, err := w.Apply(t.Context(), o); err == nil {
					t.Error("it did not fail")
				}
				delete(w.nft.fail, op)
				if got := w.state(t).Pending; got == nil || *got != pending {
					t.Errorf("pending %+v, want %+v", got, pending)
				}
				w.pass(time.Minute)
				if err := <-ended; err != nil || !slices.Equal(before, w.rules()) {
					t.Errorf("the first change was not taken back by its process: %v", err)
				}
			})
		}
	})
	t.Run("without", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.put(t, 80)
			before := w.rules()
			id := w.confirm(t, 81)
			if r := w.put(t, 82); r.Pending == nil {
				t.Error("the result doesn't say that a confirmation is waited for")
			}
			w.pass(time.Minute)
			w.watchdog(t, id)
			if !slices.Equal(before, w.rules()) {
				t.Error("the policy of before the first is not back")
			}
		})
	})
	t.Run("the same policy, with more time", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.confirm(t, 81)
			first := w.state(t).Pending.Deadline
			w.pass(50 * time.Second)
			w.confirm(t, 81)
			if second := w.state(t).Pending.Deadline; second != first+50*time.Second {
				t.Error("the time was not extended")
			}
		})
	})
	t.Run("after it", func(t *testing.T) {
		inNamespace(t, func(w *world) {
			w.put(t, 80)
			w.confirm(t, 81)
			w.dead = true
			w.pass(time.Hour)
			w.nft.log = nil
			r := w.put(t, 82)
			if r.Pending != nil || len(r.Notices) != 1 || !strings.Contains(r.Notices[0], "taken back first") {
				t.Errorf("result %+v", r)
			}
			if got := strings.Join(w.nft.log, " "); got != "commit commit" {
				t.Errorf("kernel changed by %q, want the undo and the new policy", got)
			}
		})
	})
}

func TestRebootInsideTheTime(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		before := w.rules()
		w.confirm(t, 81)
		w.reboot()
		if s, err := w.Status(t.Context()); err != nil || s.Pending == nil || !s.Pending.Overdue {
			t.Errorf("status %+v, %v", s, err)
		}
		_, err := w.Confirm(t.Context(), "", 0)
		if err == nil || !slices.Equal(before, w.rules()) {
			t.Errorf("%v, want the policy of before in force", err)
		}
		if u := w.state(t).Undone; u == nil || !strings.Contains(u.Why, "booted") {
			t.Errorf("undone: %+v", u)
		}
	})
}

// boot starts the host anew and applies the file as a unit does.
func (w *world) boot(t *testing.T) (*apply.Result, error) {
	t.Helper()
	w.reboot()
	w.pass(time.Minute)
	o := w.options()
	o.Boot = true
	return w.Apply(t.Context(), o)
}

// A unit applies at boot what the file holds, and nobody is there to see whether it lets anybody in: what was taken back,
// however and whenever, is not put in force, but the policy of before. A person's apply is another thing.
func TestBootAfterAPolicyWasTakenBack(t *testing.T) {
	for name, take := range map[string]func(*testing.T, *world, string){
		"by the boot": func(*testing.T, *world, string) {},
		"in time": func(t *testing.T, w *world, task string) {
			w.pass(time.Minute)
			w.watchdog(t, task)
		},
		"declined": func(t *testing.T, w *world, _ string) {
			if err := w.Decline(t.Context(), "", 0); err != nil {
				t.Error(err)
			}
		},
		"by going back": func(t *testing.T, w *world, _ string) { w.back(t, 1) },
		"confirmed, and gone back from": func(t *testing.T, w *world, _ string) {
			if _, err := w.Confirm(t.Context(), "", 0); err != nil {
				t.Error(err)
			}
			w.back(t, 1)
		},
		"and the agent followed the host since": func(t *testing.T, w *world, task string) {
			w.pass(time.Minute)
			w.watchdog(t, task)
			o := w.options()
			o.Follow, o.Over = true, w.state(t).Current
			w.write(t, 80)
			w.Inventory = func(context.Context) (*inventory.Inventory, error) {
				inv := hostInventory()
				inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "br-0123456789ab", Kind: "bridge", Index: 9})
				return inv, nil
			}
			w.nft.held.Rules = w.nft.held.Rules[1:]
			if r := w.mustApply(t, o); !r.Changed {
				t.Error("nothing was to be followed")
			}
			w.write(t, 81)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				before := w.put(t, 80).Hash
				w.pass(time.Minute)
				task := w.confirm(t, 81)
				take(t, w, task)
				for range 2 { // and at the next boot
					r, err := w.boot(t)
					if err != nil || r.Hash != before || !strings.Contains(strings.Join(r.Notices, " "), "apply it once more") {
						t.Fatalf("%+v is in force: %v", r, err)
					}
					if s, err := w.Status(t.Context()); err != nil || !s.InForce || s.Drift != nil || s.Hash != before {
						t.Errorf("status: %+v, %v", s, err)
					}
				}
				if w.mustApply(t, w.options()).Hash == before {
					t.Error("applied by a person, it is not in force")
				}
				if r, err := w.boot(t); err != nil || r.Hash == before {
					t.Errorf("at the boot after a person applied it: %+v, %v", r, err)
				}
			})
		})
	}
}

// A list that fills a set changes by itself, and makes no other policy of one that was taken back.
func TestBootAfterAPolicyWasTakenBackAndItsSetChanged(t *testing.T) {
	inNamespace(t, func(w *world) {
		before := w.put(t, 80).Hash
		friends := w.friendly(t)
		o := w.options()
		o.Confirm = time.Minute
		w.mustApply(t, o)
		w.pass(time.Minute)
		w.watchdog(t, w.watchdogs[0])
		w.overwrite(t, friends, "192.0.2.7\n")
		if r, err := w.boot(t); err != nil || r.Hash != before {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestBootInsideTheTimeOfTheFirstPolicy(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.confirm(t, 81)
		var failed *apply.FailedError
		for range 2 {
			if _, err := w.boot(t); !errors.As(err, &failed) || w.nft.held != nil {
				t.Errorf("%v; %s", err, w.held())
			}
		}
		if w.mustApply(t, w.options()); w.nft.held == nil {
			t.Error("applied by a person, it is not in force")
		}
	})
}

// The record of what is in force is damaged, or put aside by another quaywall, while a change waits: its process knows
// what to do. After a stop that could only forget there is nothing to be done.
func TestProcessOutlivesTheRecord(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, w *world)
		want   int // the port that is open afterwards; 0 for nothing in force
	}{
		"damaged": {func(t *testing.T, w *world) {
			if err := os.WriteFile(w.Store.StateFile(), []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
		}, 80},
		"damaged, and put aside by the agent": {func(t *testing.T, w *world) {
			if err := os.WriteFile(w.Store.StateFile(), []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
			w.mend(t)
		}, 80},
		"damaged, and made anew by the agent": {func(t *testing.T, w *world) {
			record, err := w.Store.Record(w.state(t).Current)
			if err = errors.Join(err, os.WriteFile(w.Store.StateFile(), []byte("x"), 0o600)); err != nil {
				t.Error(err)
			}
			w.mustApply(t, apply.Options{Backend: apply.Auto, Follow: true, Kept: record})
			if s := w.state(t); s.Current == "" || s.Pending != nil {
				t.Errorf("%+v", s)
			}
		}, 80},
		"stopped, and forgotten": {func(t *testing.T, w *world) {
			if _, err := w.Stop(t.Context(), 0); err != nil {
				t.Error(err)
			}
			if err := w.Store.Forget(); err != nil {
				t.Error(err)
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				w.put(t, 80)
				before := w.rules()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				ended := make(chan error, 1)
				w.OnStep = func(step string) {
					if step != "commit" {
						return
					}
					looks, task := w.looked(), w.watchdogs[0]
					go func() { ended <- w.WaitAndUndo(ctx, task, io.Discard) }()
					if !comes(t, func() bool { return w.looked() > looks }) {
						t.Error("the process doesn't look")
					}
				}
				w.confirm(t, 81) // the process has looked before it was made, and looks again in a second
				w.OnStep = nil
				changed, err := w.Store.Record(w.state(t).Current)
				if err != nil {
					t.Error(err)
				}
				c.damage(t, w)
				w.pass(time.Minute)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if c.want == 0 {
					before = nil
				}
				state := w.state(t)
				if !slices.Equal(before, w.rules()) || c.want > 0 && (state.Undone == nil || state.Undone.Hash != changed.Hash ||
					!slices.Contains(state.Rejected, changed.Written)) {
					t.Errorf("the kernel holds %s; %+v", w.held(), state)
				}
			})
		})
	}
}

func TestKilledProcessIsStartedAgain(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.confirm(t, 81)
		w.dead = true
		if s, err := w.Status(t.Context()); err != nil || s.Pending == nil || s.Pending.Alive {
			t.Errorf("status %+v, %v", s, err)
		}
		r := w.mustApply(t, w.options())
		if len(w.watchdogs) != 2 || w.watchdogs[0] != w.watchdogs[1] || len(r.Notices) != 1 {
			t.Errorf("processes %v, notices %v", w.watchdogs, r.Notices)
		}
	})
}

func TestStopCancelsTheConfirmation(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		id := w.confirm(t, 81)
		if s, err := w.Stop(t.Context(), 0); err != nil || !s.Cancelled {
			t.Errorf("%+v, %v", s, err)
		}
		w.pass(time.Hour)
		w.watchdog(t, id)
		if w.nft.held != nil {
			t.Error("a policy came back after stop")
		}
	})
}

func TestFailedChangeIsNotPending(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		state := w.state(t)
		o := w.options()
		o.Confirm = time.Minute
		w.write(t, 81)
		w.nft.fail["commit"] = errors.New("boom")
		if _, err := w.Apply(t.Context(), o); err == nil || !reflect.DeepEqual(w.state(t), state) {
			t.Errorf("%v, state %+v, want %+v", err, w.state(t), state)
		}
		delete(w.nft.fail, "commit")
		start := w.Watchdog
		w.Watchdog = func(string) (int, error) { return 0, errors.New("no more processes") }
		if _, err := w.Apply(t.Context(), o); err == nil || !reflect.DeepEqual(w.state(t), state) || !strings.Contains(err.Error(), "no more processes") {
			t.Errorf("%v, state %+v, want %+v", err, w.state(t), state)
		}
		w.Watchdog = start
	})
}

// The record to go back to is damaged: then quaywall's rules go, for somebody may be locked out.
func TestUndoWithADamagedRecord(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		id := w.confirm(t, 81)
		base := w.state(t).Pending.Base
		if err := os.WriteFile(filepath.Join(w.Store.Dir(), "records", base), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.watchdog(t, id)
		if w.nft.held != nil {
			t.Error("the unconfirmed policy is still in force")
		}
	})
}

// A disk that can't be written any more: stop works, and doesn't say that nothing was changed.
func TestStopOnAReadOnlyDisk(t *testing.T) {
	w := newWorld(t)
	disk.Run(t, 256<<10, func(dir string) {
		netns.Run(t, func() {
			w.Store, w.RunDir = store.Open(filepath.Join(dir, "state")), filepath.Join(dir, "run")
			w.write(t, 80)
			_, err := w.Apply(t.Context(), w.options())
			if err = errors.Join(err, disk.ReadOnly(dir)); err != nil {
				t.Error(err)
				return
			}
			_, err = w.Stop(t.Context(), 0)
			var failed *apply.FailedError
			if !errors.As(err, &failed) || !strings.HasPrefix(failed.Left, "they were taken out") || !errors.Is(err, syscall.EROFS) || w.nft.held != nil {
				t.Errorf("%v; held %v", err, w.nft.held != nil)
			}
		})
	})
}

// What was done first is told also where the rest fails.
func TestNoticesTravelWithErrors(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		overdue := func() {
			w.confirm(t, 81)
			w.dead = true
			w.pass(time.Hour)
		}
		told := func(err error) {
			t.Helper()
			var noted *apply.NotedError
			if !errors.As(err, &noted) || !strings.Contains(strings.Join(noted.Notices, " "), "taken back first") {
				t.Errorf("%v says nothing of what was done first", err)
			}
		}
		overdue()
		w.overwrite(t, w.policy, broken)
		_, err := w.Apply(t.Context(), w.options())
		told(err)
		var invalid *apply.InvalidError
		if !errors.As(err, &invalid) || invalid.Left != "nothing else was changed" {
			t.Errorf("%+v", invalid)
		}
		overdue()
		w.write(t, 82)
		w.nft.fail["preflight"] = errors.New("boom")
		_, err = w.Apply(t.Context(), w.options())
		told(err)
		var failed *apply.FailedError
		if !errors.As(err, &failed) || failed.Left != "nothing else was changed" {
			t.Errorf("%+v", failed)
		}
	})
}

// fillUp leaves no room on a disk.
func fillUp(dir string) {
	for i := 0; ; i++ {
		if os.WriteFile(filepath.Join(dir, "fill"+string(rune('a'+i%26))+strings.Repeat("x", i/26)), make([]byte, 4096), 0o600) != nil {
			return
		}
	}
}

// onFullDisk puts a policy in force that lets port 80 in, then leaves no room for what is recorded.
func onFullDisk(t *testing.T, test func(w *world)) {
	w := newWorld(t)
	disk.Run(t, 256<<10, func(dir string) {
		netns.Run(t, func() {
			w.Store = store.Open(filepath.Join(dir, "state"))
			w.write(t, 80)
			if _, err := w.Apply(t.Context(), w.options()); err != nil {
				t.Error("with space: ", err)
				return
			}
			fillUp(dir)
			test(w)
		})
	})
}

// noSpace demands that there was no room, and that it is told what is left.
func noSpace(t *testing.T, err error, left string) {
	t.Helper()
	var failed *apply.FailedError
	if !errors.As(err, &failed) || failed.Left != left || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v, want that %s", err, left)
	}
}

// A full disk at boot: the host is not left open, and what is wrong is told.
func TestBootWithAFullDisk(t *testing.T) {
	onFullDisk(t, func(w *world) {
		before := w.rules()
		_, err := w.boot(t)
		noSpace(t, err, "the policy is in force")
		if !slices.Equal(before, w.rules()) {
			t.Errorf("in force are %v", w.rules())
		}
	})
}

// A full disk: apply refuses before it changes anything, stop works all the same.
func TestFullDisk(t *testing.T) {
	onFullDisk(t, func(w *world) {
		before := w.rules()
		w.write(t, 80, 443)
		for _, confirm := range []time.Duration{0, time.Minute} {
			o := w.options()
			o.Confirm = confirm
			_, err := w.Apply(t.Context(), o)
			noSpace(t, err, "nothing was changed")
			if !slices.Equal(before, w.rules()) {
				t.Error("the kernel was changed")
			}
		}
		s, err := w.Stop(t.Context(), 0)
		if err != nil || len(s.Removed) != 1 || w.nft.held != nil {
			t.Errorf("stop on a full disk: %+v, %v", s, err)
		}
		if state, err := w.Store.State(); err != nil || state.Current != "" {
			t.Errorf("state %+v, %v", state, err)
		}
	})
}
