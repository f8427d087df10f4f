//go:build bench

package bench

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/netns"
)

// replacements is how often a policy is put in force while traffic runs.
const replacements = 500

// TestReplaceUnderLoad applies 500 times, each second time a changed policy, while an allowed client connects in a loop,
// a stream runs and a forbidden client tries, over both families and to the host and to a container.
func TestReplaceUnderLoad(t *testing.T) {
	for _, backend := range backends {
		n := newNetwork(t)
		h := newHost(t, n.host, backend)
		policies := [2]string{shapes["rules"](50) + "  - allow: [7000/tcp, 9000/tcp]\n", shapes["rules"](10) + "  - allow: [7000/tcp, 9000/tcp, 9001/tcp]\n"}
		h.apply(t, policies[0])

		serve(t, n.container, serverPort)
		serve(t, n.host, hostPort)
		leaks := []*atomic.Int64{serve(t, n.container, closedInner), serve(t, n.host, hostPort+1)}
		var failed, connected, tried, stall atomic.Int64
		for _, to := range []netip.AddrPort{at(hostAddr, openPort), at(hostAddr, hostPort), at(hostAddr6, hostPort)} {
			keepConnecting(t, n.client, to, &connected, &failed)
		}
		for _, to := range []netip.AddrPort{at(hostAddr, closedPort), at(hostAddr, hostPort+1), at(hostAddr6, hostPort+1)} {
			keepTrying(t, n.client, to, &tried)
		}
		echo(t, n.host, 9000)
		keepStreaming(t, n, &stall)

		start := time.Now()
		for i := range replacements {
			h.apply(t, policies[(i+1)%2])
		}
		took := time.Since(start)
		for _, c := range []struct {
			what, unit, target string
			value              float64
		}{
			{"allowed connections that failed", fmt.Sprintf("of %d", connected.Load()), "0", float64(failed.Load())},
			{"forbidden connections that got in", fmt.Sprintf("of %d", tried.Load()), "0", float64(leaks[0].Load() + leaks[1].Load())},
			{"longest stall of a stream", "ms", "at most 50 ms", float64(stall.Load())},
		} {
			most := map[bool]float64{true: 50}[c.unit == "ms"]
			report.Add(Row{What: fmt.Sprintf("%d applies under load (%.0f ms each), %s: %s", replacements,
				took.Seconds()*1000/replacements, backend, c.what), Ours: c.value, Unit: c.unit, Target: c.target, Met: c.value <= most})
		}
	}
}

func keepConnecting(t *testing.T, ns *netns.NS, to netip.AddrPort, connected, failed *atomic.Int64) {
	background(t, ns, func(stop *atomic.Bool) {
		for !stop.Load() {
			if err := dial(to, time.Second); err != nil {
				failed.Add(1)
				t.Logf("allowed connection to %s: %v", to, err)
			}
			connected.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// keepTrying sends one SYN after the other; whether any got in is told by the server.
func keepTrying(t *testing.T, ns *netns.NS, to netip.AddrPort, tried *atomic.Int64) {
	background(t, ns, func(stop *atomic.Bool) {
		family, addr := sockaddr(to)
		for !stop.Load() {
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if err := unix.Connect(fd, addr); err == unix.EINPROGRESS {
				tried.Add(1)
			}
			time.Sleep(500 * time.Microsecond)
			unix.Close(fd)
		}
	})
}

// keepStreaming asks and answers on one connection all the time and notes the longest wait for an answer, in ms.
func keepStreaming(t *testing.T, n *network, stall *atomic.Int64) {
	fd := open(t, n.client, at(hostAddr, 9000))
	timeout := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	background(t, n.client, func(stop *atomic.Bool) {
		b := make([]byte, 1)
		for !stop.Load() {
			start := time.Now()
			if _, err := unix.Write(fd, b); err != nil {
				t.Errorf("the stream broke: %v", err)
				return
			}
			if err := readByte(fd, b); err != nil {
				t.Errorf("the stream broke: %v", err)
				return
			}
			if ms := time.Since(start).Milliseconds(); ms > stall.Load() {
				stall.Store(ms)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// readByte reads one byte, going on behind signals.
func readByte(fd int, b []byte) error {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n != 1:
			return io.EOF
		default:
			return nil
		}
	}
}
