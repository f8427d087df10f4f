// Package sockets lists the TCP and UDP sockets of a host, and the processes that hold them.
//
//	all, err := sockets.List()
//	owners := sockets.Owners()
//	for _, s := range all { fmt.Println(s.Local, owners[s.Inode]) }
//
// Be aware: sockets are those of the network namespace of the calling operating system thread, processes those that
// /proc shows, of which only root can look into all. A socket that nobody owns any more (TIME_WAIT) has inode 0. SCTP
// sockets are not listed.
package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
}

// A UDP socket that is not connected is in this state (TCP_CLOSE of include/net/tcp_states.h).
const udpUnconnected = 7

// List lists the sockets, IPv4 before IPv6, TCP before UDP.
func List() ([]Socket, error) {
	var all []Socket
	for _, q := range []struct {
		proto     uint8
		family    uint8
		listening uint8
		dump      func(uint8) ([]*netlink.Socket, error)
	}{
		{unix.IPPROTO_TCP, unix.AF_INET, netlink.TCP_LISTEN, netlink.SocketDiagTCP},
		{unix.IPPROTO_UDP, unix.AF_INET, udpUnconnected, netlink.SocketDiagUDP},
		{unix.IPPROTO_TCP, unix.AF_INET6, netlink.TCP_LISTEN, netlink.SocketDiagTCP},
		{unix.IPPROTO_UDP, unix.AF_INET6, udpUnconnected, netlink.SocketDiagUDP},
	} {
		found, err := q.dump(q.family)
		// A list that changed while it was read holds all that stayed. A kernel without IPv6 has no such sockets.
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !isNoIPv6(q.family, err) {
			return nil, fmt.Errorf("listing sockets (inet_diag): %w", err)
		}
		for _, s := range found {
			all = append(all, Socket{
				Proto: q.proto, Inode: uint64(s.INode), Listening: s.State == q.listening,
				Connected: s.State == netlink.TCP_ESTABLISHED, Iface: int(s.ID.Interface),
				Local:  addrPort(s.ID.Source, s.ID.SourcePort),
				Remote: addrPort(s.ID.Destination, s.ID.DestinationPort),
			})
		}
	}
	return all, nil
}

func isNoIPv6(family uint8, err error) bool {
	return family == unix.AF_INET6 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT))
}

// addrPort unmaps: an IPv4 connection of an IPv6 socket is one over IPv4.
func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}
