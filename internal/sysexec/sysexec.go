// Package sysexec starts other programs. It is the only place that does.
//
//	out, err := sysexec.Run(ctx, sysexec.Command{Path: "iptables-save", Args: []string{"-t", "mangle"}})
//
// Be aware: a child lives in the network namespace of the operating system thread that calls. No shell is involved, the
// locale is C, and output is kept whole in memory unless Command.Stdout takes it.
package sysexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Command is a program to run.
type Command struct {
	Path  string   // a path, or a name to look up: in PATH, then in the sbin directories
	Args  []string // without the program's name
	Stdin io.Reader

	// Stdout takes what the program prints, as it comes; Run then gives nothing. nil keeps it for Run's result.
	Stdout io.Writer
}

// Error is a program that failed. A program that was ended by a signal has Signal set: what it printed is then cut short.
type Error struct {
	Command string
	Code    int // exit status, -1 after a signal
	Signal  syscall.Signal
	Stderr  string
}

func (e *Error) Error() string {
	how := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != 0 {
		how = "ended by signal: " + e.Signal.String()
	}
	if e.Stderr == "" {
		return e.Command + ": " + how
	}
	return e.Command + ": " + how + ": " + e.Stderr
}

// ErrNotFound is the cause of errors about programs that are not installed.
var ErrNotFound = exec.ErrNotFound

// Look finds a program. It also looks where an ordinary user's PATH does not.
func Look(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrNotFound)
}

// Run runs a program to its end and gives what it printed. A failure is an *Error, or wraps ErrNotFound. A signal from the
// terminal doesn't reach the program; it ends with the context, and with this process.
func Run(ctx context.Context, c Command) ([]byte, error) {
	result := RunAll(ctx, c)[0]
	return result.Stdout, result.Err
}

// Result is what became of a program.
type Result struct {
	Stdout []byte
	Err    error
}

// RunAll is Run for several programs that run at the same time. It waits for all of them, and gives their results in the
// order of the commands.
func RunAll(ctx context.Context, commands ...Command) []Result {
	// A child that outlived quaywall would change rules that the next run believes to be its own to change. The kernel
	// watches the thread that started the child, which is why no other goroutine may come and end it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	children := make([]*child, len(commands))
	for i, c := range commands {
		children[i] = start(ctx, c)
	}
	results := make([]Result, len(commands))
	for i, ch := range children {
		results[i] = ch.wait(ctx)
	}
	return results
}

// child is a program that was started.
type child struct {
	command        Command
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	err            error // it did not start
}

func start(ctx context.Context, c Command) *child {
	ch := &child{command: c}
	path, err := Look(c.Path)
	if err != nil {
		ch.err = err
		return ch
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, &ch.stdout, &ch.stderr
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A Ctrl-C is meant for quaywall, which goes on to a safe end: a process group of its own keeps it from the child.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	ch.cmd = cmd
	if err := cmd.Start(); err != nil {
		ch.err = failure(ctx, c, err, "")
	}
	return ch
}

func (ch *child) wait(ctx context.Context) Result {
	if ch.err != nil {
		return Result{Err: ch.err}
	}
	if err := ch.cmd.Wait(); err != nil {
		return Result{ch.stdout.Bytes(), failure(ctx, ch.command, err, ch.stderr.String())}
	}
	return Result{Stdout: ch.stdout.Bytes()}
}

func failure(ctx context.Context, c Command, err error, stderr string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", c.Path, ctx.Err())
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	e := &Error{Command: c.Path, Code: exit.ExitCode(), Stderr: strings.TrimSpace(stderr)}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Signal = status.Signal()
	}
	return e
}

// Detach starts a program in a session of its own, with no terminal, and does not wait for it. Its output goes to log.
// It gives the id of the process.
func Detach(c Command, log *os.File) (int, error) {
	path, err := Look(c.Path)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(path, c.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%s: %w", c.Path, err)
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}
