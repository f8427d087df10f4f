package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Shell runs a program on a host by way of its shell server, as a person does by SSH: a process of the host holds the
// connection and is the program's parent.
type Shell struct {
	Dial Dial     `json:"dial"`
	Args []string `json:"args"` // program and arguments
	Env  []string `json:"env"`  // added to the server's
}

// ShellResult is what the program printed, both outputs mixed, and how it ended.
type ShellResult struct {
	Code   int    `json:"code"` // exit status; -1 when the connection broke before the program's end
	Output string `json:"output"`
}

// Shell runs a program by way of the shell server that d leads to.
func (c Client) Shell(ctx context.Context, s Shell) (ShellResult, error) {
	return call[ShellResult](ctx, c, Request{Shell: &s})
}

// shell is the client's part. Ending ctx cuts the connection.
func shell(ctx context.Context, s Shell, began func()) (ShellResult, error) {
	conn, err := s.Dial.open()
	if err != nil {
		return ShellResult{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(s); err != nil {
		return ShellResult{}, err
	}
	began()
	r := ShellResult{Code: -1}
	err = json.NewDecoder(conn).Decode(&r)
	if err != nil && ctx.Err() == nil {
		r.Output = err.Error() // the connection broke: that is a result
	}
	return r, nil
}

// ServeShells hands each connection to a process of its own, self with the argument "session" and the connection as
// descriptor 3, as sshd does.
func ServeShells(ln net.Listener, self string) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		cmd := exec.Command(self, "session", "3")
		cmd.ExtraFiles = []*os.File{file}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := errors.Join(cmd.Start(), file.Close(), conn.Close()); err != nil {
			return err
		}
		go func() { _ = cmd.Wait() }() // how a session ends is the client's to know
	}
}

// Session runs the program that the other side of a connection asks for. When the connection ends, the program gets
// SIGHUP.
func Session(conn net.Conn) error {
	var s Shell
	lines := bufio.NewReader(conn)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, &s); err != nil || len(s.Args) == 0 {
		return fmt.Errorf("session: no program is asked for: %w", err)
	}
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a program that it leaves behind may keep the output open
	if err := cmd.Start(); err != nil {
		return json.NewEncoder(conn).Encode(ShellResult{Code: 127, Output: err.Error()})
	}
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Process.Signal(syscall.SIGHUP)
	}()
	_ = cmd.Wait() // the status is in ProcessState
	return json.NewEncoder(conn).Encode(ShellResult{Code: cmd.ProcessState.ExitCode(), Output: out.String()})
}
