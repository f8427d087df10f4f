package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// tools are the programs that a lab builds for itself.
type tools struct {
	labhost string
}

func buildTools(ctx context.Context, dir string) (tools, error) {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return tools{}, err
	}
	labhost, err := Build(ctx, "quaywall/internal/testkit/cmd/labhost", bin)
	return tools{labhost: labhost}, err
}

// Build builds a command of this module into a directory, static, and gives its path.
func Build(ctx context.Context, pkg, dir string) (string, error) {
	path := filepath.Join(dir, filepath.Base(pkg))
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
