package guard

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/watch/sockets"
)

// process is a process and the sockets it holds.
type process struct {
	pid       int
	name      string
	inodes    map[uint64]bool // of its sockets
	elsewhere bool            // it lives in another network namespace
	kinds     []Kind          // what its sockets may be to us
}

// maxAncestors bounds the walk upwards: processes come and go meanwhile, and ids are used again.
const maxAncestors = 1000

// ancestors are a process, its parent and so on, up to process 1. Where something about them can't be seen, the second
// result says what.
func ancestors(pid int) (chain []process, because string) {
	note := func(format string, args ...any) {
		if because == "" {
			because = fmt.Sprintf(format, args...)
		}
	}
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		note("/proc can't be read: %v", err)
	}
	for pid > 0 && len(chain) < maxAncestors {
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
		p := process{pid: pid, name: sockets.Name(pid), kinds: []Kind{Session, Listener, Dialled}}
		held, err := sockets.Held(pid)
		if err != nil {
			note("the descriptors of process %d (%s) can't be read: %v", pid, p.name, reason(err))
		}
		there, err := os.Readlink(procPath(pid, "ns/net"))
		if err != nil {
			note("the network namespace of process %d (%s) can't be told: %v", pid, p.name, reason(err))
		}
		p.inodes, p.elsewhere = setOf(held), err == nil && there != here && pid != os.Getpid()
		chain, pid = append(chain, p), parent
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

// descriptors are the open descriptors of a process that lead to something with such a name: number and name.
func descriptors(pid int, like func(target string) bool) map[string]string {
	found := map[string]string{}
	dir := procPath(pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it ended, or doesn't show them, which ancestors tells
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && like(target) {
			found[e.Name()] = target
		}
	}
	return found
}

// about is what the kernel says of an open descriptor under a key: "tty-index" of the other end of a terminal, "iff" of a
// tunnel's.
func about(pid int, descriptor, key string) string {
	text, err := os.ReadFile(filepath.Join(procPath(pid, "fdinfo"), descriptor))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// terminal is a pseudo-terminal. Containers have instances of devpts of their own, in which numbers begin anew.
type terminal struct {
	number   string
	instance uint64 // the device number of the file system that it is in; 0 where not known
}

// is tells whether two are the same terminal, as far as is known.
func (t terminal) is(o terminal) bool {
	return t.number == o.number && (t.instance == o.instance || t.instance == 0 || o.instance == 0)
}

// terminalsOf are the terminals that a process has open.
func terminalsOf(pid int) (terminals []terminal) {
	const major = 136 // UNIX98_PTY_SLAVE_MAJOR
	for descriptor := range descriptors(pid, func(t string) bool { return t != "" && t[len(t)-1] >= '0' && t[len(t)-1] <= '9' }) {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(procPath(pid, "fd"), descriptor), &st)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != major {
			continue
		}
		t := terminal{strconv.Itoa(int(unix.Minor(st.Rdev))), st.Dev}
		if !slices.Contains(terminals, t) {
			terminals = append(terminals, t)
		}
	}
	return terminals
}

// screensOf are the terminals whose other end a process has: it shows what programs write there, and types.
func screensOf(pid int) (terminals []terminal) {
	for descriptor := range descriptors(pid, func(t string) bool { return strings.HasSuffix(t, "/ptmx") }) {
		t := terminal{number: about(pid, descriptor, "tty-index")}
		if t.number == "" {
			continue
		}
		path := filepath.Join(procPath(pid, "fd"), descriptor)
		var st unix.Stat_t
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) == nil && fs.Type == unix.DEVPTS_SUPER_MAGIC && unix.Stat(path, &st) == nil {
			t.instance = st.Dev // else it was opened as /dev/ptmx, which is not in there
		}
		terminals = append(terminals, t)
	}
	return terminals
}

// carries tells whether a process sends and receives the packets of a tun or tap interface.
func carries(pid int, iface string) bool {
	for descriptor := range descriptors(pid, func(t string) bool { return strings.HasSuffix(t, "/net/tun") }) {
		if about(pid, descriptor, "iff") == iface {
			return true
		}
	}
	return false
}

// startedBy is who was at the other end of the SSH session that a process was started in, as sshd told it.
func startedBy(pid int) (netip.Addr, bool) {
	text, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return netip.Addr{}, false
	}
	for setting := range bytes.SplitSeq(text, []byte{0}) {
		if value, ok := strings.CutPrefix(string(setting), "SSH_CONNECTION="); ok { // client, port, server, port
			client, _, _ := strings.Cut(value, " ")
			a, err := netip.ParseAddr(client)
			return a.Unmap(), err == nil
		}
	}
	return netip.Addr{}, false
}

// Name fills in the processes of ways that were found by their connection alone, as far as /proc shows them. It looks at
// every process of the host, so it is for ways that are to be told to a person. The error says why some may be missing.
func Name(ways []Way) error {
	if !slices.ContainsFunc(ways, func(w Way) bool { return w.PID == 0 && w.inode != 0 }) {
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
