package sysexec

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
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
