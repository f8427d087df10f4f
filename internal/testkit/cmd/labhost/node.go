package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/labstate"
)

// runNode is the first process of a node: in new process, mount and network namespaces, it makes the mounts that a
// machine of its own would have, starts agent and engine, and ends everything when the lab's owner is gone.
func runNode(config string) error {
	var n labstate.Node
	if err := json.Unmarshal([]byte(config), &n); err != nil {
		return err
	}
	if err := refuseRoot(n.RootNetns); err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("a node has to be the first process of its process namespace")
	}
	if err := makeMounts(n); err != nil {
		return err
	}
	e := &engine{node: n}
	if err := startAgent(&agent.Server{Name: n.Name, Engine: e.do}, n.Socket, n.Servers); err != nil {
		return err
	}
	children := make(chan os.Signal, 16)
	signal.Notify(children, unix.SIGCHLD)
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for range children {
			e.reap()
		}
	}()
	waitForOwner()
	return nil // the kernel ends the rest of the process namespace
}

// makeMounts gives the node a /proc and a /sys of its namespaces, and a /run and Docker's fixed places of its own.
func makeMounts(n labstate.Node) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := ownSys(filepath.Join(n.Dir, "cgroup")); err != nil {
		return err
	}
	for _, dir := range n.OwnDirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mounting a tmpfs on %s: %w", dir, err)
		}
	}
	return nil
}

// ownSys shows the devices of the node's network namespace, and keeps the control groups, which a new /sys would hide.
func ownSys(keep string) error {
	const cgroups = "/sys/fs/cgroup"
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(cgroups, keep, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keeping %s: %w", cgroups, err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	if err := unix.Mount(keep, cgroups, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the control groups to %s: %w", cgroups, err)
	}
	return nil
}

// engine is the node's dockerd. As the first process, this one reaps every orphan, so it waits for dockerd itself.
type engine struct {
	node labstate.Node
	mu   sync.Mutex
	pid  int           // of dockerd; 0 where it doesn't run
	done chan struct{} // closed at its end
}

func (e *engine) do(q agent.Engine) (agent.EngineResult, error) {
	switch q.Action {
	case "start":
		if err := e.start(); err != nil {
			return agent.EngineResult{}, err
		}
	case "stop":
		e.end(unix.SIGTERM)
	case "kill":
		e.end(unix.SIGKILL)
	case "state":
	default:
		return agent.EngineResult{}, fmt.Errorf("engine: %q is not start, stop, kill or state", q.Action)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return agent.EngineResult{Running: e.pid != 0}, nil
}

func (e *engine) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.node.Engine) == 0 {
		return errors.New("this node has no engine")
	}
	if e.pid != 0 {
		return errors.New("the engine runs already")
	}
	if err := os.Setenv("PATH", e.node.Path); err != nil {
		return err
	}
	path, err := lookPath(e.node.Engine[0])
	if err != nil {
		return err
	}
	log, err := os.OpenFile(e.node.EngineLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	attr := os.ProcAttr{Dir: "/", Env: os.Environ(), Files: []*os.File{nil, log, log}}
	proc, err := os.StartProcess(path, e.node.Engine, &attr)
	if err != nil {
		return err
	}
	e.pid, e.done = proc.Pid, make(chan struct{})
	return proc.Release()
}

func (e *engine) end(sig unix.Signal) {
	e.mu.Lock()
	pid, done := e.pid, e.done
	e.mu.Unlock()
	if pid == 0 {
		return
	}
	_ = unix.Kill(pid, sig)
	<-done
}

func (e *engine) reap() {
	for {
		e.mu.Lock() // so that a dockerd that ends at once is known before it is reaped
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == nil && pid > 0 && pid == e.pid {
			close(e.done)
			e.pid = 0
		}
		e.mu.Unlock()
		if err != nil || pid <= 0 {
			return
		}
	}
}

// lookPath also looks where an ordinary user's PATH doesn't.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}
