package truth

import (
	"fmt"

	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

// setup is a way to set a host up, and what happens to it afterwards.
type setup struct {
	name    string
	engine  lab.Engine
	forward bool  // before Docker starts
	from    []int // the first release that has it, {28, 2}; nil for all
	nft     bool  // Docker's own nftables backend has it, too
	all     bool  // no file of its snapshots may be missing: without it nothing tells of what is there
	build   func(w *world)
	then    []stage
}

// stage is something that happens to a host, after which everything is looked at anew.
type stage struct {
	name string
	do   func(w *world)
}

func sh(name string, lines ...string) stage {
	return stage{name, func(w *world) { w.sh(lines...) }}
}

// plain has a container with a published port on the default bridge, one without, and one on a network of its own.
func plain(w *world) {
	w.run(lab.Container{Name: "c1", Publish: []string{"8080:80", "5353:53/udp"}})
	w.run(lab.Container{Name: "c2"})
	w.network(lab.Network{Name: "other", Subnets: []string{"172.30.0.0/24"}})
	w.run(lab.Container{Name: "c3", Networks: []string{"other"}, Publish: []string{"8083:80"}})
}

// bound has ports on addresses of one family or one address, and ranges.
func bound(w *world) {
	w.run(lab.Container{Name: "c1", Publish: []string{"127.0.0.1:8080:80", "192.168.50.1:8081:80", "0.0.0.0:8082:81", "[::]:8084:81", "[fd50::1]:8085:80", "127.0.0.1:5353:53/udp"}})
	w.run(lab.Container{Name: "c2", Publish: []string{"9100:80", "9101:81", "9102:53/udp"}})
}

func networks(w *world) {
	w.network(lab.Network{Name: "inner", Subnets: []string{"172.31.0.0/24"}, Internal: true})
	w.network(lab.Network{Name: "quiet", Subnets: []string{"172.31.1.0/24"}, Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}})
	w.network(lab.Network{Name: "nomasq", Subnets: []string{"172.31.2.0/24"}, Options: map[string]string{"com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.bridge.name": "brown"}})
	w.run(lab.Container{Name: "c1", Networks: []string{"inner"}, Publish: []string{"8080:80"}})
	w.run(lab.Container{Name: "c2", Networks: []string{"inner", "quiet"}, Publish: []string{"8081:80"}})
	w.run(lab.Container{Name: "c3", Networks: []string{"quiet"}, Publish: []string{"8082:80"}})
	w.run(lab.Container{Name: "c4", Networks: []string{"nomasq"}, Publish: []string{"8083:80"}})
	w.run(lab.Container{Name: "c5", Networks: []string{"nomasq", "bridge"}})
}

func six(w *world) {
	w.network(lab.Network{Name: "six", Subnets: []string{"172.31.6.0/24", "fd30::/64"}})
	w.run(lab.Container{Name: "c1", Publish: []string{"8080:80", "5353:53/udp"}})
	w.run(lab.Container{Name: "c2", Networks: []string{"six"}, Publish: []string{"8081:80", "127.0.0.1:8082:80", "[::1]:8086:80"}})
	w.run(lab.Container{Name: "c3", Networks: []string{"six"}})
	w.linkLocal(8080, 8081)
}

// linkLocal has the neighbours dial ports at the host's link-local addresses.
func (w *world) linkLocal(ports ...uint16) {
	w.Helper()
	for _, from := range []string{"wan", "lan"} {
		addr := w.sh(fmt.Sprintf("ip -6 -o addr show dev %s scope link | sed -n 's/.*inet6 \\([^/]*\\).*/\\1/p' | tr -d '\\n'", clients[from][false].iface))
		for _, p := range append(ports, 22) {
			w.extra = append(w.extra, Row{From: from, Proto: "tcp", Dst: addr, Port: p, Note: "link-local"})
		}
	}
}

func modes(w *world) {
	for i, mode := range []string{"routed", "nat-unprotected", "nat"} {
		w.network(lab.Network{Name: mode, Subnets: []string{fmt.Sprintf("172.31.%d.0/24", 10+i), fmt.Sprintf("fd3%d::/64", i)}, Options: map[string]string{
			"com.docker.network.bridge.gateway_mode_ipv4": mode, "com.docker.network.bridge.gateway_mode_ipv6": mode}})
		w.run(lab.Container{Name: fmt.Sprintf("c%d", i+1), Networks: []string{mode}, Publish: []string{fmt.Sprintf("%d:80", 8080+i)}})
	}
	w.network(lab.Network{Name: "isolated", Subnets: []string{"172.31.20.0/24"}, Internal: true, Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}})
	w.run(lab.Container{Name: "c4", Networks: []string{"isolated"}})
}

func macvlan(w *world) {
	w.run(lab.Container{Name: "c1", Publish: []string{"8080:80"}})
	w.network(lab.Network{Name: "street", Driver: "macvlan", Subnets: []string{"203.0.113.0/24"}, Options: map[string]string{"parent": "eth0"}})
	w.run(lab.Container{Name: "c3", Networks: []string{"street"}, IP: "203.0.113.77"})
}

func hostnet(w *world) {
	w.run(lab.Container{Name: "c1", Publish: []string{"8080:80"}})
	w.run(lab.Container{Name: "c2", Networks: []string{"host"}, Serve: []string{"8000/tcp", "127.0.0.1:8001/tcp", "8002/udp"}})
	w.ports = append(w.ports, port{"tcp", "host service", 8000}, port{"tcp", "host service", 8001}, port{"udp", "host service", 8002})
}

// loosened opens networks of Docker 28 by its own options.
func loosened(w *world) {
	w.network(lab.Network{Name: "trusted", Subnets: []string{"172.31.40.0/24"}, Options: map[string]string{"com.docker.network.bridge.trusted_host_interfaces": "eth1"}})
	w.run(lab.Container{Name: "c1", Networks: []string{"trusted"}, Publish: []string{"8080:80", "127.0.0.1:8081:81"}})
	w.network(lab.Network{Name: "half", Subnets: []string{"172.31.41.0/24", "fd41::/64"}, Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv6": "routed"}})
	w.run(lab.Container{Name: "c2", Networks: []string{"half", "trusted"}, Publish: []string{"8082:80"}})
	w.network(lab.Network{Name: "seal", Subnets: []string{"172.31.42.0/24", "fd42::/64"}, Internal: true})
	w.run(lab.Container{Name: "c3", Networks: []string{"seal", "half"}})
	w.run(lab.Container{Name: "c4", Networks: []string{"container:c1"}, Serve: []string{"90/tcp"}})
}

// policy is one that asks for something of everything.
const policy = `version: 1
sets: {office: [192.168.50.0/24, "fd50::/64"]}
inbound:
  - allow: ssh
    from: office
  - allow: [8080, 5353/udp]
    from: office
  - reject: 8083
  - allow: ping
egress:
  - deny: 9000/udp
  - allow: any
`

// applied has quaywall put the policy in force by a backend.
func applied(backend string) func(w *world) {
	return func(w *world) {
		fw, err := firewall.New(w.Context(), w.host, backend)
		if err != nil {
			w.Fatal(err)
		}
		if ran, err := fw.Apply(w.Context(), policy); err != nil || ran.Code != 0 {
			w.Fatalf("%v: %s", err, ran.Stderr)
		}
	}
}

// flushes are what people and programs do to the rules of iptables.
var flushes = []stage{
	sh("nat-flushed", "iptables -t nat -F"),
	sh("filter-flushed", "iptables -F"),
	sh("deleted", "iptables -t nat -X || true", "iptables -X || true"),
	{"network-made", func(w *world) {
		if err := w.host.AddNetwork(w.Context(), lab.Network{Name: "late", Subnets: []string{"172.31.99.0/24"}}); err != nil {
			w.Log(err) // it fails with some releases once chains are missing, and leaves half of it behind
		}
	}},
	sh("policy-accept", "iptables -P FORWARD ACCEPT"),
}

var setups = []setup{
	{name: "plain", nft: true, build: plain, then: flushes},
	{name: "plain-forward", forward: true, nft: true, build: plain, then: []stage{
		{"restarted", func(w *world) { w.restart() }},
		{"nft-flushed", func(w *world) { w.sh("nft flush ruleset") }},
		{"restarted-again", func(w *world) { w.restart() }},
		{"stopped", func(w *world) {
			if err := w.host.StopEngine(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.restart()
		}},
	}},
	{name: "no-proxy", engine: lab.Engine{NoProxy: true}, nft: true, build: plain, then: flushes},
	{name: "bound", nft: true, build: bound},
	{name: "bound-no-proxy", engine: lab.Engine{NoProxy: true, IPv6: true, IP6Tables: true}, build: bound},
	{name: "networks", nft: true, build: networks},
	{name: "networks-no-proxy", engine: lab.Engine{NoProxy: true}, forward: true, nft: true, build: networks},
	{name: "six", engine: lab.Engine{IPv6: true, IP6Tables: true}, forward: true, nft: true, build: six, then: []stage{
		sh("ip6-flushed", "ip6tables -F; ip6tables -t nat -F"),
	}},
	{name: "six-no-ip6tables", engine: lab.Engine{IPv6: true, Args: []string{"--ip6tables=false"}}, forward: true, build: six},
	{name: "six-no-proxy", engine: lab.Engine{IPv6: true, IP6Tables: true, NoProxy: true}, forward: true, build: six},
	{name: "modes", from: []int{28}, engine: lab.Engine{IPv6: true, IP6Tables: true}, forward: true, nft: true, build: modes},
	{name: "no-icc", engine: lab.Engine{Args: []string{"--icc=false"}}, nft: true, build: plain},
	{name: "no-iptables", engine: lab.Engine{NoIPTables: true}, build: plain},
	{name: "no-iptables-forward", engine: lab.Engine{NoIPTables: true, NoProxy: true}, forward: true, build: plain},
	{name: "macvlan", nft: true, build: macvlan, all: true},
	{name: "hostnet", nft: true, build: hostnet},
	{name: "legacy", engine: lab.Engine{Legacy: true}, build: plain, then: flushes},
	{name: "legacy-six", engine: lab.Engine{Legacy: true, IPv6: true}, forward: true, build: six, then: []stage{
		sh("both-variants", "iptables-nft -I FORWARD -i eth0 -p tcp --dport 80 -j DROP", "ip6tables-nft -A INPUT -p tcp --dport 8081 -j REJECT"),
	}},
	{name: "firewall", nft: true, build: plain, then: []stage{
		sh("user-chain", "iptables -N DOCKER-USER 2>/dev/null || true", "iptables -I DOCKER-USER -i eth0 ! -s 203.0.113.0/28 -j DROP",
			"iptables -I DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8083 --ctdir ORIGINAL -j REJECT --reject-with tcp-reset"),
		sh("ipset", "ipset create bad hash:net", "ipset add bad 203.0.113.0/24", "ipset create good hash:ip,port", "ipset add good 192.168.50.2,tcp:80",
			"iptables -I DOCKER-USER -m set --match-set bad src -j DROP", "iptables -I DOCKER-USER -i eth1 -m set ! --match-set good src,dst -j DROP"),
		sh("input", "iptables -P INPUT DROP", "iptables -A INPUT -i lo -j ACCEPT", "iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"iptables -A INPUT -p tcp --dport 22 -s 192.168.50.0/24 -j ACCEPT", "iptables -A INPUT -p icmp -j ACCEPT", "iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited",
			"ip6tables -P INPUT DROP", "ip6tables -A INPUT -p ipv6-icmp -j ACCEPT", "ip6tables -A INPUT -i lo -j ACCEPT",
			"ip6tables -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT"),
		sh("output", "iptables -A OUTPUT -d 172.17.0.0/16 -p tcp --dport 80 -j REJECT", "iptables -A OUTPUT -o eth1 -j DROP"),
	}},
	{name: "nft-firewall", nft: true, build: plain, then: []stage{
		sh("input", `nft -f - <<'END'
table inet filter {
	set office { type ipv4_addr; flags interval; elements = { 192.168.50.0/24, 10.0.0.0/8 } }
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iif lo accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport { 22, 8080 } ip saddr @office accept
		udp dport 5353 limit rate 100000/second accept
		iifname "docker0" meta l4proto tcp th dport 8080-8090 accept
		reject with icmpx type admin-prohibited
	}
	chain forward {
		type filter hook forward priority filter - 5; policy drop;
		ct state established,related accept
		iifname { "docker0", "br-*" } accept
		iifname "eth1" oifname != "eth0" ct status dnat accept
		iifname eth0 ct status dnat meta l4proto tcp ct original proto-dst 8083 accept
	}
}
END`),
		sh("prerouting", `nft -f - <<'END'
table ip pre {
	chain raw { type filter hook prerouting priority raw; iifname eth1 tcp dport 8083 notrack; fib daddr type local tcp dport 22 meta mark set 0x10; }
	chain mangle { type filter hook prerouting priority mangle; meta mark 0x10 ip saddr 203.0.113.2 drop; }
	chain nat { type nat hook prerouting priority -101; iifname eth0 tcp dport 2222 redirect to :22; tcp dport 2223 dnat to 172.17.0.3:81; }
}
END`),
	}},
	{name: "ufw", forward: true, nft: true, build: plain, then: ufw},
	firewalld,
	{name: "quaywall", nft: true, build: plain, then: []stage{{"nft", applied("nft")}, {"iptables", applied("iptables")}}},
	{name: "quaywall-six", engine: lab.Engine{IPv6: true, IP6Tables: true}, forward: true, build: six, then: []stage{{"nft", applied("nft")}}},
	{name: "quaywall-legacy", engine: lab.Engine{Legacy: true, NoProxy: true}, build: plain, then: []stage{{"iptables", applied("iptables")}}},
	{name: "loosened", from: []int{28, 2}, engine: lab.Engine{IPv6: true, IP6Tables: true, Args: []string{"--allow-direct-routing"}}, nft: true, build: loosened},
	{name: "linked", engine: lab.Engine{Args: []string{"--icc=false", "--ip=192.168.50.1", "--bip=172.20.0.1/24"}}, nft: true, build: plain},
	{name: "restored", build: plain, then: []stage{
		{"stale", func(w *world) {
			w.sh("iptables-save > /run/saved")
			if err := w.nodes["container:c1"].StopContainer(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.gone("c1")
			w.run(lab.Container{Name: "c4"})
			w.sh("iptables-restore < /run/saved")
		}},
	}},
	{name: "routing", all: true, forward: true, nft: true, build: plain, then: []stage{
		sh("policy-routing", "ip rule add fwmark 7 lookup 100", "ip route add unreachable default table 100", "iptables -t mangle -A OUTPUT -p tcp --dport 9000 -d 192.168.50.2 -j MARK --set-mark 7",
			"ip rule add from 172.30.0.0/24 to 192.168.50.0/24 prohibit", "ip route add blackhole 198.51.100.0/24"),
		sh("no-forward", "sysctl -qw net.ipv4.ip_forward=0"),
		sh("rp-filter", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.all.route_localnet=1"),
	}},
}

// restart restarts Docker, and its containers with it.
func (w *world) restart() {
	w.Helper()
	if err := w.host.StopEngine(w.Context()); err != nil {
		w.Log(err) // it was stopped already
	}
	if err := w.host.StartEngine(w.Context()); err != nil {
		w.Fatal(err)
	}
	for _, c := range w.containers {
		if err := w.nodes["container:"+c.Name].StartContainer(w.Context()); err != nil {
			w.Fatal(err)
		}
	}
}

// gone forgets a container.
func (w *world) gone(name string) {
	delete(w.nodes, "container:"+name)
	for i, c := range w.containers {
		if c.Name == name {
			w.containers = append(w.containers[:i:i], w.containers[i+1:]...)
			return
		}
	}
}
