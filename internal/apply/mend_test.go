package apply_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
)

func (w *world) mend(t *testing.T) *apply.Mended {
	t.Helper()
	m, err := w.Mend(t.Context(), 0, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMend: what is recorded is put back, whatever the policy file holds by now, and once.
func TestMend(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	want := w.rules()
	w.write(t, 443)
	for name, damage := range map[string]func(){
		"flushed":     func() { w.nft.held = nil },
		"one lost":    func() { w.nft.held.Rules = w.nft.held.Rules[1:] },
		"one more":    func() { w.nft.held.Rules = append(w.nft.held.Rules, "accept") },
		"reordered":   func() { slices.Reverse(w.nft.held.Rules) },
		"set changed": func() { clear(w.nft.held.Sets) },
	} {
		damage()
		w.nft.log = nil
		if m := w.mend(t); !m.Changed {
			t.Errorf("%s: nothing was mended", name)
		}
		if m := w.mend(t); m.Changed || !slices.Equal(w.nft.log, []string{"commit"}) {
			t.Errorf("%s: the second time %+v, and in all %q", name, m, w.nft.log)
		}
		if !slices.Equal(w.rules(), want) {
			t.Errorf("%s: other rules came back", name)
		}
	}
}

// TestMendNothing: what a person took out, and what was in force before the boot, does not come back.
func TestMendNothing(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"never applied", func() {}},
		{"stopped", func() {
			w.put(t, 80)
			if _, err := w.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"booted", func() { w.put(t, 80); w.reboot() }},
	} {
		step.do()
		if m := w.mend(t); m.Changed || w.nft.held != nil {
			t.Errorf("%s: mended %+v", step.name, m)
		}
	}
}

// TestMendTakesBack: the time for a confirmation is over, and the process that should have taken the change back is dead.
func TestMendTakesBack(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	before := w.rules()
	w.write(t, 443)
	o := w.options()
	o.Confirm = time.Minute
	w.mustApply(t, o)
	w.dead = true
	w.pass(2 * time.Minute)
	m := w.mend(t)
	if !slices.Equal(w.rules(), before) || !strings.Contains(strings.Join(m.Notices, "\n"), "taken back") {
		t.Errorf("the change was not taken back: %+v", m)
	}
}

// TestMendWhileSomebodyFlushes: rules that go again as soon as they are back are put back once more. After some times
// it is said who has the last word, and not that nothing was changed.
func TestMendWhileSomebodyFlushes(t *testing.T) {
	for _, times := range []int{1, 2, 100} {
		w := newWorld(t)
		w.put(t, 80)
		want := w.rules()
		w.nft.held, w.nft.log = nil, nil
		left := times
		w.nft.after = func(op string) {
			if op == "commit" && left > 0 {
				left--
				w.nft.held = nil
			}
		}
		m, err := w.Mend(t.Context(), 0, func() {})
		if times < 100 {
			if err != nil || !m.Changed || !slices.Equal(w.rules(), want) {
				t.Errorf("flushed %d times in between: %+v, %v", times, m, err)
			}
			continue
		}
		var failed *apply.FailedError
		if !errors.As(err, &failed) || !strings.Contains(failed.Left, "they were put back, and") || len(w.nft.log) != 3 {
			t.Errorf("flushed again and again: %v, commits %q", err, w.nft.log)
		}
	}
}

func TestMendFails(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	w.nft.held = nil
	w.nft.fail["commit"] = errors.New("no space in the kernel")
	var failed *apply.FailedError
	if _, err := w.Mend(t.Context(), 0, func() {}); !errors.As(err, &failed) || !strings.Contains(err.Error(), "no space in the kernel") ||
		failed.Left != "nothing was changed" {
		t.Errorf("got %v", err)
	}
}

// follow does what an agent does when the policy's files were changed.
func (w *world) follow(t *testing.T) error {
	t.Helper()
	o := w.options()
	o.Follow, o.Over = true, w.state(t).Current
	_, err := w.Apply(t.Context(), o)
	return err
}

// TestFollow: a policy that is in force, with a way in that it cuts by a person's will, can be followed, another one not.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	cut := session()
	cut.Local = netip.MustParseAddrPort("203.0.113.1:9999")
	w.ways = []guard.Way{cut}
	o := w.options()
	o.Follow, o.Over = true, w.state(t).Current
	w.nft.held.Rules = w.nft.held.Rules[1:]
	if r, err := w.Apply(t.Context(), o); err != nil || !r.Changed {
		t.Errorf("following the policy in force: %v", err)
	}
	o.Over = w.state(t).Current
	w.write(t, 443)
	var refused *apply.RefusedError
	if _, err := w.Apply(t.Context(), o); !errors.As(err, &refused) {
		t.Errorf("following to another policy: %v, want it refused", err)
	}
	w.ways = nil
	if _, err := w.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Apply(t.Context(), o); !errors.Is(err, apply.ErrOvertaken) || w.nft.held != nil {
		t.Errorf("following after a stop: %v, want ErrOvertaken", err)
	}
}

// TestFollowEmptied: trap 2: a set file that a failed generator emptied is not followed, and a person's apply takes it. After a
// boot there is nothing better.
func TestFollowEmptied(t *testing.T) {
	w := newWorld(t)
	list := filepath.Join(w.dir, "banned.txt")
	fill := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t)
	text := "version: 1\nsets: {banned: {file: " + list + "}}\ninbound: [{deny: any, from: banned}, {allow: ssh}]\n"
	if err := os.WriteFile(w.policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fill("192.0.2.1\n192.0.2.2\n192.0.2.3\n")
	w.mustApply(t, w.options())
	follow := func() error { return w.follow(t) }
	fill("192.0.2.1\n")
	if err := follow(); err != nil {
		t.Errorf("a shorter list: %v", err)
	}
	before := w.rules()
	fill("# nobody\n")
	var emptied *apply.EmptiedError
	if err := follow(); !errors.As(err, &emptied) || !slices.Equal(emptied.Sets, []string{"banned (it had 1)"}) {
		t.Errorf("an empty list: %v", err)
	}
	if !slices.Equal(w.rules(), before) {
		t.Error("an empty list was put in force")
	}
	w.mustApply(t, w.options())
	if err := follow(); err != nil {
		t.Errorf("a list that a person emptied: %v", err)
	}
	fill("192.0.2.1\n")
	w.mustApply(t, w.options())
	fill("")
	w.reboot()
	if err := follow(); err != nil {
		t.Errorf("an empty list after a boot: %v", err)
	}
}

// TestFollowKept: the record is damaged, and the policy file holds something else: what is put in force is what was, by a
// record that somebody remembers.
func TestFollowKept(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	want := w.rules()
	state := w.state(t)
	record, err := w.Store.Record(state.Current)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, 443)
	if err := os.WriteFile(filepath.Join(w.Store.Dir(), "records", state.Current), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.nft.held = nil
	cut := session()
	cut.Local = netip.MustParseAddrPort("203.0.113.1:9999")
	w.ways = []guard.Way{cut} // it was in force: it is not asked again
	o := w.options()
	o.Follow, o.Over, o.Kept = true, state.Current, record
	r := w.mustApply(t, o)
	if after := w.state(t); r.Hash != record.Hash || !slices.Equal(w.rules(), want) || after.TakenUp != nil {
		t.Errorf("hash %s, want %s; state %+v", r.Hash, record.Hash, after)
	}
	if again, err := w.Store.Record(w.state(t).Current); err != nil || again.Hash != record.Hash || again.File != w.policy {
		t.Errorf("recorded %+v, %v", again, err)
	}
}
