// Package firewall runs the built quaywall on a host of the lab, as a person there would.
//
//	fw, err := firewall.New(ctx, host, "nft")
//	ran, err := fw.Apply(ctx, "version: 1\ninbound:\n- allow: ssh\n")   // ran.Code is the exit status
//	ran, err = fw.Run(ctx, "status", "--json")
//
// Be aware: policy, state and run directory are the host's own, in its folder of the lab; nothing is shared with the
// machine but the program.
package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/eval"
	"quaywall/internal/files"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/lab"
	"quaywall/internal/watch"
)

// program is what a person runs.
const program = "quaywall/cmd/quaywall"

// Firewall is quaywall on one host.
type Firewall struct {
	Host    *lab.Node
	Policy  string // path of the policy file, policy.yaml in a folder where set files may be put too
	backend string
}

// Ran is how a run of the program ended.
type Ran struct {
	Code           int
	Stdout, Stderr string
}

// New prepares quaywall on a host: nothing is in force yet. The backend is what --backend takes.
func New(ctx context.Context, host *lab.Node, backend string) (*Firewall, error) {
	dir := filepath.Join(host.Dir, "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	_, err := host.Lab().Program(ctx, program)
	return &Firewall{Host: host, Policy: filepath.Join(dir, "policy.yaml"), backend: backend}, err
}

// Args is the command line that a run of quaywall on this host has, its global flags first.
func (f *Firewall) Args(ctx context.Context, args ...string) ([]string, error) {
	path, err := f.Host.Lab().Program(ctx, program)
	all := []string{path, "--backend", f.backend, "--state-dir", filepath.Join(f.Host.Dir, "state"),
		"--run-dir", filepath.Join(f.Host.Dir, "run"), "--docker-host", "unix://" + f.Host.DockerSocket()}
	if _, err := os.Stat(f.Policy); err == nil {
		all = append(all, "--policy", f.Policy)
	}
	return append(all, args...), err
}

// Run runs a command of quaywall's. An exit status other than 0 is no error.
func (f *Firewall) Run(ctx context.Context, args ...string) (Ran, error) {
	all, err := f.Args(ctx, args...)
	if err != nil {
		return Ran{}, err
	}
	cmd, err := f.Host.Command(ctx, all[0], all[1:]...)
	if err != nil {
		return Ran{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Ran{}, err
	}
	return Ran{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}, nil
}

// Write writes the policy file.
func (f *Firewall) Write(text string) error {
	return os.WriteFile(f.Policy, []byte(text), 0o644)
}

// Apply writes the policy file and puts it in force. The tests have no way in that could be locked out, and say so.
func (f *Firewall) Apply(ctx context.Context, text string, flags ...string) (Ran, error) {
	if err := f.Write(text); err != nil {
		return Ran{}, err
	}
	return f.Run(ctx, append([]string{"apply", "--allow-lockout"}, flags...)...)
}

// Inventory is what quaywall knows of the host just now.
func (f *Firewall) Inventory(ctx context.Context) (*inventory.Inventory, error) {
	var inv *inventory.Inventory
	err := f.Host.Inside(func() error {
		var err error
		inv, err = watch.Inventory(ctx, "unix://"+f.Host.DockerSocket())
		return err
	})
	return inv, err
}

// Decide asks the evaluator about connections to or through this host, with the policy in the file and the inventory of
// just now. What it decides on the first packet is what the kernel has to do.
func (f *Firewall) Decide(ctx context.Context, rows []lab.Row) ([]eval.Decision, error) {
	p := policy.Default()
	if _, err := os.Stat(f.Policy); err == nil {
		var list diag.List
		if p, _, list = policy.Load(files.Host{}, f.Policy); list.HasErrors() {
			return nil, list
		}
	}
	inv, err := f.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	decisions := make([]eval.Decision, len(rows))
	for i, row := range rows {
		pk, err := f.packet(ctx, inv, row)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", row, err)
		}
		decisions[i] = eval.Evaluate(p, inv, pk)
	}
	return decisions, nil
}

// packet is the first packet of a row's connection, as this host sees it.
func (f *Firewall) packet(ctx context.Context, inv *inventory.Inventory, row lab.Row) (packet.Packet, error) {
	d, err := row.Dial()
	if err != nil {
		return packet.Packet{}, err
	}
	pk := packet.Packet{Dst: d.To.Addr().WithZone(""), DstPort: d.To.Port(), Src: d.From.Addr(), SrcPort: d.From.Port()}
	if pk.SrcPort == 0 {
		pk.SrcPort = 40000 // any of those that a client gets
	}
	switch d.Proto {
	case "tcp":
		pk.Proto, pk.Flags = policy.TCP, packet.SYN
	case "udp":
		pk.Proto = policy.UDP
	case "icmp":
		pk.Proto, pk.ICMPType = policy.ICMP, 8
		if pk.Dst.Is6() {
			pk.Proto, pk.ICMPType = policy.ICMPv6, 128
		}
	default:
		number, err := strconv.ParseUint(strings.TrimPrefix(d.Proto, "ip:"), 10, 8)
		if err != nil {
			return packet.Packet{}, err
		}
		pk.Proto = uint8(number)
	}
	if pk.Src, pk.In, err = f.origin(ctx, inv, row, pk); err != nil {
		return packet.Packet{}, err
	}
	if pk.In == "" {
		pk.Out = f.Host.DeviceTo(pk.Dst)
		if n, ok := networkOf(inv, pk.Dst); ok {
			pk.Out = n.Bridge
		}
	}
	return pk, nil
}

// origin is where the host sees a connection come from: address and interface.
func (f *Firewall) origin(ctx context.Context, inv *inventory.Inventory, row lab.Row, pk packet.Packet) (netip.Addr, string, error) {
	src := pk.Src
	if row.From == f.Host {
		if !src.IsValid() {
			src = f.Host.Source(pk.Dst)
		}
		return src, "", nil
	}
	if row.From.Host() != f.Host {
		if !src.IsValid() {
			src = row.From.Source(pk.Dst)
		}
		return src, f.Host.DeviceTo(src), nil
	}
	addr, err := row.From.Addr(ctx, "", pk.Dst.Is6())
	if err != nil {
		return src, "", err
	}
	n, ok := networkOf(inv, addr)
	if !ok {
		return src, "", fmt.Errorf("%v is in no Docker network", addr)
	}
	return addr, n.Bridge, nil
}

func networkOf(inv *inventory.Inventory, addr netip.Addr) (inventory.Network, bool) {
	for _, n := range inv.Networks {
		for _, subnet := range n.Subnets {
			if subnet.Contains(addr) {
				return n, true
			}
		}
	}
	return inventory.Network{}, false
}
