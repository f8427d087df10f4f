// Package sockdestroy closes TCP sockets of whatever process.
//
//	n, err := sockdestroy.Close(sockets)
//
// Both sides learn of it: the peer gets a reset, the process an error (ECONNABORTED).
//
// Be aware: it works on the network namespace of the calling operating system thread and needs CAP_NET_ADMIN, and a kernel
// that was built with INET_DIAG_DESTROY (Debian's and Ubuntu's are). See include/uapi/linux/inet_diag.h.
package sockdestroy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
	"quaywall/internal/watch/sockets"
)

// ErrUnsupported is a kernel that closes no sockets.
var ErrUnsupported = errors.New("this kernel can't close sockets (INET_DIAG_DESTROY)")

const (
	sockDestroy = 21 // SOCK_DESTROY of sock_diag.h
	requestLen  = 56 // struct inet_diag_req_v2
	anyState    = 1<<32 - 1
)

// Close closes connected TCP sockets, as sockets.List gave them, and gives how many it closed. One that is gone by now is
// no error.
func Close(all []sockets.Socket) (n int, err error) {
	if len(all) == 0 {
		return 0, nil
	}
	conn, err := nlsock.Open(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	n, err = conn.Send(sockDestroy, 0, func(yield func([]byte) bool) {
		for _, s := range all {
			if !yield(request(s)) {
				return
			}
		}
	}, unix.ENOENT, unix.ESTALE)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return n, ErrUnsupported
	}
	if err != nil {
		return n, fmt.Errorf("closing sockets: %w", err)
	}
	return n, nil
}

// request is a struct inet_diag_req_v2. Without the cookie the kernel would look for whatever socket takes packets of these
// addresses, and for a connection that is gone by now that is the one that listens.
func request(s sockets.Socket) []byte {
	b := make([]byte, requestLen)
	b[0], b[1] = unix.AF_INET, s.Proto
	if s.Local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], anyState)
	binary.BigEndian.PutUint16(b[8:], s.Local.Port())
	binary.BigEndian.PutUint16(b[10:], s.Remote.Port())
	put := func(to []byte, a netip.Addr) { copy(to, a.AsSlice()) }
	put(b[12:28], s.Local.Addr())
	put(b[28:44], s.Remote.Addr())
	binary.NativeEndian.PutUint32(b[44:], uint32(s.Iface))
	binary.NativeEndian.PutUint64(b[48:], s.Cookie)
	return b
}
