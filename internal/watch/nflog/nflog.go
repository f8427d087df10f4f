// Package nflog reads the packets that rules log to a group (NFLOG, nfnetlink_log).
//
//	r, err := nflog.Open(86)
//	logged, err := r.Read(time.Time{})   // waits until something is logged
//	n, err := r.Lost()                   // had no room, since Open
//
// The kernel keeps what was not read yet in a queue of a fixed size. What has no room there is counted and gone, so a
// reader may take its time: a flood costs it no memory, and no more processor time than it wants to spend.
//
// Be aware: a group has one reader in a network namespace, which is the one of the operating system thread that opens it.
// Of a packet its first 128 bytes are read.
package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
)

// MessagePacket is the type of messages that are packets.
const MessagePacket = unix.NFNL_SUBSYS_ULOG << 8

// Messages and attributes of linux/netfilter/nfnetlink_log.h, which x/sys/unix does not have.
const (
	messageConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCommand   = 1
	configMode      = 2
	configSize      = 3
	configThreshold = 5
	configFlags     = 6

	commandBind   = 1
	copyPacket    = 2
	withConntrack = 4
)

const (
	copied   = 128       // bytes of a packet: the headers of IPv6 with some extensions, and of TCP
	queue    = 128 << 10 // of the socket: some 300 packets, since the kernel takes it twice, for its own part of each message
	messages = 512       // bytes that the kernel reserves for a message: without, it is a page
)

// Reader reads a group.
type Reader struct {
	conn    *netlink.Conn
	tracked bool // the kernel tells what connection tracking says of a packet
}

// Open begins to read a group.
func Open(group uint16) (*Reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("reading NFLOG group %d: %w", group, err)
	}
	// Without NoENOBUFS, a queue that was full once stays closed until it is empty, and reading fails.
	err = errors.Join(conn.SetOption(netlink.NoENOBUFS, true), conn.SetReadBuffer(queue))
	r := &Reader{conn: conn, tracked: true}
	if err == nil {
		err = Bind(conn, group, true)
	}
	if errors.Is(err, unix.EOPNOTSUPP) { // this kernel has no netlink for connection tracking
		r.tracked = false
		err = Bind(conn, group, false)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading NFLOG group %d: %w", group, err), conn.Close())
	}
	return r, nil
}

// Bind asks for the packets of a group, each in a message of its own, and if tracked is set for what connection tracking says
// of them.
func Bind(conn *netlink.Conn, group uint16, tracked bool) error {
	b := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	b = nlsock.Append(b, configCommand, commandBind)
	b = nlsock.Append(b, configMode, append(binary.BigEndian.AppendUint32(nil, copied), copyPacket, 0)...)
	b = nlsock.Append(b, configSize, binary.BigEndian.AppendUint32(nil, messages)...)
	b = nlsock.Append(b, configThreshold, binary.BigEndian.AppendUint32(nil, 1)...)
	if tracked {
		b = nlsock.Append(b, configFlags, 0, withConntrack)
	}
	_, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge}, Data: b,
	})
	if errors.Is(err, unix.EPERM) {
		return errors.New("another program reads it, or the right to (CAP_NET_ADMIN) is missing")
	}
	return err
}

// Close ends reading, also a Read that waits.
func (r *Reader) Close() error { return r.conn.Close() }

// Read waits for what is logged, until a deadline, if there is one: then the error is os.ErrDeadlineExceeded.
func (r *Reader) Read(deadline time.Time) ([]Logged, error) {
	if err := r.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	all, err := r.conn.Receive()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, os.ErrDeadlineExceeded
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is logged: %w", err)
	}
	var logged []Logged
	for _, m := range all {
		if m.Header.Type == MessagePacket {
			logged = append(logged, Decode(m.Data, r.tracked))
		}
	}
	return logged, nil
}

// memInfo is what SO_MEMINFO tells of a socket, see linux/sock_diag.h. The last number is that of the messages that had no
// room in its queue.
type memInfo [9]uint32

// Lost tells how many packets had no room since Open.
func (r *Reader) Lost() (uint32, error) { return Lost(r.conn) }

// Lost tells how many messages had no room in a socket's queue.
func Lost(conn *netlink.Conn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info memInfo
	size := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("getsockopt", errno)
	}
	return info[len(info)-1], err
}
