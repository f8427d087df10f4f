package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// tryPing sends an echo request and waits for the reply, or for an error about it.
func tryPing(d Dial) (DialResult, error) {
	network, kind := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho)
	if d.To.Addr().Is6() {
		network, kind = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest
	}
	from := ""
	if d.From.IsValid() {
		from = d.From.Addr().String()
	}
	lc := net.ListenConfig{Control: bindTo(d.Device)}
	conn, err := lc.ListenPacket(context.Background(), network, from)
	if err != nil {
		return DialResult{Outcome: outcomeOf(err, Timeout)}, err
	}
	defer conn.Close()
	// Id and sequence number together tell this ping from others of the same node, which all read every reply.
	echo := &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: int(time.Now().UnixNano()>>10) & 0xffff, Data: []byte("quaywall lab")}
	if err := sendEcho(conn, d.To.Addr(), kind, echo); err != nil {
		return DialResult{Outcome: outcomeOf(err, Timeout)}, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(d.Timeout))
	return awaitEcho(conn, d.To.Addr(), echo)
}

func sendEcho(conn net.PacketConn, to netip.Addr, kind icmp.Type, echo *icmp.Echo) error {
	msg, err := (&icmp.Message{Type: kind, Body: echo}).Marshal(nil) // the kernel does ICMPv6's checksum
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(msg, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	return err
}

func awaitEcho(conn net.PacketConn, to netip.Addr, echo *icmp.Echo) (DialResult, error) {
	proto := unix.IPPROTO_ICMP
	if to.Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return DialResult{Outcome: outcomeOf(err, Timeout)}, err
		}
		msg, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil {
			continue
		}
		switch body := msg.Body.(type) {
		case *icmp.Echo:
			reply := msg.Type == ipv4.ICMPTypeEchoReply || msg.Type == ipv6.ICMPTypeEchoReply
			if reply && body.ID == echo.ID && body.Seq == echo.Seq {
				return DialResult{Outcome: Open, Answer: Answer{Proto: "icmp", Local: plain(from)}}, nil
			}
		case *icmp.DstUnreach:
			if aboutPing(body.Data, to) {
				return unreachable(to, msg.Code)
			}
		}
	}
}

// aboutPing tells whether the packet that an ICMP error quotes was of ICMP, and for that address.
func aboutPing(quoted []byte, to netip.Addr) bool {
	at, size, protoAt, proto := 16, 4, 9, byte(unix.IPPROTO_ICMP)
	if to.Is6() {
		at, size, protoAt, proto = 24, 16, 6, unix.IPPROTO_ICMPV6
	}
	if len(quoted) < at+size || quoted[protoAt] != proto {
		return false
	}
	dst, _ := netip.AddrFromSlice(quoted[at : at+size])
	return dst == to.WithZone("")
}

func unreachable(to netip.Addr, code int) (DialResult, error) {
	port := 3
	if to.Is6() {
		port = 4
	}
	if code == port {
		return DialResult{Outcome: Refused}, errors.New("ICMP port unreachable")
	}
	return DialResult{Outcome: Unreachable}, fmt.Errorf("ICMP unreachable, code %d", code)
}
