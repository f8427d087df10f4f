package files

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quaywall/internal/policy"
)

var _ policy.Files = Host{}

// TestRefused: nothing that isn't a file is read, and nothing waits.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	write(t, at("large"), strings.Repeat("x", 2<<20+1))
	for _, c := range []struct{ path, says string }{
		{dir, "it is a directory, not a file"},
		{at("pipe"), "it is a named pipe, not a file"},
		{"/dev/zero", "it is a device, not a file"},
		{at("large"), "it is larger than 2 MiB"},
		{at("nothing"), "no such file or directory"},
		{at("large/x"), "not a directory"},
	} {
		f, err := Host{}.Open(c.path, 2<<20)
		if err == nil {
			f.Close()
		}
		if err == nil || err.Error() != c.says {
			t.Errorf("%s: %v, want %s", c.path, err, c.says)
		}
	}
	if _, err := (Host{}).Open(at("socket"), 1<<20); err == nil {
		t.Error("a socket was opened")
	}
	if _, err := (Host{}).Open(at("nothing"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGrowing: a file that grows beyond the limit while it is read fails.
func TestGrowing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, strings.Repeat("x", 1<<20))
	f, err := Host{}.Open(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, path, strings.Repeat("y", 1<<20+1))
	if text, err := io.ReadAll(f); err == nil || err.Error() != "it is larger than 1 MiB" {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestWithinLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "1234")
	f, err := Host{}.Open(path, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "1234" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestGlob(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a.yaml", "B.yaml", "c.txt"} {
		write(t, filepath.Join(dir, name), "")
	}
	got, err := Host{}.Glob(filepath.Join(dir, "*.yaml"))
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if want := []string{"B.yaml", "a.yaml", "b.yaml"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestLoad reads a policy with all that it can name from this host's files, relative paths among them.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policy.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "policy.yaml"), "version: 1\ninclude: policy.d/*.yaml\nraw: {nft: extra.nft}\nsets: {a: {file: a.txt}}\ninbound: [{allow: ssh, from: a}]\n")
	write(t, filepath.Join(dir, "policy.d", "x.yaml"), "sets: {b: {file: ../b.txt}}\ninbound: [{allow: http, from: b}]\n")
	write(t, filepath.Join(dir, "a.txt"), "192.0.2.1\n")
	write(t, filepath.Join(dir, "b.txt"), "192.0.2.2\n")
	write(t, filepath.Join(dir, "extra.nft"), "# nothing\n")
	t.Chdir(dir)
	p, _, list := policy.Load(Host{}, "policy.yaml")
	if len(list) > 0 {
		t.Fatal(list)
	}
	real, _ := filepath.EvalSymlinks(dir)
	if s, _ := p.Set("b"); s.Addrs.String() != "192.0.2.2" || s.File != filepath.Join(real, "b.txt") {
		t.Errorf("%+v", s)
	}
	if len(p.Inbound) != 2 || p.Inbound[1].Origin() != "x.yaml:2" || p.Raw.NFT.Path != filepath.Join(real, "extra.nft") {
		t.Errorf("%+v", p)
	}
	hash := p.Hash
	for _, name := range []string{"a.txt", "policy.d/x.yaml", "extra.nft", "policy.yaml"} {
		text, _ := os.ReadFile(name)
		write(t, filepath.Join(dir, name), string(text)+"# changed\n")
		p, _, _ := policy.Load(Host{}, "policy.yaml")
		if p == nil || p.Hash == hash {
			t.Errorf("%s changed and the hash did not", name)
		} else {
			hash = p.Hash
		}
	}
}
