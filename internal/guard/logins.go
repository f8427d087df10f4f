package guard

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"quaywall/internal/inventory"
	"quaywall/internal/watch/sockets"
)

// Logins finds the ways in by which somebody is logged in just now, whoever it is: for a process that nobody called, and
// that must not cut off whoever works on the host. A live connection is one where the process that holds it has children
// of another name: a shell, a file transfer, a command. A web server's connections are none, nor is that of a scanner
// whom sshd has not let in, or whom nobody has answered. Where a connection's process may be one that doesn't show what it
// holds, every live connection counts.
//
// mosh has no connection: a UDP socket of a process that shows a terminal counts with those that send to it.
func Logins(inv *inventory.Inventory) (Found, error) {
	f, err := newFinder(inv)
	if err != nil {
		return Found{}, err
	}
	live := append(f.live(nil), f.terminalsByUDP()...)
	unseen := Name(live)
	children := childrenOf()
	found := logins(live, unseen, func(w Way) bool { return serves(w.PID, w.Process, children, maxAncestors) })
	found.Ways = f.withCarriers(found.Ways)
	slices.SortFunc(found.Ways, compare)
	return found, nil
}

// terminalsByUDP are the ways by UDP to processes that show a terminal.
func (f *finder) terminalsByUDP() (ways []Way) {
	for _, s := range f.socks {
		if s.Proto != protoUDP || !s.Listening || s.Local.Addr().IsLoopback() {
			continue
		}
		owner, ok := f.owners()[s.Inode]
		if !ok || len(screensOf(owner.PID)) == 0 {
			continue
		}
		for _, w := range f.datagrams(s, process{pid: owner.PID}) {
			w.PID, w.Process = owner.PID, owner.Name
			ways = append(ways, w)
		}
	}
	return ways
}

// logins are those of all live connections by which somebody is logged in. Where none of the processes is unseen, one that
// nobody holds is the kernel's own (of its NFS server, for one), or was closed by now.
func logins(live []Way, unseen error, serves func(Way) bool) Found {
	if unseen != nil && slices.ContainsFunc(live, func(w Way) bool { return w.PID == 0 }) {
		return Found{Ways: live, Because: fmt.Sprintf("who holds them can't be seen: %v", unseen)}
	}
	live = slices.DeleteFunc(live, func(w Way) bool { return w.PID == 0 || !serves(w) })
	for i := range live {
		live[i].Kind = Session
	}
	return Found{Ways: live, Because: "somebody is logged in by them"}
}

// serves tells whether a process has a descendant of another name.
func serves(pid int, name string, children map[int][]int, depth int) bool {
	return depth > 0 && slices.ContainsFunc(children[pid], func(child int) bool {
		return !isSame(sockets.Name(child), name) || serves(child, name, children, depth-1)
	})
}

// isSame tells whether two names are of one program. The processes of sshd are called sshd, sshd-session (since OpenSSH 9.8)
// and sshd-auth (10.0): all of them are there before anybody is let in.
func isSame(a, b string) bool {
	return a == b || strings.HasPrefix(a, "sshd") && strings.HasPrefix(b, "sshd")
}

// childrenOf are the processes of each parent, as far as /proc shows them.
func childrenOf() map[int][]int {
	children := map[int][]int{}
	for _, pid := range sockets.Processes() {
		stat, err := os.ReadFile(procPath(pid, "stat"))
		if err != nil {
			continue // it ended
		}
		if parent, err := parentOf(string(stat)); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	return children
}
