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
}
