// Package sockets lists the TCP and UDP sockets of a host, and the processes that hold them.
//
//	all, err := sockets.List()
//	owners, unseen := sockets.Owners()
//	for _, s := range all { fmt.Println(s.Local, owners[s.Inode]) }
//
// Be aware: sockets are those of the network namespace of the calling operating system thread, processes those that
// /proc shows, of which only root can look into all. Sockets that nobody owns any more (TIME_WAIT) and those of SCTP are
// not listed. A list that changes while it is read holds all that stays.
package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
	"quaywall/internal/scratch"
)

// Socket is one socket.
type Socket struct {
	Proto     uint8 // IP protocol number: unix.IPPROTO_TCP or unix.IPPROTO_UDP
	Local     netip.AddrPort
	Remote    netip.AddrPort // the zero address and port where it is not connected
	Listening bool           // TCP in LISTEN; UDP that is bound and not connected
	Connected bool           // TCP in ESTABLISHED; UDP that is connected
	Iface     int            // index of the interface that it is bound to, or that its link-local addresses are of; 0 for none
	Inode     uint64
	V6Only    bool   // of a listening IPv6 socket: it takes no IPv4
	Cookie    uint64 // the kernel's number of this very socket, whatever comes to have its addresses; 0 where not known
}

// Numbers of include/uapi/linux/{sock_diag,inet_diag}.h and include/net/tcp_states.h.
const (
	sockDiagByFamily = 20
	requestLen       = 56 // struct inet_diag_req_v2
	answerLen        = 72 // struct inet_diag_msg

	attrV6Only = 11 // INET_DIAG_SKV6ONLY

	established    = 1
	timeWait       = 6
	udpUnconnected = 7 // TCP_CLOSE: a UDP socket that is not connected
	listen         = 10
)

// List lists the sockets, IPv4 before IPv6, TCP before UDP.
func List() ([]Socket, error) {
	conn, err := nlsock.Open(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("listing sockets: %w", err)
	}
	defer conn.Close()
	var all []Socket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			err := conn.Dump(sockDiagByFamily, request(family, proto), func(message []byte) {
				if s, ok := decode(message, proto); ok {
					all = append(all, s)
				}
			})
			// A kernel without IPv6 has no such sockets.
			if err != nil && !isNoIPv6(family, err) {
				return nil, fmt.Errorf("listing sockets (inet_diag): %w", err)
			}
		}
	}
	return all, nil
}

// ListOf lists the sockets of the network namespace that a process lives in.
func ListOf(pid int) ([]Socket, error) {
	var all []Socket
	err := scratch.In(fmt.Sprintf("/proc/%d/ns/net", pid), func() (err error) { all, err = List(); return err })
	if err != nil {
		return nil, fmt.Errorf("listing the sockets of process %d: %w", pid, err)
	}
	return all, nil
}

// request asks for the sockets of a family and a protocol, in all states but TIME_WAIT: a busy server has ten thousands of
// these, and nobody owns them.
func request(family, proto uint8) []byte {
	b := make([]byte, requestLen)
	b[0], b[1] = family, proto
	binary.NativeEndian.PutUint32(b[4:], ^uint32(1<<timeWait))
	return b
}

func isNoIPv6(family uint8, err error) bool {
	return family == unix.AF_INET6 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT))
}

// decode reads a struct inet_diag_msg.
func decode(b []byte, proto uint8) (Socket, bool) {
	if len(b) < answerLen {
		return Socket{}, false
	}
	state, waits := b[1], uint8(listen)
	if proto == unix.IPPROTO_UDP {
		waits = udpUnconnected
	}
	return Socket{
		V6Only: v6Only(b[answerLen:]),
		Proto:  proto, Inode: uint64(binary.NativeEndian.Uint32(b[68:])), Iface: int(binary.NativeEndian.Uint32(b[40:])),
		Cookie:    binary.NativeEndian.Uint64(b[44:]), // two 32 bit halves, sent back as they came
		Listening: state == waits, Connected: state == established,
		Local:  addrPort(b[0], b[8:24], b[4:6]),
		Remote: addrPort(b[0], b[24:40], b[6:8]),
	}, true
}

// v6Only reads the attribute that sockets of IPv6 have.
func v6Only(attributes []byte) bool {
	for kind, value := range nlsock.Attributes(attributes) {
		if kind == attrV6Only {
			return len(value) > 0 && value[0] == 1
		}
	}
	return false
}

// addrPort unmaps: an IPv4 connection of an IPv6 socket is one over IPv4.
func addrPort(family uint8, ip, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		ip = ip[:4]
	}
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(port))
}
