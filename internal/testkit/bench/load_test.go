//go:build bench

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/netns"
)

// background runs f on a thread inside a namespace until the test ends; f must return soon after stop is set.
func background(t *testing.T, ns *netns.NS, f func(stop *atomic.Bool)) {
	t.Helper()
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		ns.Do(t, func() { f(&stop) })
	}()
	t.Cleanup(func() { stop.Store(true); done.Wait() })
}

func sockaddr(to netip.AddrPort) (int, unix.Sockaddr) {
	if to.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// serve accepts TCP connections on a port of both families and closes them at once; it gives how many there were.
func serve(t *testing.T, ns *netns.NS, port int) *atomic.Int64 {
	t.Helper()
	var accepted atomic.Int64
	var fd int
	ns.Do(t, func() { fd = listen(t, port) })
	background(t, ns, func(stop *atomic.Bool) {
		defer unix.Close(fd)
		for !stop.Load() {
			if conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
				accepted.Add(1)
				unix.Close(conn)
			}
		}
	})
	return &accepted
}

func listen(t *testing.T, port int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	timeout := unix.Timeval{Usec: 100_000} // accept looks at stop that often
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrInet6{Port: port}), unix.Listen(fd, 4096))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// dial makes one TCP connection and ends it by RST, so that no port waits. Within is how long it may take.
func dial(to netip.AddrPort, within time.Duration) error {
	family, addr := sockaddr(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(within.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return err
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(fd, addr); !errors.Is(err, unix.EINTR) {
		return err
	}
	return connected(fd, within)
}

// connected waits for a connection that a signal left under way: the runtime sends itself signals, and with a timeout
// set connect(2) isn't begun again behind one.
func connected(fd int, within time.Duration) error {
	for end := time.Now().Add(within); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(time.Until(end).Milliseconds()))
		switch {
		case n > 0:
			number, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && number != 0 {
				err = unix.Errno(number)
			}
			return err
		case n == 0 || time.Now().After(end):
			return unix.EINPROGRESS
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// connections dials for a while and gives connections a second. One that fails ends the test.
func connections(t *testing.T, ns *netns.NS, to netip.AddrPort, during time.Duration) float64 {
	t.Helper()
	count, start := 0, time.Now()
	ns.Do(t, func() {
		for time.Since(start) < during {
			if err := dial(to, time.Second); err != nil {
				t.Fatalf("connection %d to %s: %v", count, to, err)
			}
			count++
		}
	})
	return float64(count) / time.Since(start).Seconds()
}

// synFlood sends SYNs from random ports of the client for a while and gives packets a second.
func synFlood(t *testing.T, n *network, from, to netip.AddrPort, during time.Duration) float64 {
	t.Helper()
	way := n.way(t, to)
	var frames [][]byte
	for _, port := range rand.Perm(60_000)[:4096] {
		way.Src = netip.AddrPortFrom(from.Addr(), uint16(2_000+port))
		frames = append(frames, way.TCP(frame.SYN))
	}
	return flood(t, n, frames, during)
}

// udpFlood sends datagrams of one flow for a while and gives packets a second.
func udpFlood(t *testing.T, n *network, from, to netip.AddrPort, during time.Duration) float64 {
	t.Helper()
	way := n.way(t, to)
	way.Src = from
	return flood(t, n, slices.Repeat([][]byte{way.UDP(make([]byte, 18))}, 4096), during)
}

// way leads from the client to the host.
func (n *network) way(t *testing.T, to netip.AddrPort) frame.Way {
	return frame.Way{SrcMAC: card(t, n.client).Attrs().HardwareAddr, DstMAC: card(t, n.host).Attrs().HardwareAddr, Dst: to}
}

// flood sends frames over and over, many with one call: the less the sender costs, the more of the time is the host's. What
// the host's queue had no room for doesn't count. On a veth pair the receiving host works on the sender's processor, in the
// sender's time: what is sent has been judged.
func flood(t *testing.T, n *network, frames [][]byte, during time.Duration) float64 {
	t.Helper()
	before := card(t, n.client).Attrs()
	var count int
	var took time.Duration
	n.client.Do(t, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: before.Index}); err != nil {
			t.Fatal(err)
		}
		b, start := newBatch(frames), time.Now()
		for took < during {
			if err := b.send(fd); err != nil {
				t.Fatal("sending: ", err)
			}
			count, took = count+len(frames), time.Since(start)
		}
	})
	lost := card(t, n.client).Attrs().Statistics.TxDropped - before.Statistics.TxDropped
	return (float64(count) - float64(lost)) / took.Seconds()
}

// batch is frames as sendmmsg(2) takes them, struct mmsghdr of linux/socket.h.
type batch []struct {
	head unix.Msghdr
	sent uint32
	_    uint32
}

func newBatch(frames [][]byte) batch {
	b := make(batch, len(frames))
	for i, f := range frames {
		v := &unix.Iovec{Base: &f[0]}
		v.SetLen(len(f))
		b[i].head.Iov = v
		b[i].head.SetIovlen(1)
	}
	return b
}

// send sends all of them once. A frame that there is no room for is left out.
func (b batch) send(fd int) error {
	for len(b) > 0 {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(min(len(b), 256)), 0, 0, 0)
		switch errno {
		case 0:
			b = b[n:]
		case unix.ENOBUFS:
			b = b[1:]
		default:
			return errno
		}
	}
	return nil
}

// card is eth0 of a namespace.
func card(t *testing.T, ns *netns.NS) netlink.Link {
	t.Helper()
	var link netlink.Link
	ns.Do(t, func() {
		var err error
		if link, err = netlink.LinkByName("eth0"); err != nil {
			t.Fatal(err)
		}
	})
	return link
}

// echo answers each byte string on one TCP port, connection after connection.
func echo(t *testing.T, ns *netns.NS, port int) {
	t.Helper()
	var fd int
	ns.Do(t, func() { fd = listen(t, port) })
	background(t, ns, func(stop *atomic.Bool) {
		defer unix.Close(fd)
		buffer := make([]byte, 1<<20)
		for !stop.Load() {
			conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				continue
			}
			for !stop.Load() {
				n, err := unix.Read(conn, buffer)
				if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) { // the timeout is the listener's
					continue
				}
				if err != nil || n == 0 {
					break
				}
				// A single byte asks for an answer; longer reads are throughput and are thrown away.
				if n == 1 {
					if _, err := unix.Write(conn, buffer[:1]); err != nil {
						break
					}
				}
			}
			unix.Close(conn)
		}
	})
}

// open connects and gives the descriptor.
func open(t *testing.T, ns *netns.NS, to netip.AddrPort) int {
	t.Helper()
	fd := -1
	ns.Do(t, func() {
		family, addr := sockaddr(to)
		var err error
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, addr); err != nil {
			t.Fatal(fmt.Errorf("connecting to %s: %w", to, err))
		}
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// roundTrips asks and waits for the answer for a while and gives round trips a second.
func roundTrips(t *testing.T, fd int, during time.Duration) float64 {
	t.Helper()
	b, count, start := make([]byte, 1), 0, time.Now()
	for time.Since(start) < during {
		if _, err := unix.Write(fd, b); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(fd, b); err != nil || n != 1 {
			t.Fatal("no answer: ", n, err)
		}
		count++
	}
	return float64(count) / time.Since(start).Seconds()
}

// throughput sends for a while and gives MB a second.
func throughput(t *testing.T, fd int, during time.Duration) float64 {
	t.Helper()
	b, sent, start := make([]byte, 1<<17), 0, time.Now()
	for time.Since(start) < during {
		n, err := unix.Write(fd, b)
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	return float64(sent) / 1e6 / time.Since(start).Seconds()
}

func at(addr string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
}
