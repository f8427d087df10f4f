package scenario

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// seeds are rules of others that quaywall has to leave alone, in every table that it comes near.
var seeds = []string{
	"iptables -N DOCKER-FOO", "iptables -A DOCKER-FOO -s 10.9.8.7 -j DROP", "iptables -I FORWARD 1 -j DOCKER-FOO",
	"iptables -t nat -N DOCKER-FOO", "iptables -t nat -A DOCKER-FOO -p tcp --dport 1 -j RETURN",
	"iptables -N f2b-sshd", "iptables -A f2b-sshd -j RETURN", "iptables -I INPUT -p tcp --dport 22 -j f2b-sshd",
	"iptables -t mangle -N KUBE-PROXY-CANARY", "iptables -t mangle -A PREROUTING -p tcp --dport 1234 -j MARK --set-xmark 0x1/0x1",
	"iptables -t raw -A PREROUTING -p udp --dport 4242 -j CT --notrack", "iptables -A INPUT -i virbr0 -p udp --dport 67 -j ACCEPT",
	"ip6tables -N DOCKER-FOO", "ip6tables -I FORWARD 1 -j DOCKER-FOO", "ip6tables -t mangle -A POSTROUTING -p udp -j RETURN",
	"ipset create crowdsec-blacklists hash:ip timeout 300", "iptables -I INPUT 1 -m set --match-set crowdsec-blacklists src -j DROP",
}

// nftSeeds are tables of programs that speak nftables.
const nftSeeds = `table inet firewalld { chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }; }
table inet netavark { set s { type ipv4_addr; elements = { 10.88.0.2 } }; chain c { ip saddr @s accept; }; }
table ip kube-proxy { map m { type inet_service : verdict; elements = { 80 : accept } }; chain c { tcp dport vmap @m; }; }
table ip6 ts-forward { chain f { type filter hook forward priority 5; policy accept; iifname "tailscale0" accept; }; }
table inet f2b-table { chain f { type filter hook input priority -1; policy accept; tcp dport 22 counter; }; }`

func seed(w *world) {
	w.Helper()
	for _, line := range seeds {
		words := strings.Fields(line)
		w.host.MustExec(w.T, words[0], words[1:]...)
	}
	for _, table := range strings.Split(nftSeeds, "\n") {
		w.host.MustExec(w.T, "nft", table)
	}
}

// TestTrap01ForeignRules: every line that isn't quaywall's is the same after apply, re-apply, a changed policy and stop,
// Docker's chains and invented ones, in every table. Trap24 is its part about other programs.
func TestTrap01ForeignRules(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{IPv6: true, IP6Tables: true})
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "53:53/udp"}, Serve: []string{"80/tcp"}})
		seed(w)
		w.mark()
		w.apply(s2Policy)
		w.apply(s2Policy)
		w.apply(lines("version: 1", "inbound:", "  - reject: 8080", "outbound:", "  - reject: 25", "defaults: {egress: deny}"))
		w.apply(s2Wider)
		w.stop()
	})
}

// TestTrap02And13BadPolicies: an empty file or one wrong rule is refused whole, and what is in force stays.
func TestTrap02And13BadPolicies(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(s2Policy)
		before := w.rules()
		for name, text := range map[string]string{"empty": "", "blank": "\n\n", "comment": "# nothing\n", "binary": "\x00\x01\xff",
			"one wrong rule": lines("version: 1", "inbound:", "  - allow: 80", "  - allow: 70000", "  - allow: 443"),
			"unknown set":    lines("version: 1", "inbound:", "  - allow: 80", "    from: nobody"),
			"cut short":      "version: 1\ninbound:\n  - allow: [80"} {
			ran, err := w.fw.Apply(t.Context(), text)
			w.expect(ran, err, 2)
			if diff := w.rules().Diff(before); diff != "" {
				t.Errorf("%s: the rules changed:\n%s", name, diff)
			}
		}
		if err := w.fw.Write(s2Policy); err != nil {
			t.Fatal(err)
		}
		w.check(open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:4"))
		ran := w.apply(lines("version: 1", "inbound:", "  - allow: published", "    network: nosuch"))
		if out := ran.Stdout + ran.Stderr; !strings.Contains(out, "nosuch") {
			t.Errorf("a selector that selects nothing was not said aloud:\n%s", out)
		}
	})
}

// TestTrap03Drift: the jump is missing, not first or twice, or the table is gone: status says so, apply mends it, once.
func TestTrap03Drift(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.mark()
		w.apply(s2Policy)
		good := w.rules()
		for _, d := range damages(v) {
			w.host.MustExec(t, "sh", "-c", d.damage)
			if ran := w.quaywall(4, "status", "--exit-code"); !strings.Contains(ran.Stdout, "drift") {
				t.Errorf("%s: status says nothing of drift:\n%s", d.damage, ran.Stdout)
			}
			for range 2 {
				ran, err := w.fw.Apply(t.Context(), s2Policy)
				w.expect(ran, err, 0)
			}
			w.quaywall(0, "status", "--exit-code")
			if d.flush {
				continue // Docker's rules are gone, and aren't this test's business
			}
			w.host.MustExec(t, "sh", "-c", d.after)
			w.unchanged(d.damage)
			if diff := w.rules().Diff(good); diff != "" && v.backend == "iptables" { // nft lists maps in any order
				t.Errorf("%s was not mended:\n%s", d.damage, diff)
			}
		}
	})
}

// damage is what somebody does to quaywall's rules.
type damage struct {
	damage string // a line for the shell
	after  string // takes away, after apply, what wasn't quaywall's to take away
	flush  bool   // everybody's rules are gone
}

func damages(v variant) []damage {
	if v.backend == "nft" {
		return []damage{{damage: "nft delete table inet quaywall"}, {damage: "nft flush chain inet quaywall gate"},
			{damage: "nft add rule inet quaywall gate accept"}, {damage: "nft insert rule inet quaywall gate accept"},
			{damage: "nft flush ruleset", flush: true}}
	}
	const jump, theirs = "PREROUTING -j QUAYWALL-gate", "PREROUTING -p tcp -j ACCEPT"
	all := []damage{{damage: "iptables -t mangle -D " + jump}, {damage: "iptables -t mangle -A " + jump},
		{damage: "ip6tables -t mangle -D " + jump}, {damage: "iptables -t mangle -F QUAYWALL-inbound"}, {damage: "iptables -t mangle -F"},
		{damage: "iptables -t mangle -I " + theirs, after: "iptables -t mangle -D " + theirs}}
	if !v.legacy {
		all = append(all, damage{damage: "nft flush ruleset", flush: true})
	}
	return all
}

// TestTrap04NftNextToIptables: the nft backend leaves iptables-nft able to read and write all of its tables.
func TestTrap04NftNextToIptables(t *testing.T) {
	t.Parallel()
	w := oneHost(t, variants[0], lab.Engine{})
	w.apply(s2Policy)
	for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
		for _, table := range []string{"filter", "nat", "mangle", "raw", "security"} {
			w.host.MustExec(t, tool, "-t", table, "-S")
			w.host.MustExec(t, tool, "-t", table, "-N", "PROBE")
			w.host.MustExec(t, tool, "-t", table, "-X", "PROBE")
		}
	}
	w.run(lab.Container{Name: "late", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
	w.check(open(w.outside, "203.0.113.1:8080", "late", "policy.yaml:4"))
}

// TestTrap22StopLeavesNothing: tables, chains, sets and policies of built-in chains are as found, whatever was in force.
func TestTrap22StopLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		for _, host := range []string{"Docker", "bare"} {
			t.Run(host, func(t *testing.T) {
				t.Parallel()
				w := stopWorld(t, v, host == "Docker")
				for _, text := range []string{
					"version: 1\n",
					lines("version: 1", "inbound:", "  - reject: ssh", "    log: true", "  - allow: http", "    limit: 3/minute"),
					lines("version: 1", "sets:", "  s: [10.0.0.0/8, 192.0.2.7]", "inbound:", "  - allow: any", "    from: s",
						"outbound:", "  - reject: 25", "defaults: {outbound: deny, egress: reject, inbound: reject}"),
				} {
					w.apply(text)
					w.stop()
				}
				if ran := w.quaywall(0, "stop"); !strings.Contains(ran.Stdout, "nothing") {
					t.Errorf("a stop with nothing to stop says: %s", ran.Stdout)
				}
			})
		}
	})
}

func stopWorld(t *testing.T, v variant, docker bool) *world {
	if docker {
		w := oneHost(t, v, lab.Engine{})
		w.host.MustExec(t, "iptables", "-P", "FORWARD", "ACCEPT")
		w.mark()
		return w
	}
	w := bareHost(t, v)
	w.host.MustExec(t, "iptables-nft", "-P", "INPUT", "DROP")
	w.mark()
	return w
}

// TestTrap23Routers: traffic that a host routes for others goes on after apply and stop, by the rules of those others:
// libvirt's for virtual machines behind virbr0, those that wg-quick adds for wg0, beside Docker with its policy DROP.
func TestTrap23Routers(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := newWorld(t, v, router(v))
		for _, line := range routerRules {
			words := strings.Fields(line)
			w.host.MustExec(t, words[0], words[1:]...)
		}
		w.mark()
		rows := []lab.Row{
			open(w.lan, lab.OutsideAddr4+":80", "outside", "libvirt"), open(w.outside, lab.LANAddr4+":80", "lan", "libvirt"),
			open(w.lan, "["+lab.OutsideAddr6+"]:80", "outside", "routed"), open(w.outside, "["+lab.LANAddr6+"]:80", "lan", "routed"),
			open(w.lab.Node("peer"), lab.OutsideAddr4+":80", "outside", "wg-quick"), open(w.outside, "10.99.0.2:80", "peer", "wg-quick"),
			open(w.lab.Node("peer"), lab.LANAddr4+":80", "lan", "wg-quick"),
		}
		rows = append(rows, by("udp", open(w.lan, lab.OutsideAddr4+":80", "outside", "libvirt"))...)
		rows = append(rows, by("icmp", open(w.outside, lab.LANAddr4, "", "libvirt"), open(w.outside, lab.LANAddr6, "", "routed"))...)
		w.try(rows...)
		w.apply(lines("version: 1", "defaults: {inbound: deny, outbound: deny, egress: deny}"))
		w.try(append(rows, denied(w.outside, "203.0.113.1:22", "default"), denied(w.lan, "192.168.50.1:22", "default"),
			denied(w.lab.Node("peer"), "10.99.0.1:22", "default"))...)
		w.stop()
		w.try(rows...)
	})
}

// router is a host with Docker that routes for others, as libvirt and WireGuard have it: eth1, where lan is, will be a
// port of virbr0, and "peer" is behind wg0.
func router(v variant) lab.Topology {
	topology := lab.OneHost(chosen(v, lab.Engine{}))
	host := &topology.Nodes[0]
	host.Forward, host.Serve = true, []string{"22/tcp"}
	host.Links = append(host.Links, lab.NewLink("vpn", "wg0", "10.99.0.1/24"))
	topology.Nodes = append(topology.Nodes, lab.NodeSpec{Name: "peer", Serve: []string{"80/tcp"},
		Links:  []lab.Link{lab.NewLink("vpn", "eth0", "10.99.0.2/24")},
		Routes: []lab.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.99.0.1")}}})
	return topology
}

// routerRules are what libvirt does for a network in mode "route", and wg-quick by the usual PostUp.
var routerRules = []string{
	"iptables -P FORWARD DROP", // as where Docker turned forwarding on
	"ip link add virbr0 type bridge", "ip addr flush dev eth1", "ip link set eth1 master virbr0", "ip link set virbr0 up",
	"ip addr add 192.168.50.1/24 dev virbr0", "ip addr add fd00:50::1/64 dev virbr0 nodad",
	"iptables -N LIBVIRT_FWI", "iptables -I FORWARD -j LIBVIRT_FWI", "iptables -N LIBVIRT_FWO", "iptables -I FORWARD -j LIBVIRT_FWO",
	"iptables -A LIBVIRT_FWI -d 192.168.50.0/24 -o virbr0 -j ACCEPT", "iptables -A LIBVIRT_FWO -s 192.168.50.0/24 -i virbr0 -j ACCEPT",
	"iptables -A LIBVIRT_FWI -o virbr0 -j REJECT",
	"iptables -A FORWARD -i wg0 -j ACCEPT", "iptables -A FORWARD -o wg0 -j ACCEPT",
}

// TestTrap26And46Hairpins: what containers and the host reach through the host's own addresses, with userland-proxy on and
// off. A sibling's published port is served by docker-proxy, through INPUT, or by DNAT, through FORWARD: what egress says of
// the port that was dialled holds on both ways.
func TestTrap26And46Hairpins(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e, "53/udp", "53/tcp")
		w.network(lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}})
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:80"}, Serve: []string{"80/tcp"}})
		mate := w.run(lab.Container{Name: "mate"})
		api := w.run(lab.Container{Name: "api", Networks: []string{"back"}})
		w.mark()
		rows := []lab.Row{
			open(mate, "172.17.0.1:53", "host", "default"), open(api, "172.30.0.1:53", "host", "default"), // host.docker.internal is the gateway
			open(mate, "203.0.113.1:8080", "web", "default"), open(mate, "172.17.0.1:8080", "web", "default"),
			open(web, "203.0.113.1:8080", "web", "default"), open(web, "192.168.50.1:8080", "web", "default"),
			open(w.host, "192.168.50.1:8080", "web", within), open(w.host, "203.0.113.1:22", "host", within),
			open(w.host, "127.0.0.1:8080", "web", within), open(w.host, "172.17.0.2:80", "web", "the host talks to its own containers"),
		}
		if !e.NoProxy || w.major() >= 29 { // without it, isolation drops a container of another network up to Docker 28
			rows = append(rows, open(api, "203.0.113.1:8080", "web", "default"))
		}
		w.try(rows...)
		w.apply(lines("version: 1", "outbound: []", "defaults: {outbound: deny}"))
		w.check(rows...)
		w.check(by("udp", open(mate, "172.17.0.1:53", "host", "default"))...)
		w.check(denied(w.host, lab.OutsideAddr4+":80", "policy.yaml:3"), denied(w.outside, "203.0.113.1:8080", "default"))
		w.apply(lines("version: 1", "egress:", "  - deny: [8081, 80]", "    to: host"))
		w.check(append(rows, denied(mate, "203.0.113.1:8081", "policy.yaml:3"), denied(api, "203.0.113.1:8081", "policy.yaml:3"),
			denied(web, "172.17.0.1:8081", "policy.yaml:3"), open(w.host, "203.0.113.1:8081", "web", within))...)
	})
}

// TestTrap32And47BridgeNetfilter: packets between containers of one bridge pass the hooks of IP while
// bridge-nf-call-iptables is on. They are never judged as anything else, on or off, nor with egress denied.
func TestTrap32And47BridgeNetfilter(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{IPv6: true})
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp", "80/udp"}})
		mate := w.run(lab.Container{Name: "mate"})
		six, err := web.Addr(t.Context(), "", true)
		if err != nil {
			t.Fatal(err)
		}
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080", "defaults: {egress: deny}"))
		for _, on := range []string{"1", "0"} {
			for _, key := range []string{"iptables", "ip6tables"} {
				w.host.MustExec(t, "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-"+key+"="+on)
			}
			same := []lab.Row{open(mate, "172.17.0.2:80", "web", oneNetwork), open(mate, "["+six.String()+"]:80", "web", oneNetwork)}
			same = append(same, by("udp", open(mate, "172.17.0.2:80", "web", oneNetwork))...)
			w.check(append(same, denied(mate, lab.OutsideAddr4+":80", "policy.yaml:4"),
				open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"))...)
		}
	})
}

// TestTrap16Shapes: ranges, UDP, one host address, host networking, internal networks, icc off, another protocol.
func TestTrap16Shapes(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "ip:47", "ip:50")
		w.network(lab.Network{Name: "quiet", Subnets: []string{"172.30.0.0/24"}, Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}})
		w.network(lab.Network{Name: "inner", Subnets: []string{"172.31.0.0/24"}, Internal: true})
		w.run(lab.Container{Name: "range", Publish: []string{"8000:80", "8001:80", "8002:80", "8003:80", "5000:5000/udp", "5001:5000/udp"},
			Serve: []string{"80/tcp", "5000/udp"}})
		w.run(lab.Container{Name: "one", Publish: []string{"192.168.50.1:8100:80"}, Serve: []string{"80/tcp"}})
		w.run(lab.Container{Name: "net", Networks: []string{"host"}, Serve: []string{"9000/tcp", "9001/tcp", "9000/udp"}})
		q1 := w.run(lab.Container{Name: "q1", Networks: []string{"quiet"}, Serve: []string{"80/tcp"}})
		w.run(lab.Container{Name: "q2", Networks: []string{"quiet"}, IP: "172.30.0.9", Publish: []string{"8200:80"}, Serve: []string{"80/tcp"}})
		inner := w.run(lab.Container{Name: "i1", Networks: []string{"inner"}})
		w.run(lab.Container{Name: "i2", Networks: []string{"inner"}, IP: "172.31.0.9", Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: [8001-8002/tcp, 5000/udp, 8100, 9000/any, 8200]", "  - allow: gre"))
		const line = "policy.yaml:3"
		w.check(denied(w.outside, "203.0.113.1:8000", "default"), open(w.outside, "203.0.113.1:8001", "range", line),
			open(w.outside, "[2001:db8:1::1]:8002", "range", line), denied(w.outside, "203.0.113.1:8003", "default"),
			open(w.lan, "192.168.50.1:8100", "one", line), rejected(w.outside, "203.0.113.1:8100", line),
			open(w.outside, "203.0.113.1:9000", "net", line), denied(w.outside, "[2001:db8:1::1]:9001", "default"),
			open(w.outside, "203.0.113.1:8200", "q2", line), open(inner, "172.31.0.9:80", "i2", oneNetwork))
		w.try(denied(q1, "172.30.0.9:80", "icc is off: Docker's rule"))
		w.check(by("udp", open(w.outside, "203.0.113.1:5000", "range", line), denied(w.outside, "203.0.113.1:5001", "default"),
			open(w.outside, "203.0.113.1:9000", "net", line))...)
		w.check(by("ip:47", open(w.outside, "203.0.113.1", "host", "policy.yaml:4"), open(w.outside, "2001:db8:1::1", "host", "policy.yaml:4"))...)
		w.check(by("ip:50", denied(w.outside, "203.0.113.1", "default"), denied(w.outside, "2001:db8:1::1", "default"))...)
	})
}

// TestTrap24FlushIsNoticed: `nft flush ruleset` by someone takes the policy away, and status says so.
func TestTrap24FlushIsNoticed(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := bareHost(t, v)
		w.apply(s2Policy)
		w.host.MustExec(t, "nft", "flush", "ruleset")
		if v.legacy { // which nft knows nothing of
			w.host.MustExec(t, "sh", "-c", "iptables -t mangle -F; iptables -t mangle -X; ip6tables -t mangle -F; ip6tables -t mangle -X")
		}
		ran := w.quaywall(4, "status", "--exit-code", "--json")
		var status struct {
			InForce bool `json:"in_force"`
		}
		if err := json.Unmarshal([]byte(ran.Stdout), &status); err != nil || status.InForce {
			t.Errorf("after a flush status says: %s", ran.Stdout)
		}
	})
}

// TestTrap38FirstApply: nothing used connection tracking before. Live flows survive the first apply, both families, both
// directions, also idle ones, of the host and through it; with "established: keep" also those that the policy would deny.
func TestTrap38FirstApply(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		topology := lab.OneHost(lab.Engine{})
		topology.Nodes[0].Engine = nil
		topology.Nodes[0].Forward = true
		topology.Nodes[0].Serve = []string{"22/tcp", "7000/tcp"}
		w := newWorld(t, v, topology)
		if out := w.host.MustExec(t, "sh", "-c", "cat /proc/sys/net/netfilter/nf_conntrack_count"); strings.TrimSpace(out) != "0" {
			t.Fatalf("something is tracked already: %s", out)
		}
		flows := startFlows(w)
		w.apply(lines("version: 1", "inbound:", "  - allow: ssh", "established: keep"))
		inForce := time.Now()
		time.Sleep(silence)
		for _, f := range flows {
			f.judge(t, inForce)
		}
		w.check(open(w.outside, "203.0.113.1:22", "host", "policy.yaml:3"), denied(w.outside, "203.0.113.1:7000", "default"))
	})
}

// flow is a connection that runs from before the first apply.
type flow struct {
	name string
	kind string
	job  *agent.Job
}

// startFlows starts each kind of flow, both ways, over IPv4 and IPv6, and between two others through the host.
func startFlows(w *world) []flow {
	w.Helper()
	pairs := []struct {
		from *lab.Node
		to   string
	}{
		{w.outside, "203.0.113.1:22"}, {w.outside, "[2001:db8:1::1]:22"}, {w.outside, "203.0.113.1:7000"}, {w.outside, "[2001:db8:1::1]:7000"},
		{w.host, lab.OutsideAddr4 + ":80"}, {w.host, "[" + lab.OutsideAddr6 + "]:80"},
		{w.lan, lab.OutsideAddr4 + ":80"}, {w.lan, "[" + lab.OutsideAddr6 + "]:80"},
	}
	var flows []flow
	for _, p := range pairs {
		d := agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort(p.to)}
		for kind, r := range map[string]agent.Request{
			"download":      {Stream: &agent.Stream{Dial: d}},
			"talk":          {Stream: &agent.Stream{Dial: d, PingPong: true}},
			"idle":          {Hold: &agent.Hold{Dial: d}},
			"server speaks": {Hold: &agent.Hold{Dial: d, ServerFirst: 1500 * time.Millisecond}},
		} {
			job, err := p.from.Start(w.Context(), r)
			if err != nil {
				w.Fatalf("%s from %s to %s: %v", kind, p.from.Name, p.to, err)
			}
			flows = append(flows, flow{name: kind + " from " + p.from.Name + " to " + p.to, kind: kind, job: job})
		}
	}
	return flows
}

// judge sees that the flow went on after a moment.
func (f flow) judge(t *testing.T, moment time.Time) {
	t.Helper()
	if f.kind == "download" || f.kind == "talk" {
		var r agent.StreamResult
		if err := f.job.Stop(&r); err != nil || !r.Alive || !r.Last.After(moment) {
			t.Errorf("%s did not go on after %v: %+v, %v", f.name, moment, r, err)
		}
		return
	}
	var r agent.HoldResult
	if err := f.job.Stop(&r); err != nil || r.Dead > 0 || r.Alive == 0 {
		t.Errorf("%s: %+v, %v", f.name, r, err)
	}
}
