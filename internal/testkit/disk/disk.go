// Package disk gives tests a small disk of their own, to fill up.
//
//	disk.Run(t, 64<<10, func(dir string) { … })
//
// Be aware: the disk is mounted in a mount namespace that only the operating system thread of the function is in: not
// other goroutines, but programs that the function starts. It is gone when the function is back.
package disk

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/netns"
)

// Run runs f on a goroutine of its own, which sees a disk of so many bytes at dir. t.Fatal in f ends f alone.
func Run(t testing.TB, size int, f func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is never unlocked, so it ends with this goroutine and takes the namespace with it.
		runtime.LockOSThread()
		if err = mount(dir, size); err == nil {
			f(dir)
		}
	}()
	<-done
	if errors.Is(err, os.ErrPermission) {
		netns.Missing(t, "mounting a disk for a test needs root: "+err.Error())
	}
	if err != nil {
		t.Fatal("disk: ", err)
	}
}

// ReadOnly lets nobody write to the disk of Run any more. It is for the function that Run runs.
func ReadOnly(dir string) error {
	return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func mount(dir string, size int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	return unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
}
