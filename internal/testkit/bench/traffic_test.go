//go:build bench

package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// shapes are policies of n rules, ports or sources. Each allows the client to dial the open port, by what comes last.
var shapes = map[string]func(n int) string{
	"rules": func(n int) string {
		var b strings.Builder
		b.WriteString("version: 1\ninbound:\n")
		for i := range n - 1 {
			verb := []string{"allow", "deny"}[i%2]
			fmt.Fprintf(&b, "  - %s: 8080/tcp\n    from: 10.%d.%d.%d\n", verb, i>>16, i>>8&255, i&255)
		}
		fmt.Fprintf(&b, "  - allow: 8080/tcp\n    from: %s\n", clientAddr)
		return b.String()
	},
	"ports": func(n int) string {
		var b strings.Builder
		b.WriteString("version: 1\ninbound:\n")
		for i := range n - 1 {
			fmt.Fprintf(&b, "  - allow: %d/tcp\n    from: 10.0.%d.%d\n", 20_000+i*4, i>>8&255, i&255)
		}
		fmt.Fprintf(&b, "  - allow: 8080/tcp\n    from: %s\n", clientAddr)
		return b.String()
	},
	"sources": func(n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "version: 1\nsets:\n  many: [%s%s]\n", addresses(n-1), clientAddr)
		b.WriteString("inbound:\n  - allow: 8080/tcp\n    from: many\n")
		return b.String()
	},
	"denied sources": func(n int) string {
		return "version: 1\nsets:\n  many: [" + strings.TrimSuffix(addresses(n), ", ") +
			"]\ninbound:\n  - {deny: any, from: many}\n  - allow: 8080/tcp\n"
	},
}

// addresses is a list of n of them that don't touch.
func addresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "10.%d.%d.%d, ", i>>15&255, i>>7&255, i<<1&255)
	}
	return b.String()
}

// Many short pairs rather than few long ones: what else the machine does comes and goes within a second.
const (
	pairs  = 25
	during = 200 * time.Millisecond
)

func TestNewConnections(t *testing.T) {
	for _, backend := range backends {
		for _, shape := range []string{"rules", "ports", "sources", "denied sources"} {
			ours, bare := newNetwork(t), newNetwork(t)
			serve(t, ours.container, serverPort)
			serve(t, bare.container, serverPort)
			h := newHost(t, ours.host, backend)
			var ten float64
			for _, n := range []int{10, 1_000, 10_000} {
				h.apply(t, shapes[shape](n))
				row := compare(Row{What: fmt.Sprintf("new connections, %d %s, %s", n, shape, backend), Unit: "/s",
					Beside: "Docker's rules alone, /s", Target: "at least 0.95 ×"}, pairs,
					func() float64 { return connections(t, ours.client, at(hostAddr, openPort), during) },
					func() float64 { return connections(t, bare.client, at(hostAddr, openPort), during) })
				row.Met = row.Ratio >= 0.95
				if n == 10 {
					ten = row.Ratio
				} else {
					row.Target += ", within 3 % of 10"
					row.Met = row.Met && row.Ratio >= 0.97*ten
				}
				report.Add(row)
			}
		}
	}
}

func TestEstablished(t *testing.T) {
	for _, backend := range backends {
		ours, bare := newNetwork(t), newNetwork(t)
		echo(t, ours.container, serverPort)
		echo(t, bare.container, serverPort)
		newHost(t, ours.host, backend).apply(t, shapes["rules"](1_000))
		a, b := open(t, ours.client, at(hostAddr, openPort)), open(t, bare.client, at(hostAddr, openPort))
		for what, measure := range map[string]func(*testing.T, int, time.Duration) float64{
			"round trips of an established flow, /s": roundTrips, "throughput of an established flow, MB/s": throughput} {
			name, unit, _ := strings.Cut(what, ", ")
			row := compare(Row{What: name + ", " + backend, Unit: unit, Beside: "no firewall, " + unit, Target: "at least 0.99 ×"}, 2*pairs,
				func() float64 { return measure(t, a, during) }, func() float64 { return measure(t, b, during) })
			row.Met = row.Ratio >= 0.99
			report.Add(row)
		}
	}
}

// byHandDrops are single hand-written drops at the places that a firewall could choose. Before routing they ask whether it is
// this host that is dialled, as any rule there has to that leaves routed traffic alone.
var byHandDrops = map[string]string{
	"DOCKER-USER": "iptables -I DOCKER-USER -i eth0 -j DROP",
	"mangle":      "iptables -t mangle -A PREROUTING -i eth0 -p udp --dport 8081 -m addrtype --dst-type LOCAL -j DROP",
	"prerouting": "nft -f - <<E\ntable inet hand { chain c { type filter hook prerouting priority -149; ct state established accept; " +
		"iifname eth0 udp dport 8081 fib daddr type local counter drop; }\n}\nE",
	// These ask what any rule there has to ask: a SYN, from one of these, to this host.
	"raw by iptables": "ipset create banned hash:net && ipset add banned 198.51.100.0/24 && ipset add banned " + clientAddr +
		" && iptables -t raw -A PREROUTING -i eth0 -p tcp --syn -m set --match-set banned src -m addrtype --dst-type LOCAL -j DROP",
	"raw by nft": "nft -f - <<E\ntable inet hand { set banned { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, " + clientAddr +
		" }; }\nchain c { type filter hook prerouting priority -300; iifname eth0 tcp flags & (fin|syn|rst|ack) == syn ip saddr @banned " +
		"fib daddr type local counter drop; }\n}\nE",
}

// denied is one comparison of denied packets.
type denied struct {
	what, policy string
	flood        func(*testing.T, *network, time.Duration) float64
	beside       string // of byHandDrops
	least        float64
}

func TestDenied(t *testing.T) {
	const nothing = "version: 1\nlog: {denied: off}\ninbound:\n  - allow: ssh\n"
	const banned = "version: 1\nlog: {denied: off}\nsets:\n  banned: [198.51.100.0/24, " + clientAddr +
		"]\ninbound:\n  - {deny: any, from: banned}\n  - allow: ssh\n"
	for _, backend := range backends {
		for _, c := range []denied{
			{"UDP by default", nothing, floodUDP, "DOCKER-USER", 1.35},
			{"UDP by default", nothing, floodUDP, map[string]string{"nft": "prerouting", "iptables": "mangle"}[backend], 0.95},
			{"SYNs by deny any from a set", banned, floodSYN, "DOCKER-USER", 2.2},
			{"SYNs by deny any from a set", banned, floodSYN, "raw by " + backend, 0.95},
			{"UDP by deny any from a set, judged at the gate since it may be an answer", banned, floodUDP, "DOCKER-USER", 1.35},
		} {
			report.Add(c.measure(t, backend))
		}
	}
}

func (c denied) measure(t *testing.T, backend string) Row {
	t.Helper()
	ours, theirs := newNetwork(t), newNetwork(t)
	newHost(t, ours.host, backend).apply(t, c.policy)
	theirs.host.Output(t, "sh", "-ec", byHandDrops[c.beside])
	row := compare(Row{What: "denied packets, " + c.what + ", " + backend, Unit: "/s",
		Beside: "one drop by hand in " + c.beside + ", /s", Target: fmt.Sprintf("at least %.2f ×", c.least)}, pairs,
		func() float64 { return c.flood(t, ours, during) }, func() float64 { return c.flood(t, theirs, during) })
	row.Met = row.Ratio >= c.least
	return row
}

func floodUDP(t *testing.T, n *network, during time.Duration) float64 {
	t.Helper()
	return udpFlood(t, n, at(clientAddr, 40_000), at(hostAddr, closedPort), during)
}

func floodSYN(t *testing.T, n *network, during time.Duration) float64 {
	t.Helper()
	return synFlood(t, n, at(clientAddr, 0), at(hostAddr, closedPort), during)
}
