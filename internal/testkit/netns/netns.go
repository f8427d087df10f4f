// Package netns gives tests network namespaces of their own, joined by veth pairs, so that a test can change rules,
// addresses and sysctls without the host noticing.
//
//	host, client := netns.New(t), netns.New(t)
//	netns.Veth(t, host, "eth0", client, "eth0")
//	host.Addr(t, "eth0", "192.0.2.1/24", "2001:db8::1/64")
//	client.Addr(t, "eth0", "192.0.2.2/24", "2001:db8::2/64")
//	host.Do(t, func() { … net.Listen, netlink, sysexec.Run … })
//
// A test that has no right to make namespaces is skipped with a sentence, and fails where CI=true.
//
// Be aware: only the operating system thread of Do's function is inside. Goroutines that it starts are not; sockets made
// inside stay inside, whoever uses them. Programs started by the function are inside. Namespaces are gone when the test is
// over and nothing uses them any more. Mounts and /proc are those of the host; /proc/sys/net and /proc/thread-self/net
// follow the thread, /proc/self/net doesn't.
package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/scratch"
	"quaywall/internal/sysexec"
)

// home is the namespace that the test program was started in, never written again. It has to be noted before any test
// runs: afterwards even the program's first thread may be elsewhere.
var home = identity("/proc/self/ns/net")

// current is the namespace of the calling thread.
const current = "/proc/thread-self/ns/net"

// identity tells namespaces apart: device and inode.
func identity(path string) [2]uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return [2]uint64{}
	}
	return [2]uint64{uint64(st.Dev), st.Ino}
}

// Guard is an error where the calling thread is in the namespace that the test program was started in or in the one of
// process 1. Code of tests that changes rules outside of Do asks it first.
func Guard() error {
	here := identity(current)
	switch here {
	case [2]uint64{}:
		return errors.New("netns: can't tell which network namespace this is: /proc/thread-self/ns/net can't be read")
	case home:
		return errors.New("netns: this is the network namespace that the tests were started in: refusing to change it")
	case identity("/proc/1/ns/net"):
		return errors.New("netns: this is the network namespace of process 1: refusing to change it")
	}
	return nil
}

// NS is a network namespace of a test.
type NS struct{ file *os.File }

// New makes a namespace with its loopback interface up. IPv6 addresses are usable at once, without waiting for duplicate
// address detection.
func New(t testing.TB) *NS {
	t.Helper()
	n := &NS{}
	err := scratch.Run(func() (err error) {
		if err := Guard(); err != nil {
			return err
		}
		n.file, err = os.Open(current)
		return errors.Join(err, noDAD())
	})
	if errors.Is(err, unix.EPERM) {
		Missing(t, "making network namespaces needs root: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.file.Close() })
	if os.Getenv(isolated) == "" {
		t.Fatal("netns: the TestMain of this package has to call Isolate: what a test changes by mistake would be the machine's")
	}
	return n
}

// noDAD turns duplicate address detection off for the interfaces to come. A kernel without IPv6 has none.
func noDAD() error {
	for _, which := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Run runs f in a namespace of its own.
func Run(t testing.TB, f func()) {
	t.Helper()
	New(t).Do(t, f)
}

// Do runs f inside the namespace, on the calling goroutine: f may use t.Fatal. Calls may be nested.
func (n *NS) Do(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	before, err := os.Open(current)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal("netns: entering: ", err)
	}
	defer func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			// The thread stays locked and ends with its goroutine, so that nothing else can run in the wrong place.
			t.Error("netns: leaving: ", err)
			return
		}
		runtime.UnlockOSThread()
	}()
	if err := Guard(); err != nil {
		t.Fatal(err)
	}
	f()
}

// Path is a name for the namespace that other programs can open as long as this one lives (nsenter --net=PATH).
func (n *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Fd is the namespace's file descriptor, for libraries that enter namespaces themselves.
func (n *NS) Fd() int { return int(n.file.Fd()) }

// Output runs a program inside, to its end, and gives what it printed. A program that fails fails the test.
func (n *NS) Output(t testing.TB, program string, args ...string) string {
	t.Helper()
	return n.Feed(t, "", program, args...)
}

// Feed is Output for a program that reads.
func (n *NS) Feed(t testing.TB, input, program string, args ...string) string {
	t.Helper()
	Tool(t, program)
	var out []byte
	var err error
	n.Do(t, func() {
		out, err = sysexec.Run(context.Background(), sysexec.Command{Path: program, Args: args, Stdin: strings.NewReader(input)})
	})
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Sysctl sets a variable such as "net.ipv4.ip_forward". For names with dots in them write slashes throughout.
func (n *NS) Sysctl(t testing.TB, name, value string) {
	t.Helper()
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	if !strings.HasPrefix(name, "net/") {
		t.Fatalf("netns: sysctl %s does not belong to a network namespace", name)
	}
	n.Do(t, func() {
		if err := os.WriteFile(filepath.Join("/proc/sys", filepath.Clean("/"+name)), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// Tool demands a program: where it isn't installed the test is skipped, and fails where CI=true.
func Tool(t testing.TB, name string) {
	t.Helper()
	if _, err := sysexec.Look(name); err != nil {
		Missing(t, "this test needs the program "+name+": "+err.Error())
	}
}

// Missing ends a test that lacks something: skipped for a person, failed where CI=true.
func Missing(t testing.TB, sentence string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(sentence)
	}
	t.Skip(sentence)
}
