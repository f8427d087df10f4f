package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Listen starts a server and gives back when it listens.
func (s *Server) Listen(l Listen) error {
	switch {
	case l.Proto == "tcp":
		return s.listenTCP(l)
	case l.Proto == "udp":
		return s.bothFamilies(l, s.listenUDP)
	case strings.HasPrefix(l.Proto, "ip:"):
		return s.bothFamilies(l, s.listenIP)
	}
	return fmt.Errorf("server of protocol %q: use tcp, udp or ip:N", l.Proto)
}

func (l Listen) at() string {
	host := ""
	if l.Addr.IsValid() {
		host = l.Addr.String()
	}
	return net.JoinHostPort(host, fmt.Sprint(l.Port))
}

// bothFamilies opens a socket for each family that the address leaves open. A node without IPv6 serves IPv4 alone.
func (s *Server) bothFamilies(l Listen, open func(l Listen, family string) error) error {
	if l.Addr.Is4() {
		return open(l, "4")
	}
	if l.Addr.Is6() {
		return open(l, "6")
	}
	if err := open(l, "4"); err != nil {
		return err
	}
	err := open(l, "6")
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func (s *Server) listenTCP(l Listen) error {
	ln, err := net.Listen("tcp", l.at())
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serveTCP(conn)
		}
	}()
	return nil
}

func (s *Server) serveTCP(conn net.Conn) {
	defer conn.Close()
	a := Answer{Node: s.Name, Proto: "tcp", Local: plain(conn.LocalAddr()), Remote: plain(conn.RemoteAddr())}
	s.note(a)
	var want [1]byte
	if _, err := io.ReadFull(conn, want[:]); err != nil {
		return
	}
	switch want[0] {
	case wantAnswer:
		_ = json.NewEncoder(conn).Encode(a)
		_, _ = io.Copy(io.Discard, conn) // the client ends it, so that no TIME_WAIT is left here either
	case wantNumbers:
		sendNumbers(conn)
	case wantEcho:
		_, _ = io.Copy(conn, conn)
	case wantOneLater:
		sendOneLater(conn)
	}
}

// sendNumbers sends 0, 1, 2, … in eight bytes each until the client is gone.
func sendNumbers(conn net.Conn) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var n uint64
	buf := make([]byte, 0, 1024)
	for range tick.C {
		buf = buf[:0]
		for range 128 {
			buf = binary.BigEndian.AppendUint64(buf, n)
			n++
		}
		if _, err := conn.Write(buf); err != nil {
			return
		}
	}
}

func sendOneLater(conn net.Conn) {
	var ms [4]byte
	if _, err := io.ReadFull(conn, ms[:]); err != nil {
		return
	}
	time.Sleep(time.Duration(binary.BigEndian.Uint32(ms[:])) * time.Millisecond)
	if _, err := conn.Write(make([]byte, 8)); err != nil {
		return
	}
	_, _ = io.Copy(conn, conn)
}

// listenUDP answers from the very address that was dialled, which a plain socket does not on a host with several.
func (s *Server) listenUDP(l Listen, family string) error {
	conn, err := net.ListenPacket("udp"+family, l.at())
	if err != nil {
		return err
	}
	exchange, err := udpExchange(conn, family)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	go func() {
		for exchange(func(local netip.Addr, from net.Addr) []byte {
			a := Answer{Node: s.Name, Proto: "udp", Remote: plain(from),
				Local: netip.AddrPortFrom(local, plain(conn.LocalAddr()).Port())}
			return s.answer(a)
		}) == nil {
		}
	}()
	return nil
}

func (s *Server) answer(a Answer) []byte {
	s.note(a)
	data, err := json.Marshal(a)
	if err != nil {
		return nil
	}
	return data
}

// udpExchange reads a datagram and sends what reply says. A reply that can't be sent is the client's loss.
func udpExchange(conn net.PacketConn, family string) (func(reply func(netip.Addr, net.Addr) []byte) error, error) {
	buf := make([]byte, 65536)
	if family == "4" {
		p := ipv4.NewPacketConn(conn)
		return func(reply func(netip.Addr, net.Addr) []byte) error {
			_, cm, from, err := p.ReadFrom(buf)
			if err != nil {
				return err
			}
			local, _ := netip.AddrFromSlice(cm.Dst.To4())
			_, _ = p.WriteTo(reply(local, from), &ipv4.ControlMessage{Src: cm.Dst}, from)
			return nil
		}, p.SetControlMessage(ipv4.FlagDst, true)
	}
	p := ipv6.NewPacketConn(conn)
	return func(reply func(netip.Addr, net.Addr) []byte) error {
		_, cm, from, err := p.ReadFrom(buf)
		if err != nil {
			return err
		}
		local, _ := netip.AddrFromSlice(cm.Dst)
		_, _ = p.WriteTo(reply(local, from), &ipv6.ControlMessage{Src: cm.Dst, IfIndex: cm.IfIndex}, from)
		return nil
	}, p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
}

// listenIP answers packets of an IP protocol without ports.
func (s *Server) listenIP(l Listen, family string) error {
	number, err := protocolNumber(l.Proto)
	if err != nil {
		return err
	}
	host := ""
	if l.Addr.IsValid() {
		host = l.Addr.String()
	}
	conn, err := net.ListenPacket(fmt.Sprintf("ip%s:%d", family, number), host)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 1 && buf[0] == wantAnswer { // anything else is an answer of another agent, or a crafted packet
				_, _ = conn.WriteTo(s.answer(Answer{Node: s.Name, Proto: l.Proto, Remote: plain(from)}), from)
			}
		}
	}()
	return nil
}
