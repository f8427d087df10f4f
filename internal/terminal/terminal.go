// Package terminal is the terminal that a person sits at, for commands that go on talking to them.
//
//	t := terminal.Of(os.Stdin, os.Stdout)
//	restore, err := t.Open()
//	defer restore()
//	key, err := t.Key(time.Second) // "y" as soon as the key is pressed, "" after a second
//
// Be aware: while it is open keys are not echoed, and what was typed before is thrown away: nobody meant it for what is
// asked now. Ctrl-C is the interrupt signal as ever. A process that is killed leaves the terminal as it is then; shells
// mend that.
package terminal

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Terminal is a terminal that is read from and written to.
type Terminal struct {
	in, out *os.File
	mode    *unix.Termios // that keys come by; nil while it is not open
}

// Of gives the terminal of two files, nil where either of them is something else.
func Of(in, out *os.File) *Terminal {
	if !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return nil
	}
	return &Terminal{in: in, out: out}
}

// ErrBackground says that the terminal is another job's.
var ErrBackground = errors.New("this process is in the background of its terminal")

// ErrGone says that the terminal is no longer there.
var ErrGone = errors.New("the terminal is gone")

// Open has keys come one at a time, until restore is called.
func (t *Terminal) Open() (restore func(), err error) {
	fd := int(t.in.Fd())
	// Whoever reads or changes the terminal in the background is stopped.
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		return nil, ErrBackground
	}
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("asking for the terminal's settings: %w", err)
	}
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &now); err != nil {
		return nil, fmt.Errorf("changing the terminal's settings: %w", err)
	}
	t.mode = &now
	return func() {
		t.mode = nil
		_ = unix.IoctlSetTermios(fd, unix.TCSETSF, before)
	}, nil
}

// keepMode has keys come one at a time again after a shell brought this process back from where Ctrl-Z put it: shells set
// the terminal as they found it first.
func (t *Terminal) keepMode() {
	fd := int(t.in.Fd())
	if now, err := unix.IoctlGetTermios(fd, unix.TCGETS); t.mode != nil && err == nil && now.Lflag != t.mode.Lflag {
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, t.mode)
	}
}

// Key waits for a key and gives what it sends, without the newline that somebody may have typed after it; "" where none
// was pressed in time. What is pasted comes as a whole.
func (t *Terminal) Key(wait time.Duration) (string, error) {
	t.keepMode()
	fds := []unix.PollFd{{Fd: int32(t.in.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait.Milliseconds()))
	switch {
	case errors.Is(err, unix.EINTR) || err == nil && n == 0:
		return "", nil
	case err != nil:
		return "", fmt.Errorf("waiting for a key: %w", err)
	}
	var typed [64]byte
	n, err = unix.Read(int(t.in.Fd()), typed[:])
	if err != nil || n == 0 {
		return "", ErrGone
	}
	return strings.TrimRight(string(typed[:n]), "\r\n"), nil
}

// Size is how many characters fit on the screen; 80 by 24 where the terminal doesn't tell.
func (t *Terminal) Size() (columns, rows int) {
	columns, rows, err := term.GetSize(int(t.out.Fd()))
	if err != nil || columns == 0 || rows == 0 {
		return 80, 24
	}
	return columns, rows
}
