// Package changes waits until the kernel says that something of a host's network has changed: interfaces, addresses,
// netfilter rules.
//
//	err := changes.Links(ctx, func() { … })                  // blocks until ctx ends or the socket fails
//	err = changes.Rules(ctx, func(c changes.Change) { … })
//
// A call back is a hint, never the news itself: whoever gets it lists what there is now. The first one comes as soon as
// the subscription stands, so that whatever changed before is in that first list, and one comes when messages were lost.
//
// Be aware: the namespace is the one of the calling operating system thread. iptables-legacy's rules have no events:
// Legacy watches the lock file that its programs take, and the sizes of its tables.
package changes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Multicast groups of netlink. See linux/rtnetlink.h and linux/netfilter/nfnetlink.h.
const (
	groupLink     = 1
	groupAddr4    = 5
	groupAddr6    = 9
	groupNFTables = 7
)

// Links tells of interfaces and addresses.
func Links(ctx context.Context, each func()) error {
	return follow(ctx, unix.NETLINK_ROUTE, []int{groupLink, groupAddr4, groupAddr6}, each, func([]byte) { each() })
}

// receiveSize holds a datagram of netlink, receiveQueue those of a large change.
const (
	receiveSize  = 64 << 10
	receiveQueue = 1 << 20
)

// follow reads the messages of multicast groups. listed is called once it is subscribed, and after messages were lost.
func follow(ctx context.Context, protocol int, groups []int, listed func(), each func([]byte)) error {
	s, err := subscribe(protocol, groups)
	if err != nil {
		return fmt.Errorf("waiting for the kernel's events: %w", err)
	}
	defer s.file.Close()
	defer context.AfterFunc(ctx, func() { s.file.Close() })()
	listed()
	for {
		datagram, err := s.read()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			listed()
		case err != nil:
			return fmt.Errorf("waiting for the kernel's events: %w", err)
		default:
			each(datagram)
		}
	}
}

// socket is a netlink socket that Go's poller waits for, so that no thread is kept busy.
type socket struct {
	file   *os.File
	raw    syscall.RawConn
	buffer []byte
}

func subscribe(protocol int, groups []int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "netlink"), buffer: make([]byte, receiveSize)}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	for _, group := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	// Without the right to it the queue is smaller: more is lost, and more often listed anew.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveQueue)
	return s, nil
}

// read gives the next datagram. It is valid until the next call.
func (s *socket) read() ([]byte, error) {
	var n int
	var err error
	waited := s.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), s.buffer, 0)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waited != nil {
		return nil, waited
	}
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	return s.buffer[:n], nil
}
