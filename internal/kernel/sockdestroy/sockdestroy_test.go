package sockdestroy_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/sockdestroy"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/sockets"
)

func TestMain(m *testing.M) {
	netns.Isolate()
	os.Exit(m.Run())
}

// A connection that is over by the time it is to be closed is no error, and the socket that listens at its address goes on.
func TestClose(t *testing.T) {
	netns.New(t).Do(t, func() {
		for _, at := range []string{"127.0.0.1:7000", "[::1]:7000"} {
			server, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			client, accepted := connect(t, server)
			listed := slices.DeleteFunc(list(t), func(s sockets.Socket) bool { return s.Local.String() != at || !s.Connected })
			if len(listed) != 1 {
				t.Fatalf("%s: %+v, want the one that was accepted", at, listed)
			}
			for i, want := range []int{1, 0} {
				if n, err := sockdestroy.Close(listed); n != want || err != nil {
					t.Errorf("%s, time %d: %d, %v, want %d", at, i+1, n, err, want)
				}
			}
			_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%s: the client reads %v, want a reset", at, err)
			}
			if _, err := accepted.Write([]byte{1}); !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EPIPE) {
				t.Errorf("%s: the server writes %v", at, err)
			}
			connect(t, server)
		}
	})
}

func connect(t *testing.T, server net.Listener) (client, accepted net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal("the server takes no more connections: ", err)
	}
	t.Cleanup(func() { client.Close() })
	if accepted, err = server.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return client, accepted
}

func list(t *testing.T) []sockets.Socket {
	t.Helper()
	all, err := sockets.List()
	if err != nil {
		t.Fatal(err)
	}
	return all
}
