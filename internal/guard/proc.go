package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/watch/sockets"
)

// process is a process and the sockets it holds.
type process struct {
	pid    int
	name   string
	inodes map[uint64]bool // of its sockets
}

// maxAncestors bounds the walk upwards: processes come and go meanwhile, and ids are used again.
const maxAncestors = 1000

// ancestors are this process, its parent and so on, up to process 1. Where something about them can't be seen, the
// second result says what.
func ancestors() (chain []process, because string) {
	note := func(format string, args ...any) {
		if because == "" {
			because = fmt.Sprintf(format, args...)
		}
	}
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		note("/proc can't be read: %v", err)
	}
	for pid := os.Getpid(); pid > 0 && len(chain) < maxAncestors; {
		stat, err := os.ReadFile(procPath(pid, "stat"))
		if err != nil {
			note("process %d, an ancestor of this one, can't be seen: %v", pid, err)
			return chain, because
		}
		parent, err := parentOf(string(stat))
		if err != nil {
			note("process %d: %v", pid, err)
			return chain, because
		}
		name := sockets.Name(pid)
		held, err := sockets.Held(pid)
		if err != nil {
			note("the descriptors of process %d (%s) can't be read: %v", pid, name, reason(err))
		}
		if there, err := os.Readlink(procPath(pid, "ns/net")); err != nil {
			note("the network namespace of process %d (%s) can't be told: %v", pid, name, reason(err))
		} else if there != here && pid != os.Getpid() {
			note("process %d (%s) lives in another network namespace", pid, name)
		}
		chain, pid = append(chain, process{pid: pid, name: name, inodes: setOf(held)}), parent
	}
	return chain, because
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// reason is an error without the path that it is about.
func reason(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// parentOf reads a process's parent from /proc/PID/stat: "PID (NAME) STATE PARENT …". A name may hold spaces and
// parentheses, so the last parenthesis closes it.
func parentOf(stat string) (int, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, errors.New("its stat file is cut short")
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, fmt.Errorf("its stat file names the parent %q", fields[1])
	}
	return parent, nil
}

func setOf(inodes []uint64) map[uint64]bool {
	set := map[uint64]bool{}
	for _, i := range inodes {
		set[i] = true
	}
	return set
}

// Name fills in the processes of ways that were found by their connection alone, as far as /proc shows them. It looks at
// every process of the host, so it is for ways that are to be told to a person. The error says why some may be missing.
func Name(ways []Way) error {
	if !slices.ContainsFunc(ways, func(w Way) bool { return w.PID == 0 }) {
		return nil
	}
	owners, err := sockets.Owners()
	for i, w := range ways {
		if owner, ok := owners[w.inode]; ok && w.PID == 0 {
			ways[i].PID, ways[i].Process = owner.PID, owner.Name
		}
	}
	return err
}
