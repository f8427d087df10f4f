package apply_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
)

const broken = "version: 1\ninbound:\n  - allow: htps\n"

// friendly writes a policy that fills a set from a file.
func (w *world) friendly(t *testing.T) (friends string) {
	t.Helper()
	friends = filepath.Join(w.dir, "friends.txt")
	text := "version: 1\nsets: {friends: {file: friends.txt}}\ninbound: [{allow: ssh, from: friends}]\n"
	if err := errors.Join(os.WriteFile(w.policy, []byte(text), 0o600), os.WriteFile(friends, []byte("192.0.2.1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return friends
}

// A mistake in the policy is no reason for a host to be open after its boot: the policy that was in force is.
func TestBootWithABrokenPolicy(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, w *world, friends string){
		"mistake":      func(t *testing.T, w *world, _ string) { w.overwrite(t, w.policy, broken) },
		"set file bad": func(t *testing.T, w *world, friends string) { w.overwrite(t, friends, "no address\n") },
		"set file gone": func(t *testing.T, w *world, friends string) {
			if err := os.Remove(friends); err != nil {
				t.Error(err)
			}
		},
		"policy gone": func(t *testing.T, w *world, _ string) {
			if err := os.Remove(w.policy); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				friends := w.friendly(t)
				hash := w.mustApply(t, w.options()).Hash
				before := w.held()
				spoil(t, w, friends)
				for range 2 { // and at the next boot
					_, err := w.boot(t)
					var invalid *apply.InvalidError
					if !errors.As(err, &invalid) || !strings.HasSuffix(invalid.Left, "is in force") {
						t.Errorf("got %v, %+v", err, invalid)
					}
					if w.held() != before {
						t.Errorf("the kernel holds %s", w.held())
					}
					s, err := w.Status(t.Context())
					if err != nil || s.Hash != hash || s.HasDrift() || len(s.Notices) > 0 {
						t.Errorf("status: %+v, %v", s, err)
					}
					if r, err := w.Store.Record(w.state(t).Current); err != nil || r.Boot != w.Boot {
						t.Errorf("%+v, %v: it is not recorded as in force since this boot", r, err)
					}
				}
				w.nft.held = nil
				if _, err := w.Apply(t.Context(), w.options()); err == nil || w.nft.held != nil {
					t.Errorf("somebody took the rules out since, and applies by hand: %v, %s", err, w.held())
				}
			})
		})
	}
}

func (w *world) overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a person took out doesn't come back that way.
func TestBootWithABrokenPolicyAfterAStop(t *testing.T) {
	inNamespace(t, func(w *world) {
		w.put(t, 80)
		if _, err := w.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		w.overwrite(t, w.policy, broken)
		var invalid *apply.InvalidError
		if _, err := w.boot(t); !errors.As(err, &invalid) || w.nft.held != nil {
			t.Errorf("%v, %s", err, w.held())
		}
	})
}

// stranger is somebody who came in while nothing was in force.
func stranger() guard.Way {
	return guard.Way{Kind: guard.Session, Proto: 6, PID: 7, Process: "sshd", Interfaces: []string{"eth0"},
		Local: netip.MustParseAddrPort("203.0.113.1:9000"), Peer: netip.MustParseAddrPort("198.51.100.9:40000")}
}

// told is what a person reads of an error.
func told(err error) string {
	text := err.Error()
	var invalid *apply.InvalidError
	var noted *apply.NotedError
	if errors.As(err, &invalid) {
		text += invalid.Left
	}
	if errors.As(err, &noted) {
		text += strings.Join(noted.Notices, "; ")
	}
	return text
}

// What was in force before a boot is so after it, whoever came in meanwhile and whatever the file holds by now: nobody can keep
// the host open. Another policy is guarded.
func TestBootIsNotKeptOpen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, w *world, friends string)
		fails  bool
	}{
		"the same policy": {func(*testing.T, *world, string) {}, false},
		"with a mistake":  {func(t *testing.T, w *world, _ string) { w.overwrite(t, w.policy, broken) }, true},
		"a set file is gone": {func(t *testing.T, _ *world, friends string) {
			if err := os.Remove(friends); err != nil {
				t.Fatal(err)
			}
		}, true},
		"another policy": {func(t *testing.T, w *world, _ string) { w.write(t, 81) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				friends := w.friendly(t)
				w.mustApply(t, w.options())
				before := w.held()
				c.change(t, w, friends)
				w.ways = []guard.Way{stranger()}
				_, err := w.boot(t)
				if w.held() != before || (err != nil) != c.fails {
					t.Errorf("%v, %s", err, w.held())
				}
				if c.fails && !strings.Contains(told(err), "which was in force before, is in force") {
					t.Errorf("%q doesn't tell what is in force", told(err))
				}
			})
		})
	}
}

// A rejected policy stays out also where the one that was kept can't be read any more.
func TestBootAfterAPolicyWasTakenBackAndItsBaseIsUnreadable(t *testing.T) {
	inNamespace(t, func(w *world) {
		friends := w.friendly(t)
		w.mustApply(t, w.options())
		before := w.held()
		w.confirm(t, 81)
		if err := os.Remove(friends); err != nil {
			t.Fatal(err)
		}
		if _, err := w.boot(t); err != nil || w.held() != before {
			t.Errorf("%v, %s", err, w.held())
		}
		o := w.options()
		o.Boot = true
		if _, err := w.Apply(t.Context(), o); err != nil || w.held() != before {
			t.Errorf("a restart of the unit: %v, %s", err, w.held())
		}
		w.nft.held.Rules = w.nft.held.Rules[1:]
		var failed *apply.FailedError
		if _, err := w.Apply(t.Context(), o); !errors.As(err, &failed) || !strings.Contains(failed.Left, "what is in force stays") {
			t.Errorf("where something else is in force: %v", err)
		}
	})
}
