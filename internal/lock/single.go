package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RunningError says that what may run once runs already.
type RunningError struct {
	What   string // "agent"
	Holder Holder
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("quaywall's %s runs already: %v", e.What, e.Holder)
}

// Single makes this process the only one of a kind that uses a run directory, until what it gives is closed or the
// process ends. Where there is another one, the error is a *RunningError.
func Single(runDir, what string) (io.Closer, error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(singlePath(runDir, what), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Lock{file: file}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for tries := 0; errors.Is(err, unix.EWOULDBLOCK) && tries < askers; tries++ {
		time.Sleep(pause)
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		h, _ := l.read()
		err = &RunningError{What: what, Holder: h}
	}
	if err == nil {
		l.sign()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// askers is how often Single tries again: who asks by Running holds the lock for a moment.
const askers = 3

// Running finds the process that Single made the only one of its kind; nil where there is none.
func Running(runDir, what string) (*Holder, error) {
	file, err := os.Open(singlePath(runDir, what))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, err
	}
	h, _ := (&Lock{file: file}).read()
	return &h, nil
}

func singlePath(runDir, what string) string { return filepath.Join(runDir, what+".lock") }

// Erase removes the lock's file and other files of a run directory, and the directory if nothing else is in it.
func Erase(runDir string, others ...string) error {
	for _, name := range append(others, fileName) {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(runDir)
	return nil
}
