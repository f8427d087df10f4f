package apply_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quaywall/internal/testkit/netns"
)

// Traps 14 and 48: what a new policy denies ends, whoever speaks next, and what it allows goes on.

// stream is a connection whose server sends all the time and whose client says one thing at its beginning.
type stream struct {
	name    string
	arrived atomic.Int64 // messages at the client
	readErr atomic.Value // what the client was told
}

// serve lets a server send on each connection to a port, or to each client that sends it a datagram.
func serve(t *testing.T, n node, network, address string) {
	t.Helper()
	n.Do(t, func() {
		if network == "udp" {
			c, err := net.ListenPacket(network, address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			go answerDatagrams(c)
			return
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { c.Close() })
				go send(c)
			}
		}()
	})
}

const every = 5 * time.Millisecond

func send(c net.Conn) {
	for {
		if _, err := c.Write([]byte("news\n")); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func answerDatagrams(c net.PacketConn) {
	buf := make([]byte, 100)
	for {
		_, peer, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		go func() {
			for {
				if _, err := c.WriteTo([]byte("news\n"), peer); errors.Is(err, net.ErrClosed) {
					return
				}
				time.Sleep(every)
			}
		}()
	}
}

// tuneIn dials, says one thing, and counts what comes.
func tuneIn(t *testing.T, from node, network, address string) *stream {
	t.Helper()
	s := &stream{name: network + " " + address}
	from.Do(t, func() {
		c, err := net.DialTimeout(network, address, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 5)
			for {
				if _, err := c.Read(buf); err != nil {
					s.readErr.CompareAndSwap(nil, err)
					return
				}
				s.arrived.Add(1)
			}
		}()
	})
	if !s.flows() {
		t.Fatalf("%s: nothing comes before the policy", s.name)
	}
	return s
}

// flows tells whether something still arrives.
func (s *stream) flows() bool {
	before := s.arrived.Load()
	for until := time.Now().Add(patience / 2); time.Now().Before(until); time.Sleep(every) {
		if s.arrived.Load() >= before+20 {
			return true
		}
	}
	return false
}

// ended tells whether nothing arrives any more, by and by.
func (s *stream) ended() bool {
	for until := time.Now().Add(patience / 2); time.Now().Before(until); {
		before := s.arrived.Load()
		time.Sleep(40 * every)
		if s.arrived.Load() == before {
			return true
		}
	}
	return false
}

// together looks at all streams at a time.
func together(all []*stream, look func(*stream)) {
	var group sync.WaitGroup
	for _, f := range all {
		group.Add(1)
		go func() {
			defer group.Done()
			look(f)
		}()
	}
	group.Wait()
}

const openPolicy = "version: 1\ninbound:\n  - allow: [ssh, 7001-7004/tcp+udp]\n  - deny: any\n"

// published is a port that is rewritten to a container's, to the same number: there the server's packets alone would make
// the connection known again, the other way round.
const published = `table inet published {
	chain in {
		type nat hook prerouting priority dstnat
		meta l4proto { tcp, udp } ip daddr 203.0.113.1 th dport 7003 dnat ip to 172.17.0.2
		meta l4proto { tcp, udp } ip6 daddr 2001:db8:1::1 th dport 7003 dnat ip6 to 2001:db8:17::2
	}
	chain out {
		type nat hook postrouting priority srcnat
		oifname eth0 ip saddr 172.17.0.0/16 masquerade
		oifname eth0 ip6 saddr 2001:db8:17::/64 masquerade
	}
}`

func TestDeniedConnectionsEnd(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		s := newStreet(t)
		h := local(t, t.TempDir())
		put := func(text string) (n int) {
			s.host.Do(t, func() {
				r := applyText(t, h, backend, text)
				if len(r.Notices) > 0 {
					t.Errorf("notices: %q", r.Notices)
				}
				if r.Ended != nil {
					n = r.Ended.Connections
				}
			})
			return n
		}
		netns.Tool(t, "nft")
		s.host.Feed(t, published, "nft", "-f", "-")
		put(openPolicy)
		var doomed, blessed []*stream
		for _, v6 := range []bool{false, true} {
			for _, network := range []string{"tcp", "udp"} {
				for _, port := range []string{"7001", "7002"} {
					address := net.JoinHostPort(s.host.addr(v6), port)
					serve(t, s.host, network, address)
					f := tuneIn(t, s.client, network, address)
					if port == "7001" {
						doomed = append(doomed, f)
					} else {
						blessed = append(blessed, f)
					}
				}
				serve(t, s.container, network, net.JoinHostPort(s.container.addr(v6), "7003"))
				doomed = append(doomed, tuneIn(t, s.client, network, net.JoinHostPort(s.host.addr(v6), "7003")))
				out := net.JoinHostPort(s.client.addr(v6), "9000")
				serve(t, s.client, network, out)
				blessed = append(blessed, tuneIn(t, s.host, network, out), tuneIn(t, s.container, network, out))
			}
		}
		if n := put("version: 1\ninbound:\n  - allow: [ssh, 7002/tcp+udp, 7004/tcp+udp]\n"); n != len(doomed) {
			t.Errorf("%d connections were ended, want %d", n, len(doomed))
		}
		s.host.Do(t, func() {
			if st, err := h.Status(t.Context()); err != nil || st.Ended == nil || st.Ended.Hash != st.Hash || st.Ended.Connections != len(doomed) {
				t.Errorf("status tells of %+v, %v", st.Ended, err)
			}
		})
		together(doomed, func(f *stream) {
			if !f.ended() {
				t.Errorf("%s goes on", f.name)
			}
		})
		together(blessed, func(f *stream) {
			if !f.flows() {
				t.Errorf("%s was cut: %v", f.name, f.readErr.Load())
			}
		})
		together(doomed, func(f *stream) {
			if f.flows() {
				t.Errorf("%s came back", f.name)
			}
		})
		put(openPolicy)
		together(doomed, func(f *stream) {
			if strings.HasPrefix(f.name, "udp") && !f.flows() { // a TCP connection that was reset is gone
				t.Errorf("%s stays cut under a policy that allows it", f.name)
			}
		})
	})
}

func TestKeptConnectionsGoOn(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		s := newStreet(t)
		h := local(t, t.TempDir())
		s.host.Do(t, func() { applyText(t, h, backend, openPolicy) })
		address := net.JoinHostPort(s.host.v4, "7001")
		serve(t, s.host, "tcp", address)
		f := tuneIn(t, s.client, "tcp", address)
		s.host.Do(t, func() {
			if r := applyText(t, h, backend, "version: 1\nestablished: keep\ninbound:\n  - allow: ssh\n"); r.Ended != nil {
				t.Errorf("%+v", r.Ended)
			}
		})
		if !f.flows() {
			t.Errorf("a connection was ended that the policy keeps: %v", f.readErr.Load())
		}
	})
}
