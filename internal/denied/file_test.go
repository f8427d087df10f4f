package denied

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// numbered is an entry that can be told from others; thousands of them fill a file.
func numbered(n int) Entry {
	return Entry{Verdict: "deny", SrcPort: uint16(n), Why: strings.Repeat("x", 500)}
}

func (f File) fill(t *testing.T, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		if err := f.Append(numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func numbers(entries []Entry) []int {
	var all []int
	for _, e := range entries {
		all = append(all, int(e.SrcPort))
	}
	return all
}

func upTo(first, last int) []int {
	var all []int
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

func TestLast(t *testing.T) {
	f := In(t.TempDir())
	if entries, err := f.Last(5); err != nil || len(entries) != 0 {
		t.Errorf("of nothing: %v, %v", entries, err)
	}
	f.fill(t, 1, 3)
	for n, want := range map[int][]int{0: nil, 2: {2, 3}, 3: {1, 2, 3}, 9: {1, 2, 3}} {
		if entries, err := f.Last(n); err != nil || !slices.Equal(numbers(entries), want) {
			t.Errorf("the last %d are %v, %v", n, numbers(entries), err)
		}
	}
	// What was written in part is passed over, and what follows it on its line.
	must(t, os.WriteFile(f.path(), []byte("{\"src_port\":1}\n{\"src_po\n{\"src_port\":3}\n{\"src_port\":4"), 0o600))
	if entries, err := f.Last(9); err != nil || !slices.Equal(numbers(entries), []int{1, 3}) {
		t.Errorf("beside a damaged line: %v, %v", numbers(entries), err)
	}
	must(t, os.Remove(f.path()))
	must(t, os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), f.path()))
	if err := f.Append(numbered(1)); err == nil {
		t.Error("a link was followed")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBounded: however many entries, the files keep their size, and the last hundreds are there.
func TestBounded(t *testing.T) {
	f := In(t.TempDir())
	f.fill(t, 1, 3000)
	for _, path := range []string{f.path(), f.older()} {
		if info, err := os.Stat(path); err != nil || info.Size() > fileSize || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	entries, err := f.Last(400)
	if err != nil || !slices.Equal(numbers(entries), upTo(2601, 3000)) {
		t.Errorf("the last 400: %v, %v", numbers(entries), err)
	}
}

// TestTail: who reads on after any number of entries misses none, as long as the file was not filled anew.
func TestTail(t *testing.T) {
	f := In(t.TempDir())
	tl := tail{File: f}
	defer tl.close()
	written, seen := 0, []int(nil)
	for _, n := range []int{0, 1, 300, 100, 300, 0, 400, 1, 420, 2} {
		f.fill(t, written+1, written+n)
		written += n
		entries, err := tl.next()
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, numbers(entries)...)
	}
	if !slices.Equal(seen, upTo(1, written)) {
		t.Errorf("of %d entries %d were seen: %v", written, len(seen), seen)
	}
	must(t, os.WriteFile(f.path(), []byte(strings.Repeat("x", fileSize)), 0o600)) // a line that has no end
	if entries, err := tl.next(); err != nil || len(entries) != 0 {
		t.Errorf("of no line: %v, %v", numbers(entries), err)
	}
	f.fill(t, 1, 2)
	if entries, err := tl.next(); err != nil || !slices.Equal(numbers(entries), upTo(1, 2)) {
		t.Errorf("after a file that ends within a line: %v, %v", numbers(entries), err)
	}
}

// TestFollow: two follow at a time, from before there is a file or even its folder; who writes ends and begins anew, and
// the folder is removed meanwhile.
func TestFollow(t *testing.T) {
	t.Chdir(t.TempDir())
	const dir = "run"
	f := In(dir)
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error)
	var heard [2]chan int
	for i := range heard {
		heard[i] = make(chan int, 10_000)
		go func() {
			ends <- f.Follow(ctx, 3, func(e Entry) error { heard[i] <- int(e.SrcPort); return nil })
		}()
	}
	expect := func(first, last int) {
		t.Helper()
		for _, h := range heard {
			for n := first; n <= last; n++ {
				select {
				case got := <-h:
					if got != n {
						t.Fatalf("heard of %d, want %d", got, n)
					}
				case err := <-ends:
					t.Fatalf("following ended before entry %d: %v", n, err)
				}
			}
		}
	}
	must(t, os.Mkdir(dir, 0o700))
	f.fill(t, 1, 1)
	expect(1, 1)
	f.fill(t, 2, 300)
	expect(2, 300)
	In(dir).fill(t, 301, 600)
	expect(301, 600)
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o700))
	f.fill(t, 601, 601)
	expect(601, 601)
	cancel()
	for range heard {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	enough := errors.New("enough")
	var last []string
	err := f.Follow(t.Context(), 1, func(e Entry) error { last = append(last, strconv.Itoa(int(e.SrcPort))); return enough })
	if !errors.Is(err, enough) || !slices.Equal(last, []string{"601"}) {
		t.Errorf("following ended with %v after %q", err, last)
	}
}

// TestFollowRefused: a folder that is closed is told at once.
func TestFollowRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	f := In(filepath.Join(dir, "file")) // no folder
	if _, err := f.Last(1); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that can't be opened: %v", err)
	}
}
