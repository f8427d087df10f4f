package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mattering are the system calls by which a program changes something outside of itself, or learns that another one has.
var mattering = map[uint64]string{
	unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_WRITE: "write",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat",
	unix.SYS_LINKAT: "linkat", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FSYNC: "fsync", unix.SYS_FCHMOD: "fchmod",
	unix.SYS_FLOCK: "flock", unix.SYS_WAITID: "waitid", unix.SYS_EXECVE: "execve",
}

// killAt runs a program and kills it before the Nth of the system calls that matter, of all of its threads together. It ends
// as the program does, and where it was killed prints "killed before the Nth: NAME". Calls count from when a file is there;
// with "" they all do. Programs that it started go on.
func killAt(args []string) error {
	runtime.LockOSThread() // one thread alone may trace another
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	t := tracer{pid: cmd.Process.Pid, left: n, since: args[1], known: map[int]bool{cmd.Process.Pid: true}}
	code, err := t.run()
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	if t.killed != "" {
		fmt.Printf("killed before the %dth: %s\n", n, t.killed)
	}
	os.Exit(code)
	return nil
}

// tracer follows all threads of a process, but not its children.
type tracer struct {
	pid    int
	left   int
	since  string
	known  map[int]bool // threads that have begun
	killed string       // by which call it was stopped
}

func (t *tracer) run() (code int, err error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(t.pid, &status, unix.WALL, nil); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	err = unix.PtraceSetOptions(t.pid, options)
	thread, signal := t.pid, 0
	for err == nil {
		if err = unix.PtraceSyscall(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) { // it may have been killed
			return 0, err
		}
		if thread, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			return 0, err
		}
		for !status.Stopped() {
			if thread == t.pid {
				return exitCode(status), nil
			}
			if thread, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
				return 0, err
			}
		}
		signal, err = t.stopped(thread, status.StopSignal())
	}
	return 0, err
}

// stopped looks why a thread stopped, and gives the signal that it should go on with.
func (t *tracer) stopped(thread int, by unix.Signal) (int, error) {
	switch {
	case by == unix.SIGTRAP|0x80:
		if name := entered(thread); name != "" && t.counts() {
			if t.left--; t.left < 0 {
				t.killed = name
				return 0, unix.Kill(t.pid, unix.SIGKILL)
			}
		}
		return 0, nil
	case by == unix.SIGTRAP: // a thread was made, or the program was begun
		return 0, nil
	case by == unix.SIGSTOP && !t.known[thread]:
		t.known[thread] = true
		return 0, nil
	}
	return int(by), nil
}

func (t *tracer) counts() bool {
	if t.since == "" || t.killed != "" {
		return t.killed == ""
	}
	_, err := os.Stat(t.since)
	return err == nil
}

// entered is the name of the mattering system call that a thread is about to make; "" where it makes another one, or made one.
func entered(thread int) string {
	const getSyscallInfo, entry = 0x420e, 1 // linux/ptrace.h
	var info struct {
		op            uint8
		_             [3]uint8
		_             uint32
		_, _          uint64
		number        uint64
		descriptor    uint64
		_, _, _, _, _ uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(thread), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != entry {
		return ""
	}
	return mattering[info.number]
}

// exitCode is a process's exit status, as a shell has it.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
