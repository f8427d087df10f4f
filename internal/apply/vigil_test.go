package apply_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"quaywall/internal/apply"
)

// TestVigil: whoever waits with a change hears what others made of it.
func TestVigil(t *testing.T) {
	for _, c := range []struct {
		name string
		what func(t *testing.T, w *world, id string)
		want apply.Fate // Undone left out
		why  string     // of Undone
	}{
		{"nothing happens", func(_ *testing.T, w *world, _ string) { w.pass(20 * time.Second) }, apply.Fate{Waits: true, Left: 40 * time.Second}, ""},
		{"its time is over", func(_ *testing.T, w *world, _ string) { w.pass(time.Minute) }, apply.Fate{Waits: true}, ""},
		{"confirmed", func(t *testing.T, w *world, _ string) { _, err := w.Confirm(t.Context(), "", 0); noError(t, err) }, apply.Fate{Kept: true}, ""},
		{"confirmed by its ID", func(t *testing.T, w *world, id string) { _, err := w.Confirm(t.Context(), id, 0); noError(t, err) }, apply.Fate{Kept: true}, ""},
		{"another is confirmed", func(t *testing.T, w *world, _ string) {
			if _, err := w.Confirm(t.Context(), "another", 0); !errors.Is(err, apply.ErrNothingPending) {
				t.Errorf("got %v", err)
			}
		}, apply.Fate{Waits: true, Left: time.Minute}, ""},
		{"declined", func(t *testing.T, w *world, id string) { noError(t, w.Decline(t.Context(), id, 0)) }, apply.Fate{}, "it was declined"},
		{"declined too late", func(t *testing.T, w *world, id string) {
			w.pass(time.Minute)
			noError(t, w.Decline(t.Context(), id, 0))
		}, apply.Fate{}, "nobody confirmed it in time"},
		{"declined twice", func(t *testing.T, w *world, id string) {
			noError(t, w.Decline(t.Context(), id, 0))
			if err := w.Decline(t.Context(), id, 0); !errors.Is(err, apply.ErrNothingPending) {
				t.Errorf("got %v", err)
			}
		}, apply.Fate{}, "it was declined"},
		{"taken back by its process", func(t *testing.T, w *world, id string) {
			w.pass(time.Minute)
			w.watchdog(t, id)
		}, apply.Fate{}, "nobody confirmed it in time"},
		{"stopped", func(t *testing.T, w *world, _ string) { _, err := w.Stop(t.Context(), 0); noError(t, err) }, apply.Fate{Stopped: true}, ""},
		{"applied again, to be confirmed", func(t *testing.T, w *world, _ string) { w.confirm(t, 80, 443) }, apply.Fate{Overtaken: true}, ""},
		{"another policy applied", func(t *testing.T, w *world, _ string) { w.put(t, 8080) }, apply.Fate{Overtaken: true}, ""},
		{"rolled back", func(t *testing.T, w *world, _ string) {
			o := w.options()
			o.Back = 1
			w.mustApply(t, o)
		}, apply.Fate{Overtaken: true}, ""},
		{"the same policy put in force anew", func(t *testing.T, w *world, _ string) {
			w.nft.held = nil
			w.mustApply(t, w.options())
		}, apply.Fate{Waits: true, Left: time.Minute}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				w.put(t, 80)
				before := w.rules()
				w.write(t, 80, 443)
				o := w.options()
				o.Confirm = time.Minute
				r := w.mustApply(t, o)
				vigil := w.Watch(r)
				c.what(t, w, r.Pending.ID)
				got, err := vigil.Look()
				noError(t, err)
				why := ""
				if got.Undone != nil {
					why = got.Undone.Why
					if got.Undone = nil; !slices.Equal(before, w.rules()) {
						t.Error("the policy of before is not back")
					}
				}
				if got != c.want || why != c.why {
					t.Errorf("got %+v, %q, want %+v, %q", got, why, c.want, c.why)
				}
			})
		})
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
