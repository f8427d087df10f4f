package guard

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
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
	var unanswered net.Conn
	client.Do(t, func() { unanswered, err = net.Dial("tcp", "192.0.2.1:2222") })
	if err != nil {
		t.Fatal(err)
	}
	defer unanswered.Close() // nobody accepts it
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

// TestUnseenProcesses: a connection that no process seems to hold counts where some processes can't be looked into, and
// with it all others; else it is the kernel's own.
func TestUnseenProcesses(t *testing.T) {
	web, shell, kernel := Way{PID: 10, Process: "nginx"}, Way{PID: 11, Process: "sshd"}, Way{}
	for _, c := range []struct {
		unseen error
		live   []Way
		want   int
	}{
		{nil, []Way{web, shell}, 1},
		{nil, []Way{web, kernel}, 0},
		{errors.New("process 1"), []Way{web, shell}, 1},
		{errors.New("process 1"), []Way{web, kernel}, 2},
	} {
		found := logins(c.live, c.unseen, func(w Way) bool { return w.Process == "sshd" })
		if len(found.Ways) != c.want || strings.Contains(found.Because, "process 1") != (c.want == 2) {
			t.Errorf("%v, unseen %v: found %+v", c.live, c.unseen, found)
		}
	}
}

// TestSSHBeforeLogin: with OpenSSH 10 a connection that nobody is logged in by has processes of three names.
func TestSSHBeforeLogin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{{"sshd-session", "sshd-auth", true}, {"sshd", "sshd-session", true}, {"sshd-session", "bash", false}, {"nginx", "nginx", true}, {"dropbear", "sh", false}} {
		if isSame(c.a, c.b) != c.same {
			t.Errorf("%s and %s are of one program: %v", c.a, c.b, !c.same)
		}
	}
}
