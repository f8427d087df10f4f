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
	return probeError(err)
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

// probeError says in words what the kernel's answer to a harmless question means.
func probeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("nft: reading the kernel's rules is not allowed: run as root, or with CAP_NET_ADMIN in this network namespace: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("nft: this kernel has no nf_tables: load the module nf_tables, or use --backend iptables: %w", err)
	}
	return fmt.Errorf("nft: asking the kernel for nf_tables: %w", err)
}
