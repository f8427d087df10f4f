package guard

import (
	"os"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/watch/sockets"
)

// Logins finds the ways in by which somebody is logged in just now, whoever it is: for a process that nobody called, and
// that must not cut off whoever works on the host. A live connection is one where the process that holds it has children
// of another name: a shell, a file transfer, a command. A web server's connections are none, nor is that of a scanner
// whom sshd has not let in. Where processes don't show what they hold, every live connection counts.
func Logins(inv *inventory.Inventory) (Found, error) {
	found, err := Find(inv)
	if err != nil {
		return Found{}, err
	}
	live := slices.DeleteFunc(found.Ways, func(w Way) bool { return w.Kind != Live && w.Kind != Session })
	Name(live)
	if unknown := slices.ContainsFunc(live, func(w Way) bool { return w.PID == 0 }); unknown {
		return Found{Ways: live, Because: "who holds them can't be seen"}, nil
	}
	children := childrenOf()
	live = slices.DeleteFunc(live, func(w Way) bool { return !serves(w.PID, w.Process, children, maxAncestors) })
	return Found{Ways: live, Because: "somebody is logged in by them"}, nil
}

// serves tells whether a process has a descendant of another name.
func serves(pid int, name string, children map[int][]int, depth int) bool {
	return depth > 0 && slices.ContainsFunc(children[pid], func(child int) bool {
		return sockets.Name(child) != name || serves(child, name, children, depth-1)
	})
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
