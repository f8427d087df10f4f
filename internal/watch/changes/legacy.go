package changes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DefaultLockFile is what the programs of iptables-legacy lock while they change rules, unless XTABLES_LOCKFILE says
// otherwise.
const DefaultLockFile = "/run/xtables.lock"

// glance is the time between two looks at the sizes of legacy tables. It costs a system call for each table.
const glance = 5 * time.Second

// Legacy tells that rules of iptables-legacy may have changed: whenever somebody lets go of the lock file, and when a
// table's size changed without that, by a program that sees another file under that name. Where there are no legacy
// tables it only looks whether there are any by now.
func Legacy(ctx context.Context, lockFile string, each func()) error {
	w := &legacyWatch{each: each, lockFile: lockFile, unlocked: make(chan struct{}, 1)}
	defer w.close()
	each()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		if err := w.look(); err != nil {
			return fmt.Errorf("watching the tables of iptables-legacy: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.unlocked:
			each()
		case <-tick.C:
		}
	}
}

// legacyWatch is what the last look saw.
type legacyWatch struct {
	each     func()
	lockFile string
	lock     *os.File      // an inotify descriptor; nil where there are no legacy tables
	unlocked chan struct{} // holds an item after somebody let go of the lock file
	sizes    string
}

func (w *legacyWatch) close() {
	if w.lock != nil {
		w.lock.Close()
	}
}

func (w *legacyWatch) look() error {
	sizes, err := legacySizes()
	if err != nil {
		return err
	}
	if sizes != "" && w.lock == nil {
		if w.lock, err = watchLock(w.lockFile); err != nil {
			return err
		}
		go w.follow(w.lock)
	}
	if sizes != w.sizes {
		w.sizes = sizes
		w.each()
	}
	return nil
}

// follow tells of each time that the lock file is closed. It ends when the descriptor is closed.
func (w *legacyWatch) follow(lock *os.File) {
	buffer := make([]byte, 4096)
	for {
		if _, err := lock.Read(buffer); err != nil {
			return
		}
		select {
		case w.unlocked <- struct{}{}:
		default:
		}
	}
}

// watchLock watches the lock file, and makes it where nobody needed it so far, as iptables itself does.
func watchLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init", err)
	}
	lock := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CLOSE); err != nil {
		return nil, errors.Join(os.NewSyscallError("inotify_add_watch", err), lock.Close())
	}
	return lock, nil
}

// legacyFamilies are where legacy tables are listed, and how they are asked about.
var legacyFamilies = []struct {
	names  string
	domain int
	level  int
}{
	{"/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP},
	{"/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6},
}

// legacySizes sums up how many rules each legacy table has, "" where there are no tables. A table that isn't listed is
// not asked about: the kernel would make it.
func legacySizes() (string, error) {
	var sizes strings.Builder
	for _, f := range legacyFamilies {
		names, err := os.ReadFile(f.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, name := range strings.Fields(string(names)) {
			info, err := legacyInfo(f.domain, f.level, name)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&sizes, "%d %s %x\n", f.domain, name, info)
		}
	}
	return sizes.String(), nil
}

const (
	optGetInfo  = 64 // IPT_SO_GET_INFO and IP6T_SO_GET_INFO
	infoNameLen = 32 // XT_TABLE_MAXNAMELEN
	infoLen     = 84 // struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
)

// legacyInfo asks for the entry points, the number of rules and the size of a table.
func legacyInfo(domain, level int, table string) ([]byte, error) {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var info [infoLen]byte
	copy(info[:infoNameLen-1], table)
	length := uint32(infoLen)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), optGetInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("asking for the size of table %s: %w", table, errno)
	}
	return info[infoNameLen:], nil
}
