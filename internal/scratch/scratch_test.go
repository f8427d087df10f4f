package scratch_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/scratch"
)

func namespace(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func run(t *testing.T, f func() error) error {
	t.Helper()
	err := scratch.Run(f)
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("not root: ", err)
	}
	return err
}

func TestRunIsElsewhere(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	outside := namespace(t)
	var inside string
	var names []string
	err := run(t, func() error {
		inside = namespace(t)
		links, err := net.Interfaces()
		for _, l := range links {
			if l.Flags&net.FlagUp != 0 {
				names = append(names, l.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if inside == outside || inside == "" {
		t.Errorf("ran in %q, outside is %q", inside, outside)
	}
	if len(names) != 1 || names[0] != "lo" {
		t.Errorf("interfaces that are up: %v, want lo alone", names)
	}
	if now := namespace(t); now != outside {
		t.Errorf("the caller was left in %s, was in %s", now, outside)
	}
}

func TestRunGivesTheError(t *testing.T) {
	want := errors.New("refused")
	if err := run(t, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// onFirstThread tells whether Run, called on the first thread of the process, ran its function there.
var onFirstThread bool

// TestMain is where the first thread is at hand.
func TestMain(m *testing.M) {
	_ = scratch.Run(func() error { // without the right to make namespaces nothing is run
		onFirstThread = unix.Gettid() == unix.Getpid()
		return nil
	})
	os.Exit(m.Run())
}

// What the first thread of a process sees is what /proc/net shows, and that thread can't be thrown away.
func TestFirstThreadStays(t *testing.T) {
	if onFirstThread {
		t.Error("the first thread was taken")
	}
}

func TestThreadsAreThrownAway(t *testing.T) {
	outside := namespace(t)
	for range 50 {
		if err := run(t, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		got := make(chan string)
		go func() { link, _ := os.Readlink("/proc/thread-self/ns/net"); got <- link }()
		if link := <-got; link != outside {
			t.Fatalf("a goroutine ran in %s, want %s", link, outside)
		}
	}
}
