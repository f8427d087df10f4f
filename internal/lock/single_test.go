package lock

import (
	"errors"
	"os"
	"testing"
)

func TestSingle(t *testing.T) {
	dir := t.TempDir()
	first, err := Single(dir, "agent")
	if err != nil {
		t.Fatal(err)
	}
	var running *RunningError
	if _, err := Single(dir, "agent"); !errors.As(err, &running) || running.Holder.PID != os.Getpid() {
		t.Errorf("the second: %v, want a RunningError that names this process", err)
	}
	if h, err := Running(dir, "agent"); err != nil || h == nil || h.PID != os.Getpid() {
		t.Errorf("running: %+v, %v, want this process", h, err)
	}
	if h, err := Running(dir, "other"); err != nil || h != nil {
		t.Errorf("running, of another kind: %+v, %v, want nobody", h, err)
	}
	if other, err := Single(dir, "other"); err != nil {
		t.Errorf("one of another kind: %v", err)
	} else {
		other.Close()
	}
	first.Close()
	again, err := Single(dir, "agent")
	if err != nil {
		t.Fatalf("after the first one's end: %v", err)
	}
	again.Close()
	if h, err := Running(dir, "agent"); err != nil || h != nil {
		t.Errorf("running after its end: %+v, %v, want nobody", h, err)
	}
}
