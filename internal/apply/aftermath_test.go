package apply_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/recheck"
	"quaywall/internal/ruleset"
)

// connections are those that run on a world.
type connections struct {
	live, ended []recheck.Flow
	begun       []recheck.Flow // since they were listed; nil where that is not known
	lists       int
}

func (c *connections) List(bool) (*apply.Running, error) {
	c.lists++
	return runs(c.live), nil
}

func runs(flows []recheck.Flow) *apply.Running {
	return &apply.Running{Flows: slices.Clone(flows), Host: recheck.Host{
		Listens: func(uint8, netip.AddrPort) bool { return true }, Ephemeral: func(uint16) bool { return false }}}
}

func (c *connections) Begun(*apply.Running) (*apply.Running, error) {
	if c.begun == nil {
		return nil, nil
	}
	return runs(c.begun), nil
}

func (c *connections) End(_ *apply.Running, denied []recheck.Flow) error {
	c.ended = append(c.ended, denied...)
	c.live = slices.DeleteFunc(c.live, func(f recheck.Flow) bool {
		return slices.ContainsFunc(denied, func(d recheck.Flow) bool { return isSame(d, f) })
	})
	return nil
}

func isSame(a, b recheck.Flow) bool { return a.ID == b.ID }

// dialled is a connection from outside to a port of the world's host.
func dialled(port uint16) recheck.Flow {
	to := recheck.Tuple{Proto: 6, Src: netip.MustParseAddrPort("198.51.100.7:50000"),
		Dst: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), port)}
	return recheck.Flow{Orig: to, Reply: to.Reversed(), ID: uint32(port)}
}

// Trap 14: what only the policy that was taken back allowed ends with it, however it is taken back, and what came in while
// rules were missing ends with the mending. What is recorded is what is in force, and nobody who is logged in is cut off.
func TestConnectionsEndWithWhatAllowedThem(t *testing.T) {
	for name, c := range map[string]struct {
		back   func(t *testing.T, w *world, task string)
		spared bool
	}{
		"taken back in time": {back: func(t *testing.T, w *world, task string) { w.pass(time.Minute); w.watchdog(t, task) }},
		"declined": {back: func(t *testing.T, w *world, _ string) {
			if err := w.Decline(t.Context(), "", 0); err != nil {
				t.Error(err)
			}
		}},
		"confirmed too late": {back: func(t *testing.T, w *world, _ string) {
			w.pass(time.Minute)
			if _, err := w.Confirm(t.Context(), "", 0); err == nil {
				t.Error("it was confirmed")
			}
		}},
		"taken back by the agent": {back: func(t *testing.T, w *world, _ string) { w.pass(time.Minute); w.mend(t) }},
		"taken back first by an apply that fails": {back: func(t *testing.T, w *world, _ string) {
			w.pass(time.Minute)
			w.overwrite(t, w.policy, broken)
			if _, err := w.Apply(t.Context(), w.options()); err == nil {
				t.Error("it did not fail")
			}
		}},
		"mended": {back: func(t *testing.T, w *world, _ string) {
			w.back(t, 1)
			w.Running.(*connections).live = []recheck.Flow{dialled(80), dialled(81)}
			w.Running.(*connections).ended = nil
			w.nft.held = nil
			if m := w.mend(t); !strings.Contains(strings.Join(m.Notices, " "), "1 live connections that the policy denies were ended") {
				t.Errorf("%q", m.Notices)
			}
		}},
		"of somebody who is logged in": {spared: true, back: func(t *testing.T, w *world, task string) {
			w.logins = []guard.Way{{Kind: guard.Session, PID: 812, Process: "sshd", Proto: 6,
				Local: dialled(81).Orig.Dst, Peer: dialled(81).Orig.Src, Interfaces: []string{"eth0"}}}
			w.pass(time.Minute)
			w.watchdog(t, task)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				running := &connections{}
				w.Running = running
				w.put(t, 80)
				task := w.confirm(t, 80, 81)
				running.live = []recheck.Flow{dialled(80), dialled(81)}
				c.back(t, w, task)
				want := []recheck.Flow{dialled(81)}
				if c.spared {
					want = nil
				}
				if !slices.EqualFunc(running.ended, want, isSame) {
					t.Errorf("ended %+v", running.ended)
				}
				if !c.spared && len(w.nft.flows) != 1 {
					t.Errorf("kept from coming back: %v", w.nft.flows)
				}
				if s, err := w.Status(t.Context()); err != nil || !s.InForce || s.HasDrift() {
					t.Errorf("status %+v, %v", s, err)
				}
			})
		})
	}
}

// A mend that finds no connection to end asks the kernel nothing but for its rules: Docker's may be waiting.
func TestMendGlancesAtConnections(t *testing.T) {
	w := newWorld(t)
	w.Running = &connections{live: []recheck.Flow{dialled(80)}}
	w.put(t, 80)
	w.nft.held = nil
	var ops []string
	w.nft.after = func(op string) { ops = append(ops, op) }
	if w.mend(t); !slices.Equal(ops, []string{"read", "commit", "read"}) {
		t.Errorf("the backend did %q", ops)
	}
}

// What began while the policy was put in force ends as what ran before; all are listed again only where it is not known what
// began.
func TestConnectionsThatBeginMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		begun []recheck.Flow
		lists int
		ended []recheck.Flow
	}{
		"a denied one":  {[]recheck.Flow{dialled(81), dialled(80)}, 1, []recheck.Flow{dialled(82), dialled(81)}},
		"none":          {[]recheck.Flow{}, 1, []recheck.Flow{dialled(82)}},
		"not known":     {nil, 2, []recheck.Flow{dialled(82)}},
		"one heard too": {[]recheck.Flow{dialled(82)}, 1, []recheck.Flow{dialled(82), dialled(82)}},
	} {
		w := newWorld(t)
		running := &connections{live: []recheck.Flow{dialled(80), dialled(82)}, begun: c.begun}
		w.Running = running
		w.put(t, 80)
		if running.lists != c.lists || !slices.EqualFunc(running.ended, c.ended, isSame) {
			t.Errorf("%s: listed %d times, ended %+v", name, running.lists, running.ended)
		}
		for _, f := range c.ended {
			kept := func(o ruleset.Flow) bool { return o.Server == f.Orig.Dst }
			if !slices.ContainsFunc(w.nft.flows, kept) {
				t.Errorf("%s: %v may come back: %v", name, f.Orig.Dst, w.nft.flows)
			}
		}
	}
}

// An apply takes an overdue change back first; what it puts in force itself decides which connections end.
func TestConnectionsGoOnThatTheNextPolicyAllows(t *testing.T) {
	inNamespace(t, func(w *world) {
		running := &connections{}
		w.Running = running
		w.put(t, 80)
		w.confirm(t, 80, 81)
		running.live = []recheck.Flow{dialled(81)}
		w.pass(time.Minute)
		w.mustApply(t, w.options())
		if len(running.ended) > 0 {
			t.Errorf("ended %+v", running.ended)
		}
	})
}

// Without Docker's answer connections end, and the rules stay as they were recorded.
func TestConnectionsEndWithoutDocker(t *testing.T) {
	inNamespace(t, func(w *world) {
		running := &connections{live: []recheck.Flow{dialled(81)}}
		w.put(t, 80)
		w.Running = running
		before := w.rules()
		w.nft.held = nil
		w.Inventory = func(context.Context) (*inventory.Inventory, error) {
			inv := hostInventory()
			inv.Docker.Problem = "no answer"
			return inv, nil
		}
		w.mend(t)
		if len(running.ended) != 1 || !slices.Equal(before, w.rules()) {
			t.Errorf("ended %+v, rules\n%s", running.ended, w.held())
		}
	})
}

// The same with a kernel: a stream from a server that only sends ends with the policy that let its client in, and with the
// mending of rules that were gone when it dialled.
func TestStreamsEndWithWhatAllowedThem(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		s := newStreet(t)
		h := local(t, t.TempDir())
		h.Logins = h.WaysIn
		h.Watchdog = func(string) (int, error) { return os.Getpid(), nil }
		for _, port := range []string{"7001", "7002"} {
			serve(t, s.host, "tcp", net.JoinHostPort(s.host.v4, port))
		}
		dial := func(port string) *stream { return tuneIn(t, s.client, "tcp", net.JoinHostPort(s.host.v4, port)) }
		s.host.Do(t, func() { applyText(t, h, backend, "version: 1\ninbound:\n  - allow: [ssh, 7002]\n") })
		blessed := dial("7002")
		check := func(when string, doomed *stream) {
			t.Helper()
			if !doomed.ended() {
				t.Errorf("%s the connection goes on that the policy denies", when)
			}
			if !blessed.flows() {
				t.Errorf("%s the connection ended that the policy allows", when)
			}
			s.host.Do(t, func() {
				if st, err := h.Status(t.Context()); err != nil || !st.InForce || st.HasDrift() {
					t.Errorf("%s: status %+v, %v", when, st, err)
				}
			})
		}
		file := filepath.Join(t.TempDir(), "looser.yaml")
		if err := os.WriteFile(file, []byte("version: 1\ninbound:\n  - allow: [ssh, 7001, 7002]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.host.Do(t, func() {
			o := apply.Options{Policy: file, Given: true, Backend: backend, Wait: time.Minute, Confirm: time.Hour}
			if _, err := h.Apply(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		})
		doomed := dial("7001")
		s.host.Do(t, func() {
			if err := h.Decline(t.Context(), "", time.Minute); err != nil {
				t.Error(err)
			}
		})
		check("after the change was taken back", doomed)
		s.host.Do(t, func() {
			for _, b := range h.Backends {
				if b.Name() == backend {
					if err := b.Remove(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
		doomed = dial("7001")
		s.host.Do(t, func() {
			if m, err := h.Mend(t.Context(), time.Minute, func() {}); err != nil || !m.Changed {
				t.Errorf("%+v, %v", m, err)
			}
		})
		check("after the mending", doomed)
	})
}

// What was ended stays so, whoever takes the rules away that see to it, and however the rules come back.
func TestEndedConnectionsStayEnded(t *testing.T) {
	comment := func(t *testing.T, w *world) {
		w.write(t, 80)
		text, err := os.ReadFile(w.policy)
		if err != nil {
			t.Fatal(err)
		}
		w.overwrite(t, w.policy, string(text)+"# a comment\n")
		if r := w.mustApply(t, w.options()); r.Changed {
			t.Fatal("a comment changed rules")
		}
	}
	flush := func(w *world) { w.nft.held, w.nft.flows = nil, nil }
	mends := func(t *testing.T, w *world) { flush(w); w.mend(t) }
	for name, c := range map[string]struct {
		then func(t *testing.T, w *world)
		want int
	}{
		"mended":                               {mends, 1},
		"mended twice":                         {func(t *testing.T, w *world) { mends(t, w); mends(t, w) }, 1},
		"mended after it was recorded anew":    {func(t *testing.T, w *world) { comment(t, w); mends(t, w) }, 1},
		"applied after a flush":                {func(t *testing.T, w *world) { flush(w); w.put(t, 80) }, 1},
		"applied after most was flushed":       {func(t *testing.T, w *world) { w.nft.held.Rules, w.nft.flows = w.nft.held.Rules[:1], nil; w.put(t, 80) }, 1},
		"another policy applied then":          {func(t *testing.T, w *world) { flush(w); w.put(t, 80, 82) }, 1},
		"one that allows it":                   {func(t *testing.T, w *world) { flush(w); w.put(t, 80, 81) }, 0},
		"allowed, and taken back":              {func(t *testing.T, w *world) { id := w.confirm(t, 81); w.pass(time.Minute); w.watchdog(t, id) }, 1},
		"mended when it is of no use any more": {func(t *testing.T, w *world) { w.pass(4 * time.Hour); mends(t, w) }, 0},
		"one more while nothing changed": {func(t *testing.T, w *world) {
			w.Running.(*connections).live = []recheck.Flow{dialled(83)}
			w.mustApply(t, w.options())
			mends(t, w)
		}, 2},
		"one more while the policy changed": {func(t *testing.T, w *world) {
			w.nft.after = func(op string) {
				if op == "commit" {
					w.nft.after = nil
					w.Running.(*connections).live = []recheck.Flow{dialled(83)}
				}
			}
			w.put(t, 80, 82)
			mends(t, w)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(w *world) {
				w.put(t, 80, 81)
				w.Running = &connections{live: []recheck.Flow{dialled(81)}}
				w.put(t, 80)
				if len(w.nft.flows) != 1 {
					t.Fatalf("kept from coming back: %v", w.nft.flows)
				}
				c.then(t, w)
				if len(w.nft.flows) != c.want {
					t.Errorf("kept from coming back: %v, want %d", w.nft.flows, c.want)
				}
				if s := w.status(t); !s.InForce || s.HasDrift() {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}
