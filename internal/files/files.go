// Package files gives the files of this host to those who read policies.
//
//	p, sources, list := policy.Load(files.Host{}, "/etc/quaywall/policy.yaml")
//
// Be aware: only regular files are read. A directory, a device, a socket or a named pipe is refused, so that reading never
// waits for somebody else.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Host is the files of this host.
type Host struct{}

// Open opens a regular file of at most limit bytes. A file that grows beyond it while it is read fails then.
func (Host) Open(path string, limit int64) (io.ReadCloser, error) {
	// Without O_NONBLOCK the opening of a named pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, reason(err)
	}
	info, err := f.Stat()
	if err == nil {
		err = check(info, limit)
	}
	if err != nil {
		return nil, errors.Join(reason(err), f.Close())
	}
	return &limited{file: f, left: limit, limit: limit}, nil
}

// reason is an error without the operation and the path: whoever reports it names them.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func check(info fs.FileInfo, limit int64) error {
	kinds := []struct {
		bits fs.FileMode
		name string
	}{{fs.ModeDir, "directory"}, {fs.ModeNamedPipe, "named pipe"}, {fs.ModeSocket, "socket"}, {fs.ModeDevice, "device"}}
	for _, k := range kinds {
		if info.Mode()&k.bits != 0 {
			return fmt.Errorf("it is a %s, not a file", k.name)
		}
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if info.Size() > limit {
		return tooLarge(limit)
	}
	return nil
}

func tooLarge(limit int64) error { return fmt.Errorf("it is larger than %d MiB", limit>>20) }

// limited is a file that fails beyond its limit.
type limited struct {
	file        *os.File
	left, limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.file.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge(l.limit)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = reason(err)
	}
	return n, err
}

func (l *limited) Close() error { return l.file.Close() }

// Glob gives the paths that match a pattern, sorted bytewise.
func (Host) Glob(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	slices.Sort(found)
	return found, err
}

// Abs makes a path absolute.
func (Host) Abs(path string) (string, error) { return filepath.Abs(path) }
