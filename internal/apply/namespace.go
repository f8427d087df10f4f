package apply

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is the network namespace that a piece of work belongs to, so that goroutines can work in it as well: they
// run on threads of their own, which may be elsewhere. A nil namespace is wherever the thread is.
type namespace struct {
	file *os.File
	id   [2]uint64 // device and inode
}

const currentNamespace = "/proc/thread-self/ns/net"

// here is the network namespace of the calling thread, nil where /proc doesn't tell: then there is but one.
func here() *namespace {
	file, err := os.Open(currentNamespace)
	if err != nil {
		return nil
	}
	return &namespace{file: file, id: identity()}
}

func identity() [2]uint64 {
	var st unix.Stat_t
	if unix.Stat(currentNamespace, &st) != nil {
		return [2]uint64{}
	}
	return [2]uint64{uint64(st.Dev), st.Ino}
}

func (n *namespace) close() {
	if n != nil {
		n.file.Close()
	}
}

// apart is run on a goroutine of its own.
func (n *namespace) apart(f func() error) error {
	done := make(chan error)
	go func() { done <- n.run(f) }()
	return <-done
}

// run runs f in the namespace. It must be all that its goroutine does: a thread that had to be moved ends with it.
func (n *namespace) run(f func() error) error {
	if n == nil {
		return f()
	}
	runtime.LockOSThread()
	if identity() == n.id {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("setns", err)
	}
	return f()
}
