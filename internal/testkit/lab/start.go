package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Start makes a lab for one test and takes it down at the test's end. Where a lab can't be made, the test is skipped
// for a person and fails in CI.
func Start(t testing.TB, topology Topology) *Lab {
	t.Helper()
	Require(t, topology)
	l, err := Up(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Require skips the test, or fails it in CI, where this machine can't have such a lab.
func Require(t testing.TB, topology Topology) {
	t.Helper()
	err := Missing(topology)
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// Missing says what this machine lacks for a lab, and nil where it lacks nothing.
func Missing(topology Topology) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the lab makes network namespaces: run as root")
	}
	tools := []string{"nsenter", "go"}
	for _, n := range topology.Nodes {
		if n.Engine != nil && n.Engine.Dir == "" {
			tools = append(tools, "dockerd", "containerd", "runc", "iptables-nft", "iptables-legacy")
		} else if n.Engine != nil {
			tools = append(tools, filepath.Join(n.Engine.Dir, "dockerd"), "runc", "iptables-nft", "iptables-legacy")
		}
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("the lab needs %s (Debian: docker.io, iptables, util-linux, golang): %w", tool, err)
		}
	}
	return canMount(context.Background())
}

// canMount tries what a container without privileges is not allowed.
func canMount(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "nsenter", "true")
	cmd.SysProcAttr = ownSession()
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the lab makes network, process and mount namespaces, and this machine does not let us: %w", err)
	}
	return nil
}
