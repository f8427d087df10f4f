package eval_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"quaywall/internal/diag"
	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
)

// server is the host of the tables: two cards, a VPN, three Docker networks.
func server() *inventory.Inventory {
	return &inventory.Inventory{
		Docker: inventory.Docker{Reachable: true, Version: "28.5.2"},
		Interfaces: []inventory.Interface{
			{Name: "br-00000000bace", Addrs: prefixes("172.18.0.1/16")},
			{Name: "br-000000005eed", Addrs: prefixes("172.30.0.1/24 fd00:30::1/64")},
			{Name: "docker0", Addrs: prefixes("172.17.0.1/16 fd00:17::1/64")},
			{Name: "eth0", Addrs: prefixes("192.168.0.1/24 2001:db8:1::1/64 fe80::a/64")},
			{Name: "eth1", Addrs: prefixes("203.0.113.10/30")},
			{Name: "lo", Addrs: prefixes("127.0.0.1/8 ::1/128")},
			{Name: "wg0", Addrs: prefixes("10.9.0.1/32")},
		},
		Networks: []inventory.Network{
			{Name: "backend", Bridge: "br-00000000bace", Subnets: prefixes("172.18.0.0/16")},
			{Name: "bridge", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16 fd00:17::/64")},
			{Name: "routed", Bridge: "br-000000005eed", Subnets: prefixes("172.30.0.0/24 fd00:30::/64"), Mode4: "routed", Mode6: "routed"},
		},
		Published: []inventory.Published{
			{Addr: addr("0.0.0.0"), Proto: policy.TCP, Port: 80, Container: "web", Networks: []string{"bridge"}, Target: 7901},
			{Addr: addr("::"), Proto: policy.TCP, Port: 80, Container: "web", Networks: []string{"bridge"}, Target: 7901},
			{Addr: addr("0.0.0.0"), Proto: policy.TCP, Port: 443, Container: "web", Networks: []string{"bridge"}, Target: 7901},
			{Addr: addr("0.0.0.0"), Proto: policy.UDP, Port: 5353, Container: "names", Networks: []string{"backend", "bridge"}, Target: 53},
			{Addr: addr("192.168.0.1"), Proto: policy.TCP, Port: 8080, Container: "admin", Networks: []string{"backend"}, Target: 80},
		},
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(list string) (ps []netip.Prefix) {
	for _, f := range strings.Fields(list) {
		ps = append(ps, netip.MustParsePrefix(f))
	}
	return ps
}

// at is a place in policy.yaml.
func at(line int) diag.Pos { return diag.Pos{File: "/etc/quaywall/policy.yaml", Line: line, Col: 5} }

// rules numbers the rules of a section by line: the first stands on line first.
func rules(first int, rs ...policy.Rule) []policy.Rule {
	for i := range rs {
		rs[i].Pos = at(first + i)
	}
	return rs
}

func port(proto uint8, first, last uint16) policy.Traffic {
	return policy.Traffic{Proto: proto, Ports: netset.Ports{First: first, Last: last}}
}

func tcp(ports ...uint16) (ts []policy.Traffic) {
	for _, p := range ports {
		ts = append(ts, port(policy.TCP, p, p))
	}
	return ts
}

func icmp(proto, typ uint8) policy.Traffic {
	return policy.Traffic{Proto: proto, ICMP: policy.ICMPMatch{HasType: true, Type: typ}}
}

var (
	anything  = []policy.Traffic{{}}
	ssh       = tcp(22)
	web       = tcp(80, 443)
	dns       = append(tcp(53), port(policy.UDP, 53, 53))
	ping      = []policy.Traffic{icmp(policy.ICMP, 8), icmp(policy.ICMPv6, 128)}
	published = []policy.Traffic{{Published: true}}
)

func from(list string) policy.Addresses {
	return policy.Addresses{Given: true, Inline: netset.MustParse(list)}
}

func set(names ...string) policy.Addresses { return policy.Addresses{Given: true, Sets: names} }

func not(a policy.Addresses) policy.Addresses {
	a.Not = true
	return a
}

// defaults are the language's own.
func defaults() policy.Defaults {
	return policy.Defaults{Inbound: policy.Verdict{Verb: policy.Deny}, Egress: policy.Verdict{Verb: policy.Allow},
		Outbound: policy.Verdict{Verb: policy.Allow}}
}

// s1 is the policy of scenario S1.
func s1() *policy.Policy {
	return &policy.Policy{
		Sets: []policy.Set{{Name: "cluster", Addrs: netset.MustParse("192.168.0.1-192.168.0.3")}},
		Inbound: rules(5,
			policy.Rule{Verb: policy.Allow, What: ssh},
			policy.Rule{Verb: policy.Allow, What: web},
			policy.Rule{Verb: policy.Allow, What: tcp(6379), From: set("cluster")},
			policy.Rule{Verb: policy.Allow, What: ping}),
		Defaults: defaults(), Hygiene: true,
	}
}

// s6 gives different ports to different people, and opens one routed network.
func s6() *policy.Policy {
	return &policy.Policy{
		Sets: []policy.Set{
			{Name: "banned", Addrs: netset.MustParse("198.51.100.66 2001:db8:bad::/48")},
			{Name: "office", Addrs: netset.MustParse("198.51.100.0/24 2001:db8:aa::/48")},
		},
		Inbound: rules(10,
			policy.Rule{Verb: policy.Deny, What: anything, From: set("banned")},
			policy.Rule{Verb: policy.Allow, What: web},
			policy.Rule{Verb: policy.Allow, What: published, From: set("office"), Networks: []string{"backend"}},
			policy.Rule{Verb: policy.Reject, What: []policy.Traffic{port(policy.TCP, 9000, 9100)}, From: not(set("office"))},
			policy.Rule{Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 9000, 9100), port(policy.UDP, 9000, 9100)}},
			policy.Rule{Verb: policy.Allow, What: tcp(3000), To: from("192.168.0.1 2001:db8:1::1")},
			policy.Rule{Verb: policy.Allow, What: tcp(3001), On: []string{"eth1", "wg*"}},
			policy.Rule{Verb: policy.Allow, What: []policy.Traffic{{Proto: 50}}, From: from("198.51.100.7")},
			policy.Rule{Verb: policy.Allow, What: tcp(80), To: policy.Addresses{Given: true, Network: "routed"}},
			policy.Rule{Verb: policy.Reject, What: tcp(81), To: policy.Addresses{Given: true, Network: "routed"}},
			policy.Rule{Verb: policy.Allow, What: anything, From: from("192.168.0.0/24")},
			policy.Rule{Verb: policy.Allow, What: tcp(8443), Networks: []string{"bridge"}}),
		Defaults: policy.Defaults{Inbound: policy.Verdict{Verb: policy.Reject, Pos: at(40)},
			Egress: policy.Verdict{Verb: policy.Allow}, Outbound: policy.Verdict{Verb: policy.Allow}},
	}
}

// s7 limits what containers and the host itself may reach.
func s7() *policy.Policy {
	return &policy.Policy{
		Sets:    []policy.Set{{Name: "partner", Addrs: netset.MustParse("198.51.100.0/24 2001:db8:aa::/48")}},
		Inbound: rules(5, policy.Rule{Verb: policy.Allow, What: ssh}),
		Egress: rules(10,
			policy.Rule{Verb: policy.Allow, What: tcp(53, 8080), To: policy.Addresses{Given: true, Host: true}},
			policy.Rule{Verb: policy.Reject, What: anything, To: policy.Addresses{Given: true, Host: true}},
			policy.Rule{Verb: policy.Allow, What: append(tcp(443), dns...), Networks: []string{"backend"}, To: set("partner")},
			policy.Rule{Verb: policy.Deny, What: anything, Networks: []string{"backend"}},
			policy.Rule{Verb: policy.Allow, What: anything, On: []string{"docker*"}, To: not(set("partner"))},
			policy.Rule{Verb: policy.Allow, What: ping, From: from("172.30.0.9")}),
		Outbound: rules(20,
			policy.Rule{Verb: policy.Allow, What: append(tcp(443), dns...)},
			policy.Rule{Verb: policy.Reject, What: tcp(25), On: []string{"eth*"}},
			policy.Rule{Verb: policy.Allow, What: anything, To: set("partner"), From: from("192.168.0.1")}),
		Defaults: policy.Defaults{Inbound: policy.Verdict{Verb: policy.Deny, Pos: at(30)},
			Egress: policy.Verdict{Verb: policy.Deny, Pos: at(31)}, Outbound: policy.Verdict{Verb: policy.Deny, Pos: at(32)}},
		Trusted: []string{"wg*"}, Hygiene: true,
	}
}

// s9 is SSH and ping alone, with hygiene.
func s9() *policy.Policy {
	return &policy.Policy{
		Inbound: rules(3,
			policy.Rule{Verb: policy.Deny, What: []policy.Traffic{{Proto: policy.ICMP}}, From: from("198.51.100.0/24")},
			policy.Rule{Verb: policy.Allow, What: ssh, From: from("198.51.100.0/24 2001:db8:aa::/48"),
				Limit: rate.Rate{Count: 10, Per: time.Minute, Burst: 5}},
			policy.Rule{Verb: policy.Allow, What: ping},
			policy.Rule{Verb: policy.Allow, What: []policy.Traffic{
				{Proto: policy.ICMP, ICMP: policy.ICMPMatch{HasType: true, Type: 5, HasCode: true, Code: 1}}}}),
		Defaults: defaults(), Hygiene: true,
	}
}

// row is a packet and what is decided on it. The packet is as packet.Parse reads it; "from container NETWORK" comes in
// by that network's bridge, "via IFACE" at the end leaves by it, "flags …" at the end are the TCP flags.
type row struct {
	pk     string
	verb   policy.Verb
	origin string
	why    string
}

const (
	allow  = policy.Allow
	deny   = policy.Deny
	reject = policy.Reject
)

// The reasons that are no rule's.
const (
	life       = "networks cannot live without it"
	there      = "it belongs to a connection that is already there"
	direct     = "a container's own address is dialled from outside"
	elsewhere  = "it is neither for this host nor for a container"
	loAbroad   = "a loopback address is dialled from another interface"
	inDefault  = "no rule of inbound matches; the default denies it"
	spoof      = "hygiene: nobody outside may have this source address"
	badFlags   = "hygiene: no TCP sends these flags together"
	noSYN      = "hygiene: a new connection does not begin with SYN"
	invalid    = "hygiene: connection tracking calls it invalid"
	sameNet    = "it stays within one Docker network"
	noOpening  = "it opens no connection"
	before     = "it belongs to a connection from before the policy"
	trusted    = "it comes in by a trusted interface"
	itself     = "the host talks to itself"
	containers = "the host talks to its own containers"
)

func TestS1(t *testing.T) {
	const sshRule, webRule, redisRule, pingRule = "rule 1 of inbound allows it", "rule 2 of inbound allows it",
		"rule 3 of inbound allows it", "rule 4 of inbound allows it"
	check(t, s1(), []row{
		{"tcp 192.0.2.9:5 -> 192.168.0.1:22 in eth0", allow, "policy.yaml:5", sshRule},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:22 in eth0", allow, "policy.yaml:5", sshRule},
		{"tcp [fe80::9]:5 -> [fe80::a]:22 in eth0", allow, "policy.yaml:5", sshRule},
		{"tcp [fe80::9]:5 -> [fe80::a]:22 in eth1", allow, "", elsewhere},
		{"tcp [2001:db8:2::9]:5 -> [fe80::a]:22 in eth1", allow, "policy.yaml:5", sshRule},
		{"tcp [2001:db8:2::9]:5 -> [fe80::a]:23 in eth1", deny, "default", inDefault},
		{"tcp [2001:db8:2::9]:5 -> [fe80::b]:23 in eth0", deny, "default", inDefault},
		{"tcp 192.0.2.9:5 -> 203.0.113.10:22 in eth0", allow, "policy.yaml:5", sshRule},
		{"tcp 192.0.2.9:5 -> 203.0.113.10:22 in eth9", allow, "policy.yaml:5", sshRule},
		{"udp 192.0.2.9:5 -> 192.168.0.1:22 in eth0", deny, "default", inDefault},
		{"sctp 192.0.2.9:5 -> 192.168.0.1:22 in eth0", deny, "default", inDefault},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:80 in eth0", allow, "policy.yaml:6", webRule},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:443 in eth0", allow, "policy.yaml:6", webRule},
		{"tcp 192.0.2.9:5 -> 203.0.113.10:443 in eth1", allow, "policy.yaml:6", webRule},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:443 in eth0", allow, "policy.yaml:6", webRule},
		{"tcp 192.0.2.9:5 -> 172.17.0.1:80 in eth0", allow, "policy.yaml:6", webRule},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:7901 in eth0", deny, "default", inDefault},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:81 in eth0", deny, "default", inDefault},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:79 in eth0", deny, "default", inDefault},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:8080 in eth0", deny, "default", inDefault},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:7901 in eth0", deny, "default", inDefault},
		{"tcp 192.168.0.2:5 -> 192.168.0.1:6379 in eth0", allow, "policy.yaml:7", redisRule},
		{"tcp 192.168.0.3:5 -> 192.168.0.1:6379 in eth0", allow, "policy.yaml:7", redisRule},
		{"tcp 192.168.0.3:5 -> 203.0.113.10:6379 in eth1", allow, "policy.yaml:7", redisRule},
		{"tcp 192.168.0.4:5 -> 192.168.0.1:6379 in eth0", deny, "default", inDefault},
		{"tcp [2001:db8:1::2]:5 -> [2001:db8:1::1]:6379 in eth0", deny, "default", inDefault},
		{"tcp 192.168.0.1:5 -> 192.168.0.1:6379 in eth0", deny, "", spoof},
		{"icmp/8 192.0.2.9 -> 192.168.0.1 in eth0", allow, "policy.yaml:8", pingRule},
		{"icmp6/128 2001:db8:9::9 -> 2001:db8:1::1 in eth0", allow, "policy.yaml:8", pingRule},
		{"icmp6/128 2001:db8:9::9 -> ff02::1 in eth0", allow, "policy.yaml:8", pingRule},
		{"icmp/13 192.0.2.9 -> 192.168.0.1 in eth0", deny, "default", inDefault},
		{"icmp/5 192.0.2.9 -> 192.168.0.1 in eth0", deny, "default", inDefault},
		{"icmp6/137 fe80::9 -> fe80::a in eth0", deny, "default", inDefault},
		{"icmp6/129 2001:db8:9::9 -> 2001:db8:1::1 in eth0", deny, "default", inDefault},
		{"esp 192.0.2.9 -> 192.168.0.1 in eth0", deny, "default", inDefault},

		// Established, whatever it is.
		{"tcp 192.0.2.9:5 -> 192.168.0.1:9999 in eth0 state established", allow, "", there},
		{"udp 192.0.2.9:5 -> 192.168.0.1:9999 in eth0 state related", allow, "", there},
		{"tcp 192.0.2.9:5 -> 172.17.0.2:7901 in eth0 state established", allow, "", there},

		// A container's own address, and addresses of the loopback interface.
		{"tcp 192.0.2.9:5 -> 172.17.0.2:7901 in eth0", deny, "", direct},
		{"tcp 192.0.2.9:5 -> 172.17.0.2:80 in eth0", deny, "", direct},
		{"tcp 192.168.0.2:5 -> 172.18.0.2:22 in eth0", deny, "", direct},
		{"tcp [2001:db8:9::9]:5 -> [fd00:17::2]:7901 in eth0", deny, "", direct},
		{"icmp/8 192.0.2.9 -> 172.17.0.2 in eth0", deny, "", direct},
		{"icmp/11 192.0.2.9 -> 172.17.0.2 in eth0", deny, "", direct},
		{"tcp 192.0.2.9:5 -> 172.30.0.5:80 in eth0", deny, "", direct},
		{"tcp 192.168.0.2:5 -> 127.0.0.1:80 in eth0", deny, "", loAbroad},
		{"tcp 192.168.0.2:5 -> 127.9.9.9:22 in eth0", deny, "", loAbroad},
		{"tcp [fe80::9]:5 -> [::1]:22 in eth0", deny, "", loAbroad},
		{"tcp 192.168.0.2:5 -> 127.0.0.1:80 in eth0 state established", deny, "", loAbroad},
		{"tcp 172.17.0.2:5 -> 127.0.0.1:80 from container bridge", deny, "", loAbroad},
		{"tcp 127.0.0.1:5 -> 127.0.0.1:9999 in lo", allow, "", "loopback traffic always passes"},
		{"tcp 192.168.0.1:5 -> 192.168.0.1:9999 in lo", allow, "", "loopback traffic always passes"},

		// Broadcast, multicast and anycast count as the host.
		{"tcp 192.0.2.9:5 -> 192.168.0.255:80 in eth0", allow, "policy.yaml:6", webRule},
		{"udp 192.0.2.9:5 -> 192.168.0.255:137 in eth0", deny, "default", inDefault},
		{"udp 192.0.2.9:5 -> 203.0.113.11:137 in eth1", deny, "default", inDefault},
		{"udp 192.0.2.9:5 -> 172.17.255.255:137 in eth0", deny, "default", inDefault},
		{"udp 192.0.2.9:5 -> 255.255.255.255:137 in eth0", deny, "default", inDefault},
		{"udp 192.0.2.9:5 -> 224.0.0.251:5353 in eth0", deny, "default", inDefault},
		{"udp [fe80::9]:5 -> [ff02::fb]:5353 in eth0", deny, "default", inDefault},
		{"udp [fe80::9]:5 -> [2001:db8:1::]:53 in eth0", deny, "default", inDefault},
		{"udp [fe80::9]:5 -> [fe80::]:53 in eth0", deny, "default", inDefault},

		// What networks live on.
		{"icmp6/135 fe80::9 -> ff02::1:ff00:1 in eth0", allow, "", life},
		{"icmp6/136 fe80::9 -> fe80::a in eth0", allow, "", life},
		{"icmp6/133 fe80::9 -> ff02::2 in eth0", allow, "", life},
		{"icmp6/134 fe80::9 -> ff02::1 in eth0", allow, "", life},
		{"icmp6/130 fe80::9 -> ff02::1 in eth0", allow, "", life},
		{"icmp6/143 fe80::9 -> ff02::16 in eth0", allow, "", life},
		{"icmp6/2 2001:db8:9::9 -> 2001:db8:1::1 in eth0", allow, "", life},
		{"icmp/3/4 192.0.2.9 -> 192.168.0.1 in eth0", allow, "", life},
		{"icmp/11 192.0.2.9 -> 192.168.0.1 in eth0 state invalid", allow, "", life},
		{"icmp/12 192.0.2.9 -> 192.168.0.1 in eth0", allow, "", life},
		{"igmp 192.0.2.9 -> 224.0.0.1 in eth0", allow, "", life},
		{"udp 192.168.0.254:67 -> 255.255.255.255:68 in eth0", allow, "", life},
		{"udp 192.168.0.254:68 -> 192.168.0.1:67 in eth0", deny, "default", inDefault},
		{"udp [fe80::9]:547 -> [fe80::a]:546 in eth0", allow, "", life},
		{"udp [2001:db8:9::9]:547 -> [2001:db8:1::1]:546 in eth0", deny, "default", inDefault},
		{"udp [fe80::9]:547 -> [2001:db8:1::77]:546 in eth0", allow, "", elsewhere},
		{"udp 192.168.0.254:67 -> 192.168.0.77:68 in eth0", allow, "", elsewhere},

		// None of its business.
		{"tcp 192.0.2.9:5 -> 198.51.100.1:25 in eth0", allow, "", elsewhere},
		{"tcp 192.0.2.9:5 -> 192.168.0.77:25 in eth1", allow, "", elsewhere},
		{"tcp 127.0.0.1:5 -> 198.51.100.1:25 in eth0", allow, "", elsewhere},
		{"udp 192.0.2.9:5 -> 192.168.0.0:9 in eth1", allow, "", elsewhere},

		// Containers and the host itself.
		{"tcp 172.17.0.2:5 -> 198.51.100.1:443 from container bridge", allow, "default", "no rule of egress matches; the default allows it"},
		{"tcp 172.17.0.2:5 -> 192.168.0.1:6379 from container bridge", allow, "default", "no rule of egress matches; the default allows it"},
		{"tcp 172.17.0.2:5 -> 172.17.0.3:9 from container bridge", allow, "", sameNet},
		{"tcp 192.168.0.1:5 -> 198.51.100.1:443 from host", allow, "default", "no rule of outbound matches; the default allows it"},
		{"tcp 192.168.0.1:5 -> 172.17.0.2:7901 from host", allow, "", containers},
		{"tcp 192.168.0.1:5 -> 192.168.0.1:80 from host", allow, "", itself},
		{"tcp 127.0.0.1:5 -> 127.0.0.1:80 from host", allow, "", itself},
	})
}

func TestS6(t *testing.T) {
	const inReject = "no rule of inbound matches; the default rejects it"
	check(t, s6(), []row{
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in eth0", deny, "policy.yaml:10", "rule 1 of inbound denies it"},
		{"tcp [2001:db8:bad::1]:5 -> [2001:db8:1::1]:80 in eth0", deny, "policy.yaml:10", "rule 1 of inbound denies it"},
		{"esp 198.51.100.66 -> 192.168.0.1 in eth0", deny, "policy.yaml:10", "rule 1 of inbound denies it"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:80 in eth0", allow, "policy.yaml:11", "rule 2 of inbound allows it"},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:80 in eth0", allow, "policy.yaml:11", "rule 2 of inbound allows it"},

		// Published ports of one network, from one place.
		{"tcp 198.51.100.7:5 -> 192.168.0.1:8080 in eth0", allow, "policy.yaml:12", "rule 3 of inbound allows it"},
		{"tcp 198.51.100.7:5 -> 203.0.113.10:8080 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:8080 in eth0", reject, "policy.yaml:40", inReject},
		{"udp 198.51.100.7:5 -> 192.168.0.1:8080 in eth0", reject, "policy.yaml:40", inReject},
		{"udp 198.51.100.7:5 -> 192.168.0.1:5353 in eth0", allow, "policy.yaml:12", "rule 3 of inbound allows it"},
		{"udp 198.51.100.7:5 -> 203.0.113.10:5353 in eth0", allow, "policy.yaml:12", "rule 3 of inbound allows it"},
		{"udp [2001:db8:aa::1]:5 -> [2001:db8:1::1]:5353 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:5353 in eth0", reject, "policy.yaml:40", inReject},

		// Not the office: everybody else of both families.
		{"tcp 192.0.2.9:5 -> 192.168.0.1:9000 in eth0", reject, "policy.yaml:13", "rule 4 of inbound rejects it"},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:9100 in eth0", reject, "policy.yaml:13", "rule 4 of inbound rejects it"},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:9050 in eth0", allow, "policy.yaml:14", "rule 5 of inbound allows it"},
		{"tcp [2001:db8:aa::1]:5 -> [2001:db8:1::1]:9050 in eth0", allow, "policy.yaml:14", "rule 5 of inbound allows it"},
		{"udp 192.0.2.9:5 -> 192.168.0.1:9050 in eth0", allow, "policy.yaml:14", "rule 5 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:8999 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:9101 in eth0", reject, "policy.yaml:40", inReject},

		// One address, one interface, one protocol, one family.
		{"tcp 192.0.2.9:5 -> 192.168.0.1:3000 in eth1", allow, "policy.yaml:15", "rule 6 of inbound allows it"},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:3000 in eth1", allow, "policy.yaml:15", "rule 6 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 203.0.113.10:3000 in eth1", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 203.0.113.10:3001 in eth1", allow, "policy.yaml:16", "rule 7 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:3001 in wg0", allow, "policy.yaml:16", "rule 7 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:3001 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:3001 in eth10", reject, "policy.yaml:40", inReject},
		{"esp 198.51.100.7 -> 192.168.0.1 in eth0", allow, "policy.yaml:17", "rule 8 of inbound allows it"},
		{"ah 198.51.100.7 -> 192.168.0.1 in eth0", reject, "policy.yaml:40", inReject},
		{"esp 2001:db8:aa::1 -> 2001:db8:1::1 in eth0", reject, "policy.yaml:40", inReject},
		{"esp 192.168.0.9 -> 192.168.0.1 in eth0", allow, "policy.yaml:20", "rule 11 of inbound allows it"},

		// A routed network, opened for one port; its bridge's address stays the host's.
		{"tcp 192.0.2.9:5 -> 172.30.0.5:80 in eth0", allow, "policy.yaml:18", "rule 9 of inbound allows it"},
		{"tcp [2001:db8:9::9]:5 -> [fd00:30::5]:80 in eth0", allow, "policy.yaml:18", "rule 9 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 172.30.0.5:81 in eth0", reject, "policy.yaml:19", "rule 10 of inbound rejects it"},
		{"tcp 198.51.100.66:5 -> 172.30.0.5:80 in eth0", allow, "policy.yaml:18", "rule 9 of inbound allows it"},
		{"tcp 192.168.0.9:5 -> 172.30.0.5:443 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 172.30.0.1:81 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 172.30.0.1:9001 in eth0", reject, "policy.yaml:13", "rule 4 of inbound rejects it"},
		{"icmp/3/4 192.0.2.9 -> 172.30.0.5 in eth0", allow, "", life},
		{"udp 192.0.2.9:67 -> 172.30.0.5:68 in eth0", reject, "policy.yaml:40", inReject},
		{"tcp 192.0.2.9:5 -> 172.17.0.5:80 in eth0", deny, "", direct},

		// Without hygiene nothing of the kind is judged.
		{"tcp 192.168.0.1:5 -> 192.168.0.1:25 in eth0", allow, "policy.yaml:20", "rule 11 of inbound allows it"},
		{"tcp 192.168.0.9:5 -> 192.168.0.1:25 in eth0 state invalid", allow, "policy.yaml:20", "rule 11 of inbound allows it"},
		{"tcp 192.168.0.9:5 -> 192.168.0.1:25 in eth0 flags SF", allow, "policy.yaml:20", "rule 11 of inbound allows it"},

		// A network without "published" still means its published ports alone.
		{"tcp 192.0.2.9:5 -> 192.168.0.1:8443 in eth0", reject, "policy.yaml:40", inReject},
	})
}

// What begins something is denied by the leading rules before anything else is asked, whatever connection tracking says.
func TestLeadingDenies(t *testing.T) {
	const first, later, known = "rule 1 of inbound denies it", "rule 3 of inbound denies it", "it belongs to a connection that is already there"
	const banned = "198.51.100.66"
	p := s6()
	p.Hygiene, p.Trusted = true, []string{"wg0"}
	rows := []row{
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in eth0 state established flags S", deny, "policy.yaml:10", first},
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in eth0 state invalid flags S", deny, "policy.yaml:10", first},
		{"tcp 198.51.100.66:5 -> 127.0.0.1:80 in eth0", deny, "policy.yaml:10", first},
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in eth0 state established flags SA", allow, "", known},
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in eth0 state established flags SP", allow, "", known},
		{"udp 198.51.100.66:5 -> 192.168.0.1:80 in eth0 state established", allow, "", known},
		{"icmp/0 198.51.100.66 -> 192.168.0.1 in eth0 state established", allow, "", known},
		{"icmp6/129 2001:db8:bad::1 -> 2001:db8:1::1 in eth0 state established", allow, "", known},
		{"tcp 198.51.100.66:5 -> 192.0.2.1:80 in eth0 state established flags S", allow, "", known},
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in wg0", allow, "", "it comes in by a trusted interface"},
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 in lo", allow, "", "loopback traffic always passes"},
		{"tcp 198.51.100.66:5 -> 192.168.0.1:80 from container bridge state established flags S", allow, "", known},
	}
	check(t, p, append(rows,
		row{"icmp/8 198.51.100.66 -> 192.168.0.1 in eth0 state established", deny, "policy.yaml:10", first},
		row{"icmp6/128 2001:db8:bad::1 -> 2001:db8:1::1 in eth0 state established", deny, "policy.yaml:10", first}))
	p.Keep = true
	check(t, p, append(rows,
		row{"icmp/8 198.51.100.66 -> 192.168.0.1 in eth0 state established", allow, "", known},
		row{"icmp6/128 2001:db8:bad::1 -> 2001:db8:1::1 in eth0 state established", allow, "", known}))

	// A rule about a network isn't about the host; one that does more ends the list.
	toNetwork := policy.Rule{Verb: policy.Allow, What: tcp(80), To: policy.Addresses{Given: true, Network: "routed"}}
	deny3 := policy.Rule{Verb: policy.Deny, What: anything, From: from(banned)}
	const packet = "tcp 198.51.100.66:5 -> 192.168.0.1:80 in eth0 state established flags S"
	for _, c := range []struct {
		second policy.Rule
		want   row
	}{
		{toNetwork, row{packet, deny, "policy.yaml:5", later}},
		{policy.Rule{Verb: policy.Deny, What: anything, From: from("192.0.2.9")}, row{packet, deny, "policy.yaml:5", later}},
		{policy.Rule{Verb: policy.Deny, What: anything, From: from("192.0.2.9"), On: []string{"eth1"}}, row{packet, deny, "policy.yaml:5", later}},
		{policy.Rule{Verb: policy.Deny, What: tcp(22)}, row{packet, allow, "", known}},
		{policy.Rule{Verb: policy.Allow, What: anything, From: from("192.0.2.9")}, row{packet, allow, "", known}},
		{policy.Rule{Verb: policy.Reject, What: anything, From: from("192.0.2.9")}, row{packet, allow, "", known}},
		{policy.Rule{Verb: policy.Deny, What: anything, From: from("192.0.2.9"), To: from("192.168.0.1")}, row{packet, allow, "", known}},
		{policy.Rule{Verb: policy.Deny, What: anything, From: from("192.0.2.9"), Networks: []string{"bridge"}}, row{packet, allow, "", known}},
		{policy.Rule{Verb: policy.Deny, What: append(published, policy.Traffic{}), From: from("192.0.2.9")}, row{packet, allow, "", known}},
	} {
		p.Inbound = rules(3, policy.Rule{Verb: policy.Deny, What: anything, From: from("192.0.2.8")}, c.second, deny3)
		check(t, p, []row{c.want})
	}
}

// TestUnclearNetworks: while Docker doesn't say which bridge is whose, what is denied to a network that isn't known is denied
// to all, and what is allowed to one is allowed to none.
func TestUnclearNetworks(t *testing.T) {
	p := s7()
	p.Egress = rules(10,
		policy.Rule{Verb: policy.Allow, What: dns, Networks: []string{"payments"}},
		policy.Rule{Verb: policy.Reject, What: web, Networks: []string{"payments", "bridge"}},
		policy.Rule{Verb: policy.Allow, What: anything, Networks: []string{"routed"}})
	inv := server()
	for _, c := range []struct {
		pk              string
		answers, silent string // by which line it is judged
	}{
		{"tcp 172.17.0.2:5 -> 198.51.100.9:53 from container bridge", "policy.yaml:31", "policy.yaml:31"},
		{"tcp 172.17.0.2:5 -> 198.51.100.9:80 from container bridge", "policy.yaml:11", "policy.yaml:11"},
		{"tcp 172.30.0.2:5 -> 198.51.100.9:53 from container routed", "policy.yaml:12", "policy.yaml:12"},
		{"tcp 172.30.0.2:5 -> 198.51.100.9:80 from container routed", "policy.yaml:12", "policy.yaml:11"},
	} {
		for reachable, want := range map[bool]string{true: c.answers, false: c.silent} {
			inv.Docker.Reachable = reachable
			if d := eval.Evaluate(p, inv, read(t, c.pk)); d.Origin != want {
				t.Errorf("%s, Docker answers %v: by %q, want %q", c.pk, reachable, d.Origin, want)
			}
		}
	}
}

// TestEgressDeny: with egress at deny nothing leaves a container's network but answers. What the design's "what always
// holds" names passes where it is used, on the network itself.
func TestEgressDeny(t *testing.T) {
	const egDefault = "no rule of egress matches; the default denies it"
	p := s7()
	p.Egress = nil
	for _, to := range []string{"198.51.100.9", "172.18.0.2", "192.168.0.77", "192.168.0.1", "172.17.0.1", "192.168.0.255"} {
		check(t, p, []row{
			{"tcp 172.17.0.2:5 -> " + to + ":443 from container bridge", deny, "policy.yaml:31", egDefault},
			{"udp 172.17.0.2:5 -> " + to + ":53 from container bridge", deny, "policy.yaml:31", egDefault},
			{"udp 172.17.0.2:67 -> " + to + ":68 from container bridge", deny, "policy.yaml:31", egDefault},
			{"udp 172.17.0.2:68 -> " + to + ":67 from container bridge", deny, "policy.yaml:31", egDefault},
			{"igmp 172.17.0.2 -> " + to + " from container bridge", deny, "policy.yaml:31", egDefault},
			{"esp 172.17.0.2 -> " + to + " from container bridge", deny, "policy.yaml:31", egDefault},
			{"icmp/8 172.17.0.2 -> " + to + " from container bridge", deny, "policy.yaml:31", egDefault},
			{"icmp/3 172.17.0.2 -> " + to + " from container bridge", deny, "policy.yaml:31", egDefault},
			{"icmp/11 172.17.0.2 -> " + to + " from container bridge state invalid", deny, "policy.yaml:31", egDefault},
			{"icmp/3 172.17.0.2 -> " + to + " from container bridge state related", allow, "", there},
			{"tcp 172.17.0.2:5 -> " + to + ":443 from container bridge state established", allow, "", there},
		})
	}
	for _, to := range []string{"2001:db8:9::9", "fd00:30::2", "2001:db8:1::77", "2001:db8:1::1"} {
		check(t, p, []row{
			{"tcp [fd00:17::2]:5 -> [" + to + "]:443 from container bridge", deny, "policy.yaml:31", egDefault},
			{"udp [fe80::9]:547 -> [" + to + "]:546 from container bridge", deny, "policy.yaml:31", egDefault},
			{"icmp6/1 fd00:17::2 -> " + to + " from container bridge", deny, "policy.yaml:31", egDefault},
			{"icmp6/2 fd00:17::2 -> " + to + " from container bridge state related", allow, "", there},
		})
	}
	const keeps = "its network cannot live without it"
	check(t, p, []row{
		{"icmp6/136 fd00:17::2 -> 2001:db8:9::9 from container bridge", deny, "policy.yaml:31", egDefault},
		{"icmp6/131 fd00:17::2 -> fd00:30::2 from container bridge", deny, "policy.yaml:31", egDefault},
		{"icmp6/136 fd00:17::2 -> fd00:17::1 from container bridge", allow, "", keeps},
		{"icmp6/135 fd00:17::2 -> fe80::9 from container bridge", allow, "", keeps},
		{"icmp6/143 fe80::9 -> ff02::16 from container bridge", allow, "", keeps},
		{"igmp 172.17.0.2 -> 224.0.0.22 from container bridge", allow, "", keeps},
		{"udp 172.17.0.2:67 -> 255.255.255.255:68 from container bridge", allow, "", keeps},
		{"udp 172.17.0.2:67 -> 172.17.0.3:68 from container bridge", allow, "", sameNet},
		{"udp [fe80::9]:547 -> [fe80::8]:546 from container bridge", allow, "", sameNet},
		{"tcp 172.17.0.2:5 -> 172.17.0.3:443 from container bridge", allow, "", sameNet},
	})
}

func TestS7(t *testing.T) {
	const egDefault, outDefault = "no rule of egress matches; the default denies it", "no rule of outbound matches; the default denies it"
	check(t, s7(), []row{
		// To the host: two ports, by any of its addresses.
		{"tcp 172.17.0.2:5 -> 172.17.0.1:53 from container bridge", allow, "policy.yaml:10", "rule 1 of egress allows it"},
		{"tcp 172.18.0.2:5 -> 192.168.0.1:8080 from container backend", allow, "policy.yaml:10", "rule 1 of egress allows it"},
		{"tcp 172.17.0.2:5 -> 172.17.0.1:22 from container bridge", reject, "policy.yaml:11", "rule 2 of egress rejects it"},
		{"tcp [fd00:17::2]:5 -> [fd00:17::1]:22 from container bridge", reject, "policy.yaml:11", "rule 2 of egress rejects it"},
		{"udp [fd00:17::2]:5 -> [fd00:17::]:53 from container bridge", reject, "policy.yaml:11", "rule 2 of egress rejects it"},
		{"tcp 172.17.0.2:5 -> 203.0.113.10:22 from container bridge", reject, "policy.yaml:11", "rule 2 of egress rejects it"},
		{"udp 172.17.0.2:5 -> 172.18.0.1:53 from container bridge", reject, "policy.yaml:11", "rule 2 of egress rejects it"},
		{"udp 172.17.0.2:5 -> 172.17.255.255:53 from container bridge", allow, "policy.yaml:14", "rule 5 of egress allows it"},
		{"udp 172.30.0.8:5 -> 172.30.0.255:53 from container routed", deny, "policy.yaml:31", egDefault},

		// Networks.
		{"tcp 172.18.0.2:5 -> 198.51.100.7:443 from container backend", allow, "policy.yaml:12", "rule 3 of egress allows it"},
		{"udp 172.18.0.2:5 -> 198.51.100.7:53 from container backend", allow, "policy.yaml:12", "rule 3 of egress allows it"},
		{"tcp 172.18.0.2:5 -> 198.51.100.7:80 from container backend", deny, "policy.yaml:13", "rule 4 of egress denies it"},
		{"tcp 172.18.0.2:5 -> 192.0.2.9:443 from container backend", deny, "policy.yaml:13", "rule 4 of egress denies it"},
		{"tcp 172.18.0.2:5 -> 172.18.0.3:443 from container backend", allow, "", sameNet},
		{"tcp 172.18.0.2:5 -> 172.17.0.2:443 from container backend", deny, "policy.yaml:13", "rule 4 of egress denies it"},
		{"tcp 172.17.0.2:5 -> 192.0.2.9:443 from container bridge", allow, "policy.yaml:14", "rule 5 of egress allows it"},
		{"tcp [fd00:17::2]:5 -> [2001:db8:9::9]:443 from container bridge", allow, "policy.yaml:14", "rule 5 of egress allows it"},
		{"tcp 172.17.0.2:5 -> 198.51.100.7:443 from container bridge", deny, "policy.yaml:31", egDefault},
		{"tcp [fd00:17::2]:5 -> [2001:db8:aa::9]:443 from container bridge", deny, "policy.yaml:31", egDefault},
		{"icmp/8 172.30.0.9 -> 192.0.2.9 from container routed", allow, "policy.yaml:15", "rule 6 of egress allows it"},
		{"icmp/8 172.30.0.8 -> 192.0.2.9 from container routed", deny, "policy.yaml:31", egDefault},
		{"tcp 172.30.0.8:5 -> 192.0.2.9:443 from container routed", deny, "policy.yaml:31", egDefault},
		{"udp 172.30.0.8:5 -> 224.0.0.251:5353 from container routed", deny, "policy.yaml:31", egDefault},

		// What always holds for containers.
		{"tcp 172.30.0.8:5 -> 192.0.2.9:443 from container routed state established", allow, "", there},
		{"tcp 172.30.0.8:5 -> 192.0.2.9:443 from container routed flags A", deny, "policy.yaml:31", egDefault},
		{"tcp 172.30.0.8:5 -> 192.0.2.9:443 from container routed flags SA", deny, "policy.yaml:31", egDefault},
		{"tcp 172.30.0.8:5 -> 192.168.0.1:443 from container routed flags A socket", allow, "", before},
		{"tcp 172.30.0.8:5 -> 192.168.0.1:443 from container routed flags S socket", reject, "policy.yaml:11", "rule 2 of egress rejects it"},
		{"icmp6/135 fd00:30::8 -> ff02::1:ff00:1 from container routed", allow, "", "its network cannot live without it"},
		{"icmp/3 172.30.0.8 -> 192.0.2.9 from container routed", deny, "policy.yaml:31", egDefault},

		// A connection from a container is judged by egress alone, also with a spoofed source and bad flags.
		{"tcp 192.168.0.1:5 -> 172.17.0.1:53 from container bridge", allow, "policy.yaml:10", "rule 1 of egress allows it"},

		// Inbound is what it was.
		{"tcp 192.0.2.9:5 -> 192.168.0.1:22 in eth0", allow, "policy.yaml:5", "rule 1 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:53 in eth0", deny, "policy.yaml:30", inDefault},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:53 in wg0", allow, "", trusted},
		{"tcp 192.0.2.9:5 -> 172.17.0.2:53 in wg0", allow, "", trusted},

		// The host itself.
		{"tcp 192.168.0.1:5 -> 192.0.2.9:443 from host via eth0", allow, "policy.yaml:20", "rule 1 of outbound allows it"},
		{"udp 192.168.0.1:5 -> 192.0.2.9:53 from host via eth0", allow, "policy.yaml:20", "rule 1 of outbound allows it"},
		{"tcp 192.168.0.1:5 -> 192.0.2.9:25 from host via eth0", reject, "policy.yaml:21", "rule 2 of outbound rejects it"},
		{"tcp 192.168.0.1:5 -> 192.0.2.9:25 from host via ppp0", deny, "policy.yaml:32", outDefault},
		{"tcp 192.168.0.1:5 -> 192.0.2.9:25 from host", deny, "policy.yaml:32", outDefault},
		{"tcp 192.168.0.1:5 -> 198.51.100.9:9 from host via eth0", allow, "policy.yaml:22", "rule 3 of outbound allows it"},
		{"tcp 203.0.113.10:5 -> 198.51.100.9:9 from host via eth0", deny, "policy.yaml:32", outDefault},
		{"tcp 192.168.0.1:5 -> 192.0.2.9:9 from host via wg0", allow, "", "it leaves by a trusted interface"},
		{"tcp 192.168.0.1:5 -> 192.0.2.9:9 from host via eth0 state established", allow, "", there},
		{"tcp 192.168.0.1:5 -> 192.0.2.9:9 from host via eth0 flags A", allow, "", noOpening},
		{"udp 192.168.0.1:68 -> 255.255.255.255:67 from host via eth0", allow, "", life},
		{"udp [fe80::a]:546 -> [ff02::1:2]:547 from host via eth0", allow, "", life},
		{"udp 192.168.0.1:67 -> 255.255.255.255:68 from host via eth0", deny, "policy.yaml:32", outDefault},
		{"icmp6/135 fe80::a -> ff02::1:ff00:9 from host via eth0", allow, "", life},
		{"icmp/8 192.168.0.1 -> 192.0.2.9 from host via eth0", deny, "policy.yaml:32", outDefault},
		{"tcp 172.17.0.1:5 -> 172.17.0.2:7901 from host via docker0", allow, "", containers},
		{"tcp 172.17.0.1:5 -> 172.17.0.2:7901 from host", allow, "", containers},
		{"udp 127.0.0.1:5 -> 127.0.0.53:53 from host via lo", allow, "", itself},
		{"tcp 192.168.0.1:5 -> 203.0.113.10:9 from host", allow, "", itself},
	})
}

func TestS9(t *testing.T) {
	const limited = "rule 2 of inbound allows it"
	check(t, s9(), []row{
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0", allow, "policy.yaml:4", limited},
		{"tcp [2001:db8:aa::7]:5 -> [2001:db8:1::1]:22 in eth0", allow, "policy.yaml:4", limited},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:22 in eth0", deny, "default", inDefault},
		{"icmp/8 192.0.2.9 -> 192.168.0.1 in eth0", allow, "policy.yaml:5", "rule 3 of inbound allows it"},
		{"icmp/8 198.51.100.7 -> 192.168.0.1 in eth0", deny, "policy.yaml:3", "rule 1 of inbound denies it"},
		{"icmp/3 198.51.100.7 -> 192.168.0.1 in eth0", allow, "", life},
		{"icmp/5/1 192.0.2.9 -> 192.168.0.1 in eth0", allow, "policy.yaml:6", "rule 4 of inbound allows it"},
		{"icmp/5/2 192.0.2.9 -> 192.168.0.1 in eth0", deny, "default", inDefault},

		// Hygiene: states and flags.
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 state invalid", deny, "", invalid},
		{"udp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 state invalid", deny, "default", inDefault}, // no rule is about the port
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags A", deny, "", noSYN},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags SA", deny, "", noSYN},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags R", deny, "", noSYN},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags FA", deny, "", noSYN},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags -", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags SF", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags SR", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags FRA", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags F", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags SU", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags FPU", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 flags SP", deny, "", badFlags},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 state untracked flags A", allow, "policy.yaml:4", limited},
		{"udp 198.51.100.7:5 -> 192.168.0.1:22 in eth0 state untracked", deny, "default", inDefault},

		// Hygiene: sources.
		{"tcp 127.0.0.1:5 -> 192.168.0.1:22 in eth0", deny, "", spoof},
		{"tcp [::1]:5 -> [2001:db8:1::1]:22 in eth0", deny, "", spoof},
		{"tcp 203.0.113.10:5 -> 192.168.0.1:22 in eth0", deny, "", spoof},
		{"tcp [fe80::a]:5 -> [2001:db8:1::1]:22 in eth1", deny, "default", inDefault},
		{"icmp6/128 fe80::a -> 2001:db8:1::1 in eth1", allow, "policy.yaml:5", "rule 3 of inbound allows it"},
		{"tcp 172.17.0.9:5 -> 192.168.0.1:22 in eth0", deny, "", spoof},
		{"tcp [fd00:17::9]:5 -> [2001:db8:1::1]:22 in eth0", deny, "", spoof},
		{"udp 224.0.0.5:5 -> 192.168.0.1:22 in eth0", deny, "default", inDefault},
		{"udp [ff02::5]:5 -> [2001:db8:1::1]:22 in eth0", deny, "default", inDefault},

		// Hygiene judges neither routed packets nor those of a connection from before the policy, nor containers.
		{"tcp 198.51.100.7:5 -> 192.0.2.1:22 in eth0 flags SF", allow, "", elsewhere},
		{"tcp 198.51.100.7:5 -> 192.168.0.1:9999 in eth0 flags A socket", allow, "", before},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:9999 in eth0 flags S socket", deny, "default", inDefault},
		{"udp 192.0.2.9:5 -> 192.168.0.1:9999 in eth0 socket", deny, "default", inDefault},
		{"tcp 172.17.0.2:5 -> 192.168.0.1:22 from container bridge flags SF", allow, "default", "no rule of egress matches; the default allows it"},

		// The same address written as IPv6.
		{"tcp [::ffff:198.51.100.7]:5 -> [::ffff:192.168.0.1]:22 in eth0", allow, "policy.yaml:4", limited},
	})
}

// check judges each packet of a table.
func check(t *testing.T, p *policy.Policy, rows []row) {
	t.Helper()
	for _, r := range rows {
		d := eval.Evaluate(p, server(), read(t, r.pk))
		if d.Verb != r.verb || d.Origin != r.origin || d.Why != r.why {
			t.Errorf("%s:\n got %s by %q, %s\nwant %s by %q, %s", r.pk, d.Verb, d.Origin, d.Why, r.verb, r.origin, r.why)
		}
		checkShape(t, p, r, d)
	}
}

// checkShape checks what must hold of every decision.
func checkShape(t *testing.T, p *policy.Policy, r row, d eval.Decision) {
	t.Helper()
	if !d.Judged && d.Verb != allow {
		t.Errorf("%s: not judged, yet %s", r.pk, d.Verb)
	}
	wantSection := policy.Inbound
	switch {
	case strings.Contains(r.pk, "from host"):
		wantSection = policy.Outbound
	case strings.Contains(r.pk, "from container"):
		wantSection = policy.Egress
	}
	if d.Section != wantSection {
		t.Errorf("%s: belongs to %s, want %s", r.pk, d.Section, wantSection)
	}
	isRule := d.Rule >= 0
	if isRule && p.Rules(d.Section)[d.Rule].Origin() != d.Origin {
		t.Errorf("%s: rule %d is not that of %s", r.pk, d.Rule, d.Origin)
	}
	if want := isRule && !p.Rules(d.Section)[d.Rule].Limit.IsZero(); d.Limited != want {
		t.Errorf("%s: limited %v, want %v", r.pk, d.Limited, want)
	}
}

// read reads the packet of a row.
func read(t *testing.T, s string) packet.Packet {
	t.Helper()
	s, socket := strings.CutSuffix(s, " socket")
	s, flags, hasFlags := strings.Cut(s, " flags ")
	out := ""
	if before, after, ok := strings.Cut(s, " via "); ok {
		words := strings.Fields(after)
		out, s = words[0], strings.Join(append([]string{before}, words[1:]...), " ")
	}
	q, err := packet.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	pk := q.Packet
	pk.Socket, pk.Out = socket, out
	if hasFlags {
		pk.Flags = flagsOf(flags)
	}
	if q.Container != "" {
		n, ok := server().Network(q.Container)
		if !ok {
			t.Fatalf("%s: no network %s", s, q.Container)
		}
		pk.In = n.Bridge
	}
	return pk
}

// flagsOf reads TCP flags by their first letters, "-" for none.
func flagsOf(letters string) (flags uint8) {
	for i, l := range "FSRPAU" {
		if strings.ContainsRune(letters, l) {
			flags |= 1 << i
		}
	}
	return flags
}

func TestOpenedNetworkIgnoresDefault(t *testing.T) {
	p := &policy.Policy{
		Inbound:  rules(3, policy.Rule{Verb: allow, What: tcp(80), To: policy.Addresses{Given: true, Network: "routed"}}),
		Defaults: policy.Defaults{Inbound: policy.Verdict{Verb: allow}, Egress: policy.Verdict{Verb: allow}},
	}
	check(t, p, []row{
		{"tcp 192.0.2.9:5 -> 172.30.0.5:80 in eth0", allow, "policy.yaml:3", "rule 1 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 172.30.0.5:81 in eth0", deny, "", "no rule opens this container's own address"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:81 in eth0", allow, "default", "no rule of inbound matches; the default allows it"},
	})
}

func TestPublishedOfAnyNetwork(t *testing.T) {
	p := &policy.Policy{Inbound: rules(3, policy.Rule{Verb: allow, What: published}), Defaults: defaults()}
	check(t, p, []row{
		{"tcp 192.0.2.9:5 -> 192.168.0.1:80 in eth0", allow, "policy.yaml:3", "rule 1 of inbound allows it"},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:80 in eth0", allow, "policy.yaml:3", "rule 1 of inbound allows it"},
		{"tcp [2001:db8:9::9]:5 -> [2001:db8:1::1]:443 in eth0", deny, "default", inDefault},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:8080 in eth0", allow, "policy.yaml:3", "rule 1 of inbound allows it"},
		{"tcp 192.0.2.9:5 -> 192.168.0.1:7901 in eth0", deny, "default", inDefault},
		{"icmp 192.0.2.9 -> 192.168.0.1 in eth0", deny, "default", inDefault},
	})
}

// A host of which nothing is known still knows its loopback addresses and Docker's two fixed bridge names.
func TestEmptyInventory(t *testing.T) {
	tests := []struct {
		pk   string
		want string
	}{
		{"tcp 192.0.2.9:5 -> 192.168.0.1:22 in eth0", elsewhere},
		{"tcp 192.0.2.9:5 -> 127.0.0.1:22 in eth0", loAbroad},
		{"udp 192.0.2.9:5 -> 224.0.0.1:22 in eth0", inDefault},
		{"tcp 172.17.0.2:5 -> 192.0.2.9:22 in docker0", "no rule of egress matches; the default allows it"},
		{"tcp 172.17.0.2:5 -> 192.0.2.9:22 in docker_gwbridge", "no rule of egress matches; the default allows it"},
	}
	for _, tt := range tests {
		d := eval.Evaluate(s1(), &inventory.Inventory{}, read(t, tt.pk))
		if d.Why != tt.want {
			t.Errorf("%s: %s, want %s", tt.pk, d.Why, tt.want)
		}
	}
}
