package nft

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The oldest kernel that has all that is rendered: "socket wildcard" and counters of elements.
const oldestMajor, oldestMinor = 5, 10

// Probe tells whether the kernel has nf_tables and whether it may be used.
func (*Backend) Probe(context.Context) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("nft: asking for the kernel's version: %w", err)
	}
	if err := checkVersion(unix.ByteSliceToString(name.Release[:])); err != nil {
		return err
	}
	s, err := open()
	if err == nil {
		defer s.close()
		_, err = s.generation()
	}
	if errors.Is(err, errNoTables) {
		return fmt.Errorf("nft: %w: load the module nf_tables, or use --backend iptables", err)
	}
	return access(err)
}

// checkVersion refuses kernels that are too old. A version that can't be read isn't refused: the preflight will show.
func checkVersion(release string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return nil
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fmt.Errorf("nft: this kernel is Linux %s; %d.%d or newer is needed: upgrade the kernel", release, oldestMajor, oldestMinor)
	}
	return nil
}

// access says what to do about an error that is one of missing rights.
func access(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("nft: the kernel's rules are not to be seen: run as root, or with CAP_NET_ADMIN in this network namespace: %w", err)
	}
	if err != nil {
		return fmt.Errorf("nft: %w", err)
	}
	return nil
}
