package nlsock_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
	"quaywall/internal/testkit/netns"
)

func TestMain(m *testing.M) {
	netns.Isolate()
	os.Exit(m.Run())
}

func dump(t *testing.T, typ uint16, each func(message []byte)) error {
	t.Helper()
	s, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Dump(typ, make([]byte, unix.SizeofIfAddrmsg), each)
}

// TestDump: an answer of many datagrams comes whole and in order, each message as the kernel wrote it.
func TestDump(t *testing.T) {
	const most = 5000
	ns := netns.New(t)
	var add strings.Builder
	for i := range most {
		fmt.Fprintf(&add, "addr add 10.%d.%d.1/32 dev lo\n", i/250, i%250)
	}
	ns.Feed(t, add.String(), "ip", "-batch", "-")
	ns.Do(t, func() {
		var got []string
		err := dump(t, unix.RTM_GETADDR, func(message []byte) {
			for kind, value := range nlsock.Attributes(message[unix.SizeofIfAddrmsg:]) {
				if kind == unix.IFA_LOCAL && value[0] == 10 {
					got = append(got, fmt.Sprint(value))
				}
			}
		})
		if err != nil || len(got) != most {
			t.Fatalf("%d addresses, %v: want %d", len(got), err, most)
		}
		for i, one := range got {
			if want := fmt.Sprint([]byte{10, byte(i / 250), byte(i % 250), 1}); one != want {
				t.Fatalf("the %dth is %s, want %s", i, one, want)
			}
		}
	})
}

// TestDumpIsRefused: an error is the answer's last message, and the first.
func TestDumpIsRefused(t *testing.T) {
	netns.Run(t, func() {
		err := dump(t, unix.RTM_MAX+1, func(message []byte) { t.Errorf("a message: %v", message) })
		if !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("%v, want %v", err, unix.EOPNOTSUPP)
		}
	})
}
