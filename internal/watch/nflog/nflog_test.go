package nflog

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"quaywall/internal/packet"
	"quaywall/internal/testkit/netns"
)

// listener is a namespace whose rules log what is sent to ports of its loopback interface, and a reader.
func listener(t *testing.T) (*netns.NS, *Reader) {
	t.Helper()
	netns.Tool(t, "nft")
	ns := netns.New(t)
	ns.Output(t, "nft", `add table inet t; add chain inet t c { type filter hook output priority 0; };`+
		`add rule inet t c udp dport 7 ct state new log group 86 prefix "new"; add rule inet t c udp dport 8 log group 86 prefix "all"`)
	var r *Reader
	var err error
	ns.Do(t, func() { r, err = Open(86) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return ns, r
}

// send sends datagrams to a port of the loopback interface, and tells how many went: every other one meets the news that
// nobody listens.
func send(t *testing.T, ns *netns.NS, to string, n int) (sent int) {
	t.Helper()
	ns.Do(t, func() {
		conn, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range n {
			if _, err := conn.Write(make([]byte, 500)); err == nil {
				sent++
			}
		}
	})
	return sent
}

const soon = 5 * time.Second

func TestRead(t *testing.T) {
	ns, r := listener(t)
	for _, test := range []struct {
		to, prefix string
		state      packet.State
	}{{"127.0.0.1:7", "new", packet.New}, {"[::1]:8", "all", packet.New}} {
		send(t, ns, test.to, 1)
		logged, err := r.Read(time.Now().Add(soon))
		if err != nil || len(logged) != 1 {
			t.Fatalf("%s: %d packets, %v", test.to, len(logged), err)
		}
		l := logged[0]
		pk, err := packet.Decode(l.Packet)
		ns.Do(t, func() { pk.In, pk.Out = InterfaceName(l.In), InterfaceName(l.Out) })
		want := netAddr(test.to)
		if err != nil || l.Prefix != test.prefix || pk.In != "" || pk.Out != "lo" || netAddr(pk.Dst.String()) != want || l.State != test.state || len(l.Packet) != copied {
			t.Errorf("%s: %+v, %v: %v out %s, %v", test.to, l, l.State, pk, pk.Out, err)
		}
	}
	if _, err := r.Read(time.Now()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("where nothing is logged: %v", err)
	}
	ns.Do(t, func() {
		if second, err := Open(86); err == nil || !strings.Contains(err.Error(), "another program reads it") {
			t.Errorf("a second reader: %v, %v", second, err)
		}
		if name := InterfaceName(12345); name != "#12345" {
			t.Errorf("an interface that is gone is called %q", name)
		}
	})
}

// netAddr is an address without the port.
func netAddr(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		return host
	}
	return s
}

// TestFlood: of a flood the kernel keeps what its queue has room for, and every other packet is counted, also in the next
// flood.
func TestFlood(t *testing.T) {
	ns, r := listener(t)
	sent, read := 0, 0
	for range 2 {
		sent += send(t, ns, "127.0.0.1:8", 20_000)
		for {
			logged, err := r.Read(time.Now().Add(100 * time.Millisecond))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			read += len(logged)
		}
		if lost, err := r.Lost(); err != nil || read < 100 || read > 4000 || read+int(lost) != sent {
			t.Errorf("%d sent, %d read, %d lost, %v; want some hundred read, and all the others lost", sent, read, lost, err)
		}
	}
}

// TestClose: who waits is woken up.
func TestClose(t *testing.T) {
	_, r := listener(t)
	failed := make(chan error)
	go func() { _, err := r.Read(time.Time{}); failed <- err }()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("reading what was closed is no error")
	}
}

// FuzzDecode: whatever the kernel says, no more is taken for a packet than there is.
func FuzzDecode(f *testing.F) {
	attr := func(kind uint16, value ...byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	whole := []byte{2, 0, 0, 86}
	for _, a := range [][]byte{attr(attrIn, 0, 0, 0, 2), attr(attrOut, 0, 0, 0, 3), attr(attrPrefix, []byte("quaywall denied\x00")...),
		attr(attrCtInfo, 0, 0, 0, 2), attr(attrPayload, 0x45, 0, 0, 20)} {
		whole = append(whole, a...)
	}
	if l := Decode(whole, true); l.Prefix != "quaywall denied" || l.In != 2 || l.Out != 3 || l.State != packet.New || len(l.Packet) != 4 {
		f.Errorf("a whole message is %+v", l)
	}
	if l := Decode([]byte{2, 0, 0, 86}, true); l.State != packet.Invalid {
		f.Errorf("a packet that connection tracking doesn't know is %v", l.State)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		l := Decode(b, true)
		if len(l.Prefix)+len(l.Packet) > len(b) {
			t.Errorf("of %d bytes, %d are a packet and %d its prefix", len(b), len(l.Packet), len(l.Prefix))
		}
		_ = l.State.String()
	})
}
