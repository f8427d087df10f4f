// Package pty makes terminals for tests of what a person sees and types.
//
//	person, line, err := pty.Open(40, 120)
//	cmd.Stdin, cmd.Stdout, cmd.SysProcAttr = line, line, pty.Session()
//
// Be aware: what the program writes waits in the terminal until somebody reads the person's end; closing that end is what
// a broken connection does.
package pty

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open makes a terminal of so many rows and columns: the person's end, and the line that the program gets.
func Open(rows, columns uint16) (person, line *os.File, err error) {
	person, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	raw, err := person.SyscallConn() // Fd would take the file from Go's poller, and closing it would end no read
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { line, err = prepare(int(fd), rows, columns) }), err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, person.Close())
	}
	return person, line, nil
}

// prepare opens the line of a person's end.
func prepare(fd int, rows, columns uint16) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err != nil {
		return nil, err
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
}

// Session makes the terminal on a program's standard input its own, as a login does.
func Session() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
}
