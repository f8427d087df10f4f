// Package paths waits until files change: those of a policy, whoever writes them and however.
//
//	w, err := paths.Open()
//	added, err := w.Set([]string{"/etc/quaywall/policy.yaml", "/etc/quaywall/policy.d/*.yaml"})
//	err = w.Run(ctx, func() { … })      // a hint that one of them was written, replaced, removed or made
//
// Folders are watched, not files: most editors write a new file and rename it. Each link on the way to a file is followed
// and watched as well, so that a file is noticed whose link is moved (as configuration mounted into containers is). Where
// a folder is missing, its name is waited for.
//
// Be aware: a hint may be false, and says nothing of what changed. What is written into an open file counts once the
// file is closed. Folders further up that are renamed are not noticed. A file system of the network tells nothing of
// what other machines write.
package paths

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// mask is what counts as a change of a folder.
const mask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF |
	unix.IN_ONLYDIR

// gone are events of a folder itself: what was watched is no longer what has that name.
const gone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT | unix.IN_Q_OVERFLOW

// Watcher watches files.
type Watcher struct {
	fd   int
	file *os.File
	mu   sync.Mutex
	want map[int32][]string // by watch: the patterns of names in its folder
}

// Open makes a watcher that watches nothing yet. Close it.
func Open() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching files: %w", os.NewSyscallError("inotify_init", err))
	}
	return &Watcher{fd: fd, file: os.NewFile(uintptr(fd), "inotify"), want: map[int32][]string{}}, nil
}

// Close ends Run, and all watching.
func (w *Watcher) Close() error { return w.file.Close() }

// Set says which files to watch, by their absolute paths or by patterns as of path.Match, and forgets all others. It tells
// whether a folder is among them that was not watched before: what is in it has to be read after that.
func (w *Watcher) Set(patterns []string) (added bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var want map[int32][]string
	for range tries {
		if want, err = w.add(patterns); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			break
		}
	}
	for wd := range want {
		_, known := w.want[wd]
		added = added || !known
	}
	for wd := range w.want {
		if _, kept := want[wd]; !kept {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // a folder that is gone has no watch any more
		}
	}
	w.want = want
	return added, err
}

// tries is how often folders are looked for anew that went away before they could be watched.
const tries = 100

// add watches what there is of the paths now.
func (w *Watcher) add(patterns []string) (map[int32][]string, error) {
	want := map[int32][]string{}
	var errs []error
	for _, s := range spotsOf(patterns) {
		wd, err := unix.InotifyAddWatch(w.fd, s.dir, mask)
		if err != nil {
			errs = append(errs, fmt.Errorf("watching %s: %w", s.dir, err))
			continue
		}
		want[int32(wd)] = append(want[int32(wd)], s.name)
	}
	return want, errors.Join(errs...)
}

// Run calls each for every event that may be about one of the files, until ctx ends or the watcher is closed.
func (w *Watcher) Run(ctx context.Context, each func()) error {
	defer context.AfterFunc(ctx, func() { w.file.Close() })()
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("watching files: %w", err)
		case w.concerns(buffer[:n]):
			each()
		}
	}
}

// concerns tells whether one of several events may be about a file that is watched.
func (w *Watcher) concerns(b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) >= unix.SizeofInotifyEvent {
		wd, bits := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:min(end, len(b))]), "\x00")
		if bits&gone != 0 || slices.ContainsFunc(w.want[wd], func(p string) bool { return matches(p, name) }) {
			return true
		}
		b = b[min(end, len(b)):]
	}
	return false
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok || err != nil || pattern == name
}

// spot is a name in a folder. What happens to it changes which file a path means.
type spot struct{ dir, name string }

// spotsOf are the spots to watch, each once, sorted.
func spotsOf(patterns []string) []spot {
	found := map[spot]bool{}
	for _, p := range patterns {
		folders, err := filepath.Glob(filepath.Dir(p))
		if err != nil || len(folders) == 0 {
			folders = []string{filepath.Dir(p)}
		}
		for _, dir := range folders {
			trace(filepath.Join(dir, filepath.Base(p)), found)
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b spot) int {
		return strings.Compare(a.dir+"\x00"+a.name, b.dir+"\x00"+b.name)
	})
}

// maxLinks is how many links the kernel itself follows.
const maxLinks = 40

// trace walks to a file. Links on the way are spots, the first name that is missing is one, and the file itself is.
func trace(path string, found map[spot]bool) {
	at, rest := "/", strings.Split(strings.Trim(path, "/"), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		here := spot{at, name}
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		switch {
		case err == nil && links < maxLinks:
			links++
			found[here] = true
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
		case errors.Is(err, os.ErrNotExist) || len(rest) == 0:
			found[here] = true
			return
		default:
			at = next
		}
	}
}
