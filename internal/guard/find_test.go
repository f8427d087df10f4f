package guard

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/sockets"
)

// The test program plays chains of processes: it starts itself again and again, once for each stage.
const stagesEnv = "QUAYWALL_GUARD_STAGES"

// stage is one process of a chain. The last one calls Find and prints what it gives.
type stage struct {
	Name   string // the name it gives itself
	Keep   []int  // which of the chain's sockets it holds, by index
	Stdin  int    // its standard input is that socket, counted from 1
	Leave  bool   // it ends as soon as it has started the next one, as a daemon's parent does
	Orphan bool   // it goes on when its parent has ended
	UID    uint32
	NewNet bool // it lives in a network namespace of its own
	Socks  int  // how many sockets the chain has; the same in all stages
	Inv    inventory.Inventory
}

func TestMain(m *testing.M) {
	if os.Getenv(stagesEnv) == "" {
		netns.Isolate()
		os.Exit(m.Run())
	}
	var stages []stage
	err := json.Unmarshal([]byte(os.Getenv(stagesEnv)), &stages)
	if err == nil {
		err = play(stages)
	}
	if err != nil {
		gob.NewEncoder(os.Stdout).Encode(Found{Because: "the stage failed: " + err.Error()})
		os.Exit(1)
	}
}

// play is the life of one process of a chain.
func play(stages []stage) error {
	if os.Getpid() == 1 {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, "")); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/self/comm", []byte(stages[0].Name), 0); err != nil {
		return err
	}
	for stages[0].Orphan && os.Getppid() != 1 {
		time.Sleep(time.Millisecond)
	}
	if len(stages) == 1 {
		closeOthers(stages[0])
		found, err := Find(&stages[0].Inv)
		if err != nil {
			return err
		}
		Name(found.Ways)
		return gob.NewEncoder(os.Stdout).Encode(found)
	}
	var socks []*os.File
	for i := range stages[0].Socks {
		socks = append(socks, os.NewFile(uintptr(3+i), "socket"))
	}
	cmd := command(stages[1:], socks)
	if err := cmd.Start(); err != nil {
		return err
	}
	if stages[0].Leave {
		return nil
	}
	closeOthers(stages[0])
	if os.Getpid() != 1 {
		time.Sleep(time.Hour) // process 1 takes it away
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// closeOthers closes the sockets that a stage does not keep.
func closeOthers(s stage) {
	for i := range s.Socks {
		if !slices.Contains(s.Keep, i) {
			unix.Close(3 + i)
		}
	}
}

// command starts the stages' first process.
func command(stages []stage, socks []*os.File) *exec.Cmd {
	text, _ := json.Marshal(stages)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), stagesEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, socks
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if n := stages[0].Stdin; n > 0 {
		cmd.Stdin = socks[n-1]
	}
	if uid := stages[0].UID; uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if stages[0].NewNet {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	return cmd
}

// host is a network namespace with two cards, and a client behind each.
type host struct {
	*netns.NS
	client *netns.NS
	inv    inventory.Inventory
}

func newHost(t *testing.T) host {
	h := host{NS: netns.New(t), client: netns.New(t)}
	netns.Veth(t, h.NS, "eth0", h.client, "eth0")
	netns.Veth(t, h.NS, "eth1", h.client, "eth1")
	h.Addr(t, "eth0", "192.0.2.1/24", "2001:db8:1::1/64", "fe80::a/64")
	h.Addr(t, "eth1", "198.51.100.1/24")
	h.client.Addr(t, "eth0", "192.0.2.2/24", "2001:db8:1::2/64", "fe80::b/64")
	h.client.Addr(t, "eth1", "198.51.100.2/24")
	for _, name := range []string{"all", "eth0", "eth1"} {
		h.Sysctl(t, "net/ipv4/conf/"+name+"/rp_filter", "0")
		h.client.Sysctl(t, "net/ipv4/conf/"+name+"/rp_filter", "0")
	}
	h.inv = inventory.Inventory{Interfaces: []inventory.Interface{
		{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("fe80::a/64")}},
		{Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}},
		{Name: "lo", Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}},
	}}
	return h
}

// find plays the stages inside the host, with these sockets, below a process 1 of their own, and gives what the last one
// found. bare leaves the process 1 out, so that the chain goes on upwards through the test and out of the namespace.
func (h host) find(t *testing.T, socks []*os.File, bare bool, stages ...stage) Found {
	t.Helper()
	for i := range stages {
		stages[i].Socks = len(socks)
		stages[i].Inv = h.inv
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := command(stages, socks)
	cmd.Stdout = write
	if !bare {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID | unix.CLONE_NEWNS
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.Do(t, func() { err = cmd.Start() })
	if errors.Is(err, unix.EPERM) {
		netns.Missing(t, "making a process namespace needs root: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	write.Close()
	var found Found
	err = gob.NewDecoder(read).Decode(&found)
	in.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatal("the chain printed nothing that can be read: ", err)
	}
	return found
}

// listen makes a listening socket on the host.
func (h host) listen(t *testing.T, network, address string) (l net.Listener, file *os.File) {
	t.Helper()
	var err error
	h.Do(t, func() { l, err = net.Listen(network, address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, fileOf(t, l.(*net.TCPListener))
}

// dial connects from the client, by a local address, and gives the host's end.
func (h host) dial(t *testing.T, l net.Listener, from, to string) *os.File {
	t.Helper()
	var client net.Conn
	var err error
	h.client.Do(t, func() {
		d := net.Dialer{Timeout: 5 * time.Second}
		if from != "" {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
		}
		client, err = d.Dial("tcp", to)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return fileOf(t, conn.(*net.TCPConn))
}

func fileOf(t *testing.T, s interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// show writes ways without what differs from run to run: process ids and the ports that the kernel chose.
func show(ways []Way) []string {
	var lines []string
	for _, w := range ways {
		peer := w.Peer.Addr().String()
		if !w.Peer.IsValid() {
			peer = "-"
		}
		lines = append(lines, fmt.Sprintf("%s %q %s %s <- %s %s", w.Kind, w.Process, w.what(), w.Local.Addr(), peer, strings.Join(w.Interfaces, " ")))
	}
	return lines
}

// expect compares what was found. because is a part of the sentence, "" for none.
func expect(t *testing.T, found Found, because string, want ...string) {
	t.Helper()
	if (because == "") != (found.Because == "") || !strings.Contains(found.Because, because) {
		t.Errorf("because %q, want %q", found.Because, because)
	}
	got := show(found.Ways)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestSSH(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		name, network, listen, dial string
		want                        []string
	}{
		{"IPv4", "tcp4", "192.0.2.1:22", "192.0.2.1:22", []string{
			`session "sshd-session" 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`, `listener "sshd" 22/tcp 192.0.2.1 <- - `}},
		{"IPv6", "tcp6", "[::]:22", "[2001:db8:1::1]:22", []string{
			`session "sshd-session" 22/tcp 2001:db8:1::1 <- 2001:db8:1::2 eth0`, `listener "sshd" 22/tcp :: <- - `}},
		{"mapped", "tcp", "[::]:2222", "192.0.2.1:2222", []string{
			`session "sshd-session" 2222/tcp 192.0.2.1 <- 192.0.2.2 eth0`, `listener "sshd" 2222/tcp :: <- - `}},
		{"link-local", "tcp", "[::]:22", "[fe80::a%eth0]:22", []string{
			`session "sshd-session" 22/tcp fe80::a <- fe80::b eth0`, `listener "sshd" 22/tcp :: <- - `}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, listening := h.listen(t, tt.network, tt.listen)
			conn := h.dial(t, l, "", tt.dial)
			found := h.find(t, []*os.File{listening, conn}, false, stage{Name: "systemd"}, stage{Name: "sshd", Keep: []int{0}},
				stage{Name: "sshd-session", Keep: []int{1}}, stage{Name: "bash"}, stage{Name: "quaywall"})
			expect(t, found, "", tt.want...)
			if len(found.Ways) > 0 && (found.Ways[0].PID < 2 || found.Ways[0].Peer.Port() == 0) {
				t.Errorf("no process or port: %+v", found.Ways[0])
			}
		})
	}
}

// Names that would mislead a careless reader of /proc/PID/stat, and a chain as sudo makes it.
func TestSudoAndOddNames(t *testing.T) {
	h := newHost(t)
	l, _ := h.listen(t, "tcp4", "192.0.2.1:22")
	conn := h.dial(t, l, "", "192.0.2.1:22")
	found := h.find(t, []*os.File{conn}, false, stage{Name: "systemd"}, stage{Name: "a) S 1 (b\nc", Keep: []int{0}}, stage{Name: "ba sh"},
		stage{Name: "sudo"}, stage{Name: ") ("}, stage{Name: "quaywall"})
	expect(t, found, "", `session "a) S 1 (b?c" 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`)
}

// tmux: the server left its starter behind and has process 1 for a parent. sshd is no ancestor any more.
func TestDaemon(t *testing.T) {
	h := newHost(t)
	l, listening := h.listen(t, "tcp4", "192.0.2.1:22")
	conn := h.dial(t, l, "", "192.0.2.1:22")
	found := h.find(t, []*os.File{listening, conn}, false, stage{Name: "systemd", Keep: []int{0}}, stage{Name: "sshd", Keep: []int{1}},
		stage{Name: "tmux: client", Leave: true}, stage{Name: "tmux: server", Orphan: true}, stage{Name: "bash"}, stage{Name: "quaywall"})
	expect(t, found, "none of the 4 processes from this one up holds a connection from outside",
		`live "sshd" 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`)
}

// What process 1 listens on for others is no way in; what another ancestor listens on is. Connections of other
// processes don't count next to a session of an ancestor.
func TestActivationAndOthers(t *testing.T) {
	h := newHost(t)
	activated, activating := h.listen(t, "tcp4", "192.0.2.1:23")
	l, listening := h.listen(t, "tcp", "[::]:22")
	conn, other := h.dial(t, l, "", "192.0.2.1:22"), h.dial(t, activated, "", "192.0.2.1:23")
	_ = other
	found := h.find(t, []*os.File{activating, listening, conn}, false, stage{Name: "systemd", Keep: []int{0}},
		stage{Name: "cockpit", Keep: []int{1, 2}}, stage{Name: "quaywall"})
	expect(t, found, "", `session "cockpit" 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`, `listener "cockpit" 22/tcp :: <- - `)
}

func TestUnreadableDescriptors(t *testing.T) {
	h := newHost(t)
	l, _ := h.listen(t, "tcp4", "192.0.2.1:22")
	conn := h.dial(t, l, "", "192.0.2.1:22")
	found := h.find(t, []*os.File{conn}, false, stage{Name: "systemd"}, stage{Name: "sshd", Keep: []int{0}}, stage{Name: "bash", UID: 65534},
		stage{Name: "quaywall"})
	expect(t, found, "(sshd) can't be read: permission denied", `live "" 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`)
}

func TestOtherNamespace(t *testing.T) {
	h := newHost(t)
	l, _ := h.listen(t, "tcp4", "192.0.2.1:22")
	conn := h.dial(t, l, "", "192.0.2.1:22")
	t.Run("process in another", func(t *testing.T) {
		found := h.find(t, []*os.File{conn}, false, stage{Name: "systemd"}, stage{Name: "sshd", Keep: []int{0}},
			stage{Name: "unshare", NewNet: true}, stage{Name: "quaywall"})
		expect(t, found, "(sshd) lives in another network namespace")
	})
	t.Run("process here, ancestors elsewhere", func(t *testing.T) {
		found := h.find(t, []*os.File{conn}, true, stage{Name: "bash"}, stage{Name: "quaywall"})
		found.Because = "" // not every machine shows what its process 1 holds
		own := ownName(t)  // it is among the ancestors, and holds sockets of a namespace that it doesn't live in
		expect(t, found, "",
			fmt.Sprintf(`session %q 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`, own), fmt.Sprintf(`listener %q 22/tcp 192.0.2.1 <- - `, own))
	})
}

// A web terminal that listens on this host alone, behind a web server that is none of its ancestors.
func TestBehindAServerOfThisHost(t *testing.T) {
	h := newHost(t)
	l, listening := h.listen(t, "tcp4", "192.0.2.1:443")
	conn := h.dial(t, l, "", "192.0.2.1:443")
	ssh, _ := h.listen(t, "tcp4", "192.0.2.1:22")
	other := h.dial(t, ssh, "", "192.0.2.1:22") // somebody else's, which the test holds
	_ = other
	inner, _ := h.listen(t, "tcp4", "127.0.0.1:7681")
	var near net.Conn
	var err error
	h.Do(t, func() { near, err = net.Dial("tcp4", "127.0.0.1:7681") })
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := inner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	socks := []*os.File{listening, conn, fileOf(t, near.(*net.TCPConn)), fileOf(t, far.(*net.TCPConn))}
	found := h.find(t, socks, false, stage{Name: "systemd"}, stage{Name: "nginx", Keep: []int{0, 1, 2}}, stage{Name: "starter", Leave: true},
		stage{Name: "ttyd", Orphan: true, Keep: []int{3}}, stage{Name: "bash"}, stage{Name: "quaywall"})
	expect(t, found, "", `session "nginx" 443/tcp 192.0.2.1 <- 192.0.2.2 eth0`, `listener "nginx" 443/tcp 192.0.2.1 <- - `)
}

// A tunnel of the kernel's own: its UDP port, which no process has, is part of the way. (WireGuard's is such a port.)
func TestTunnelOfTheKernel(t *testing.T) {
	h := newHost(t)
	for _, side := range []struct {
		ns                  *netns.NS
		local, remote, addr string
	}{{h.NS, "192.0.2.1", "192.0.2.2", "10.9.0.1/24"}, {h.client, "192.0.2.2", "192.0.2.1", "10.9.0.2/24"}} {
		side.ns.Output(t, "ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "local", side.local, "remote", side.remote)
		side.ns.Addr(t, "vx0", side.addr)
		side.ns.Up(t, "vx0")
	}
	h.inv.Interfaces = append(h.inv.Interfaces, inventory.Interface{Name: "vx0", Kind: "vxlan", Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}})
	l, _ := h.listen(t, "tcp4", "10.9.0.1:22")
	conn := h.dial(t, l, "", "10.9.0.1:22")
	found := h.find(t, []*os.File{conn}, false, stage{Name: "systemd"}, stage{Name: "sshd", Keep: []int{0}}, stage{Name: "quaywall"})
	expect(t, found, "", `session "sshd" 22/tcp 10.9.0.1 <- 10.9.0.2 vx0`, `listener "" 4789/udp 0.0.0.0 <- - `)
	cuts := Check(found.Ways, planned(tcp(policy.Allow, 5, 22, "")), &h.inv)
	const want = "tunnel vx0, port 4789/udp, which nobody could reach any more: "
	if len(cuts) != 1 || !strings.HasPrefix(cuts[0].String(), want) || cuts[0].Add != "- allow: 4789/udp" {
		t.Errorf("got %q, want %q and so on", cuts, want)
	}
}

// ownName is the name of the test program.
func ownName(t *testing.T) string {
	t.Helper()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(comm))
}

// A server started by inetd or by a socket unit has the connection on its standard input.
func TestInetd(t *testing.T) {
	h := newHost(t)
	l, _ := h.listen(t, "tcp4", "192.0.2.1:22")
	conn := h.dial(t, l, "", "192.0.2.1:22")
	found := h.find(t, []*os.File{conn}, false, stage{Name: "systemd"}, stage{Name: "quaywall", Stdin: 1})
	expect(t, found, "", `session "quaywall" 22/tcp 192.0.2.1 <- 192.0.2.2 eth0`)
}

func TestUDP(t *testing.T) {
	h := newHost(t)
	var connected, bound *os.File
	h.Do(t, func() {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4500}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 9})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b, err := net.ListenUDP("udp", &net.UDPAddr{Port: 60001})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		connected, bound = fileOf(t, c), fileOf(t, b)
	})
	found := h.find(t, []*os.File{connected, bound}, false, stage{Name: "systemd"}, stage{Name: "mosh-server", Keep: []int{0, 1}}, stage{Name: "quaywall"})
	expect(t, found, "", `session "mosh-server" 4500/udp 192.0.2.1 <- 192.0.2.2 eth0`, `listener "mosh-server" 60001/udp :: <- - `)
}

// An agent that calls its controller. Connections to this host's own addresses are nothing at all.
func TestAgentThatDials(t *testing.T) {
	h := newHost(t)
	var controller net.Listener
	var err error
	h.client.Do(t, func() { controller, err = net.Listen("tcp4", "192.0.2.2:443") })
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	own, _ := h.listen(t, "tcp4", "127.0.0.1:80")
	var files []*os.File
	for _, address := range []string{"192.0.2.2:443", own.Addr().String()} {
		h.Do(t, func() {
			c, err := net.Dial("tcp4", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			files = append(files, fileOf(t, c.(*net.TCPConn)))
		})
	}
	found := h.find(t, files, false, stage{Name: "systemd"}, stage{Name: "agent", Keep: []int{0, 1}}, stage{Name: "quaywall"})
	expect(t, found, "none of the 3 processes", `dialled "agent" 443/tcp 192.0.2.1 <- 192.0.2.2 eth0`)
	if len(found.Ways) == 1 && found.Ways[0].Peer.Port() != 443 {
		t.Errorf("dialled port %d, want 443", found.Ways[0].Peer.Port())
	}
}

// The way back is not the way in: packets to eth1's address come by eth0, or the other way round. And the listener is
// gone, as after a restart of sshd with another configuration; the low port still tells who dialled.
func TestAsymmetricAndOrphaned(t *testing.T) {
	h := newHost(t)
	h.client.Output(t, "ip", "route", "replace", "198.51.100.1/32", "via", "192.0.2.1", "dev", "eth0")
	l, listening := h.listen(t, "tcp4", "198.51.100.1:22")
	conn := h.dial(t, l, "192.0.2.2:0", "198.51.100.1:22")
	l.Close()
	listening.Close()
	found := h.find(t, []*os.File{conn}, false, stage{Name: "systemd"}, stage{Name: "sshd", Keep: []int{0}}, stage{Name: "quaywall"})
	expect(t, found, "", `session "sshd" 22/tcp 198.51.100.1 <- 192.0.2.2 eth0 eth1`)
}

func TestParentOf(t *testing.T) {
	tests := []struct {
		stat    string
		parent  int
		wantErr string
	}{
		{"42 (bash) S 7 42 42 0", 7, ""},
		{"42 (a) S 1 (b)) R 7 1", 7, ""},
		{"42 (a\n) S 1 (b) S 7 1", 7, ""},
		{"42 () S 0 1", 0, ""},
		{"42 (bash) S", 0, "cut short"},
		{"42 (bash) S x 1", 0, `parent "x"`},
		{"", 0, "cut short"},
	}
	for _, tt := range tests {
		parent, err := parentOf(tt.stat)
		if tt.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%q: %v, want %q", tt.stat, err, tt.wantErr)
			}
			continue
		}
		if err != nil || parent != tt.parent {
			t.Errorf("%q: %d %v, want %d", tt.stat, parent, err, tt.parent)
		}
	}
}

func TestIsInbound(t *testing.T) {
	listener := func(proto uint8, local string) sockets.Socket {
		return sockets.Socket{Proto: proto, Local: netip.MustParseAddrPort(local), Listening: true}
	}
	f := &finder{ports: sockets.PortRange{First: 32768, Last: 60999}, socks: []sockets.Socket{
		listener(protoTCP, "[::]:40000"), listener(protoTCP, "192.0.2.1:40001"), listener(protoUDP, "0.0.0.0:40002"),
	}}
	tests := []struct {
		name, local, peer string
		want              bool
	}{
		{"a low port here", "192.0.2.1:22", "192.0.2.2:50000", true},
		{"low ports on both sides", "192.0.2.1:514", "192.0.2.2:1023", true},
		{"a low port there", "192.0.2.1:50000", "192.0.2.2:443", false},
		{"either may have chosen", "192.0.2.1:50000", "192.0.2.2:50000", true},
		{"a wildcard listens", "192.0.2.1:40000", "192.0.2.2:443", true},
		{"this address listens", "192.0.2.1:40001", "192.0.2.2:443", true},
		{"another address listens", "192.0.2.3:40001", "192.0.2.2:443", false},
		{"another protocol listens", "192.0.2.1:40002", "192.0.2.2:443", false},
	}
	for _, tt := range tests {
		s := sockets.Socket{Proto: protoTCP, Connected: true, Local: netip.MustParseAddrPort(tt.local), Remote: netip.MustParseAddrPort(tt.peer)}
		if got := f.isInbound(s); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
