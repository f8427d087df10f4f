package apply_test

import (
	"maps"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/kernel"
)

func (w *world) status(t *testing.T) *apply.Status {
	t.Helper()
	s, err := w.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestInForceSince: a policy is in force from when it came, not from when its rules were changed last.
func TestInForceSince(t *testing.T) {
	inNamespace(t, func(w *world) {
		expect := func(what string, since, changed time.Time) {
			t.Helper()
			if s := w.status(t); !s.Since.Equal(since) || !s.Changed.Equal(changed) {
				t.Errorf("%s: since %v, changed %v, want %v and %v", what, s.Since, s.Changed, since, changed)
			}
		}
		w.put(t, 80)
		first := w.now
		expect("applied", first, first)
		w.pass(time.Hour)
		w.nft.held = nil
		w.mustApply(t, w.options())
		again := w.now
		expect("applied again, for another host", first, again)
		w.pass(time.Hour)
		id := w.confirm(t, 80, 443)
		expect("another policy", w.now, w.now)
		w.pass(time.Minute)
		w.watchdog(t, id)
		expect("the one before, which came back", w.now, w.now)
		w.pass(time.Hour)
		w.put(t, 80, 8080)
		w.reboot()
		w.pass(time.Hour)
		w.mustApply(t, w.options())
		expect("after a boot", w.now, w.now)
	})
}

// TestCountersSayWhatTheirLinesDo as the policy in force has it, whatever its file holds by now.
func TestCountersSayWhatTheirLinesDo(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80, 81)
		w.nft.bend = func(l *kernel.Listing) {
			l.Counters = map[string]kernel.PacketCount{"policy.yaml:3": {Packets: 2}, "default": {Packets: 1}, "gone.yaml:1": {}}
		}
		w.write(t, 443)
		want := map[string]string{"policy.yaml:3": "allow", "default": "deny", "gone.yaml:1": ""}
		w.verbs(t, want)
	})
}

// verbs sees what the lines that count are said to do.
func (w *world) verbs(t *testing.T, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, c := range w.status(t).Counters {
		got[c.Line] = c.Verb
	}
	if !maps.Equal(got, want) {
		t.Errorf("lines are said to do %q, want %q", got, want)
	}
}
