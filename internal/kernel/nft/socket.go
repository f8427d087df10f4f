package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"golang.org/x/sys/unix"

	render "quaywall/internal/render/nft"
)

// socket talks to nf_tables. It is made here and not by a library since a transaction must be one datagram, of any size,
// and since libraries hide the end of a dump, which tells whether the dump is of one piece.
type socket struct {
	fd       int
	sequence uint32
	buffer   []byte
}

// errCutShort is an answer that ended too early. It is never taken for "nothing".
var errCutShort = errors.New("the kernel's answer is cut short")

// errNoTables is a kernel without nf_tables, built in or as a module that can be loaded.
var errNoTables = errors.New("this kernel has no nf_tables")

// errChanged is a dump that was overtaken by a change. The next try may succeed.
var errChanged = errors.New("the rules were changed by somebody while they were read")

const (
	nfnlBatchGenID  = 1     // NFNL_BATCH_GENID
	headerLen       = 4     // struct nfgenmsg
	nlmsgAlign      = 4     // NLMSG_ALIGNTO
	receiveSize     = 64000 // a dump comes in pieces of at most 32 KiB
	receiveQueue    = 8 << 20
	answerTime      = 30 * time.Second
	attrErrorText   = 1     // NLMSGERR_ATTR_MSG
	flagCapped      = 0x100 // NLM_F_CAPPED
	flagMoreDetails = 0x200 // NLM_F_ACK_TLVS
)

// open makes a socket of the calling thread's network namespace.
func open() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, fmt.Errorf("%w: %w", errNoTables, err)
	case err != nil:
		return nil, fmt.Errorf("opening a netlink socket of netfilter: %w", err)
	}
	s := &socket{fd: fd, buffer: make([]byte, receiveSize)}
	timeout := unix.NsecToTimeval(answerTime.Nanoseconds())
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1), // errors say why
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // and don't repeat the message
	)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("setting up a netlink socket of netfilter: %w", err)
	}
	return s, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// appendMessage writes a message of nf_tables.
func (s *socket) appendMessage(b []byte, family byte, typ, flags uint16, body []byte) []byte {
	return s.append(b, unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, family, 0, body)
}

// appendBatch writes NFNL_MSG_BATCH_BEGIN or NFNL_MSG_BATCH_END, between which a transaction stands.
func (s *socket) appendBatch(b []byte, typ uint16, body []byte) []byte {
	return s.append(b, typ, 0, unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, body)
}

// append writes a message with its header and its struct nfgenmsg.
func (s *socket) append(b []byte, typ, flags uint16, family byte, resource uint16, body []byte) []byte {
	s.sequence++
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+headerLen+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, s.sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, body...)
}

func (s *socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// answer is one message from the kernel.
type answer struct {
	typ, flags uint16
	sequence   uint32
	body       []byte
}

// receive takes what has come, waiting for it unless flags say otherwise.
func (s *socket) receive(flags int) ([]answer, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, flags|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n > len(s.buffer):
			return nil, errCutShort
		}
		return split(s.buffer[:n])
	}
}

// split takes a datagram apart.
func split(b []byte) ([]answer, error) {
	var answers []answer
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return nil, errCutShort
		}
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return nil, errCutShort
		}
		answers = append(answers, answer{
			typ:      binary.NativeEndian.Uint16(b[4:]),
			flags:    binary.NativeEndian.Uint16(b[6:]),
			sequence: binary.NativeEndian.Uint32(b[8:]),
			body:     b[unix.NLMSG_HDRLEN:length],
		})
		b = b[min((length+nlmsgAlign-1)&^(nlmsgAlign-1), len(b)):]
	}
	return answers, nil
}

// refusal is an error that the kernel answered a message with. A refusal without an errno is a success.
type refusal struct {
	errno unix.Errno
	text  string // the kernel's own words, often none
}

func (r refusal) Error() string {
	if r.text == "" {
		return r.errno.Error()
	}
	return fmt.Sprintf("%v (%s)", r.errno, r.text)
}

func (r refusal) Unwrap() error { return r.errno }

// refusal reads an answer of type NLMSG_ERROR, or the end of a dump.
func (a answer) refusal() (refusal, error) {
	if len(a.body) < 4 {
		return refusal{}, errCutShort
	}
	r := refusal{errno: unix.Errno(-int32(binary.NativeEndian.Uint32(a.body)))}
	rest := a.body[4:]
	if a.typ == unix.NLMSG_ERROR { // the header of the message that was refused comes first
		rest = rest[min(unix.NLMSG_HDRLEN, len(rest)):]
	}
	if a.flags&flagMoreDetails == 0 {
		return r, nil
	}
	for len(rest) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < unix.SizeofNlAttr || length > len(rest) {
			break
		}
		if binary.NativeEndian.Uint16(rest[2:]) == attrErrorText && length > unix.SizeofNlAttr {
			r.text = string(rest[unix.SizeofNlAttr : length-1])
		}
		rest = rest[min((length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(rest)):]
	}
	return r, nil
}

// query asks for one thing or, with NLM_F_DUMP, for all of a kind, and hands the bodies of the answers over, each without
// its nfgenmsg, the family of which comes along. A body is valid during the call only.
func (s *socket) query(typ, flags uint16, body []byte, each func(family byte, body []byte) error) error {
	return s.queryFamily(unix.NFPROTO_INET, typ, flags, body, each)
}

func (s *socket) queryFamily(family byte, typ, flags uint16, body []byte, each func(family byte, body []byte) error) error {
	if err := s.send(s.appendMessage(nil, family, typ, flags, body)); err != nil {
		return err
	}
	for {
		answers, err := s.receive(0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errCutShort
		case err != nil:
			return err
		}
		for _, a := range answers {
			if a.sequence != s.sequence {
				continue // an answer to what was asked before and given up
			}
			done, err := a.take(flags, each)
			if done || err != nil {
				return err
			}
		}
	}
}

// take handles one answer of a query.
func (a answer) take(flags uint16, each func(family byte, body []byte) error) (done bool, err error) {
	if a.flags&unix.NLM_F_DUMP_INTR != 0 {
		return true, errChanged
	}
	switch a.typ {
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		r, err := a.refusal()
		if err == nil && r.errno != 0 {
			err = r
		}
		return true, err
	case unix.NLMSG_NOOP:
		return false, nil
	}
	if len(a.body) < headerLen {
		return true, errCutShort
	}
	return flags&unix.NLM_F_DUMP == 0, each(a.body[0], a.body[headerLen:])
}

// refusedError is a transaction that the kernel refused because of one message.
type refusedError struct {
	message int // counted from 1; 0 where the whole was refused
	refusal
}

func (e *refusedError) Unwrap() error { return e.refusal }

// batch is a transaction as it is sent: one datagram, kept in pieces so that its size needn't be known before.
type batch struct {
	*socket
	pieces [][]byte
	size   int
	last   []byte // the message that was added last
}

// Pieces grow with what there is already, so that a datagram of 2 GiB has fewer than the 1,024 pieces (UIO_MAXIOV) that may
// be sent at once, and a small one is small.
const smallestPiece, largestPiece = 1 << 14, 1 << 22

// add adds a message. Its length is that of its body and little more.
func (b *batch) add(length int, write func([]byte) []byte) {
	if n := len(b.pieces); n == 0 || len(b.pieces[n-1])+length > cap(b.pieces[n-1]) {
		b.pieces = append(b.pieces, make([]byte, 0, max(length, min(b.size+smallestPiece, largestPiece))))
	}
	piece := &b.pieces[len(b.pieces)-1]
	before := len(*piece)
	*piece = write(*piece)
	b.last = (*piece)[before:]
	b.size += len(b.last)
}

// headersLen is what stands in front of a body.
const headersLen = unix.NLMSG_HDRLEN + headerLen

// transact sends messages as one transaction, on the condition that nobody has changed any rules since the generation
// genID; 0 is no condition. Where the condition doesn't hold, the error is ERESTART.
func (s *socket) transact(genID uint32, messages iter.Seq2[render.Message, error]) error {
	begin := binary.NativeEndian.AppendUint16(nil, unix.SizeofNlAttr+4)
	begin = binary.NativeEndian.AppendUint16(begin, nfnlBatchGenID)
	begin = binary.BigEndian.AppendUint32(begin, genID)
	b := &batch{socket: s}
	b.add(headersLen+len(begin), func(to []byte) []byte { return s.appendBatch(to, unix.NFNL_MSG_BATCH_BEGIN, begin) })
	first := s.sequence
	for m, err := range messages {
		if err != nil {
			return err
		}
		b.add(headersLen+len(m.Body), func(to []byte) []byte {
			return s.appendMessage(to, unix.NFPROTO_INET, m.Type, m.Flags, m.Body)
		})
	}
	// Only the last message is acknowledged: that it was is the proof that all have been read and put in force.
	flags := binary.NativeEndian.Uint16(b.last[6:])
	binary.NativeEndian.PutUint16(b.last[6:], flags|unix.NLM_F_ACK)
	acknowledged := s.sequence
	b.add(headersLen, func(to []byte) []byte { return s.appendBatch(to, unix.NFNL_MSG_BATCH_END, nil) })
	if err := b.send(); err != nil {
		return err
	}
	return s.outcome(first, acknowledged)
}

// send sends the batch.
func (b *batch) send() error {
	// A transaction is one datagram. Where the limits can't be raised, in a container without rights outside of it, small
	// ones pass all the same.
	_ = unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, b.size+smallestPiece)
	_ = unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveQueue)
	_, err := unix.SendmsgBuffers(b.fd, b.pieces, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("sending a transaction of %d bytes: %w: raise net.core.wmem_max to twice that, or run with "+
			"CAP_NET_ADMIN outside of any container", b.size, err)
	}
	if err != nil {
		return fmt.Errorf("sending a transaction of %d bytes: %w", b.size, err)
	}
	return nil
}

// outcome reads what the kernel says of a transaction. All of it is there when the transaction has been sent, except for
// what the queue had no room for.
func (s *socket) outcome(first, acknowledged uint32) error {
	success, lost := false, false
	for {
		answers, err := s.receive(unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			continue
		case errors.Is(err, unix.EAGAIN) && success && !lost:
			return nil
		case errors.Is(err, unix.EAGAIN):
			return errCutShort
		case err != nil:
			return err
		}
		for _, a := range answers {
			if a.typ != unix.NLMSG_ERROR {
				continue
			}
			r, err := a.refusal()
			if err != nil {
				return err
			}
			if r.errno != 0 { // the first one counts: others follow from it
				return &refusedError{message: int(a.sequence - first), refusal: r}
			}
			success = success || a.sequence == acknowledged
		}
	}
}
