package changes_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/changes"
)

// patience is how long an event may take on a busy machine.
const patience = 10 * time.Second

// watching runs f in a namespace, beside the test.
func watching[T any](t *testing.T, ns *netns.NS, f func(ctx context.Context, each func(T)) error) <-chan T {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	seen, ended := make(chan T, 1000), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		defer close(ended)
		ns.Do(t, func() {
			if err := f(ctx, func(v T) { seen <- v }); ctx.Err() == nil {
				t.Errorf("watching ended: %v", err)
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return seen
}

// next waits for an event that fits.
func next[T any](t *testing.T, seen <-chan T, what string, fits func(T) bool) T {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case v := <-seen:
			if fits(v) {
				return v
			}
		case <-deadline:
			t.Fatalf("%s: nothing was heard", what)
		}
	}
}

func silent[T any](t *testing.T, seen <-chan T, what string) {
	t.Helper()
	select {
	case v := <-seen:
		t.Errorf("%s: heard %+v", what, v)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestLinks(t *testing.T) {
	ns := netns.New(t)
	seen := watching(t, ns, func(ctx context.Context, each func(bool)) error {
		return changes.Links(ctx, func() { each(true) })
	})
	always := func(bool) bool { return true }
	next(t, seen, "the beginning", always)
	for _, line := range []string{"link add br0 type bridge", "addr add 192.0.2.1/24 dev br0", "addr add 2001:db8::1/64 dev br0", "link del br0"} {
		for len(seen) > 0 {
			<-seen
		}
		ns.Output(t, "ip", strings.Fields(line)...)
		next(t, seen, line, always)
	}
}

func TestRules(t *testing.T) {
	ns := netns.New(t)
	seen := watching(t, ns, changes.Rules)
	next(t, seen, "the beginning", func(c changes.Change) bool { return c.Own && c.Tables })
	ns.Output(t, "nft", "add table inet other")
	silent(t, seen, "a table of somebody else's")
	ns.Output(t, "nft", "add table inet quaywall")
	c := next(t, seen, "quaywall's table", func(c changes.Change) bool { return c.Own })
	if c.Tables || !strings.HasPrefix(c.By, "nft (process ") {
		t.Errorf("quaywall's table: %+v", c)
	}
	ns.Output(t, "iptables-nft", "-t", "nat", "-N", "DOCKER")
	if c := next(t, seen, "iptables", func(c changes.Change) bool { return c.Tables }); c.Own || c.Taken {
		t.Errorf("iptables: %+v", c)
	}
	for _, step := range []struct {
		args  string
		taken bool
	}{
		{"-t nat -A DOCKER -j RETURN", false}, {"-t nat -F DOCKER", true}, {"-t nat -X DOCKER", true},
		{"-N QUAYWALL-rejected", false}, {"-A QUAYWALL-rejected -j DROP", false}, {"-F QUAYWALL-rejected", false}, {"-X QUAYWALL-rejected", false},
		{"-t mangle -A PREROUTING -j ACCEPT", false}, {"-t mangle -F", false},
	} {
		for len(seen) > 0 {
			<-seen
		}
		ns.Output(t, "iptables-nft", strings.Fields(step.args)...)
		if c := next(t, seen, step.args, func(c changes.Change) bool { return c.Tables }); c.Taken != step.taken {
			t.Errorf("%s: %+v", step.args, c)
		}
	}
	for len(seen) > 0 {
		<-seen
	}
	ns.Output(t, "nft", "flush ruleset")
	if c := next(t, seen, "a flush", func(c changes.Change) bool { return c.Own }); !c.Tables || !c.Taken {
		t.Errorf("a flush: %+v", c)
	}
}

// TestOwnChanges: this process is no somebody else, whichever of its threads changes rules.
func TestOwnChanges(t *testing.T) {
	ns := netns.New(t)
	seen := watching(t, ns, changes.Rules)
	next(t, seen, "the beginning", func(c changes.Change) bool { return c.Own && c.Tables })
	laterThread(func() {
		ns.Do(t, func() {
			conn, err := nftables.New()
			if err == nil {
				conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "quaywall"})
				err = conn.Flush()
			}
			if err != nil {
				t.Error(err)
			}
		})
	})
	if c := next(t, seen, "quaywall's table", func(c changes.Change) bool { return c.Own }); c.By != "" {
		t.Errorf("this process's own change: %+v", c)
	}
}

// laterThread runs f on another thread than the first, whose number is the process's.
func laterThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() == os.Getpid() {
			laterThread(f)
			return
		}
		f()
	}()
	<-done
}

// TestLegacy: rules are changed by the programs, which lock the file, and by one that locks another.
func TestLegacy(t *testing.T) {
	ns := netns.New(t)
	lock := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	seen := watching(t, ns, func(ctx context.Context, each func(bool)) error {
		return changes.Legacy(ctx, lock, func() { each(true) })
	})
	always := func(bool) bool { return true }
	next(t, seen, "the beginning", always)
	if _, err := os.Stat(lock); err == nil {
		t.Error("without legacy tables the lock file was made")
	}
	ns.Output(t, "iptables-legacy", "-t", "mangle", "-N", "QUAYWALL-gate")
	next(t, seen, "the first table", always) // at the next glance
	time.Sleep(300 * time.Millisecond)
	for len(seen) > 0 {
		<-seen
	}
	begun := time.Now()
	ns.Output(t, "iptables-legacy", "-t", "mangle", "-A", "PREROUTING", "-j", "QUAYWALL-gate")
	next(t, seen, "a rule", always)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("a rule was noticed after %v: the lock file is not watched", took)
	}
	time.Sleep(300 * time.Millisecond)
	for len(seen) > 0 {
		<-seen
	}
	ns.Output(t, "iptables-legacy-save", "-t", "mangle")
	silent(t, seen, "somebody who only reads")
	t.Setenv("XTABLES_LOCKFILE", lock+".other")
	ns.Output(t, "iptables-legacy", "-t", "mangle", "-F")
	next(t, seen, "a flush that locks another file", always)
}
