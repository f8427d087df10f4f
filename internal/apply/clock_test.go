package apply_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/recheck"
)

// jump sets the clock, and leaves the time as it is.
func (w *world) jump(by time.Duration) {
	w.clock.Lock()
	defer w.clock.Unlock()
	w.now = w.now.Add(by)
}

// jumps are a clock that is put right, a time zone that was taken for another, and a board that learns at last what year it is.
var jumps = []time.Duration{5 * time.Hour, -5 * time.Hour, 56 * 365 * 24 * time.Hour, -30 * time.Second}

func eachJump(t *testing.T, f func(t *testing.T, w *world, by time.Duration)) {
	t.Helper()
	for _, by := range jumps {
		t.Run(by.String(), func(t *testing.T) { inNamespace(t, func(w *world) { f(t, w, by) }) })
	}
}

// Trap 20: however the clock jumps, a change is taken back when its time is over, once, and not before; and what status says of
// it is right by the clock as it goes then.
func TestClockJumpsBeforeTheConfirmation(t *testing.T) {
	eachJump(t, func(t *testing.T, w *world, by time.Duration) {
		w.put(t, 80)
		before := w.held()
		id := w.confirm(t, 81)
		w.pass(20 * time.Second)
		w.jump(by)
		p := w.status(t).Pending
		if p == nil || p.Overdue || p.SecsLeft != 40 || p.Until.Sub(w.now.Add(40*time.Second)).Abs() > time.Minute {
			t.Fatalf("it is %v, and pending is %+v", w.now, p)
		}
		if m := w.mend(t); m.Changed || w.held() == before {
			t.Error("it was taken back before its time was over")
		}
		w.pass(41 * time.Second)
		w.watchdog(t, id)
		s := w.status(t)
		if w.held() != before || s.Undone == nil || !s.Undone.When.Equal(w.now) || !s.Since.Equal(w.now) {
			t.Errorf("it is %v, and status is %+v, %+v", w.now, s, s.Undone)
		}
		w.jump(by)
		if s := w.status(t); s.Undone == nil || !near(s.Undone.When, w.now) || !near(s.Since, w.now) {
			t.Errorf("jumped once more: it is %v, and status is %+v, %+v", w.now, s, s.Undone)
		}
		if _, err := w.Confirm(t.Context(), "", 0); !errors.Is(err, apply.ErrNothingPending) {
			t.Errorf("confirming what was taken back: %v", err)
		}
	})
}

// near tells whether two times are the same but for seconds, by which a clock may be off.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < time.Minute }

// A confirmation that comes in time keeps the change, whatever the clock says.
func TestClockJumpsAndItIsConfirmed(t *testing.T) {
	for _, by := range jumps {
		inNamespace(t, func(w *world) {
			w.put(t, 80)
			id := w.confirm(t, 81)
			changed := w.held()
			w.jump(by)
			if _, err := w.Confirm(t.Context(), "", 0); err != nil {
				t.Error(err)
			}
			w.pass(time.Hour)
			w.watchdog(t, id)
			if w.held() != changed {
				t.Errorf("%v: what was confirmed was taken back", by)
			}
		})
	}
}

// Status counts since when from when it was, not from what the clock said then; so do the history, and all that is to end
// after a time.
func TestClockJumpsWhileAPolicyIsInForce(t *testing.T) {
	eachJump(t, func(t *testing.T, w *world, by time.Duration) {
		began := w.put(t, 80).PickUp
		w.pass(time.Hour)
		w.put(t, 81)
		w.pass(time.Hour)
		w.jump(by)
		if s := w.status(t); !near(s.Since, w.now.Add(-time.Hour)) || !near(s.Changed, s.Since) {
			t.Errorf("it is %v, and status is %+v", w.now, s)
		}
		if past, err := w.History(); err != nil || len(past) != 1 || !near(past[0].When, w.now.Add(-2*time.Hour)) {
			t.Errorf("it is %v, and the history is %+v, %v", w.now, past, err)
		}
		if r := w.put(t, 82); !near(r.PickUp, w.now.Add(-2*time.Hour)) {
			t.Errorf("flows that ran before the first apply may go on since %v, it was %v", r.PickUp, began)
		}
		w.jump(-by)
		w.pass(23 * time.Hour)
		if r := w.put(t, 83); !r.PickUp.IsZero() {
			t.Errorf("a day later flows may go on since %v", r.PickUp)
		}
	})
}

// A policy that an agent took up is on trial for an hour, by whichever clock.
func TestClockJumpsInATrial(t *testing.T) {
	eachJump(t, func(t *testing.T, w *world, by time.Duration) {
		w.put(t, 80)
		before := w.rules()
		w.write(t, 81)
		if err := w.follow(t); err != nil {
			t.Fatal(err)
		}
		w.jump(by)
		w.pass(50 * time.Minute)
		id := w.confirm(t, 81)
		w.pass(2 * time.Minute)
		w.watchdog(t, id)
		if !slices.Equal(w.rules(), before) {
			t.Error("the policy that a person asked for last did not come back")
		}
	})
}

// Ended connections are kept from coming back for three hours, by whichever clock.
func TestClockJumpsWhileConnectionsStayEnded(t *testing.T) {
	eachJump(t, func(t *testing.T, w *world, by time.Duration) {
		w.put(t, 80, 81)
		w.Running = &connections{live: []recheck.Flow{dialled(81)}}
		w.put(t, 80)
		for _, c := range []struct {
			after time.Duration
			want  int
		}{{2 * time.Hour, 1}, {2 * time.Hour, 0}} {
			w.jump(by)
			w.pass(c.after)
			w.nft.held, w.nft.flows = nil, nil
			w.mend(t)
			if len(w.nft.flows) != c.want {
				t.Errorf("kept from coming back: %v, want %d", w.nft.flows, c.want)
			}
		}
	})
}

// A boot in the middle of the time, on a board whose clock begins anew: the change is taken back, once. Then the clock is set.
func TestClockJumpsAtABoot(t *testing.T) {
	eachJump(t, func(t *testing.T, w *world, by time.Duration) {
		w.put(t, 80)
		before := w.held()
		w.confirm(t, 81)
		w.reboot()
		w.jump(-by)
		if p := w.status(t).Pending; p == nil || !p.Overdue {
			t.Errorf("pending %+v", p)
		}
		r, err := w.boot(t)
		if err != nil || w.held() != before || !strings.Contains(strings.Join(r.Notices, " "), "taken back first") {
			t.Errorf("%+v, %v", r, err)
		}
		w.pass(time.Minute)
		w.jump(by)
		s := w.status(t)
		if s.Pending != nil || !near(s.Since, w.now.Add(-time.Minute)) || s.Undone == nil || !near(s.Undone.When, s.Since) {
			t.Errorf("it is %v, and status is %+v, %+v", w.now, s, s.Undone)
		}
	})
}
