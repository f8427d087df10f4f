package ipt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
)

// ownLock gives the programs of this test a lock file of their own, and a function that holds it, as another program
// would, for a time.
func ownLock(t *testing.T) (hold func(time.Duration)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", path)
	return func(d time.Duration) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(d, func() { f.Close() })
	}
}

// Trap 19: somebody holds the lock of iptables-legacy longer than is waited for: that is said, and nothing has changed.
func TestLockHeldForLong(t *testing.T) {
	hold := ownLock(t)
	each(t, func(t *testing.T, b *Backend) {
		b.wait = time.Second
		old, next := setPolicy(10), setPolicy(20)
		for _, inForceBefore := range []bool{false, true} {
			if inForceBefore {
				commit(t, b, old)
			}
			before, setsBefore := read(t, b), sets(t)
			hold(2500 * time.Millisecond)
			start := time.Now()
			err := b.Commit(context.Background(), next)
			took := time.Since(start)
			if b.variant == NFT { // which needs no lock
				if err != nil || took > 2*time.Second {
					t.Errorf("took %s: %v", took, err)
				}
				remove(t, b)
				continue
			}
			if !errors.Is(err, kernel.ErrLocked) || !strings.Contains(err.Error(), "waited 1s for the lock") ||
				!strings.Contains(err.Error(), "nothing was changed") {
				t.Errorf("got %v", err)
			}
			if took < time.Second {
				t.Errorf("waited %s only", took)
			}
			unchanged(t, b, before, setsBefore)
			time.Sleep(time.Until(start.Add(2500 * time.Millisecond)))
		}
	})
}

// Trap 19: the lock is let go of in time.
func TestLockHeldForAMoment(t *testing.T) {
	hold := ownLock(t)
	each(t, func(t *testing.T, b *Backend) {
		want := planned(t, b, setPolicy(10))
		hold(700 * time.Millisecond)
		start := time.Now()
		commit(t, b, setPolicy(10))
		if took := time.Since(start); b.variant == Legacy && took < 500*time.Millisecond {
			t.Errorf("took %s: the lock was not waited for", took)
		}
		inForce(t, b, want)
	})
}

// A lock that is held says nothing about the kernel.
func TestProbeWithoutTheLock(t *testing.T) {
	hold := ownLock(t)
	each(t, func(t *testing.T, b *Backend) {
		b.wait = time.Second
		hold(1500 * time.Millisecond)
		err := b.Probe(context.Background())
		if b.variant == Legacy && (!errors.Is(err, kernel.ErrLocked) || strings.Contains(err.Error(), "kernel can't")) {
			t.Errorf("got %v", err)
		}
	})
}
