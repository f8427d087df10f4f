package collect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/collect"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/netns"
)

const noEngine = "unix:///nowhere/docker.sock"

// TestHere takes a snapshot of a namespace with rules of everybody, and reads what was written of it.
func TestHere(t *testing.T) {
	for _, tool := range []string{"nft", "iptables-nft", "iptables-legacy", "ipset", "ip", "ss"} {
		netns.Tool(t, tool)
	}
	ns := netns.New(t)
	ns.Output(t, "ipset", "create", "banned", "hash:net")
	ns.Output(t, "ipset", "add", "banned", "198.51.100.0/24")
	ns.Output(t, "iptables-nft", "-A", "INPUT", "-m", "set", "--match-set", "banned", "src", "-j", "DROP")
	ns.Output(t, "ip6tables-nft", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", "8080")
	ns.Output(t, "iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "NOTRACK")
	ns.Feed(t, "table inet mine { chain c { type filter hook input priority 5; policy drop; tcp dport 22 accept; }; }", "nft", "-f", "-")
	ns.Sysctl(t, "net/ipv4/ip_forward", "1")
	var listener net.Listener
	ns.Do(t, func() {
		var err error
		if listener, err = net.Listen("tcp", "127.0.0.1:5432"); err != nil {
			t.Fatal(err)
		}
	})
	defer listener.Close()
	before := ns.Output(t, "nft", "-a", "list", "ruleset")

	dir := filepath.Join(t.TempDir(), "evidence")
	files, err := collect.Gather(context.Background(), collect.Options{Netns: ns.Path(), DockerHost: noEngine, ForPeople: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Write(dir, false); err != nil {
		t.Fatal(err)
	}
	h := read(t, dir)
	same(t, "problems", 0, len(h.Problems))
	same(t, "rules", []string{"1 1 filter: INPUT 1 FORWARD 0 OUTPUT 0", "2 1 raw: PREROUTING 1 OUTPUT 0",
		"1 2 nat: PREROUTING 1 INPUT 0 OUTPUT 0 POSTROUTING 0", "0 0 mine: c 1"}, summary(h.Rules))
	same(t, "sets", "198.51.100.0/24", h.Rules.Set("banned").Addrs.String())
	same(t, "missing", []string{"Docker networks", "containers"}, missing(h))
	same(t, "forwarding", "1", h.Sysctls["net.ipv4.ip_forward"])
	same(t, "sockets", []string{"127.0.0.1:5432"}, listening(h))
	if h.Sockets[0].PID != os.Getpid() || len(h.Policies) != 5 || len(h.Inventory.Interfaces) != 1 {
		t.Errorf("%+v %+v", h.Sockets, h.Policies)
	}
	if after := ns.Output(t, "nft", "-a", "list", "ruleset"); after != before {
		t.Errorf("the rules are now\n%s", after)
	}
	text, err := os.ReadFile(dir + "/tools.txt")
	if err != nil || !strings.Contains(string(text), "nftables v") {
		t.Errorf("tools: %s %v", text, err)
	}

	// The same without files.
	live, err := collect.Here(context.Background(), collect.Options{Netns: ns.Path(), DockerHost: noEngine})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "live rules", summary(h.Rules), summary(live.Rules))
	why := slices.IndexFunc(live.Missing, func(m snapshot.Missing) bool { return strings.Contains(m.Why, "Docker at "+noEngine) })
	if why < 0 {
		t.Errorf("%+v", live.Missing)
	}
}

// TestWithoutNFT: the kernel is asked where the program can't list its rules.
func TestWithoutNFT(t *testing.T) {
	netns.Tool(t, "nft")
	ns := netns.New(t)
	ns.Feed(t, "table inet mine { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { type filter hook input priority 5; ip saddr @s accept; }; }", "nft", "-f", "-")
	want, err := collect.Here(context.Background(), collect.Options{Netns: ns.Path(), DockerHost: noEngine})
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.WriteFile(bin+"/nft", []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	got, err := collect.Here(context.Background(), collect.Options{Netns: ns.Path(), DockerHost: noEngine})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "rules", summary(want.Rules), summary(got.Rules))
	same(t, "set", "192.0.2.1", got.Rules.Tables[0].Set("s").Addrs.String())
	same(t, "rule", want.Rules.Tables[0].Chains[0].Rules[0].Handle, got.Rules.Tables[0].Chains[0].Rules[0].Handle)
}

func listening(h *snapshot.Host) []string {
	var all []string
	for _, s := range h.Sockets {
		all = append(all, netip.AddrPortFrom(s.Addr, s.Port).String())
	}
	return all
}

// TestWrite: nobody else reads the folder, what is in it already stays unless it is an older snapshot, and no link is followed.
func TestWrite(t *testing.T) {
	files := func(names ...string) collect.Files {
		f := collect.Files{Texts: map[string][]byte{}}
		for _, n := range names {
			f.Texts[n] = []byte(n)
		}
		return f
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := files("iptables-save.txt", "ipset-save.txt").Write(dir, false); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, dir + "/ipset-save.txt": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if err := files("iptables-save.txt").Write(dir, false); !errors.Is(err, collect.ErrNotEmpty) {
		t.Error(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	for path, text := range map[string]string{victim: "kept", dir + "/notes.txt": "mine"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(dir + "/iptables-save.txt"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, dir+"/iptables-save.txt"); err != nil {
		t.Fatal(err)
	}
	if err := files("iptables-save.txt").Write(dir, true); err != nil {
		t.Fatal(err)
	}
	var got []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		got = append(got, fmt.Sprintf("%s: %s", e.Name(), text))
	}
	same(t, "files", []string{"iptables-save.txt: iptables-save.txt", "notes.txt: mine"}, got)
	if text, _ := os.ReadFile(victim); string(text) != "kept" {
		t.Errorf("a link was followed: %s", text)
	}
}

func TestNoNamespace(t *testing.T) {
	for netns, want := range map[string]string{"/nowhere": "/nowhere", "/dev/null": "", "container:web": "finding the network namespace of container web"} {
		_, err := collect.Gather(context.Background(), collect.Options{Netns: netns, DockerHost: noEngine})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", netns, err)
		}
	}
}
