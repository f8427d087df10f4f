package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The first byte of a TCP connection says what the client wants of the server.
const (
	wantAnswer   = 'A' // an Answer in one line, then the end
	wantNumbers  = 'S' // numbers without end, the client says no more
	wantEcho     = 'P' // each number back
	wantOneLater = 'T' // four bytes of milliseconds follow; one number after that time, then each number back
)

// Try dials once, from the namespace of the calling thread.
func Try(d Dial) DialResult {
	if d.Timeout == 0 {
		d.Timeout = DefaultTimeout
	}
	begin := time.Now()
	var r DialResult
	var err error
	switch {
	case d.Proto == "tcp":
		r, err = tryTCP(d)
	case d.Proto == "udp":
		r, err = tryUDP(d)
	case d.Proto == "icmp":
		r, err = tryPing(d)
	case strings.HasPrefix(d.Proto, "ip:"):
		r, err = tryIP(d)
	default:
		r, err = DialResult{Outcome: Unsupported}, fmt.Errorf("protocol %q: use tcp, udp, icmp or ip:N", d.Proto)
	}
	r.Took = time.Since(begin)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// Connect makes a TCP connection as the Dial says.
func (d Dial) connect() (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: d.Timeout, Control: bindTo(d.Device)}
	if d.From.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(d.From)
	}
	conn, err := dialer.Dial("tcp", d.To.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// bindTo makes sockets leave by one device.
func bindTo(device string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if device == "" {
			return nil
		}
		if cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); cerr != nil {
			return cerr
		}
		return err
	}
}

func tryTCP(d Dial) (DialResult, error) {
	deadline := time.Now().Add(d.Timeout)
	conn, err := d.connect()
	if err != nil {
		return DialResult{Outcome: outcomeOf(err, Timeout)}, err
	}
	defer conn.Close()
	// A reset at the end leaves no TIME_WAIT, so that a load doesn't run out of ports.
	_ = conn.SetLinger(0)
	_ = conn.SetDeadline(deadline)
	r := DialResult{Outcome: Open, From: plain(conn.LocalAddr())}
	if _, err := conn.Write([]byte{wantAnswer}); err != nil {
		r.Outcome = Closed
		return r, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		r.Outcome = outcomeOf(err, Silent)
		if r.Outcome != Silent {
			r.Outcome = Closed
		}
		return r, err
	}
	return r, json.Unmarshal(line, &r.Answer)
}

func tryUDP(d Dial) (DialResult, error) {
	dialer := net.Dialer{Control: bindTo(d.Device)}
	if d.From.IsValid() {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(d.From)
	}
	conn, err := dialer.Dial("udp", d.To.String())
	if err != nil {
		return DialResult{Outcome: outcomeOf(err, Timeout)}, err
	}
	return ask(conn, d.Timeout)
}

// tryIP asks a server of an IP protocol without ports.
func tryIP(d Dial) (DialResult, error) {
	dialer := net.Dialer{Control: bindTo(d.Device)}
	if d.From.IsValid() {
		dialer.LocalAddr = &net.IPAddr{IP: d.From.Addr().AsSlice(), Zone: d.From.Addr().Zone()}
	}
	network := "ip4:"
	if d.To.Addr().Is6() {
		network = "ip6:"
	}
	conn, err := dialer.Dial(network+strings.TrimPrefix(d.Proto, "ip:"), d.To.Addr().String())
	if err != nil {
		return DialResult{Outcome: outcomeOf(err, Timeout)}, err
	}
	return ask(conn, d.Timeout)
}

// ask sends a question three times within the timeout, since datagrams may get lost on a busy machine.
func ask(conn net.Conn, timeout time.Duration) (DialResult, error) {
	defer conn.Close()
	r := DialResult{Outcome: Timeout, From: plain(conn.LocalAddr())}
	buf := make([]byte, 2048)
	var err error
	for range 3 {
		if _, err = conn.Write([]byte{wantAnswer}); err != nil {
			r.Outcome = outcomeOf(err, Timeout)
			return r, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(timeout / 3))
		var n int
		if n, err = readDatagram(conn, buf); err == nil {
			r.Outcome = Open
			return r, json.Unmarshal(buf[:n], &r.Answer)
		}
		if r.Outcome = outcomeOf(err, Timeout); r.Outcome != Timeout {
			return r, err
		}
	}
	return r, err
}

// readDatagram leaves out the IPv4 header that a raw socket's Read gives.
func readDatagram(conn net.Conn, buf []byte) (int, error) {
	if raw, ok := conn.(*net.IPConn); ok {
		n, _, err := raw.ReadFrom(buf)
		return n, err
	}
	return conn.Read(buf)
}

// outcomeOf sorts an error; late is what running out of time means.
func outcomeOf(err error, late Outcome) Outcome {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return late
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOPROTOOPT):
		return Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, io.EOF):
		return Closed
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPERM):
		return Unsupported
	}
	return Unreachable
}

// plain is an address without the clothes that net puts around it.
func plain(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	case *net.UDPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		return netip.AddrPortFrom(ip.Unmap().WithZone(a.Zone), 0)
	}
	return netip.AddrPort{}
}

// protocolNumber reads the N of "ip:N".
func protocolNumber(proto string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(proto, "ip:"), 10, 8)
	return int(n), err
}
