package scenario

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"quaywall/internal/testkit/lab"
)

// cutting is a policy that cuts a way in, and what has to be said of it.
type cutting struct {
	policy  []string // its lines
	says    []string // parts of what is said: process and port, from whom
	section string   // the last one of the policy; "" for inbound
	add     string   // the line to add there, without "- "
	keeps   []string // another policy, that keeps the way
}

// refuses sees that apply in a login refuses a policy, and takes it with the line added that it asks for.
func (l *login) refuses(c cutting) {
	w := l.w
	w.Helper()
	l.begun()
	write := func(policy ...string) {
		if err := w.fw.Write(lines(policy...)); err != nil {
			w.Fatal(err)
		}
	}
	write(c.policy...)
	r := l.quaywall("apply")
	if r.Code != 3 {
		w.Errorf("apply of\n%s\nended with %d, want 3:\n%s", lines(c.policy...), r.Code, r.Output)
	}
	for _, part := range append(c.says, fmt.Sprintf("add to %s: - %s\n", cmp.Or(c.section, "inbound"), c.add)) {
		if !strings.Contains(r.Output, part) {
			w.Errorf("what was said lacks %q:\n%s", part, r.Output)
		}
	}
	w.gone("an apply that was refused")
	write(append(c.policy, "  - "+c.add)...)
	if r := l.quaywall("apply"); r.Code != 0 {
		w.Errorf("apply with the line added that was asked for ended with %d:\n%s", r.Code, r.Output)
	}
	w.quaywall(0, "stop")
	write(c.keeps...)
	if r := l.quaywall("apply"); r.Code != 0 {
		w.Errorf("apply of a policy that keeps the way in ended with %d:\n%s", r.Code, r.Output)
	}
	w.quaywall(0, "stop")
}

func inbound(rules ...string) []string {
	all := []string{"version: 1", "inbound:"}
	for _, r := range rules {
		all = append(all, "  - "+r)
	}
	return all
}

// TestWaysBySSH: the ways that begin with an SSH session of this host's own server.
func TestWaysBySSH(t *testing.T) {
	t.Parallel()
	w := bareHost(t, variants[0])
	s := w.serveSSH(w.host, "2222")
	zoned := strings.Trim(linkLocal(w, w.host), "[]")
	for _, tt := range []struct {
		name, to, peer string
		within         string // how the command is run
	}{
		{"ssh", "root@203.0.113.1", "203.0.113.2", "%s"},
		{"ssh IPv6", "root@2001:db8:1::1", `"2001:db8:1::2"`, "%s"},
		{"link-local", "root@" + zoned, `"` + strings.TrimSuffix(strings.Trim(linkLocal(w, w.outside), "[]"), "%eth0") + `"`, "%s"},
		{"sudo", "person@203.0.113.1", "203.0.113.2", "sudo %s"},
		{"sudo IPv6", "person@2001:db8:1::1", `"2001:db8:1::2"`, "sudo %s"},
		{"su", "person@203.0.113.1", "203.0.113.2", "su root -c '%s'"},
		{"su -", "person@2001:db8:1::1", `"2001:db8:1::2"`, "su - root -c '%s'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w.in(t)
			l, command := w.newLogin()
			s.in(w).ssh(w.outside, "2222", tt.to, strings.ReplaceAll(tt.within, "%s", command))
			l.refuses(cutting{
				policy: inbound("allow: ssh", "{allow: 2222, from: 192.168.50.2}"),
				says:   []string{"cut the way in:", "sshd (process ", "port 2222/tcp, from " + strings.Trim(tt.peer, `"`)},
				add:    "{allow: 2222/tcp, from: " + tt.peer + "}",
				keeps:  inbound("allow: 2222"),
			})
			l.end()
		})
	}
}

// in is the world for a part of its test.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.T = t
	return &part
}

func (s sshd) in(w *world) sshd {
	s.w = w
	return s
}

// TestWaysWithoutAParent: sessions that sshd is no ancestor of any more. In tmux and screen it is whoever is attached that
// counts, and nobody else who has a connection.
func TestWaysWithoutAParent(t *testing.T) {
	t.Parallel()
	w := bareHost(t, variants[0])
	s := w.serveSSH(w.host, "2222")
	w.servesShellsAt("2223")
	for _, tt := range []struct {
		name, detached, attach string
		attached               string // shows "attached" once somebody is
	}{
		{"tmux", "tmux -S /run/tmux -f /dev/null new-session -d '%s'", "tmux -S /run/tmux attach", "tmux -S /run/tmux list-sessions"},
		{"screen", "screen -c /dev/null -dmS work %s", "screen -r work", "screen -ls | tr A-Z a-z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, s := w.in(t), s
			s.w = w
			defer visit(w, "203.0.113.1:2223").stays()()
			l, command := w.newLogin()
			w.host.MustExec(t, "sh", "-c", "mkdir -p -m 1777 /run/screen; TERM=xterm "+strings.ReplaceAll(tt.detached, "%s", command))
			s.ssh(w.outside, "2222", "root@203.0.113.1", "TERM=xterm "+tt.attach)
			w.within(patience, "somebody is attached", func() bool {
				out, err := w.host.Exec(t.Context(), "sh", "-c", tt.attached)
				return err == nil && strings.Contains(out, "attached")
			})
			l.refuses(cutting{
				policy: inbound("allow: ssh", "{allow: 2222, from: 192.168.50.2}"),
				says:   []string{"cut the way in:", "sshd (process ", "port 2222/tcp, from 203.0.113.2"},
				add:    "{allow: 2222/tcp, from: 203.0.113.2}",
				keeps:  inbound("allow: 2222"),
			})
			l.end()
		})
	}
	t.Run("nobody is attached", func(t *testing.T) {
		w := w.in(t)
		defer visit(w, "203.0.113.1:2223").stays()()
		if err := w.fw.Write(lines(inbound("allow: 2222")...)); err != nil {
			t.Fatal(err)
		}
		ran := w.quaywall(3, "apply")
		for _, text := range []string{"may be the way in (none of the ", "labhost (process ", "port 2223/tcp, from 203.0.113.2"} {
			if !strings.Contains(ran.Stderr, text) {
				t.Errorf("what was said lacks %q:\n%s", text, ran.Stderr)
			}
		}
	})
	for _, tt := range []struct{ name, to, peer, prepare, env string }{
		{"mosh", "203.0.113.1", "203.0.113.2", "true", "A=b"}, // nothing uses connection tracking
		{"mosh IPv6", "2001:db8:1::1", `"2001:db8:1::2"`, "true", "A=b"},
		{"mosh tracked", "203.0.113.1", "203.0.113.2", "nft add table inet t; nft add chain inet t c '{type filter hook input priority 0;}'; nft add rule inet t c ct state new",
			"'SSH_CONNECTION=127.0.0.1 1 203.0.113.1 2222'"}, // that tells nothing, so that connection tracking has to
		{"mosh IPv6 tracked", "2001:db8:1::1", `"2001:db8:1::2"`, "true", "'SSH_CONNECTION=::1 1 2001:db8:1::1 2222'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w.in(t)
			w.host.MustExec(t, "sh", "-c", tt.prepare)
			w.mark()
			l, command := w.newLogin()
			s.in(w).mosh(w.outside, tt.to, command, tt.env)
			l.refuses(cutting{
				policy: inbound("allow: 2222", "{allow: 60001/udp, from: 192.168.50.2}"),
				says:   []string{"cut the way in:", "mosh-server (process ", "port 60001/udp, from " + strings.Trim(tt.peer, `"`)},
				add:    "{allow: 60001/udp, from: " + tt.peer + "}",
				keeps:  inbound("allow: ssh", "allow: 60001/udp"),
			})
			l.end()
			w.within(patience, "the end of mosh", func() bool { _, err := w.host.Exec(t.Context(), "pgrep", "mosh-server"); return err != nil })
		})
	}
}

// TestWaysThroughOthers: from behind a jump host, out of a container that shares the host's network, and through a VPN.
func TestWaysThroughOthers(t *testing.T) {
	t.Parallel()
	w := bareHost(t, variants[0])
	s := w.serveSSH(w.host, "2222")
	w.serveSSH(w.outside, "2222")
	t.Run("jump host", func(t *testing.T) {
		for _, at := range []struct{ jump, host, person, peer string }{
			{"203.0.113.2", "203.0.113.1", "203.0.113.3", "203.0.113.2"},
			{"2001:db8:1::2", "2001:db8:1::1", `"2001:db8:1::3"`, `"2001:db8:1::2"`},
		} {
			w := w.in(t)
			l, command := w.newLogin()
			through := "ProxyCommand=ssh " + strings.Join(s.sshFlags("2222"), " ") + " -W [%h]:%p root@" + at.jump
			s.in(w).ssh(w.neighbour, "2222", "root@"+at.host, command, "-o", through)
			l.refuses(cutting{
				policy: inbound("{allow: 2222, from: " + at.person + "}"),
				says:   []string{"cut the way in:", "sshd (process ", "port 2222/tcp, from " + strings.Trim(at.peer, `"`)},
				add:    "{allow: 2222/tcp, from: " + at.peer + "}",
				keeps:  inbound("allow: 2222"),
			})
			l.end()
		}
	})
	t.Run("container in the host's network", func(t *testing.T) {
		w := w.in(t)
		l, command := w.newLogin()
		w.serveSSH(w.host, "2224", "unshare", "--pid", "--fork", "--mount-proc").ssh(w.outside, "2224", "root@203.0.113.1", command)
		l.refuses(cutting{
			policy: inbound("allow: 2222"),
			says:   []string{"sshd (process ", "port 2224/tcp, from 203.0.113.2"},
			add:    "{allow: 2224/tcp, from: 203.0.113.2}",
			keeps:  inbound("allow: 2224"),
		})
		l.end()
	})
	t.Run("VPN", func(t *testing.T) {
		w := w.in(t)
		carrier := w.serveSSH(w.host, "2200")
		carrier.start(w.outside, append(append([]string{"ssh"}, s.sshFlags("2200")...), "-w", "7:7", "-N", "root@203.0.113.1")...)
		for node, addrs := range map[string][2]string{"host": {"10.8.0.1/24", "fd08::1/64"}, "outside": {"10.8.0.2/24", "fd08::2/64"}} {
			n := w.lab.Node(node)
			w.within(patience, "the tunnel", func() bool { _, err := n.Exec(t.Context(), "ip", "link", "set", "tun7", "up"); return err == nil })
			n.MustExec(t, "ip", "addr", "add", addrs[0], "dev", "tun7")
			n.MustExec(t, "ip", "addr", "add", addrs[1], "dev", "tun7", "nodad")
		}
		for _, at := range []struct{ to, peer string }{{"10.8.0.1", "10.8.0.2"}, {"fd08::1", `"fd08::2"`}} {
			l, command := w.newLogin()
			s.in(w).ssh(w.outside, "2222", "root@"+at.to, command)
			l.refuses(cutting{
				policy: inbound("{allow: [2222, 2200], on: eth0}"),
				says:   []string{"sshd (process ", "port 2222/tcp, from " + strings.Trim(at.peer, `"`)},
				add:    "{allow: 2222/tcp, from: " + at.peer + "}",
				keeps:  inbound("allow: 2200", "{allow: 2222, on: tun7}"),
			})
			l.refuses(cutting{ // what carries the tunnel is part of the way
				policy: inbound("{allow: 2222, on: tun7}"),
				says:   []string{"sshd (process ", "port 2200/tcp, from 203.0.113.2"},
				add:    "{allow: 2200/tcp, from: 203.0.113.2}",
				keeps:  inbound("allow: 2200", "{allow: 2222, on: tun7}"),
			})
			l.end()
		}
	})
}

// TestWaysThroughContainers: SSH servers in a container whose port is published, from where people go on to the host as a
// privileged container can; and sessions that come to the host out of a container which somebody came to first.
func TestWaysThroughContainers(t *testing.T) {
	t.Parallel()
	w := oneHost(t, variants[0], lab.Engine{})
	w.serveSSH(w.host, "2222")
	box := w.run(lab.Container{Name: "box", Publish: []string{"2022:22"}})
	bastion := w.run(lab.Container{Name: "bastion", Publish: []string{"2023:22"}})
	w.mark()
	inBox := netnsOf(w, box)
	s := w.serveSSH(w.host, "22", "nsenter", "--net="+inBox)
	for _, at := range []struct{ name, to, peer, by string }{
		{"DNAT", "203.0.113.1", "203.0.113.2", "sshd (process "},
		{"docker-proxy", "2001:db8:1::1", `"2001:db8:1::2"`, "docker-proxy (process "},
	} {
		t.Run(at.name, func(t *testing.T) {
			w := w.in(t)
			l, command := w.newLogin()
			s.in(w).ssh(w.outside, "2022", "root@"+at.to, "nsenter --net=/proc/1/ns/net "+command)
			l.refuses(cutting{
				policy: inbound("allow: 22", "{allow: 2022, from: 192.168.50.2}"),
				says:   []string{"cut the way in:", at.by, "port 2022/tcp, from " + strings.Trim(at.peer, `"`)},
				add:    "{allow: 2022/tcp, from: " + at.peer + "}",
				keeps:  inbound("allow: 2022"),
			})
			l.end()
		})
	}
	gate := w.serveSSH(w.host, "22", "nsenter", "--net="+netnsOf(w, bastion))
	for _, at := range []struct{ name, to, peer, by, onwards string }{
		{"bastion by DNAT", "203.0.113.1", "203.0.113.2", "container bastion", "172.17.0.1"},
		{"bastion by docker-proxy", "2001:db8:1::1", `"2001:db8:1::2"`, "docker-proxy (process ", "203.0.113.1"},
	} {
		t.Run(at.name, func(t *testing.T) {
			w := w.in(t)
			l, command := w.newLogin()
			onwards := append(gate.sshFlags("2222"), "-tt", "root@"+at.onwards, command)
			gate.in(w).ssh(w.outside, "2023", "root@"+at.to, "ssh "+strings.Join(onwards, " "))
			l.refuses(cutting{ // what leads into the bastion is part of the way
				policy: inbound("{allow: 2023, from: 192.168.50.2}"),
				says:   []string{"cut the way in:", at.by, "port 2023/tcp, from " + strings.Trim(at.peer, `"`)},
				add:    "{allow: 2023/tcp, from: " + at.peer + "}",
				keeps:  inbound("allow: 2023"),
			})
			from := addressOf(w, bastion)
			l.refuses(cutting{
				policy:  append(inbound("allow: 2023"), "defaults: {egress: deny}", "egress:", "  - {allow: ssh, to: host}"),
				says:    []string{"sshd (process ", "port 2222/tcp, from " + from},
				section: "egress",
				add:     "{allow: 2222/tcp, from: " + from + ", to: host}",
				keeps:   inbound("allow: 2023"),
			})
			l.end()
		})
	}
}

// netnsOf is a container's network namespace, as its host can enter it.
func netnsOf(w *world, c *lab.Node) string {
	w.Helper()
	addr := addressOf(w, c)
	out := w.host.MustExec(w.T, "sh", "-c", `for p in /proc/[0-9]*; do
	if nsenter --net=$p/ns/net ip -o addr 2>/dev/null | grep -qF "inet $1/"; then echo $p/ns/net; exit; fi
done`, "sh", addr)
	return strings.TrimSpace(out)
}

func addressOf(w *world, c *lab.Node) string {
	w.Helper()
	addr, err := c.Addr(w.Context(), "", false)
	if err != nil {
		w.Fatal(err)
	}
	return addr.String()
}
