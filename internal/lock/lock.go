// Package lock lets one quaywall at a time change a host.
//
//	l, err := lock.Take(ctx, "/run/quaywall", 30*time.Second)
//	if err != nil { … }       // a *lock.BusyError says who holds it
//	defer l.Release()
//
// The lock is an abstract Unix socket, which belongs to the network namespace: two processes with different run
// directories exclude each other all the same. A locked file in the run directory goes with it: it says who holds the
// lock, and keeps processes of different network namespaces that share a directory apart. The kernel frees both when
// the process ends, however it ends. Where the run directory can't be written, being full or read-only, the file is locked
// as it is, and where there is none the socket alone is the lock: stopping must work then too.
//
// Be aware: the name of an abstract socket can be taken by any local user. A holder that is neither root nor the caller
// is no quaywall that could change anything: then the file alone decides, and Lock.Squatter tells.
package lock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketName is the abstract socket; "@" stands for the zero byte.
const socketName = "@quaywall"

// fileName is the file in the run directory.
const fileName = "lock"

// pause is the time between two tries.
const pause = 50 * time.Millisecond

// Holder is who holds the lock, as far as it can be told.
type Holder struct {
	PID     int       `json:"pid"` // 0 for a process of another PID namespace
	Command string    `json:"command"`
	Since   time.Time `json:"since,omitzero"` // zero where its run directory is another one
	uid     uint32
}

func (h Holder) String() string {
	text := "a process that can't be seen from here"
	if h.PID != 0 {
		text = fmt.Sprintf("process %d", h.PID)
	}
	if h.Command != "" {
		text += " (" + h.Command + ")"
	}
	if !h.Since.IsZero() {
		text += " since " + h.Since.Format(time.RFC3339)
	}
	return text
}

// BusyError says that somebody else held the lock for as long as was waited.
type BusyError struct {
	Holder Holder
	Waited time.Duration
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("another quaywall is changing this host: %v holds the lock; waited %v: "+
		"try again when it is done, or wait longer", e.Holder, e.Waited)
}

// Lock is the lock, held.
type Lock struct {
	Squatter *Holder // an unprivileged process that has taken the socket's name; nil is the rule
	socket   net.Listener
	file     *os.File
}

// Take takes the lock. It waits for it as long as wait, at least one try. runDir is made where it is missing.
func Take(ctx context.Context, runDir string, wait time.Duration) (*Lock, error) {
	file, err := openFile(runDir)
	if err != nil {
		return nil, fmt.Errorf("taking the lock: %w", err)
	}
	l := &Lock{file: file}
	deadline := time.Now().Add(wait)
	for {
		holder, err := l.try()
		if err == nil && holder == nil {
			l.sign()
			return l, nil
		}
		if err == nil && !time.Now().Before(deadline) {
			err = &BusyError{Holder: *holder, Waited: wait}
		}
		if err == nil {
			err = sleep(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, l.Release())
		}
	}
}

// openFile opens the file, nil where there is none and none can be made.
func openFile(runDir string) (*os.File, error) {
	path := filepath.Join(runDir, fileName)
	err := os.MkdirAll(runDir, 0o700)
	if err == nil {
		var file *os.File
		if file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err == nil {
			return file, nil
		}
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return nil, err
	}
	file, readErr := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(readErr, os.ErrNotExist) {
		return nil, nil
	}
	return file, readErr
}

func sleep(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting for the lock: %w", ctx.Err())
	case <-time.After(pause):
		return nil
	}
}

// try takes what is missing of the lock, or gives who holds it.
func (l *Lock) try() (*Holder, error) {
	if l.socket == nil && l.Squatter == nil {
		holder, err := l.bind()
		if holder != nil || err != nil {
			return holder, err
		}
	}
	if l.file == nil {
		return nil, l.withoutFile()
	}
	err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		h, _ := l.read()
		return &h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", l.file.Name(), err)
	}
	return nil, nil
}

// withoutFile tells whether the socket alone will do.
func (l *Lock) withoutFile() error {
	if l.Squatter != nil {
		return fmt.Errorf("taking the lock: %v has taken its name, and the run directory can't be written: end that process", l.Squatter)
	}
	return nil
}

// bind takes the socket's name.
func (l *Lock) bind() (*Holder, error) {
	socket, err := net.Listen("unix", socketName)
	if err == nil {
		l.socket = socket
		return nil, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("taking the lock %s: %w", socketName, err)
	}
	holder, ok := socketHolder()
	switch {
	case !ok: // gone between the two calls, or about to listen
		return &Holder{}, nil
	case holder.uid != 0 && int(holder.uid) != os.Geteuid():
		l.Squatter = &holder
		return nil, nil
	}
	if signed, err := l.read(); err == nil && signed.PID == holder.PID {
		holder.Since = signed.Since
	}
	return &holder, nil
}

// socketHolder asks the kernel who listens on the socket.
func socketHolder() (Holder, bool) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socketName, Net: "unix"})
	if err != nil {
		return Holder{}, false
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return Holder{}, false
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if ctlErr != nil || err != nil {
		return Holder{}, false
	}
	return Holder{PID: int(cred.Pid), Command: commandLine(int(cred.Pid)), uid: cred.Uid}, true
}

// commandLine is what a process was started as, "" where that can't be read.
func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if pid == 0 || err != nil {
		return ""
	}
	return strings.Join(strings.Split(strings.TrimRight(string(text), "\x00"), "\x00"), " ")
}

// read is who signed the file last.
func (l *Lock) read() (Holder, error) {
	if l.file == nil {
		return Holder{}, os.ErrNotExist
	}
	text, err := os.ReadFile(l.file.Name())
	if err != nil {
		return Holder{}, err
	}
	var h Holder
	err = json.Unmarshal(bytes.TrimSpace(text), &h)
	return h, err
}

// sign writes into the file who holds the lock. That it can't be written (a full disk) is no reason to do without the
// lock: the name is a help for others.
func (l *Lock) sign() {
	text, err := json.Marshal(Holder{PID: os.Getpid(), Command: strings.Join(os.Args, " "), Since: time.Now().Truncate(time.Second)})
	if err != nil || l.file == nil {
		return
	}
	if l.file.Truncate(0) == nil {
		_, _ = l.file.WriteAt(append(text, '\n'), 0)
	}
}

// Release frees the lock.
func (l *Lock) Release() error {
	var err error
	if l.socket != nil {
		err = l.socket.Close()
	}
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	return err
}
