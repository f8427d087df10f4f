package terminal_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"quaywall/internal/terminal"
	"quaywall/internal/testkit/pty"
)

// What a person sees and types is tested with the program, in package cli: a test is no job of the terminals it makes.
func TestTerminal(t *testing.T) {
	person, line, err := pty.Open(25, 90)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if terminal.Of(r, line) != nil || terminal.Of(line, w) != nil {
		t.Error("a pipe is taken for a terminal")
	}
	at := terminal.Of(line, line)
	if at == nil {
		t.Fatal("a terminal is not known")
	}
	if _, err := at.Open(); !errors.Is(err, terminal.ErrBackground) {
		t.Errorf("opening another session's: %v", err)
	}
	if columns, rows := at.Size(); columns != 90 || rows != 25 {
		t.Errorf("size %d by %d", columns, rows)
	}
	if key, err := at.Key(time.Millisecond); key != "" || err != nil {
		t.Errorf("nobody types: %q, %v", key, err)
	}
	if _, err := person.WriteString("yes\n"); err != nil {
		t.Fatal(err)
	}
	if key, err := at.Key(time.Minute); key != "yes" || err != nil {
		t.Errorf("somebody types: %q, %v", key, err)
	}
	person.Close()
	if _, err := at.Key(time.Minute); !errors.Is(err, terminal.ErrGone) {
		t.Errorf("the terminal is closed: %v", err)
	}
}
