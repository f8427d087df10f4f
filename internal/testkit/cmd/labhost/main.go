// Command labhost is the one program of the lab: the first process of every node and container, the watchdog that takes
// a lab down, and the client and server that a person tries by hand in a lab's shell.
//
// Be aware: it is for tests only, and refuses to be a node in the network namespace that the lab was started from.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/labstate"
)

const usage = `labhost serve NAME SOCKET [SERVER…]   servers as 80/tcp, 127.0.0.1:53/udp, ip:47
labhost dial tcp|udp ADDR:PORT | icmp ADDR | ip:N ADDR   [-from ADDR] [-dev DEVICE] [-t 3s]
labhost node CONFIG | exec ROOT PROGRAM [ARG…] | watchdog DIR | shells ADDR:PORT | session   (started by the lab)
labhost killat N FILE PROGRAM [ARG…]   kills the program before its Nth system call that matters, once FILE is there ("": at once)`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labhost:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage:\n" + usage)
	}
	switch args[0] {
	case "serve":
		if len(args) >= 3 {
			return serve(args[1], args[2], args[3:])
		}
	case "dial":
		if len(args) >= 3 {
			return dial(args[1:])
		}
	case "node":
		return runNode(args[1])
	case "exec":
		if len(args) >= 3 {
			return execInside(args[1], args[2:])
		}
	case "killat":
		if len(args) >= 4 {
			return killAt(args[1:])
		}
	case "watchdog":
		return watch(args[1])
	case "shells":
		return serveShells(args[1])
	case "session":
		return session()
	}
	return errors.New("usage:\n" + usage)
}

// serve is a container: its agent and its servers, until it is told to end.
func serve(name, socket string, servers []string) error {
	done := make(chan os.Signal, 1)
	signal.Notify(done, unix.SIGTERM, unix.SIGINT)
	if err := startAgent(&agent.Server{Name: name}, socket, servers); err != nil {
		return err
	}
	<-done
	return nil
}

// startAgent starts the servers first: who can speak with the agent finds them listening.
func startAgent(s *agent.Server, socket string, servers []string) error {
	for _, text := range servers {
		l, err := agent.ParseListen(text)
		if err != nil {
			return err
		}
		if err := s.Listen(l); err != nil {
			return fmt.Errorf("server %s: %w", text, err)
		}
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // a container that is started again finds the socket of its last life
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		if err := s.Serve(ln); err != nil {
			fmt.Fprintln(os.Stderr, "labhost: agent:", err)
		}
	}()
	return nil
}

func dial(args []string) error {
	flags := flag.NewFlagSet("dial", flag.ContinueOnError)
	from := flags.String("from", "", "source address")
	device := flags.String("dev", "", "bind to this device")
	timeout := flags.Duration("t", agent.DefaultTimeout, "how long to wait")
	if err := flags.Parse(args[2:]); err != nil {
		return err
	}
	d := agent.Dial{Proto: args[0], Device: *device, Timeout: *timeout}
	var err error
	if d.To, err = target(args[0], args[1]); err != nil {
		return err
	}
	if *from != "" {
		addr, err := netip.ParseAddr(*from)
		if err != nil {
			return err
		}
		d.From = netip.AddrPortFrom(addr, 0)
	}
	r := agent.Try(d)
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil || r.Outcome == agent.Open {
		return err
	}
	return fmt.Errorf("%s: %s", r.Outcome, r.Error)
}

func target(proto, text string) (netip.AddrPort, error) {
	if proto == "icmp" || strings.HasPrefix(proto, "ip:") {
		addr, err := netip.ParseAddr(text)
		return netip.AddrPortFrom(addr, 0), err
	}
	return netip.ParseAddrPort(text)
}

// serveShells is the lab's sshd.
func serveShells(at string) error {
	ln, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return agent.ServeShells(ln, self)
}

// session serves the connection that it was started with.
func session() error {
	unix.CloseOnExec(3)
	conn, err := net.FileConn(os.NewFile(3, "connection"))
	if err != nil {
		return err
	}
	return errors.Join(agent.Session(conn), conn.Close())
}

// watch waits for the end of the pipe that the lab's owner holds, and takes the lab down.
func watch(dir string) error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP) // a Ctrl-C is meant for the owner
	unlock, err := labstate.Lock(dir)
	if err != nil {
		return err
	}
	waitForOwner()
	return errors.Join(labstate.TakeDown(dir), unlock())
}

// waitForOwner returns when the process that started this one has closed the pipe, or is gone.
func waitForOwner() {
	pipe := os.NewFile(3, "owner")
	unix.CloseOnExec(3)
	for {
		if _, err := pipe.Read(make([]byte, 1)); err != nil {
			return
		}
	}
}

// execInside runs a program unless it would run in the namespace that must not be touched.
func execInside(root string, args []string) error {
	if err := refuseRoot(root); err != nil {
		return err
	}
	path, err := lookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}

// refuseRoot is the safety rule: nothing of the lab ever runs in the network namespace that the lab was started from.
func refuseRoot(root string) error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("can't tell which network namespace this is, so nothing is done: %w", err)
	}
	if root == "" || own == root {
		return fmt.Errorf("this is the machine's own network namespace (%s), so nothing is done", own)
	}
	return nil
}
