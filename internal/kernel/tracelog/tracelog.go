// Package tracelog has what iptables-legacy tells of traced packets sent to netlink, where package watch/nftrace reads it, and
// puts back what was before.
//
//	unlock, err := tracelog.Lock(runDir)
//	restore, err := tracelog.Take(runDir)
//
// iptables-legacy tells of them by the logger of the family: net.netfilter.nf_log.2 (IPv4) and .10 (IPv6), settings of the
// network namespace. Only a namespace with tables of iptables-legacy is touched. What was set before is in a file of the run
// directory first, so that whoever comes next can put it back where a trace was killed: Restore.
//
// Be aware: meanwhile what other traces of iptables-legacy and connection tracking (nf_conntrack_log_invalid) would write into
// the kernel's log isn't written. LOG rules are not concerned.
package tracelog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/lock"
)

// logger is the one that sends to netlink.
const logger = "nfnetlink_log"

// name is what the lock and the record of this network namespace are called: a run directory may be that of several.
func name() string {
	var st unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &st) != nil {
		return "trace"
	}
	return fmt.Sprintf("trace-%d-%d", st.Dev, st.Ino)
}

func file(runDir string) string { return filepath.Join(runDir, name()+".json") }

// record is what was set before.
type record struct {
	Loggers map[string]string `json:"loggers"` // by the number of the family
}

// tables are the files that tell of tables of iptables-legacy, by the number of the family.
var tables = map[string]string{"2": "/proc/thread-self/net/ip_tables_names", "10": "/proc/thread-self/net/ip6_tables_names"}

func setting(family string) string { return "/proc/sys/net/netfilter/nf_log/" + family }

// ErrNone is the cause of the error where there are no tables of iptables-legacy.
var ErrNone = errors.New("there are no tables of iptables-legacy")

// Take sets the loggers. The caller holds Lock.
func Take(runDir string) (restore func() error, err error) {
	before := record{Loggers: map[string]string{}}
	for family, path := range tables {
		if names, _ := os.ReadFile(path); len(names) == 0 {
			continue
		}
		if before.Loggers[family], err = read(family); err != nil {
			return nil, err
		}
	}
	if len(before.Loggers) == 0 {
		return nil, ErrNone
	}
	if err := write(runDir, before); err != nil {
		return nil, fmt.Errorf("noting how traces are logged: %w", err)
	}
	restore = func() error { return undo(runDir, before) }
	for family := range before.Loggers {
		if err := set(family, logger); err != nil {
			return nil, errors.Join(err, restore())
		}
	}
	return restore, nil
}

// Lock makes this process the only one that traces in this network namespace, and puts back what one that was killed has left.
func Lock(runDir string) (unlock func() error, err error) {
	held, err := lock.Single(runDir, name())
	if err != nil {
		return nil, err
	}
	if err := putBack(runDir); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return func() error {
		// Who waits for it would have a lock of nothing; the table of the trace is the wall behind this one.
		return errors.Join(os.Remove(filepath.Join(runDir, name()+".lock")), held.Close())
	}, nil
}

// Restore puts back what a trace that was killed has left. A trace that is running is left alone.
func Restore(runDir string) error {
	if _, err := os.Stat(file(runDir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var running *lock.RunningError
	unlock, err := Lock(runDir)
	if errors.As(err, &running) {
		return nil
	}
	if err != nil {
		return err
	}
	return unlock()
}

// putBack puts back what the record says, if there is one.
func putBack(runDir string) error {
	text, err := os.ReadFile(file(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var before record
	if err := json.Unmarshal(text, &before); err != nil {
		return fmt.Errorf("reading how traces were logged: %s: %w: set net.netfilter.nf_log.2 and .10 yourself, and remove it",
			file(runDir), err)
	}
	return undo(runDir, before)
}

// undo puts back what is still as a trace has set it, and forgets the record.
func undo(runDir string, before record) error {
	for family, name := range before.Loggers {
		now, err := read(family)
		if err == nil && now == logger && name != logger {
			err = set(family, name)
		}
		if err != nil {
			return err
		}
	}
	return os.Remove(file(runDir))
}

func read(family string) (string, error) {
	text, err := os.ReadFile(setting(family))
	return strings.TrimSpace(string(text)), err
}

func set(family, name string) error {
	if err := os.WriteFile(setting(family), []byte(name), 0o644); err != nil {
		return fmt.Errorf("setting net.netfilter.nf_log.%s to %s: %w", family, name, err)
	}
	return nil
}

// write writes the record as a whole.
func write(runDir string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := file(runDir)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
