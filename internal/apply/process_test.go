package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/testkit/netns"
)

// taskVar makes the test program do a task instead of running tests: it holds a task in JSON.
const taskVar = "QUAYWALL_TEST_TASK"

// task is what a process of its own does with the host of the namespace that it is started in.
type task struct {
	Do      string // "apply", "stop", "confirm"
	Dir     string
	Backend string
	Policy  string
	Confirm time.Duration
	SleepAt string // the step at which the process sleeps for a second
	DieAt   string // the step at which the process kills itself; "" for never
	Home    string // the namespace of the test program, which is never touched

	Env    []string  `json:"-"` // more of the environment
	Output io.Writer `json:"-"` // nil is the test program's
}

// home is noted before any test runs: afterwards even the program's first thread may be elsewhere.
var home, _ = os.Readlink("/proc/self/ns/net")

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 5 && os.Args[1] == apply.UndoCommand: // first, for it inherits the task's variable
		os.Exit(runWatchdog(os.Args))
	case os.Getenv(taskVar) != "":
		os.Exit(runTask(os.Getenv(taskVar)))
	}
	netns.Isolate()
	os.Exit(m.Run())
}

// runWatchdog is the hidden command that Apply starts: undo --state-dir DIR --run-dir DIR ID.
func runWatchdog(args []string) int {
	h := apply.Local(apply.Config{StateDir: args[3], RunDir: args[5]})
	if err := h.WaitAndUndo(context.Background(), args[len(args)-1], os.Stdout); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func runTask(text string) int {
	var k task
	err := json.Unmarshal([]byte(text), &k)
	if link, linkErr := os.Readlink("/proc/self/ns/net"); err == nil && (linkErr != nil || link == k.Home || k.Home == "") {
		err = errors.New("this is not a namespace of the test's")
	}
	if err == nil {
		err = k.run()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func (k task) run() error {
	h := apply.Local(apply.Config{StateDir: filepath.Join(k.Dir, "state"), RunDir: filepath.Join(k.Dir, "run"), DockerHost: k.Dir + "/none.sock"})
	h.WaysIn = func(*inventory.Inventory) (guard.Found, error) { return guard.Found{}, nil }
	h.OnStep = func(step string) {
		if step == k.SleepAt {
			time.Sleep(time.Second)
		}
		if step == k.DieAt {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx := context.Background()
	switch k.Do {
	case "apply":
		_, err := h.Apply(ctx, apply.Options{Policy: k.Policy, Given: true, Backend: k.Backend, Confirm: k.Confirm, Wait: time.Minute})
		return err
	case "stop":
		_, err := h.Stop(ctx, time.Minute)
		return err
	case "confirm":
		_, err := h.Confirm(ctx, "", time.Minute)
		return err
	}
	return fmt.Errorf("no task %q", k.Do)
}

// start starts a process for the task in a namespace.
func (k task) start(t *testing.T, ns *netns.NS) *exec.Cmd {
	t.Helper()
	k.Home = home
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), taskVar+"="+string(text)), k.Env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if k.Output != nil {
		cmd.Stdout, cmd.Stderr = k.Output, k.Output
	}
	ns.Do(t, func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// must runs the task to its end and expects that to work.
func (k task) must(t *testing.T, ns *netns.NS) {
	t.Helper()
	if err := k.start(t, ns).Wait(); err != nil {
		t.Fatalf("%s: %v", k.Do, err)
	}
}

// wasKilled tells whether a process was ended by SIGKILL.
func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}
