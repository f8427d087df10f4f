package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"quaywall/internal/eval"
	"quaywall/internal/files"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// target is something that clients try to reach.
type target struct {
	what  string
	proto string // "tcp", "udp" or "icmp"
	port  string // "" for icmp
	addr  string // "": the server's address on the client's side
}

var targets = []target{
	{what: "container web, -p 80:7901", proto: "tcp", port: "80"},
	{what: "container web, -p 443:7901", proto: "tcp", port: "443"},
	{what: "container db, -p 5432:5432", proto: "tcp", port: "5432"},
	{what: "container cache, -p 6379:6379", proto: "tcp", port: "6379"},
	{what: "container metrics, --network host", proto: "tcp", port: "9090"},
	{what: "host, sshd", proto: "tcp", port: "22"},
	{what: "host, node_exporter", proto: "tcp", port: "9100"},
	{what: "host, snmpd", proto: "udp", port: "161"},
	{what: "host, ping", proto: "icmp"},
	{what: "cache by its own address", proto: "tcp", port: "6379", addr: "172.17.0.4"},
	{what: "admin, -p 127.0.0.1:8081:80", proto: "tcp", port: "8081", addr: "127.0.0.1"},
}

// column is a client and the address that it dials the server by.
type column struct {
	head, node, server string
	neighbour          bool // sends what only a machine on the same link can send
}

var columns = []column{
	{head: "internet v4", node: "outside", server: lab.HostWAN4},
	{head: "internet v6", node: "outside", server: lab.HostWAN6},
	{head: "neighbour", node: "neighbour", server: lab.HostWAN4, neighbour: true},
	{head: "office v4", node: "lan", server: lab.HostLAN4},
	{head: "office v6", node: "lan", server: lab.HostLAN6},
}

// reach tries every target from every client and prints a table. decide, where there is one, says what the policy makes
// of each packet; a packet that goes another way is an error.
func (s *stage) reach(ctx context.Context, decide func(column, target) eval.Decision) error {
	var rows []lab.Row
	for _, t := range targets {
		for _, c := range columns {
			if t.addr == "" || c.neighbour {
				rows = append(rows, s.row(c, t))
			}
		}
	}
	results := s.lab.Probe(ctx, rows)
	fmt.Printf("  %-9s %-36s", "", "")
	for _, c := range columns {
		fmt.Printf("%-18s", c.head)
	}
	fmt.Println()
	var wrong []string
	for _, t := range targets {
		fmt.Printf("  %-9s %-36s", strings.Trim(t.port+"/"+t.proto, "/"), t.what)
		for _, c := range columns {
			if t.addr != "" && !c.neighbour {
				fmt.Printf("%-18s", "")
				continue
			}
			result := results[0]
			results = results[1:]
			if result.Err != nil {
				return result.Err
			}
			open := result.Got.Outcome == agent.Open
			line := ""
			if decide != nil {
				d := decide(c, t)
				if line = d.Origin; line == "" {
					line = "always"
				}
				line = strings.TrimPrefix(line, "policy.yaml:")
				if open != (d.Verb == policy.Allow) {
					wrong = append(wrong, fmt.Sprintf("%s from %s is %s, but %s", t.what, c.head, result.Got.Outcome, d.Why))
				}
			}
			fmt.Print(s.style.cell(open, line))
		}
		fmt.Println()
	}
	if len(wrong) > 0 {
		return fmt.Errorf("packets went another way than the policy says:\n%s", strings.Join(wrong, "\n"))
	}
	if decide != nil {
		fmt.Println(s.style.dim("  behind each: the line of policy.yaml; \"default\": what no rule allows is denied; \"always\": holds under every policy"))
	}
	return nil
}

// row is a probe. Silence is what is waited for, so a firewall's drop costs a second and no more.
func (s *stage) row(c column, t target) lab.Row {
	addr := c.server
	if t.addr != "" {
		addr = t.addr
	}
	to := addr
	if t.port != "" {
		to = netip.AddrPortFrom(netip.MustParseAddr(addr), port(t.port)).String()
	}
	return lab.Row{From: s.lab.Node(c.node), Proto: t.proto, To: to, Want: lab.Denied}
}

func port(text string) uint16 {
	var p uint16
	if _, err := fmt.Sscan(text, &p); err != nil {
		return 0
	}
	return p
}

// decider gives what the policy decides on a probe, asked of the evaluator.
func decider(path string) (func(column, target) eval.Decision, error) {
	p, _, list := policy.Load(files.Host{}, path)
	if err := list.Err(); err != nil {
		return nil, err
	}
	prefix := netip.MustParsePrefix
	inv := &inventory.Inventory{
		Interfaces: []inventory.Interface{
			{Name: "docker0", Kind: "bridge", Up: true, Addrs: []netip.Prefix{prefix("172.17.0.1/16")}},
			{Name: "eth0", Up: true, Addrs: []netip.Prefix{prefix(lab.HostWAN4 + "/24"), prefix(lab.HostWAN6 + "/64")}},
			{Name: "eth1", Up: true, Addrs: []netip.Prefix{prefix(lab.HostLAN4 + "/24"), prefix(lab.HostLAN6 + "/64")}},
			{Name: "lo", Up: true, Addrs: []netip.Prefix{prefix("127.0.0.1/8"), prefix("::1/128")}},
		},
		Networks: []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{prefix("172.17.0.0/16")}}},
	}
	return func(c column, t target) eval.Decision {
		return eval.Evaluate(p, inv, probe(c, t))
	}, nil
}

// probe is the first packet of a probe as the server sees it.
func probe(c column, t target) packet.Packet {
	source := map[string][2]string{
		"outside": {lab.OutsideAddr4, lab.OutsideAddr6}, "neighbour": {lab.NeighbourAddr4, lab.NeighbourIP6},
		"lan": {lab.LANAddr4, lab.LANAddr6},
	}[c.node]
	pk := packet.Packet{Dst: netip.MustParseAddr(c.server), SrcPort: 40000, DstPort: port(t.port), In: "eth0"}
	if t.addr != "" {
		pk.Dst = netip.MustParseAddr(t.addr)
	}
	family := 0
	if pk.Dst.Is6() {
		family = 1
	}
	pk.Src = netip.MustParseAddr(source[family])
	if c.node == "lan" {
		pk.In = "eth1"
	}
	switch t.proto {
	case "tcp":
		pk.Proto, pk.Flags = policy.TCP, packet.SYN
	case "udp":
		pk.Proto = policy.UDP
	default:
		pk.Proto = [2]uint8{policy.ICMP, policy.ICMPv6}[family]
		pk.ICMPType = [2]uint8{8, 128}[family]
		pk.SrcPort = 0
	}
	return pk
}

// containersLive shows that containers reach what they reached before.
func (s *stage) containersLive(ctx context.Context) error {
	rows := []lab.Row{
		{From: s.web, To: lab.OutsideAddr4 + ":80", Want: lab.Open, Why: "a container reaches the internet"},
		{From: s.web, To: "172.17.0.3:5432", Want: lab.Open, Why: "a container reaches its neighbour on the bridge"},
		{From: s.web, To: lab.HostWAN4 + ":6379", Want: lab.Open, Why: "a container reaches a published port by the host's address"},
		{From: s.web, To: lab.HostWAN4 + ":80", Want: lab.Open, Why: "a container reaches itself by the host's address"},
		{From: s.host, To: "127.0.0.1:8081", Want: lab.Open, Why: "the host reaches what is published on 127.0.0.1"},
		{From: s.host, To: lab.OutsideAddr4 + ":80", Want: lab.Open, Why: "the host reaches the internet"},
	}
	for _, r := range s.lab.Probe(ctx, rows) {
		if problem := r.Problem(); problem != "" {
			return fmt.Errorf("%s", problem)
		}
		fmt.Println(s.style.good("✓ ") + r.Row.Why)
	}
	return nil
}
