package denied

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"quaywall/internal/watch/paths"
)

// FileName is the file in the run directory: an Entry a line, in JSON. Older is the one before it, which is replaced when
// the file is full.
const (
	FileName  = "denied.jsonl"
	OlderName = "denied.1.jsonl"
)

// fileSize bounds each of the two files: some 700 entries.
const fileSize = 256 << 10

// File is where entries are kept: in a run directory, until the next boot. One process writes, any number read.
type File struct{ dir string }

// In gives the file of a run directory, which need not exist.
func In(runDir string) File { return File{runDir} }

func (f File) path() string  { return filepath.Join(f.dir, FileName) }
func (f File) older() string { return filepath.Join(f.dir, OlderName) }

// Append adds an entry. The file is closed again, which is what wakes those up that follow it.
func (f File) Append(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if info, err := os.Stat(f.path()); err == nil && info.Size()+int64(len(line)) > fileSize {
		if err := os.Rename(f.path(), f.older()); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(f.path(), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(line)
	return errors.Join(err, file.Close())
}

// Last gives the last n entries, the oldest first.
func (f File) Last(n int) ([]Entry, error) {
	t := tail{File: f}
	defer t.close()
	return t.last(n)
}

// Follow gives the last n entries, and then each that is added, until ctx ends or each fails. It follows the file through
// the end of who writes it and its beginning anew.
//
// Be aware: who stands still while the file is filled anew, four seconds at least, misses what stood in it.
func (f File) Follow(ctx context.Context, n int, each func(Entry) error) error {
	w, err := paths.Open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hints, failed := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		failed <- w.Run(ctx, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
	}()
	t := tail{File: f}
	defer t.close()
	for read := func() ([]Entry, error) { return t.last(n) }; ; read = t.next {
		if err := f.watch(w); err != nil {
			return err
		}
		if err := t.give(read, each); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-hints:
		}
	}
}

// watch waits for the file, or for the folder where that is missing, which may come while it is looked for.
func (f File) watch(w *paths.Watcher) error {
	path, err := filepath.Abs(f.path())
	if err != nil {
		return err
	}
	for {
		added, err := w.Set([]string{path})
		if !added || err != nil {
			return err
		}
	}
}

// tail is what a reader has read.
type tail struct {
	File
	file *os.File // nil before there was one
	rest []byte   // the beginning of a line that was not whole yet
}

func (t *tail) close() { closeAll(t.file) }

// give gives each of the entries that are read.
func (t *tail) give(read func() ([]Entry, error), each func(Entry) error) error {
	entries, err := read()
	for _, e := range entries {
		if err == nil {
			err = each(e)
		}
	}
	return err
}

// last gives the last n of all entries. It is called first.
func (t *tail) last(n int) ([]Entry, error) {
	var err error
	if t.file, err = open(t.path()); err != nil {
		return nil, err
	}
	older, err := open(t.older())
	if err != nil {
		return nil, err
	}
	var all []Entry
	if !same(older, t.file) { // it is where the file was put aside just now
		all = (&tail{file: older}).read()
	}
	closeAll(older)
	more, err := t.next()
	all = append(all, more...)
	return all[max(0, len(all)-n):], err
}

// next gives the entries that came since.
func (t *tail) next() ([]Entry, error) {
	var all []Entry
	for {
		current, err := open(t.path())
		if err != nil {
			return all, err
		}
		// Only now: where another file has taken the place of the one at hand, nothing is added to that one any more.
		all = append(all, t.read()...)
		if same(t.file, current) || current == nil && t.isAside() {
			closeAll(current)
			return all, nil
		}
		closeAll(t.file) // a file that is open keeps it from being told that its folder is removed
		t.file, t.rest = current, nil
		if current == nil {
			return all, nil
		}
	}
}

// isAside tells whether the file at hand was put aside, and the next one is about to come.
func (t *tail) isAside() bool {
	older, err := open(t.older())
	defer closeAll(older)
	return err == nil && same(t.file, older)
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// read reads on in the file at hand.
func (t *tail) read() []Entry {
	if t.file == nil {
		return nil
	}
	more, _ := io.ReadAll(t.file) // what can't be read of a file that is open is not there
	t.rest = append(t.rest, more...)
	var entries []Entry
	for {
		line, rest, whole := bytes.Cut(t.rest, []byte{'\n'})
		if !whole {
			return entries
		}
		t.rest = rest
		var e Entry
		if json.Unmarshal(line, &e) == nil { // a line that was written in part, for want of space, is passed over
			entries = append(entries, e)
		}
	}
}

// open opens a file; nil where there is none.
func open(path string) (*os.File, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was denied: %w", err)
	}
	return file, nil
}

func same(a, b *os.File) bool {
	if a == nil || b == nil {
		return false
	}
	one, err1 := a.Stat()
	other, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}
