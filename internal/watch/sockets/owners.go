package sockets

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Process is a process that holds a socket.
type Process struct {
	PID  int
	Name string // the kernel's short name, 15 characters at most
}

// Owners finds who holds which socket, by inode. Of several holders it is the one with the lowest id, most often the
// parent. Processes that end meanwhile are left out. The error says that some can't be looked into, or can't be seen from
// this PID namespace: then a socket without an owner may have one. Without an error such a socket is the kernel's own.
func Owners() (map[uint64]Process, error) {
	owners := map[uint64]Process{}
	unseen := otherPIDs()
	for _, pid := range Processes() {
		held, err := Held(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			unseen = cmp.Or(unseen, fmt.Errorf("the descriptors of process %d (%s) can't be read: %w", pid, Name(pid), err))
		}
		for _, inode := range held {
			if old, ok := owners[inode]; !ok || pid < old.PID {
				owners[inode] = Process{PID: pid, Name: Name(pid)}
			}
		}
	}
	return owners, unseen
}

// otherPIDs is an error where /proc may not show all processes of the host.
func otherPIDs() error {
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO of include/linux/proc_ns.h
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initial {
		return errors.New("processes of the host can't be seen from this PID namespace")
	}
	return nil
}

// Processes are the ids of all processes that /proc shows.
func Processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Held are the inodes of the sockets that a process holds. On an error they are those that could be seen.
func Held(pid int) ([]uint64, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var inodes []uint64
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return inodes, err
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes, nil
}

// Name is a process's short name, "" where it is gone. A process may give itself any name: what can't be printed, line
// breaks too, is a question mark here.
func Name(pid int) string {
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(strings.TrimSuffix(string(comm), "\n"), "?"))
}
