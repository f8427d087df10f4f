package apply_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTakenUp: an agent was faster than the person who edited the policy and wants to confirm it. What the undo goes back to
// is what a person asked for last.
func TestTakenUp(t *testing.T) {
	takeUp := func(t *testing.T, w *world, ports ...int) {
		t.Helper()
		w.write(t, ports...)
		if err := w.follow(t); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, w *world)
		waits bool // apply --confirm waits for the confirmation
	}{
		{"the policy, unchanged since", func(t *testing.T, w *world) { takeUp(t, w, 443) }, true},
		{"edited often", func(t *testing.T, w *world) {
			for port := range 20 {
				takeUp(t, w, 1000+port)
				w.pass(50 * time.Minute)
			}
		}, true},
		{"edited further since", func(t *testing.T, w *world) { takeUp(t, w, 443); w.write(t, 8443) }, true},
		{"and followed as the host changed", func(t *testing.T, w *world) {
			takeUp(t, w, 443)
			w.nft.held.Rules = w.nft.held.Rules[1:]
			takeUp(t, w, 443)
		}, true},
		{"applied since", func(t *testing.T, w *world) { takeUp(t, w, 443); w.mustApply(t, w.options()) }, false},
		{"in force for long", func(t *testing.T, w *world) { takeUp(t, w, 443); w.pass(time.Hour) }, false},
		{"confirmed since", func(t *testing.T, w *world) {
			takeUp(t, w, 443)
			w.confirm(t, 443)
			if _, err := w.Confirm(t.Context(), "", 0); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				w.put(t, 80)
				base, asked := w.rules(), w.state(t).Current
				c.do(t, w)
				o := w.options()
				o.Confirm = time.Minute
				r := w.mustApply(t, o)
				if !c.waits {
					if r.Pending != nil || !strings.Contains(strings.Join(r.Notices, "; "), "nothing to confirm") {
						t.Errorf("pending %+v, notices %q", r.Pending, r.Notices)
					}
					return
				}
				s := w.state(t)
				if s.Pending == nil || s.Pending.Base != asked {
					t.Fatalf("pending %+v, want it to go back to %s; notices %q", s.Pending, asked, r.Notices)
				}
				w.pass(time.Minute)
				w.watchdog(t, s.Pending.Task)
				if s := w.state(t); !slices.Equal(w.rules(), base) || s.Current != asked || s.TakenUp != nil {
					t.Errorf("afterwards the state is %+v", s)
				}
			})
		})
	}
}

// TestSetFilesAreNotTakenUp: that a set file changed asks for nobody's confirmation.
func TestSetFilesAreNotTakenUp(t *testing.T) {
	inNamespace(t, func(w *world) {
		list := filepath.Join(w.dir, "office.txt")
		for path, text := range map[string]string{
			w.policy: "version: 1\nsets: {office: {file: " + list + "}}\ninbound: [{allow: ssh, from: office}]\n", list: "192.0.2.1\n",
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.mustApply(t, w.options())
		before := w.state(t).Current
		if err := os.WriteFile(list, []byte("192.0.2.7\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.follow(t); err != nil {
			t.Fatal(err)
		}
		if s := w.state(t); s.Current == before || s.TakenUp != nil {
			t.Errorf("the state is %+v", s)
		}
	})
}
