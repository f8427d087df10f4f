package paths_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quaywall/internal/watch/paths"
)

type watched struct {
	*testing.T
	dir      string
	w        *paths.Watcher
	heard    chan struct{}
	patterns []string
}

// watch watches patterns, relative to a folder of the test's.
func watch(t *testing.T, prepare func(dir string), patterns ...string) *watched {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	prepare(dir)
	w, err := paths.Open()
	if err != nil {
		t.Fatal(err)
	}
	for i := range patterns {
		patterns[i] = filepath.Join(dir, patterns[i])
	}
	x := &watched{T: t, dir: dir, w: w, heard: make(chan struct{}, 100), patterns: patterns}
	if added := x.set(); !added {
		t.Error("nothing was added at first")
	}
	if added := x.set(); added {
		t.Error("the second time something was added")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = w.Run(ctx, func() { x.heard <- struct{}{} }); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return x
}

func (x *watched) set() bool {
	x.Helper()
	added, err := x.w.Set(x.patterns)
	if err != nil {
		x.Fatal(err)
	}
	return added
}

func (x *watched) path(name string) string { return filepath.Join(x.dir, name) }

// hears does something and expects that it is heard.
func (x *watched) hears(what string, f func() error) {
	x.Helper()
	x.do(f)
	select {
	case <-x.heard:
	case <-time.After(10 * time.Second):
		x.Errorf("%s was not noticed", what)
	}
	x.settle()
}

func (x *watched) ignores(what string, f func() error) {
	x.Helper()
	x.do(f)
	if x.settle() {
		x.Errorf("%s was taken for a change", what)
	}
}

func (x *watched) do(f func() error) {
	x.Helper()
	if err := f(); err != nil {
		x.Fatal(err)
	}
}

// settle waits until nothing more comes, and looks again which folders there are.
func (x *watched) settle() (heard bool) {
	for {
		select {
		case <-x.heard:
			heard = true
		case <-time.After(50 * time.Millisecond):
			x.set()
			return heard
		}
	}
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func TestWriters(t *testing.T) {
	x := watch(t, func(dir string) {
		_ = write(dir+"/policy.yaml", "one")
		_ = os.Mkdir(dir+"/policy.d", 0o700)
	}, "policy.yaml", "policy.d/*.yaml", "sets/friends.txt")
	x.hears("writing", func() error { return write(x.path("policy.yaml"), "two") })
	x.ignores("another file", func() error { return write(x.path("notes"), "x") })
	x.hears("an editor's renaming", func() error {
		if err := write(x.path(".policy.swp"), "three"); err != nil {
			return err
		}
		return os.Rename(x.path(".policy.swp"), x.path("policy.yaml"))
	})
	x.hears("an editor that moves the old one aside", func() error { return os.Rename(x.path("policy.yaml"), x.path("policy.yaml~")) })
	x.hears("and writes a new one", func() error { return write(x.path("policy.yaml"), "four") })
	x.hears("a new fragment", func() error { return write(x.path("policy.d/web.yaml"), "x") })
	x.ignores("what is no fragment", func() error { return write(x.path("policy.d/web.yaml.bak"), "x") })
	x.hears("a fragment's removal", func() error { return os.Remove(x.path("policy.d/web.yaml")) })
	x.hears("the folder of a set file", func() error { return os.Mkdir(x.path("sets"), 0o700) })
	x.hears("the set file in it", func() error { return write(x.path("sets/friends.txt"), "192.0.2.1") })
	x.hears("the whole folder's removal", func() error { return os.RemoveAll(x.path("sets")) })
	x.hears("and the folder anew", func() error { return os.Mkdir(x.path("sets"), 0o700) })
	x.hears("with the file", func() error { return write(x.path("sets/friends.txt"), "192.0.2.2") })
}

// TestLinks: configuration that is mounted into a container is a link to a link, and the one in the middle is moved.
func TestLinks(t *testing.T) {
	x := watch(t, func(dir string) {
		for _, n := range []string{"v1", "v2"} {
			_ = os.Mkdir(dir+"/"+n, 0o700)
			_ = write(dir+"/"+n+"/policy.yaml", n)
		}
		_ = os.Symlink("v1", dir+"/data")
		_ = os.Symlink("data/policy.yaml", dir+"/policy.yaml")
	}, "policy.yaml")
	x.hears("a write to what is linked to", func() error { return write(x.path("v1/policy.yaml"), "x") })
	x.ignores("a write to what isn't", func() error { return write(x.path("v2/policy.yaml"), "x") })
	x.hears("the link's moving", func() error {
		if err := os.Symlink("v2", x.path("tmp")); err != nil {
			return err
		}
		return os.Rename(x.path("tmp"), x.path("data"))
	})
	x.hears("a write to what is linked to now", func() error { return write(x.path("v2/policy.yaml"), "y") })
	x.ignores("a write to what was", func() error { return write(x.path("v1/policy.yaml"), "y") })
	x.hears("a loop of links", func() error {
		if err := os.Symlink("loop", x.path("loop")); err != nil {
			return err
		}
		return os.Rename(x.path("loop"), x.path("policy.yaml"))
	})
}

// TestFolderComesAndGoes: a folder that is removed between looking for it and watching it is no error; what is left of its path is
// watched.
func TestFolderComesAndGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	w, err := paths.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ends := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Remove(dir)); err != nil {
				ends <- err
				return
			}
		}
		ends <- nil
	}()
	for range 3_000 {
		if _, err := w.Set([]string{filepath.Join(dir, "file")}); err != nil {
			t.Error(err)
			break
		}
	}
	cancel()
	if err := <-ends; err != nil {
		t.Error(err)
	}
}
