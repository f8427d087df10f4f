package guard

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"quaywall/internal/inventory"
	"quaywall/internal/testkit/netns"
)

// TestLogins: a connection from outside counts while its process has a child of another name, and not before.
func TestLogins(t *testing.T) {
	host, client := netns.New(t), netns.New(t)
	netns.Veth(t, host, "eth0", client, "eth0")
	host.Addr(t, "eth0", "192.0.2.1/24")
	client.Addr(t, "eth0", "192.0.2.2/24")
	var ln net.Listener
	var err error
	host.Do(t, func() { ln, err = net.Listen("tcp", "192.0.2.1:2222") })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var there net.Conn
	client.Do(t, func() { there, err = net.Dial("tcp", "192.0.2.1:2222") })
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	here, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	inv := &inventory.Inventory{Interfaces: []inventory.Interface{{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}}}
	ways := func() (found []Way) {
		t.Helper()
		host.Do(t, func() {
			f, err := Logins(inv)
			if err != nil {
				t.Fatal(err)
			}
			found = f.Ways
		})
		return found
	}
	if got := ways(); len(got) != 0 {
		t.Errorf("a server's connection counts as somebody logged in: %+v", got)
	}
	shell := exec.Command("sleep", "60")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = shell.Process.Kill(); _ = shell.Wait() }()
	if got := ways(); len(got) != 1 || got[0].Local.Port() != 2222 {
		t.Errorf("with a child, %+v; want the connection to port 2222", got)
	}
}
