package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/testkit/labstate"
)

// Lab is a running Topology.
type Lab struct {
	ID    string // random; in every name on the machine
	Dir   string // everything of the lab's on disk
	root  string // the namespace that is never entered
	nodes map[string]*Node
	sw    *Node // the switch
	ports int   // of the switch
	state labstate.State
	mu    sync.Mutex // over state
	life  *os.File   // while this end is open, the nodes live
	end   *os.File   // the other end, handed to children
	dog   *exec.Cmd

	labhost string // path of the lab's own program
}

// Up makes a lab. The caller must call Down; the watchdog does when the caller can't. When Up fails, nothing is left.
func Up(ctx context.Context, t Topology) (*Lab, error) {
	if err := labstate.Sweep(os.TempDir()); err != nil {
		fmt.Fprintln(os.Stderr, "lab: what an earlier run left could not be removed:", err) // no reason not to run
	}
	l, err := newLab()
	if err != nil {
		return nil, err
	}
	if err := l.up(ctx, t); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

func newLab() (*Lab, error) {
	root, err := rootNetns()
	if err != nil {
		return nil, fmt.Errorf("can't tell this machine's own network namespace: %w", err)
	}
	dir, err := os.MkdirTemp("", labstate.Prefix)
	if err != nil {
		return nil, err
	}
	l := &Lab{ID: filepath.Base(dir), Dir: dir, root: root, nodes: map[string]*Node{}}
	owner, err := labstate.ProcessOf(os.Getpid())
	if err == nil {
		l.state = labstate.State{Dir: dir, Root: root, Owner: owner, Cgroup: l.ID}
		err = l.state.Save()
	}
	if err == nil {
		l.end, l.life, err = os.Pipe()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, t Topology) error {
	var err error
	if l.labhost, err = l.Program(ctx, labhostPackage); err != nil {
		return err
	}
	if err := l.startWatchdog(); err != nil {
		return err
	}
	if err := l.makeNodes(t); err != nil {
		return err
	}
	if err := l.wire(t); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, spec := range t.Nodes {
		group.Go(func() error { return l.nodes[spec.Name].start(ctx, spec) })
	}
	return group.Wait()
}

func (l *Lab) startWatchdog() error {
	l.dog = exec.Command(l.labhost, "watchdog", l.Dir)
	l.dog.ExtraFiles = []*os.File{l.end}
	l.dog.SysProcAttr = ownSession()
	log, err := os.Create(filepath.Join(os.TempDir(), l.ID+".log")) // outlives the directory, for what can't be taken down
	if err != nil {
		return err
	}
	defer log.Close()
	l.dog.Stderr = log
	return l.dog.Start()
}

// makeNodes records the namespaces' names before it makes them.
func (l *Lab) makeNodes(t Topology) error {
	l.sw = l.newNode("switch")
	all := []*Node{l.sw}
	for _, spec := range t.Nodes {
		if l.nodes[spec.Name] != nil || spec.Name == "switch" {
			return fmt.Errorf("two nodes are called %q", spec.Name)
		}
		n := l.newNode(spec.Name)
		l.nodes[spec.Name] = n
		all = append(all, n)
	}
	for _, n := range all {
		l.state.Namespaces = append(l.state.Namespaces, filepath.Base(n.netnsPath()))
	}
	if err := l.state.Save(); err != nil {
		return err
	}
	for _, n := range all {
		if err := makeNamespace(filepath.Base(n.netnsPath())); err != nil {
			return err
		}
		if err := os.MkdirAll(n.Dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// record notes a machine that was started.
func (l *Lab) record(n *Node) error {
	p, err := labstate.ProcessOf(n.init.Process.Pid)
	if err != nil {
		return err
	}
	n.machine = labstate.Machine{Name: n.Name, Init: p, Engine: n.engine != nil, Path: n.path}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Nodes = append(l.state.Nodes, n.machine)
	return l.state.Save()
}

// Keep marks the lab as a person's, which `lab down` ends.
func (l *Lab) Keep() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Kept = true
	return l.state.Save()
}

// Attach gives the nodes of a lab that another process made and keeps. It can't be taken down by Down: that is the
// other's to do.
func Attach(dir string) (*Lab, error) {
	state, err := labstate.Load(dir)
	if err != nil {
		return nil, err
	}
	root, err := rootNetns()
	if err != nil {
		return nil, err
	}
	if state.Root != root {
		return nil, fmt.Errorf("the lab in %s was made from network namespace %s, and this is %s", dir, state.Root, root)
	}
	l := &Lab{ID: filepath.Base(dir), Dir: dir, root: root, nodes: map[string]*Node{}, state: state}
	l.labhost = filepath.Join(dir, "bin", "labhost")
	for _, m := range state.Nodes {
		n := l.newNode(m.Name)
		n.machine = m
		l.nodes[m.Name] = n
	}
	return l, nil
}

// Node finds a node. It panics on a name that the topology doesn't have: that is a mistake in the test.
func (l *Lab) Node(name string) *Node {
	n := l.nodes[name]
	if n == nil {
		panic(fmt.Sprintf("the lab has no node %q", name))
	}
	return n
}

// Nodes lists the nodes by name.
func (l *Lab) Nodes() []*Node {
	all := make([]*Node, 0, len(l.nodes))
	for _, n := range l.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Down ends everything and gives back when it is gone.
func (l *Lab) Down() error {
	for _, n := range l.nodes {
		n.closeDocker()
	}
	errs := []error{l.life.Close(), l.end.Close()}
	for _, n := range l.nodes {
		if n.init != nil {
			_ = n.init.Wait() // it ends with an error when it was killed, and that is all the same here
		}
	}
	log := filepath.Join(os.TempDir(), l.ID+".log")
	if l.dog == nil {
		return errors.Join(append(errs, labstate.TakeDown(l.Dir))...)
	}
	if err := l.dog.Wait(); err != nil {
		text, _ := os.ReadFile(log)
		errs = append(errs, fmt.Errorf("taking the lab down: %w: %s", err, text))
	}
	return errors.Join(append(errs, os.Remove(log))...)
}

// waitFor calls try until it succeeds, ctx ends, or patience is at its end; then with the last error.
func waitFor(ctx context.Context, patience time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(15 * time.Millisecond):
		}
	}
}
