package lock_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/lock"
	"quaywall/internal/testkit/disk"
	"quaywall/internal/testkit/netns"
)

// helperVar makes the test program take the lock in the directory that it names, say so and wait to be killed.
const helperVar = "QUAYWALL_TEST_LOCK_DIR"

// squatVar makes it take only the socket's name.
const squatVar = "QUAYWALL_TEST_LOCK_SQUAT"

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(helperVar) != "":
		_, err = lock.Take(context.Background(), os.Getenv(helperVar), 0)
	case os.Getenv(squatVar) != "":
		_, err = net.Listen("unix", "@quaywall")
	default:
		netns.Isolate()
		os.Exit(m.Run())
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("held\n")
	time.Sleep(time.Minute)
}

// hold starts a process that holds the lock, in the namespace of the calling thread.
func hold(t *testing.T, env string, uid uint32) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder said %q, %v", line, err)
	}
	return cmd
}

func TestSecondIsToldWhoHoldsIt(t *testing.T) {
	netns.Run(t, func() {
		dir := t.TempDir()
		cmd := hold(t, helperVar+"="+dir, 0)
		for name, c := range map[string]struct {
			runDir string
			since  bool
		}{"same run directory": {dir, true}, "another run directory": {t.TempDir(), false}} {
			_, err := lock.Take(t.Context(), c.runDir, 100*time.Millisecond)
			var busy *lock.BusyError
			if !errors.As(err, &busy) {
				t.Fatalf("%s: %v, want a BusyError", name, err)
			}
			if busy.Holder.PID != cmd.Process.Pid || !strings.Contains(busy.Holder.Command, "/proc/self/exe") ||
				busy.Holder.Since.IsZero() == c.since {
				t.Errorf("%s: holder %+v, want process %d", name, busy.Holder, cmd.Process.Pid)
			}
		}
	})
}

func TestKilledHolderFreesIt(t *testing.T) {
	netns.Run(t, func() {
		dir := t.TempDir()
		cmd := hold(t, helperVar+"="+dir, 0)
		done := make(chan struct{})
		go func() { time.Sleep(200 * time.Millisecond); cmd.Process.Kill(); close(done) }()
		l, err := lock.Take(t.Context(), dir, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		default:
			t.Error("the lock was given while it was held")
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
		again, err := lock.Take(t.Context(), dir, 0)
		if err != nil {
			t.Fatal("after the release: ", err)
		}
		again.Release()
	})
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	netns.Run(t, func() {
		dir := t.TempDir()
		hold(t, helperVar+"="+dir, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := lock.Take(ctx, dir, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// Processes of two network namespaces that share their directories would overwrite each other's records.
func TestNamespacesThatShareADirectory(t *testing.T) {
	dir := t.TempDir()
	var held *exec.Cmd
	netns.Run(t, func() { held = hold(t, helperVar+"="+dir, 0); runtime.KeepAlive(held) })
	netns.Run(t, func() {
		_, err := lock.Take(t.Context(), dir, 0)
		var busy *lock.BusyError
		if !errors.As(err, &busy) || busy.Holder.PID != held.Process.Pid {
			t.Errorf("got %v, want to be told of process %d", err, held.Process.Pid)
		}
	})
	netns.Run(t, func() {
		l, err := lock.Take(t.Context(), t.TempDir(), 0)
		if err != nil {
			t.Fatal("two namespaces with directories of their own: ", err)
		}
		l.Release()
	})
}

func TestAnOrdinaryUserCannotKeepRootOut(t *testing.T) {
	netns.Run(t, func() {
		squatter := hold(t, squatVar+"=1", 65534)
		dir := t.TempDir()
		l, err := lock.Take(t.Context(), dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		if l.Squatter == nil || l.Squatter.PID != squatter.Process.Pid {
			t.Errorf("squatter %v, want process %d", l.Squatter, squatter.Process.Pid)
		}
		if _, err := lock.Take(t.Context(), dir, 0); err == nil {
			t.Error("the file did not keep a second one out")
		}
	})
}

// A run directory that can't be written keeps nobody from stopping: a lock file that is there is locked all the same, and
// where there is none the socket alone keeps others out, unless somebody has taken its name.
func TestReadOnlyRunDirectory(t *testing.T) {
	for _, signed := range []bool{true, false} {
		disk.Run(t, 64<<10, func(dir string) {
			if signed {
				if l, err := lock.Take(t.Context(), dir, 0); err != nil || l.Release() != nil {
					t.Error(err)
				}
			}
			if err := disk.ReadOnly(dir); err != nil {
				t.Error(err)
				return
			}
			l, err := lock.Take(t.Context(), dir, 0)
			if err != nil {
				t.Errorf("lock file there: %v: %v", signed, err)
				return
			}
			var busy *lock.BusyError
			if _, err := lock.Take(t.Context(), dir, 0); !errors.As(err, &busy) {
				t.Errorf("lock file there: %v: the second: %v", signed, err)
			}
			if err := l.Release(); err != nil {
				t.Error(err)
			}
			squatter := hold(t, squatVar+"=1", 65534)
			l, err = lock.Take(t.Context(), dir, 0)
			if (err == nil) != signed {
				t.Errorf("lock file there: %v, the name taken by another: %v", signed, err)
			}
			if l != nil {
				_ = l.Release()
			}
			squatter.Process.Kill()
			squatter.Wait()
		})
	}
}

// Whatever else is wrong with the file is an error: somebody may have put a link there.
func TestLockFileThatIsALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if l, err := lock.Take(t.Context(), dir, 0); err == nil {
		t.Error("the link was followed")
		_ = l.Release()
	}
}
