package netns

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"quaywall/internal/scratch"
)

// isolated marks a test program that Isolate has begun anew, and the programs that it starts.
const isolated = "QUAYWALL_TEST_ISOLATED"

// Isolate begins the test program anew in a network namespace of its own, once, before any test runs. A test whose code
// runs on another thread than it thinks (a goroutine, a t.Run inside of Run) then changes the rules of a namespace that
// nobody misses, and never the machine's, however the program was started. New refuses to work without it:
//
//	func TestMain(m *testing.M) {
//		netns.Isolate()
//		os.Exit(m.Run())
//	}
//
// Without the right to make namespaces there is nothing that tests could change, and the program goes on as it is.
func Isolate() {
	if os.Getenv(isolated) != "" {
		return
	}
	err := scratch.Run(func() error {
		return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), isolated+"=1"))
	})
	if !errors.Is(err, unix.EPERM) {
		fmt.Fprintln(os.Stderr, "netns: giving the tests a network namespace of their own:", err)
		os.Exit(1)
	}
}
