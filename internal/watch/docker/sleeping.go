package docker

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/watch/sockets"
)

// sleeping tells whether nobody but systemd, for a daemon that does not run, listens on an engine's socket. Asking would
// start the daemon: one that somebody has just stopped, or one that waits for quaywall at boot.
func sleeping(at Endpoint) bool {
	path, ok := strings.CutPrefix(at.Host, "unix://")
	if !ok {
		return false
	}
	inode, ok := listener(path)
	if !ok {
		return false
	}
	held, err := sockets.Held(1)
	if err != nil || !slices.Contains(held, inode) {
		return false
	}
	return !slices.ContainsFunc(processesNamed("dockerd"), func(pid int) bool {
		held, err := sockets.Held(pid)
		return err != nil || slices.Contains(held, inode)
	})
}

func problemSleeping(at Endpoint) string {
	return fmt.Sprintf("Docker at %s (%s) is not running: systemd would start it for whoever asks, which quaywall doesn't", at.Host, at.From)
}

// listener finds the socket that listens on a path, by its inode.
func listener(path string) (uint64, bool) {
	text, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return 0, false
	}
	return listenerIn(string(text), path)
}

// flagListening is __SO_ACCEPTCON, as /proc/net/unix shows it.
const flagListening = "00010000"

// listenerIn reads lines such as "0000000000000000: 00000002 00000000 00010000 0001 01 20482 /run/docker.sock".
func listenerIn(text, path string) (uint64, bool) {
	names := []string{path, "/run/" + strings.TrimPrefix(path, "/var/run/")} // systemd has it without the link /var/run
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 8 || f[3] != flagListening || !slices.Contains(names, f[7]) {
			continue
		}
		if inode, err := strconv.ParseUint(f[6], 10, 64); err == nil {
			return inode, true
		}
	}
	return 0, false
}

// processesNamed are the processes of a name.
func processesNamed(name string) []int {
	return slices.DeleteFunc(sockets.Processes(), func(pid int) bool { return sockets.Name(pid) != name })
}
