package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Keep writes a value by a name, in place of the one that was kept by it. It is on the disk when Keep is back.
func (s *Store) Keep(name string, v any) error { return s.keep(name, (*os.File).Sync, v) }

// Note is Keep for what is only told to people: nobody waits for the disk, and a power cut may take the value away.
func (s *Store) Note(name string, v any) error {
	return s.keep(name, func(*os.File) error { return nil }, v)
}

func (s *Store) keep(name string, finish func(*os.File) error, v any) error {
	path := s.KeptFile(name)
	temp := path + ".new"
	err := os.MkdirAll(s.dir, 0o700)
	if err == nil {
		err = removed(temp) // of a run that was killed
	}
	if err == nil {
		err = writeFile(temp, finish, []any{v})
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, errors.Join(err, removed(temp)))
	}
	return nil
}

// Kept reads the value that was kept by a name; false where there is none, or one that is damaged.
func (s *Store) Kept(name string, into any) (bool, error) {
	err := readLines(s.KeptFile(name), into)
	var damaged *DamagedError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &damaged) {
		return false, nil
	}
	return err == nil, err
}

// KeptFile is the file of what is kept by a name.
func (s *Store) KeptFile(name string) string { return filepath.Join(s.dir, name+".json") }

// Erase removes all that the store has kept, and its folder if nothing of somebody else's is in it.
func (s *Store) Erase() error {
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.json*")) // the pattern is a good one; what was put aside too
	for _, path := range files {
		if err := removed(path); err != nil {
			return fmt.Errorf("removing what was kept: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, recordsDir)); err != nil {
		return fmt.Errorf("removing what was kept: %w", err)
	}
	_ = os.Remove(s.dir)
	return nil
}
