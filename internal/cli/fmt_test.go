package cli_test

import (
	"os"
	"path/filepath"
	"testing"
)

const (
	ugly   = "# mine\ninbound:\n    - from: \"192.0.2.1\"   # the office\n      allow: ssh\nversion: 1\n"
	pretty = "version: 1\n\n# mine\ninbound:\n  - allow: ssh\n    from: 192.0.2.1  # the office\n"
)

func TestFmt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	text := func() string {
		b, err := os.ReadFile(path)
		must(t, err)
		return string(b)
	}
	write(t, dir, "real.yaml", ugly)
	must(t, os.Chmod(filepath.Join(dir, "real.yaml"), 0o600))
	must(t, os.Symlink("real.yaml", path))

	run(t, dir, "fmt", "policy.yaml").expect(t, 0, []string{pretty}, nil)
	run(t, dir, "fmt", "--json", "policy.yaml").expect(t, 0, []string{`"changed": true`}, nil)
	run(t, dir, "fmt", "--check", "policy.yaml").expect(t, 4, []string{"policy.yaml: not in its canonical form"}, nil)
	if text() != ugly {
		t.Fatal("fmt changed the file without being asked to")
	}
	run(t, dir, "fmt", "--write", "policy.yaml").expect(t, 0, []string{"policy.yaml: rewritten"}, nil)
	if text() != pretty {
		t.Errorf("rewritten as\n%s", text())
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is no link any more")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	run(t, dir, "fmt", "--check", "policy.yaml").expect(t, 0, nil, nil)
	run(t, dir, "fmt", "--write", "policy.yaml").expect(t, 0, nil, nil)
	if left, _ := filepath.Glob(filepath.Join(dir, ".quaywall-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestFmtKeepsComments(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "policy.yaml", "version: 1\ninbound:\n  - {allow: 80}  # web\n  - {allow: 53/udp, from: office}   # dns\n")
	run(t, dir, "fmt", "-w", "policy.yaml").expect(t, 0, []string{"policy.yaml: rewritten"}, nil)
	got, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	must(t, err)
	if want := "version: 1\n\ninbound:\n  - allow: 80      # web\n  - allow: 53/udp  # dns\n    from: office\n"; string(got) != want {
		t.Errorf("rewritten as\n%s", got)
	}
}

func TestFmtRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "policy.yaml", "version: 1\ninbound: [\n")
	run(t, dir, "fmt", "--write", "policy.yaml").expect(t, 2, nil, []string{"policy.yaml:", "1 error; the file is as it was\n"})
	run(t, dir, "fmt", "policy.yaml").expect(t, 2, nil, []string{"policy.yaml: 1 error\n"})
	run(t, dir, "fmt", "missing.yaml").expect(t, 2, nil, []string{"reading missing.yaml", "no such file"})
	run(t, dir, "fmt", dir).expect(t, 2, nil, []string{"directory"})
	run(t, dir, "fmt", "--write", "--check", "policy.yaml").expect(t, 2, nil, []string{"--write and --check exclude each other", "see quaywall fmt --help"})
}
