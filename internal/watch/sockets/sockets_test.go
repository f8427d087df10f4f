package sockets

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
)

// find looks for the socket of a local address.
func find(t *testing.T, local netip.AddrPort, listening bool) Socket {
	t.Helper()
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Local == local && s.Listening == listening {
			return s
		}
	}
	t.Fatalf("no socket at %v (listening %v) among %d", local, listening, len(all))
	return Socket{}
}

func local(t *testing.T, addr net.Addr) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Sockets on loopback change nothing outside of this test.
func TestList(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()

	listening := find(t, local(t, l.Addr()), true)
	owners, _ := Owners() // some process of this host may be closed to everybody
	if owner := owners[listening.Inode]; owner.PID != os.Getpid() || owner.Name != Name(os.Getpid()) {
		t.Errorf("owner of the listening socket is %+v, want this process, %d", owner, os.Getpid())
	}
	connected := find(t, local(t, client.LocalAddr()), false)
	if connected.Remote != local(t, l.Addr()) || !connected.Connected {
		t.Errorf("the connected socket is %+v, want one connected to %v", connected, l.Addr())
	}
	if s := find(t, local(t, u.LocalAddr()), true); s.Proto != 17 {
		t.Errorf("the UDP socket has protocol %d", s.Proto)
	}
}

func TestOwnersOfNobody(t *testing.T) {
	if inodes, err := Held(-1); inodes != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that isn't there holds %v, %v", inodes, err)
	}
	if name := Name(-1); name != "" {
		t.Errorf("a process that isn't there is called %q", name)
	}
}
