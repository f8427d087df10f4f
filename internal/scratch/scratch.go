// Package scratch runs a function in a network namespace made for it: empty, with nothing but a loopback interface, and
// gone afterwards. A payload can be tried there without touching the host.
//
//	err := scratch.Run(func() error {
//		listing, err = backend.Preflight(ctx, rules)
//		return err
//	})
//
// Check tells whether a namespace may be such a one, for whatever is only meant to be tried. In runs a function in a namespace
// that is there already.
//
// Be aware: only the operating system thread that the function runs on is in that namespace. Goroutines that the
// function starts are not; programs that it starts are. The kernel takes the namespace down some time after Run is back.
package scratch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f in a new network namespace whose loopback interface is up, on a thread that is thrown away, and gives what
// f gives. It needs CAP_SYS_ADMIN.
func Run(f func() error) error { return onThread(enter, f) }

// In runs f in the network namespace that a path leads to, on a thread that is thrown away, and gives what f gives. It needs
// CAP_SYS_ADMIN.
func In(path string, f func() error) error {
	return onThread(func() error { return join(path) }, f)
}

// join moves the calling thread into a namespace.
func join(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	defer file.Close()
	switch err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("entering the network namespace %s: %w: this needs root (CAP_SYS_ADMIN)", path, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s is no network namespace", path)
	case err != nil:
		return fmt.Errorf("entering the network namespace %s: %w", path, err)
	}
	return nil
}

// onThread enters a namespace and runs f there.
func onThread(enter, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread can't be thrown away, and what it sees is what /proc/net shows to all of them.
			// While it is held here, the function gets another one.
			defer runtime.UnlockOSThread()
			done <- onThread(enter, f)
			return
		}
		// The thread is never unlocked, so it ends with this goroutine: no other code can ever run in the namespace.
		if err := enter(); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// enter moves the calling thread into a new namespace.
func enter() error {
	err := unix.Unshare(unix.CLONE_NEWNET)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("making a scratch network namespace: %w: this needs root (CAP_SYS_ADMIN), also inside a container", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("making a scratch network namespace: %w: the kernel was built without network namespaces", err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("making a scratch network namespace: %w: the limit of /proc/sys/user/max_net_namespaces is reached", err)
	case err != nil:
		return fmt.Errorf("making a scratch network namespace: %w", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("scratch network namespace: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("scratch network namespace: starting its loopback interface: %w", err)
	}
	return nil
}

// Check refuses a network namespace that leads anywhere, the calling thread's: what is tried there would be in force.
func Check() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("scratch network namespace: listing interfaces: %w", err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			return fmt.Errorf("this is no scratch network namespace, since %s is up in it: nothing was tried", i.Name)
		}
	}
	return nil
}
