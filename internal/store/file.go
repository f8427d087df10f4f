package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// DamagedError is a file of the store that isn't what was written: cut short, changed, or of another version.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.Path, e.Err) }

func (e *DamagedError) Unwrap() error { return e.Err }

// PutAside renames the file, so that a person can look at it and nobody trips over it again. It gives the new name, ""
// for a file that is gone.
func (e *DamagedError) PutAside() (string, error) {
	aside := e.Path + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	err := os.Rename(e.Path, aside)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return aside, err
}

// writeLines makes a file of one line for each value: the SHA-256 of the value's JSON in hex, a space, the JSON. The
// file must not exist. It is on the disk when writeLines is back.
func writeLines(path string, values ...any) error {
	return writeFile(path, (*os.File).Sync, values)
}

// writeFile is writeLines, with what is done at the end.
func writeFile(path string, finish func(*os.File) error, values []any) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for _, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		for _, part := range [][]byte{[]byte(hex.EncodeToString(sum[:]) + " "), text, {'\n'}} {
			if _, err := file.Write(part); err != nil {
				return err
			}
		}
	}
	return finish(file)
}

// sumLen is the length of the digest and the space in front of a line's JSON.
const sumLen = 2*sha256.Size + 1

// readLines reads a file that writeLines made, as many lines as there are values; nil skips one.
func readLines(path string, into ...any) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 1<<16)
	for i, v := range into {
		if err := readLine(lines, v); err != nil {
			return &DamagedError{Path: path, Err: fmt.Errorf("line %d: %w", i+1, err)}
		}
	}
	return nil
}

func readLine(r *bufio.Reader, into any) error {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return cutShort(err)
	}
	if into == nil {
		return nil
	}
	if len(line) < sumLen+1 {
		return errors.New("it is too short")
	}
	text := line[sumLen : len(line)-1]
	sum := sha256.Sum256(text)
	if want := hex.EncodeToString(sum[:]) + " "; string(line[:sumLen]) != want {
		return errors.New("its content doesn't match its checksum")
	}
	return json.Unmarshal(text, into)
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it is cut short")
	}
	return err
}

// syncDir makes sure that the names in a folder are on the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
