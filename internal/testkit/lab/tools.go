package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"quaywall/internal/testkit/netns"
)

const labhostPackage = "quaywall/internal/testkit/cmd/labhost"

// Program builds a command of this module, once for the lab, and gives its path.
func (l *Lab) Program(ctx context.Context, pkg string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bin := filepath.Join(l.Dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(bin, filepath.Base(pkg))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return build(ctx, pkg, bin)
}

// binEnv names a directory in which Main put programs that were built before.
const binEnv = "QUAYWALL_LAB_BIN"

// Main runs a package's tests, for its TestMain. The programs that their labs need, these packages of the module and the
// lab's own, are built once instead of once for each lab.
func Main(m *testing.M, programs ...string) int {
	netns.Isolate()
	l, err := newLab()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, pkg := range append(programs, labhostPackage) {
		if _, err := l.Program(context.Background(), pkg); err != nil {
			fmt.Fprintln(os.Stderr, errors.Join(err, l.Down()))
			return 1
		}
	}
	if err := os.Setenv(binEnv, filepath.Join(l.Dir, "bin")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := l.Down(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// build builds a command of this module into a directory, static, and gives its path. One that Main built is linked.
func build(ctx context.Context, pkg, dir string) (string, error) {
	path := filepath.Join(dir, filepath.Base(pkg))
	ready := filepath.Join(os.Getenv(binEnv), filepath.Base(pkg))
	if _, err := os.Stat(ready); err == nil && os.Getenv(binEnv) != "" {
		return path, os.Symlink(ready, path)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// ownSession keeps a terminal's Ctrl-C away from a child.
func ownSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}
