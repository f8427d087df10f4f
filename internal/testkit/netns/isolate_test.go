package netns_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

// However this program was started, none of its threads is in the network namespace of whoever started it.
func TestIsolate(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("as yourself there is nothing to isolate from: no namespace can be made")
	}
	outside := readlink(t, fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	done := make(chan string)
	go func() { // on whatever thread
		runtime.LockOSThread()
		here, _ := os.Readlink("/proc/thread-self/ns/net")
		done <- here
	}()
	for _, here := range []string{<-done, readlink(t, "/proc/self/ns/net")} {
		if here == outside || here == "" {
			t.Errorf("a thread of the tests is in the namespace %q, and %q is that of the program that started them", here, outside)
		}
	}
}

func readlink(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}
