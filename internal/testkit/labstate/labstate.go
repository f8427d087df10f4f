// Package labstate knows what a lab leaves on a machine, and takes it down, also when the process that made it is gone.
//
//	st := labstate.State{Dir: dir, Namespaces: names, Cgroup: "qwlab-1"}
//	err := st.Save()                // before anything is made
//	err = labstate.TakeDown(dir)    // after the nodes are gone
//
// Be aware: it removes what the record names, and nothing else. The record is written before the things are made, so a
// name in it may not exist.
package labstate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix begins the name of every directory, namespace and control group of a lab.
const Prefix = "qwlab-"

// NetnsDir is where `ip netns` looks for namespaces.
const NetnsDir = "/run/netns"

// State is the record of one lab, kept in its directory.
type State struct {
	Dir        string    `json:"-"`
	Root       string    `json:"root"`       // the network namespace that must not be touched, as /proc/self/ns/net reads
	Owner      Process   `json:"owner"`      // when it is gone, the lab is to be taken down
	Nodes      []Machine `json:"nodes"`      // they end with the owner
	Namespaces []string  `json:"namespaces"` // names in NetnsDir
	Cgroup     string    `json:"cgroup"`     // of the containers, below each hierarchy's root
	Kept       bool      `json:"kept"`       // a person's, until told to end
}

// Machine is a node that was started.
type Machine struct {
	Name   string  `json:"name"`
	Init   Process `json:"init"`
	Engine bool    `json:"engine"` // it has Docker
	Path   string  `json:"path"`   // PATH of its engine
}

// Process is a process that can't be mistaken for a later one with the same id.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
}

const (
	stateFile = "state.json"
	lockFile  = "lock" // held by the watchdog
)

// Save writes the record.
func (s State) Save() error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := filepath.Join(s.Dir, stateFile+".new")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(s.Dir, stateFile))
}

// Load reads the record of the lab in a directory.
func Load(dir string) (State, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return State{}, err
	}
	s := State{Dir: dir}
	return s, json.Unmarshal(data, &s)
}

// ProcessOf identifies a running process.
func ProcessOf(pid int) (Process, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	// The name, in parentheses, may hold spaces; the start time is the 20th field after it.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return Process{}, fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return Process{PID: pid, Start: start}, err
}

// Alive tells whether the process still runs.
func (p Process) Alive() bool {
	now, err := ProcessOf(p.PID)
	return err == nil && now == p
}

func (m Machine) alive() bool {
	return m.Init.Alive()
}

// TakeDown removes a lab: its processes are ended if they still run, then its namespaces, control groups and files go.
func TakeDown(dir string) error {
	s, err := Load(dir)
	if err != nil {
		return fmt.Errorf("taking down the lab in %s: %w", dir, err)
	}
	if err := s.endNodes(); err != nil {
		return err
	}
	var errs []error
	for _, name := range s.Namespaces {
		errs = append(errs, removeNamespace(name))
	}
	errs = append(errs, removeCgroups(s.Cgroup), os.RemoveAll(dir))
	return errors.Join(errs...)
}

// endNodes waits for the nodes, which end by themselves when their owner does, and ends those that don't.
func (s State) endNodes() error {
	const patience = 10 * time.Second
	begin := time.Now()
	for killed := false; slices.ContainsFunc(s.Nodes, Machine.alive); time.Sleep(10 * time.Millisecond) {
		waited := time.Since(begin)
		if waited > 2*patience {
			return fmt.Errorf("taking down the lab in %s: its processes don't end: %v", s.Dir, s.Nodes)
		}
		if waited < patience || killed {
			continue
		}
		for _, m := range s.Nodes {
			if m.alive() {
				_ = unix.Kill(m.Init.PID, unix.SIGKILL)
			}
		}
		killed = true
	}
	return nil
}

func removeNamespace(name string) error {
	if !strings.HasPrefix(name, Prefix) {
		return fmt.Errorf("namespace %q is not of a lab", name)
	}
	path := filepath.Join(NetnsDir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeCgroups removes the directories of a control group in every hierarchy, version 1 or 2, the deepest first.
func removeCgroups(name string) error {
	if !strings.HasPrefix(name, Prefix) {
		return fmt.Errorf("control group %q is not of a lab", name)
	}
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		errs = append(errs, removeCgroup(root))
	}
	return errors.Join(errs...)
}

func removeCgroup(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanished meanwhile needs no removing
	})
	for _, dir := range slices.Backward(dirs) {
		for range 50 { // busy for a moment after the last process
			if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing control group %s: %w", dir, err)
		}
	}
	return nil
}

// List finds the labs below a directory.
func List(temp string) ([]State, error) {
	dirs, err := filepath.Glob(filepath.Join(temp, Prefix+"*", stateFile))
	if err != nil {
		return nil, err
	}
	var labs []State
	for _, path := range dirs {
		if s, err := Load(filepath.Dir(path)); err == nil { // one that is just being taken down isn't there any more
			labs = append(labs, s)
		}
	}
	return labs, nil
}

// Sweep takes down the labs below a directory whose owner is gone, and whose watchdog is gone too.
func Sweep(temp string) error {
	labs, err := List(temp)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range labs {
		if s.Owner.Alive() {
			continue
		}
		if unlock, err := Lock(s.Dir); err == nil {
			errs = append(errs, TakeDown(s.Dir), unlock())
		}
	}
	return errors.Join(errs...)
}

// Lock makes this process the one that may take the lab down. It doesn't wait for another one that is.
func Lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// Node is what the first process of a node has to know.
type Node struct {
	Name      string   `json:"name"`
	RootNetns string   `json:"rootNetns"` // the network namespace that must not be touched, as /proc/self/ns/net reads
	Dir       string   `json:"dir"`       // of the node, below the lab's
	Socket    string   `json:"socket"`    // of the agent
	Servers   []string `json:"servers"`   // to start at once, as agent.ParseListen reads them
	OwnDirs   []string `json:"ownDirs"`   // get an empty tmpfs
	Engine    []string `json:"engine"`    // command line of dockerd; none where the node has no Docker
	EngineLog string   `json:"engineLog"`
	Path      string   `json:"path"` // PATH of the engine
}
