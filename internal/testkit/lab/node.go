package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/labstate"
)

// Node is a machine of the lab, or a container on one.
type Node struct {
	agent.Client // what the node can do: Dial, Listen, Send, Seen, …

	Name string
	Dir  string // of the node, below the lab's: state and run directories can be made here

	lab     *Lab
	host    *Node  // where a container runs; nil for a machine
	id      string // of a container
	init    *exec.Cmd
	machine labstate.Machine // once it was started
	macs    map[string]net.HardwareAddr
	engine  *Engine
	spec    NodeSpec
	path    string // PATH of the engine; "" where there is none

	mu     sync.Mutex
	docker *client.Client
}

// startTimeout is how long a node or an engine may take to start on a busy machine.
const startTimeout = 60 * time.Second

func (l *Lab) newNode(name string) *Node {
	dir := filepath.Join(l.Dir, name)
	return &Node{Client: agent.Client{Socket: filepath.Join(dir, "s")}, Name: name, Dir: dir, lab: l,
		macs: map[string]net.HardwareAddr{}}
}

func (n *Node) netnsPath() string {
	return filepath.Join(labstate.NetnsDir, n.lab.ID+"-"+n.Name)
}

// Netns is the path of the machine's network namespace.
func (n *Node) Netns() string {
	return n.netnsPath()
}

// Lab is the lab that the node is of.
func (n *Node) Lab() *Lab {
	return n.lab
}

// Host is where a container runs, and nil for a machine.
func (n *Node) Host() *Node {
	return n.host
}

// DeviceTo is the interface of a machine that leads to an address: one whose network it is in, else the one of the
// default route.
func (n *Node) DeviceTo(addr netip.Addr) string {
	return n.linkTo(addr).Name
}

// Source is the address that a machine uses towards another by itself.
func (n *Node) Source(to netip.Addr) netip.Addr {
	for _, prefix := range n.linkTo(to).Addrs {
		if prefix.Addr().Is4() == to.Is4() {
			return prefix.Addr()
		}
	}
	return netip.Addr{}
}

func (n *Node) linkTo(addr netip.Addr) Link {
	for _, link := range n.spec.Links {
		for _, prefix := range link.Addrs {
			if prefix.Contains(addr) {
				return link
			}
		}
	}
	return n.spec.Links[0] // where the topologies of this package have their default route
}

// MAC is the address of an interface of a machine's links.
func (n *Node) MAC(device string) net.HardwareAddr {
	return n.macs[device]
}

// start runs the first process of a machine, and its engine.
func (n *Node) start(ctx context.Context, spec NodeSpec) error {
	n.spec, n.engine = spec, spec.Engine
	if err := n.startInit(spec); err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	err := waitFor(ctx, startTimeout, func(ctx context.Context) error {
		_, err := n.Seen(ctx, agent.Seen{})
		return err
	})
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(n.Dir, "init.log"))
		return fmt.Errorf("%s does not start: %w\n%s", n.Name, err, log)
	}
	if spec.Engine == nil {
		return nil
	}
	if err := n.StartEngine(ctx); err != nil {
		return err
	}
	return n.importImage(ctx)
}

func (n *Node) startInit(spec NodeSpec) error {
	config, err := n.config(spec)
	if err != nil {
		return err
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(n.Dir, "init.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := n.lab.refuseRoot(n.netnsPath()); err != nil {
		return err
	}
	n.init = exec.Command("nsenter", "--net="+n.netnsPath(), "--", n.lab.labhost, "node", string(text))
	n.init.Stdout, n.init.Stderr = log, log
	n.init.ExtraFiles = []*os.File{n.lab.end}
	n.init.Dir = "/"
	n.init.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if err := n.init.Start(); err != nil {
		n.init = nil
		return err
	}
	return n.lab.record(n)
}

func (n *Node) config(spec NodeSpec) (labstate.Node, error) {
	c := labstate.Node{Name: n.Name, RootNetns: n.lab.root, Dir: n.Dir, Socket: n.Socket, Servers: spec.Serve,
		OwnDirs: []string{"/run"}, EngineLog: filepath.Join(n.Dir, "dockerd.log")}
	if spec.Engine == nil {
		return c, nil
	}
	var err error
	if n.path, err = n.enginePath(*spec.Engine); err != nil {
		return c, err
	}
	if err := n.writeDaemonJSON(*spec.Engine); err != nil {
		return c, err
	}
	c.Path = n.path
	c.OwnDirs = append(c.OwnDirs, "/etc/docker", filepath.Join(n.Dir, "data"))
	c.Engine = append([]string{"dockerd", "--config-file", filepath.Join(n.Dir, "daemon.json")}, spec.Engine.Args...)
	return c, nil
}

// Command is a program that will run as root on the machine: in its network, process and mount namespaces. It refuses
// to run anywhere else. PATH is the one of the machine's dockerd, so `iptables` is the variant that Docker uses.
// For a container it runs on its host.
func (n *Node) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	host := n
	if n.host != nil {
		host = n.host
	}
	if err := n.lab.refuseRoot(host.netnsPath()); err != nil {
		return nil, err
	}
	pid := host.machine.Init.PID
	enter := []string{fmt.Sprintf("--net=%s", host.netnsPath()), fmt.Sprintf("--mount=/proc/%d/ns/mnt", pid),
		fmt.Sprintf("--pid=/proc/%d/ns/pid", pid), "--", n.lab.labhost, "exec", n.lab.root, name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if host.machine.Engine {
		cmd.Env = append(cmd.Env, "PATH="+host.machine.Path, "DOCKER_HOST=unix://"+host.DockerSocket())
	}
	return cmd, nil
}

// Exec runs a program as Command says and gives what it printed. A failure holds what it printed to standard error.
func (n *Node) Exec(ctx context.Context, name string, args ...string) (string, error) {
	cmd, err := n.Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %s %s: %w: %s", n.Name, name, strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// MustExec is Exec for tests that can't go on without.
func (n *Node) MustExec(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := n.Exec(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ServeShells has the machine let people in by agent.Shell at a port, as sshd does, until the lab goes down.
func (n *Node) ServeShells(ctx context.Context, at string) error {
	cmd, err := n.Command(context.WithoutCancel(ctx), n.lab.labhost, "shells", at)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it ends with the machine
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		return err
	}
	return waitFor(ctx, startTimeout, func(ctx context.Context) error {
		out, err := n.Exec(ctx, "ss", "-Hltn", "sport", "=", ":"+port)
		if err == nil && out == "" {
			err = fmt.Errorf("%s: the shell server does not listen at %s", n.Name, at)
		}
		return err
	})
}

// StartEngine starts dockerd and waits until it answers.
func (n *Node) StartEngine(ctx context.Context) error {
	if _, err := n.Engine(ctx, "start"); err != nil {
		return err
	}
	err := waitFor(ctx, startTimeout, func(ctx context.Context) error {
		if r, err := n.Engine(ctx, "state"); err != nil || !r.Running {
			return errors.Join(errors.New("dockerd ended"), err)
		}
		api, err := n.Docker()
		if err != nil {
			return err
		}
		_, err = api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: Docker does not start: %w\n%s", n.Name, err, n.EngineLog(30))
	}
	return nil
}

// EngineMajor is the first number of the engine's version: 20 for 20.10.24.
func (n *Node) EngineMajor(ctx context.Context) (int, error) {
	api, err := n.Docker()
	if err != nil {
		return 0, err
	}
	version, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return 0, err
	}
	major, _, _ := strings.Cut(version.Version, ".")
	return strconv.Atoi(major)
}

// StopEngine ends dockerd as a service manager would, KillEngine as a fault would.
func (n *Node) StopEngine(ctx context.Context) error {
	_, err := n.Engine(ctx, "stop")
	return err
}

// KillEngine ends dockerd by SIGKILL; its containers go on until it is started again.
func (n *Node) KillEngine(ctx context.Context) error {
	_, err := n.Engine(ctx, "kill")
	return err
}

// EngineLog is the last lines of what dockerd wrote.
func (n *Node) EngineLog(lines int) string {
	data, err := os.ReadFile(filepath.Join(n.Dir, "dockerd.log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
