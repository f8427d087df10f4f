package policy

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Files is what a policy is read through: package files for those of this host, Memory for texts at hand.
type Files interface {
	// Open opens a regular file of at most limit bytes. What is larger fails at once or while it is read; directories,
	// devices, sockets and named pipes are refused.
	Open(path string, limit int64) (io.ReadCloser, error)
	// Glob gives the paths that match a pattern as of path.Match, sorted. None is no error.
	Glob(pattern string) ([]string, error)
	// Abs makes a path absolute.
	Abs(path string) (string, error)
}

// Limits of the files that make up a policy, in bytes.
const (
	MaxPolicySize = 1 << 20   // the policy, a fragment, a raw file
	MaxSetSize    = 256 << 20 // a file that fills a set
)

// Memory is files that exist as texts only, by their paths.
type Memory map[string]string

// Open opens a text.
func (m Memory) Open(name string, limit int64) (io.ReadCloser, error) {
	text, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if int64(len(text)) > limit {
		return nil, errors.New("it is larger than a policy may be")
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// Glob gives the paths that match a pattern, sorted.
func (m Memory) Glob(pattern string) ([]string, error) {
	var found []string
	for name := range m {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}

// Abs takes the root folder for the working one.
func (m Memory) Abs(name string) (string, error) { return path.Join("/", name), nil }
