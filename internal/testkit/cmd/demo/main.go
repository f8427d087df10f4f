// Command demo shows on a throw-away host what quaywall does: a server with a real Docker engine and real containers,
// and clients around it that send real packets, before and after.
//
//	go run ./internal/testkit/cmd/demo            (as root; `make demo`)
//
// Be aware: everything runs in network namespaces that are made for it and are gone when it ends. Nothing of the machine
// that it runs on is changed.
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
	"syscall"

	"golang.org/x/term"

	"quaywall/internal/testkit/lab"
)

func main() {
	backend := flag.String("backend", "auto", "auto, nft or iptables")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, *backend); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// policyText is the policy of the demonstration.
const policyText = `version: 1
sets:
  office: [192.168.50.0/24, "fd00:50::/64"]
inbound:
  - allow: [http, https]      # the ports that clients dial, never 7901
  - allow: ssh
    from: office
  - allow: 5432/tcp
    from: office
  - allow: ping
`

// stage is the demonstration's server, its clients and the program.
type stage struct {
	lab      *lab.Lab
	host     *lab.Node
	web      *lab.Node
	quaywall string
	flags    []string
	policy   string
	style    style
}

func demo(ctx context.Context, backend string) error {
	topology := lab.OneHost(lab.Engine{})
	topology.Nodes[0].Serve = []string{"22/tcp", "9100/tcp", "161/udp"}
	if err := lab.Missing(topology); err != nil {
		return err
	}
	fmt.Println("A throw-away server with a real Docker engine, its neighbours and real packets. This takes half a minute.")
	l, err := lab.Up(ctx, topology)
	if err != nil {
		return err
	}
	s := &stage{lab: l, host: l.Node("host"), style: style{colour: colourful()}}
	err = s.build()
	if err == nil {
		err = s.play(ctx, backend)
	}
	return errors.Join(err, l.Down())
}

func colourful() bool {
	return os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd()))
}

// build makes the program and the policy where the server can see them.
func (s *stage) build() error {
	s.quaywall = filepath.Join(s.host.Dir, "quaywall")
	s.policy = filepath.Join(s.host.Dir, "policy.yaml")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", s.quaywall, "./cmd/quaywall")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building quaywall: %w\n%s", err, out)
	}
	return os.WriteFile(s.policy, []byte(policyText), 0o600)
}

// containers starts what the server runs.
func (s *stage) containers(ctx context.Context) error {
	var err error
	for _, c := range []lab.Container{
		{Name: "web", Publish: []string{"80:7901", "443:7901"}, Serve: []string{"7901/tcp"}},
		{Name: "db", Publish: []string{"5432:5432"}, Serve: []string{"5432/tcp"}},
		{Name: "cache", Publish: []string{"6379:6379"}, Serve: []string{"6379/tcp", "6380/tcp"}},
		{Name: "admin", Publish: []string{"127.0.0.1:8081:80"}, Serve: []string{"80/tcp"}},
		{Name: "metrics", Networks: []string{"host"}, Serve: []string{"9090/tcp"}},
	} {
		node, runErr := s.host.Run(ctx, c)
		if c.Name == "web" {
			s.web = node
		}
		err = errors.Join(err, runErr)
	}
	return err
}

// play is the demonstration, act by act.
func (s *stage) play(ctx context.Context, backend string) error {
	s.flags = []string{"--policy", s.policy, "--state-dir", filepath.Join(s.host.Dir, "state"),
		"--run-dir", filepath.Join(s.host.Dir, "run"), "--backend", backend}
	if err := s.containers(ctx); err != nil {
		return err
	}
	before, err := s.host.Rules(ctx)
	if err != nil {
		return err
	}

	s.style.title("1. Docker alone: who reaches what")
	if err := s.reach(ctx, nil); err != nil {
		return err
	}
	s.style.title("2. The policy")
	s.style.numbered(policyText)

	s.style.title("3. quaywall apply")
	if err := s.run(ctx, "apply"); err != nil {
		return err
	}
	s.style.title("4. The same packets again, and the line of the policy that says so")
	decide, err := decider(s.policy)
	if err != nil {
		return err
	}
	if err := s.reach(ctx, decide); err != nil {
		return err
	}
	s.style.title("5. What containers need goes on")
	if err := s.containersLive(ctx); err != nil {
		return err
	}
	if err := s.compareRules(ctx, before, "While it is in force, Docker's own rules are byte for byte what they were"); err != nil {
		return err
	}
	s.style.title("6. quaywall stop")
	if err := s.run(ctx, "stop"); err != nil {
		return err
	}
	return s.compareRules(ctx, before, "The host's rules are byte for byte what they were before")
}

// run runs quaywall on the server and shows what it says.
func (s *stage) run(ctx context.Context, command string) error {
	fmt.Println(s.style.dim("root@server:~# quaywall " + command))
	cmd, err := s.host.Command(ctx, s.quaywall, append([]string{command}, s.flags...)...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("quaywall %s: %w", command, err)
	}
	return nil
}

// compareRules tells whether everybody else's rules are what they were.
func (s *stage) compareRules(ctx context.Context, before lab.Rules, sentence string) error {
	now, err := s.host.Rules(ctx)
	if err != nil {
		return err
	}
	if diff := now.Foreign().Diff(before.Foreign()); diff != "" {
		return fmt.Errorf("rules of others have changed:\n%s", diff)
	}
	fmt.Println(s.style.good("✓ ") + sentence + ".")
	return nil
}
