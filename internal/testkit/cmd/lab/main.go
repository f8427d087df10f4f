// Command lab keeps a lab of network namespaces with real Docker engines for a person to try things in.
//
//	go run ./internal/testkit/cmd/lab up                 # a host with Docker and three clients, until "down"
//	go run ./internal/testkit/cmd/lab shell host         # root's shell on the host: docker, nft, quaywall, labhost
//	go run ./internal/testkit/cmd/lab shell outside labhost dial tcp 203.0.113.1:8080
//	go run ./internal/testkit/cmd/lab down
//
// Be aware: a shell in the lab has the machine's files; only network, processes, mounts and /run are the node's own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/lab"
	"quaywall/internal/testkit/labstate"
)

const usage = `usage: lab up [-cluster] [-no-proxy] [-ipv6] [-legacy] [-engine DIR]
       lab list
       lab shell NODE [PROGRAM [ARG…]]
       lab down`

func main() {
	if err := run(os.Args[1:]); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch args[0] {
	case "up":
		return up(args[1:])
	case "keep":
		return keep(args[1:])
	case "list":
		return list()
	case "shell":
		if len(args) >= 2 {
			return shell(args[1], args[2:])
		}
	case "down":
		return down()
	}
	return errors.New(usage)
}

// up starts the process that keeps the lab, and waits for its word.
func up(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	word, keeper, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"keep"}, args...)...)
	cmd.ExtraFiles = []*os.File{keeper}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := keeper.Close(); err != nil {
		return err
	}
	said := make([]byte, 4096)
	n, _ := word.Read(said) // nothing: it ended without a word, which can't be
	text := strings.TrimSpace(string(said[:n]))
	if !strings.HasPrefix(text, labstate.Prefix) {
		_ = cmd.Wait() // it failed, and said why
		return errors.New(text)
	}
	fmt.Printf("%s is up. Its machines:\n", text)
	return list()
}

// keep makes the lab and keeps it until it is told to end.
func keep(args []string) error {
	word := os.NewFile(3, "word")
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	topology, err := parse(args)
	if err == nil {
		err = lab.Missing(topology)
	}
	var l *lab.Lab
	if err == nil {
		l, err = lab.Up(ctx, topology)
	}
	if err == nil {
		err = l.Keep()
	}
	if err != nil {
		fmt.Fprintln(word, err)
		return err
	}
	fmt.Fprintln(word, l.ID)
	if err := word.Close(); err != nil {
		return errors.Join(err, l.Down())
	}
	<-ctx.Done()
	return l.Down()
}

func parse(args []string) (lab.Topology, error) {
	var e lab.Engine
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	cluster := flags.Bool("cluster", false, "three servers 192.168.0.1 to 3 instead of one host")
	flags.BoolVar(&e.NoProxy, "no-proxy", false, "userland-proxy off")
	flags.BoolVar(&e.IPv6, "ipv6", false, "docker0 has IPv6")
	flags.BoolVar(&e.Legacy, "legacy", false, "Docker uses iptables-legacy")
	flags.StringVar(&e.Dir, "engine", "", "look for dockerd and its programs in this directory first")
	if err := flags.Parse(args); err != nil {
		return lab.Topology{}, err
	}
	if *cluster {
		return lab.Cluster(e), nil
	}
	return lab.OneHost(e), nil
}

// labs are those that a person keeps; a test's own are its own business.
func labs() ([]labstate.State, error) {
	all, err := labstate.List(os.TempDir())
	all = slices.DeleteFunc(all, func(s labstate.State) bool { return !s.Kept })
	if err == nil && len(all) == 0 {
		err = errors.New("there is no lab; make one with: lab up")
	}
	return all, err
}

func list() error {
	all, err := labs()
	if err != nil {
		return err
	}
	for _, s := range all {
		for _, m := range s.Nodes {
			docker := ""
			if m.Engine {
				docker = "with Docker"
			}
			fmt.Printf("%-18s %-10s %s %s\n", filepath.Base(s.Dir), m.Name, filepath.Join(labstate.NetnsDir, filepath.Base(s.Dir)+"-"+m.Name), docker)
		}
	}
	return nil
}

func shell(node string, args []string) error {
	all, err := labs()
	if err != nil {
		return err
	}
	for _, s := range all {
		l, err := lab.Attach(s.Dir)
		if err != nil {
			return err
		}
		for _, n := range l.Nodes() {
			if n.Name == node {
				return enter(l, n, args)
			}
		}
	}
	return fmt.Errorf("no lab has a machine %q; see: lab list", node)
}

func enter(l *lab.Lab, n *lab.Node, args []string) error {
	if len(args) == 0 {
		args = []string{"bash", "--norc", "-i"}
	}
	cmd, err := n.Command(context.Background(), args[0], args[1:]...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for i, entry := range cmd.Env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			cmd.Env[i] = "PATH=" + path + ":" + filepath.Join(l.Dir, "bin")
		}
	}
	cmd.Env = append(cmd.Env, "PS1=["+n.Name+"] \\w# ")
	return cmd.Run()
}

// down ends the process that keeps each lab, and waits until it is gone.
func down() error {
	all, err := labs()
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Owner.Alive() {
			if err := unix.Kill(s.Owner.PID, unix.SIGTERM); err != nil {
				return err
			}
		}
		for range 1000 {
			if _, err := os.Stat(s.Dir); err != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return labstate.Sweep(os.TempDir())
}
