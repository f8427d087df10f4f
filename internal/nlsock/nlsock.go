// Package nlsock is a netlink socket for much at a time: tables of 100,000 entries, or as many requests.
//
//	s, err := nlsock.Open(unix.NETLINK_NETFILTER)
//	err = s.Dump(typ, body, func(message []byte) { … })
//	err = s.Send(typ, bodies, unix.ENOENT)
//
// It blocks the operating system thread that calls. The usual libraries wait by the runtime's poller; on a thread that is
// locked to its goroutine, as for another network namespace, that changes threads twice for each answer, and took ten
// times as long (measured).
//
// Be aware: a socket belongs to the network namespace of the thread that opened it.
package nlsock

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is an open socket.
type Socket struct {
	fd       int
	sequence uint32
	buffer   []byte
}

const (
	receiveSize  = 256 << 10 // the kernel fills as much as there is room for, up to some size of its own
	receiveQueue = 8 << 20
	answerTime   = 30 * time.Second
)

// errCutShort is an answer that ended too early.
var errCutShort = errors.New("the kernel's answer is cut short")

// Open makes a socket of a protocol, NETLINK_*.
func Open(protocol int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(answerTime.Nanoseconds())
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // errors don't repeat the message
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("setting up a netlink socket: %w", err)
	}
	// Without the right to it, fewer answers have room; Send takes care not to need more.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveQueue)
	return &Socket{fd: fd, buffer: make([]byte, receiveSize)}, nil
}

// Close closes the socket.
func (s *Socket) Close() error { return unix.Close(s.fd) }

func (s *Socket) message(b []byte, typ, flags uint16, body []byte) []byte {
	s.sequence++
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, s.sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

func (s *Socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// Dump asks for all of a kind. A message is valid during the call only.
func (s *Socket) Dump(typ uint16, body []byte, each func(message []byte)) error {
	if err := s.send(s.message(nil, typ, unix.NLM_F_DUMP, body)); err != nil {
		return err
	}
	for {
		done, err := s.receive(0, func(typ uint16, _ uint32, message []byte) (bool, error) {
			if typ == unix.NLMSG_DONE || typ == unix.NLMSG_ERROR {
				return true, errnoOf(message)
			}
			each(message)
			return false, nil
		})
		if done || err != nil {
			return err
		}
	}
}

// Join subscribes to a multicast group.
func (s *Socket) Join(group int) error {
	return unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
}

// Heard gives what came from groups since it was called last, and doesn't wait. The error is ENOBUFS where messages were lost.
func (s *Socket) Heard(each func(message []byte)) error {
	for {
		none, err := s.receive(unix.MSG_DONTWAIT, func(_ uint16, _ uint32, message []byte) (bool, error) { each(message); return false, nil })
		if none || err != nil {
			return err
		}
	}
}

// receive takes one datagram apart. With MSG_DONTWAIT it is done where there is none.
func (s *Socket) receive(flags int, each func(typ uint16, sequence uint32, message []byte) (done bool, err error)) (done bool, err error) {
	n, _, err := unix.Recvfrom(s.fd, s.buffer, flags|unix.MSG_TRUNC)
	switch {
	case errors.Is(err, unix.EINTR):
		return false, nil
	case errors.Is(err, unix.EAGAIN) && flags&unix.MSG_DONTWAIT != 0:
		return true, nil
	case errors.Is(err, unix.EAGAIN), n > len(s.buffer):
		return true, errCutShort
	case err != nil:
		return true, err
	}
	for b := s.buffer[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return true, errCutShort
		}
		if done, err := each(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]); done || err != nil {
			return true, err
		}
		b = b[min((length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return false, nil
}

// errnoOf is the error of an NLMSG_ERROR or NLMSG_DONE, nil for a success.
func errnoOf(message []byte) error {
	if len(message) < 4 {
		return errCutShort
	}
	if n := -int32(binary.NativeEndian.Uint32(message)); n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// atOnce is how many requests go by one system call: were all of them refused, the answers would have to have room, if need be
// in a queue of the default size.
const atOnce = 100

// Send makes requests, and gives how many succeeded. One that is refused keeps none of the others from being made; the
// error is that of the first, but for errors that are to be passed over.
func (s *Socket) Send(typ, flags uint16, bodies iter.Seq[[]byte], pass ...error) (succeeded int, err error) {
	var b []byte
	var refused error
	last, waiting := 0, 0 // where the last request begins
	flush := func() error {
		if waiting == 0 {
			return nil
		}
		// The kernel takes them in order, and tells of each that it refuses: the last one's answer says that all are made.
		binary.NativeEndian.PutUint16(b[last+6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		failed, first, err := s.answers(b, pass)
		if err == nil {
			succeeded += waiting - failed
		}
		refused = cmp.Or(refused, first)
		b, waiting = b[:0], 0
		return err
	}
	for body := range bodies {
		last = len(b)
		b = s.message(b, typ, flags, body)
		if waiting++; waiting == atOnce {
			if err := flush(); err != nil {
				return succeeded, err
			}
		}
	}
	if err := flush(); err != nil {
		return succeeded, err
	}
	return succeeded, refused
}

// answers makes requests that are written already. It gives how many failed; refused is the first error of one of them, err
// that of the socket.
func (s *Socket) answers(requests []byte, pass []error) (failed int, refused, err error) {
	if err := s.send(requests); err != nil {
		return 0, nil, err
	}
	for done := false; !done && err == nil; {
		done, err = s.receive(0, func(typ uint16, sequence uint32, message []byte) (bool, error) {
			if typ != unix.NLMSG_ERROR {
				return false, nil
			}
			if err := errnoOf(message); err != nil {
				failed++
				if !slices.Contains(pass, err) {
					refused = cmp.Or(refused, err)
				}
			}
			return sequence == s.sequence, nil
		})
	}
	return failed, refused, err
}
