// Package dockerhost makes up hosts with many containers: the rules that Docker 28.5 writes for them, and the facts that go
// with those.
//
//	h := dockerhost.Make(1000, 5)
//	h.Rules   // as iptables-save prints them
//	h.Host    // everything but the rules
//
// Be aware: the layout is the measured one of 28.0.1 to 28.5 with one bridge network, userland-proxy on, and IPv4. Nothing
// of it runs anywhere.
package dockerhost

import (
	"fmt"
	"net/netip"
	"strings"

	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/snapshot"
)

// Host is a made-up host.
type Host struct {
	Rules string
	snapshot.Host
}

// firstPort is the host port of the first container's first port; the others follow.
const firstPort = 10_000

// Make makes a host whose containers publish so many TCP ports each, on all addresses of the host: the port 8000 of a
// container and those behind it. All ports together must be fewer than 55,000, containers fewer than 60,000.
func Make(containers, ports int) *Host {
	h := &Host{Host: snapshot.Host{Inventory: inventory.Inventory{
		Docker:     inventory.Docker{Reachable: true, Version: "28.5.2"},
		Interfaces: []inventory.Interface{iface("docker0", "bridge", "172.17.0.1/16"), iface("eth0", "", "203.0.113.1/24"), iface("lo", "", "127.0.0.1/8")},
		Networks:   []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}}},
	}, Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}}}
	h.routes()
	var raw, filter, nat strings.Builder
	port := uint16(firstPort)
	for i := range containers {
		name, addr := fmt.Sprintf("c%d", i+1), netip.AddrFrom4([4]byte{172, 17, byte((i + 2) >> 8), byte(i + 2)})
		h.Containers = append(h.Containers, snapshot.Container{Name: name, Mode: "bridge",
			Networks: []snapshot.Endpoint{{Network: "bridge", Addrs: []netip.Addr{addr}}}})
		fmt.Fprintf(&raw, "-A PREROUTING -d %s/32 ! -i docker0 -j DROP\n", addr)
		for j := range ports {
			target := uint16(8000 + j)
			fmt.Fprintf(&filter, "-A DOCKER -d %s/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport %d -j ACCEPT\n", addr, target)
			fmt.Fprintf(&nat, "-A DOCKER ! -i docker0 -p tcp -m tcp --dport %d -j DNAT --to-destination %s:%d\n", port, addr, target)
			h.Inventory.Published = append(h.Inventory.Published, inventory.Published{Addr: netip.IPv4Unspecified(), Proto: policy.TCP, Port: port,
				Container: name, Networks: []string{"bridge"}, Target: target})
			h.Sockets = append(h.Sockets, snapshot.Socket{Proto: policy.TCP, Addr: netip.IPv4Unspecified(), Port: port, Process: "docker-proxy",
				Container: name, To: netip.AddrPortFrom(addr, target)})
			port++
		}
	}
	h.Rules = fmt.Sprintf(layout, raw.String(), filter.String(), nat.String())
	return h
}

func iface(name, kind, addr string) inventory.Interface {
	return inventory.Interface{Name: name, Kind: kind, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
}

// Types of routes (RTN_* of rtnetlink).
const (
	unicast   = 1
	local     = 2
	broadcast = 3
)

func (h *Host) routes() {
	add := func(table string, kind int, dst, dev string) {
		h.Routes = append(h.Routes, snapshot.Route{Table: table, Type: kind, Dst: netip.MustParsePrefix(dst), Dev: dev})
	}
	for _, i := range h.Inventory.Interfaces {
		addr := i.Addrs[0]
		add("local", local, addr.Addr().String()+"/32", i.Name)
		if i.Name != "lo" {
			add("local", broadcast, lastOf(addr).String()+"/32", i.Name)
			add("main", unicast, addr.Masked().String(), i.Name)
		}
	}
	add("local", local, "127.0.0.0/8", "lo")
	h.Routes = append(h.Routes, snapshot.Route{Table: "main", Type: unicast, Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth0",
		Via: netip.MustParseAddr("203.0.113.2")})
	for i, table := range []string{"local", "main", "default"} {
		h.Policies = append(h.Policies, snapshot.RoutingRule{Priority: []int{0, 32766, 32767}[i], Table: table, Action: "lookup", SuppressPrefix: -1})
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// Packet is a query for the n-th published port, from outside.
func Packet(n int) string {
	return packet.Query{Packet: packet.Packet{Proto: policy.TCP, Src: netip.MustParseAddr("198.51.100.7"), SrcPort: 40000,
		Dst: netip.MustParseAddr("203.0.113.1"), DstPort: uint16(firstPort + n), In: "eth0"}}.String()
}

const layout = `*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
%sCOMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
%s-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
%sCOMMIT
`
