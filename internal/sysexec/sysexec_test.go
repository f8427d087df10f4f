package sysexec

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	out, err := Run(context.Background(), Command{Path: "cat", Stdin: strings.NewReader("hello")})
	if err != nil || string(out) != "hello" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestRunStdout(t *testing.T) {
	var b strings.Builder
	out, err := Run(context.Background(), Command{Path: "cat", Stdin: strings.NewReader("hello"), Stdout: &b})
	if err != nil || len(out) != 0 || b.String() != "hello" {
		t.Errorf("got %q, the writer %q, %v", out, b.String(), err)
	}
}

func TestRunFailures(t *testing.T) {
	for _, test := range []struct {
		script string
		want   Error
	}{
		{"echo sorry >&2; exit 3", Error{Command: "sh", Code: 3, Stderr: "sorry"}},
		{"kill -SEGV $$", Error{Command: "sh", Code: -1, Signal: syscall.SIGSEGV}},
	} {
		_, err := Run(context.Background(), Command{Path: "sh", Args: []string{"-c", test.script}})
		var e *Error
		if !errors.As(err, &e) || *e != test.want {
			t.Errorf("%s: got %#v, want %#v", test.script, err, test.want)
		}
	}
}

func TestRunWithoutProgram(t *testing.T) {
	if _, err := Run(context.Background(), Command{Path: "no-such-program-here"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// A Ctrl-C reaches all processes of a group: the program must be in another one.
func TestRunKeepsTerminalSignalsAway(t *testing.T) {
	out, err := Run(context.Background(), Command{Path: "sh", Args: []string{"-c", "cut -d' ' -f5 /proc/$$/stat; echo $$"}})
	lines := strings.Fields(string(out))
	if err != nil || len(lines) != 2 || lines[0] != lines[1] || lines[0] == strconv.Itoa(syscall.Getpgrp()) {
		t.Errorf("process group and id %q, %v; this process is of group %d", lines, err, syscall.Getpgrp())
	}
}

// killedVar makes the test program start a child by Run and kill itself.
const killedVar = "QUAYWALL_TEST_KILLED"

func TestMain(m *testing.M) {
	if os.Getenv(killedVar) == "" {
		os.Exit(m.Run())
	}
	go func() {
		time.Sleep(200 * time.Millisecond)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}()
	_, _ = Run(context.Background(), Command{Path: "sh", Args: []string{"-c", "echo $$; exec sleep 60"}, Stdout: os.Stdout})
}

func TestRunLeavesNoChildBehind(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killedVar+"=1")
	out, _ := cmd.Output()
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("the child said %q", out)
	}
	for range 100 {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	t.Error("the child outlived the process that started it")
}

// Each of the programs needs the other one to go on.
func TestRunAllRunsAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"/a", "/b"} {
		if err := syscall.Mkfifo(dir+name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got := RunAll(ctx, Command{Path: "sh", Args: []string{"-c", "cd " + dir + "; echo first > a; cat b"}},
		Command{Path: "sh", Args: []string{"-c", "cd " + dir + "; cat a; echo second > b"}}, Command{Path: "no-such-program-here"})
	if string(got[0].Stdout) != "second\n" || string(got[1].Stdout) != "first\n" || got[0].Err != nil || got[1].Err != nil {
		t.Errorf("got %q, %v and %q, %v", got[0].Stdout, got[0].Err, got[1].Stdout, got[1].Err)
	}
	if !errors.Is(got[2].Err, ErrNotFound) {
		t.Errorf("the program that is not there: %v", got[2].Err)
	}
}
