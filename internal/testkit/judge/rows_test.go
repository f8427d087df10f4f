package judge

import (
	"net/netip"
	"slices"
	"testing"

	"quaywall/internal/compile"
	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// row is a packet and whether it passes to the host, or by it: what the judge can't find out by itself, since the evaluator could share a mistake
// with the compiler, or knows nothing of it.
type row struct {
	what   string
	pk     packet.Packet
	passes bool
}

// rows are by policy, each from sentences of the design.
var rows = []struct {
	policy string
	inv    *inventory.Inventory
	rows   []row
}{
	{"defaults: {egress: deny}\n", inventoryOf(), []row{
		{"a datagram", udp("docker0", "172.17.0.2:66", "45.0.0.1:68"), false},
		{"from the port of DHCP servers to that of its clients", udp("docker0", "172.17.0.2:67", "45.0.0.1:68"), false},
		{"the same over IPv6", udp("docker0", "[fd00:17::2]:547", "[2003:db8::9]:546"), false},
		{"the same to a container of another network", udp("docker0", "172.17.0.2:67", "172.18.0.2:68"), false},
		{"the same to the host", udp("docker0", "172.17.0.2:67", "192.0.2.1:68"), false},
		{"IGMP to one machine", of(igmp, "docker0", "172.17.0.2", "45.0.0.1"), false},
		{"IGMP to one machine of another network", of(igmp, "br-00000000bace", "172.18.0.2", "172.17.0.9"), false},
		{"IGMP to a group", of(igmp, "docker0", "172.17.0.2", "224.0.0.1"), true},
		{"an error about nothing", icmp(policy.ICMP, 3, "docker0", "172.17.0.2", "45.0.0.1"), false},
		{"an error about nothing, IPv6", icmp(policy.ICMPv6, 1, "docker0", "fd00:17::2", "2003:db8::9"), false},
		{"a neighbour's advertisement for one far away", icmp(policy.ICMPv6, 136, "docker0", "fd00:17::2", "2003:db8::9"), false},
		{"a listener's report for one far away", icmp(policy.ICMPv6, 131, "docker0", "fd00:17::2", "2003:db8::9"), false},
		{"a question for neighbours", icmp(policy.ICMPv6, 135, "docker0", "fd00:17::2", "ff02::1"), true},
		{"a question to the host as a neighbour", icmp(policy.ICMPv6, 135, "docker0", "fd00:17::2", "fd00:17::1"), true},
		{"to a link-local address of the host", udp("docker0", "[fe80::99]:40000", "[fe80::17]:53"), false},
		{"routed to an administrator's bridge made later", udp("eth0", "203.0.113.7:9", "10.77.0.9:9"), true},
		{"routed from it", udp("br-dmz", "10.77.0.9:9", "45.0.0.1:9"), true},
		{"the same over IPv6", udp("eth0", "[2001:db8:9::7]:9", "[fd77::9]:9"), true},
		{"from it, over IPv6", udp("br-dmz", "[fd77::9]:9", "[2003:db8::9]:9"), true},
		{"from it to a container of a new bridge", udp("br-dmz", "10.77.0.9:9", "172.31.0.2:9"), false},
		{"new bridge: from outside to a container", udp("eth0", "203.0.113.7:9", "172.31.0.2:9"), false},
		{"new bridge: from outside to a container, IPv6", udp("eth0", "[2001:db8:9::7]:9", "[fd00:31::2]:9"), false},
		{"new bridge: to a container of an old one", udp(freshBridge, "172.31.0.2:9", "172.17.0.2:9"), false},
		{"new bridge: IPv6", udp(freshBridge, "[fd00:31::2]:9", "[2003:db8::9]:9"), false},
		{"new bridge: a datagram", udp(freshBridge, "172.31.0.2:66", "45.0.0.1:68"), false},
		{"new bridge: as of DHCP", udp(freshBridge, "172.31.0.2:67", "45.0.0.1:68"), false},
		{"new bridge: IGMP", of(igmp, freshBridge, "172.31.0.2", "45.0.0.1"), false},
		{"new bridge: an error about nothing", icmp(policy.ICMP, 3, freshBridge, "172.31.0.2", "45.0.0.1"), false},
		{"new bridge: a neighbour's advertisement", icmp(policy.ICMPv6, 136, freshBridge, "fd00:31::2", "2003:db8::9"), false},
	}},
	{"inbound: [{allow: 80/udp, to: {network: routed}}]\n", inventoryOf(), []row{
		{"a port that is open", udp("eth0", "203.0.113.7:67", "172.30.0.5:80"), true},
		{"an answer of DHCP to a container", udp("eth0", "203.0.113.7:67", "172.30.0.5:68"), false},
		{"an answer of DHCP to a container, IPv6", udp("eth0", "[fe80::9]:547", "[fd00:30::5]:546"), false},
		{"an answer of DHCP to the host", udp("eth0", "192.0.2.254:67", "192.0.2.1:68"), true},
		{"an answer of DHCP to all", udp("eth0", "192.0.2.254:67", "255.255.255.255:68"), true},
		{"an answer of DHCP to the host, IPv6", udp("eth0", "[fe80::9]:547", "[fe80::a]:546"), true},
	}},
	{"inbound: [{allow: 22/udp}]\ndefaults: {egress: deny}\n", shared("backend"), []row{
		{"from the network on the shared bridge to the host", udp("br-00000000bace", "172.18.0.2:9", "172.18.0.1:9"), false},
		{"to a port that is open", udp("br-00000000bace", "172.18.0.2:9", "172.18.0.1:22"), true},
		{"a stranger there", udp("br-00000000bace", "203.0.113.7:9", "192.0.2.1:9"), false},
		{"routed out", udp("br-00000000bace", "172.18.0.2:9", "45.0.0.1:9"), true},
		{"routed there", udp("eth0", "203.0.113.7:9", "172.18.0.2:9"), true},
		{"to a container of another network", udp("br-00000000bace", "172.18.0.2:9", "172.17.0.2:9"), false},
		{"another network", udp("docker0", "172.17.0.2:9", "45.0.0.1:9"), false},
	}},
	{"inbound: [{allow: 22/udp}]\n", shared("bridge"), []row{
		{"to the host from docker0 when others are on it", udp("docker0", "172.17.0.2:9", "172.17.0.1:9"), false},
	}},
	{"inbound: [{allow: [22/udp, 5353/udp]}]\n", inventoryOf(), []row{ // a bridge carries all of these between its ports
		{"a guest that asks for an address", udp("virbr0", "0.0.0.0:68", "255.255.255.255:67"), false},
		{"an answer to a guest", udp("virbr0", "192.168.122.77:67", "255.255.255.255:68"), true},
		{"to all guests", udp("virbr0", "192.168.122.77:9", "192.168.122.255:137"), false},
		{"to a group of guests", udp("virbr0", "192.168.122.77:9", "224.0.0.251:9"), false},
		{"to a group of guests, IPv6", udp("virbr0", "[fd00:122::77]:9", "[ff02::fb]:9"), false},
		{"to a group that the host may hear", udp("virbr0", "[fd00:122::77]:9", "[ff02::fb]:5353"), true},
		{"from another card to all", udp("eth0", "192.0.2.77:9", "192.0.2.255:137"), false},
		{"from another card to all at a port that is open", udp("eth0", "192.0.2.77:9", "192.0.2.255:22"), true},
		{"from another card to a group", udp("eth0", "192.0.2.77:9", "224.0.0.251:9"), false},
		{"to all of a Docker network", udp("eth0", "192.0.2.77:9", "172.30.0.255:22"), true},
		{"to all of a Docker network at a closed port", udp("eth0", "192.0.2.77:9", "172.30.0.255:9"), false},
		{"a bridge of others that came later", udp("br-dmz", "10.77.0.9:68", "255.255.255.255:67"), false},
	}},
	{"inbound: [{deny: any, from: 192.168.122.77}, {allow: any}]\n", inventoryOf(), []row{
		{"a guest that this host bans asks all", icmp(policy.ICMP, 8, "virbr0", "192.168.122.77", "192.168.122.255"), false},
		{"another asks all", icmp(policy.ICMP, 8, "virbr0", "192.168.122.78", "192.168.122.255"), true},
	}},
	{"inbound: [{allow: 9/udp, to: {network: routed}}]\n", inventoryOf(), []row{
		{"all of a network aren't its containers", udp("eth0", "192.0.2.77:9", "172.30.0.255:9"), false},
	}},
	{"egress: [{allow: 5353/udp}]\ndefaults: {egress: deny, inbound: allow}\n", inventoryOf(), []row{
		{"within one network, to all", udp("docker0", "172.17.0.2:9", "255.255.255.255:9"), false},
		{"within one network, to its broadcast address", udp("docker0", "172.17.0.2:9", "172.17.255.255:9"), false},
		{"within one network, to a group", udp("docker0", "172.17.0.2:9", "224.0.0.251:9"), false},
		{"within one network, to a group, IPv6", udp("docker0", "[fd00:17::2]:9", "[ff02::fb]:9"), false},
		{"to a group, what the host may hear", udp("docker0", "[fd00:17::2]:9", "[ff02::fb]:5353"), true},
		{"a new network, to all", udp(freshBridge, "172.31.0.2:9", "255.255.255.255:9"), true},
	}},
	{ownNetwork, inventoryOf(), []row{
		{"one that may come in again under another bridge", udp(freshBridge, "172.31.0.2:9", "45.0.0.1:9"), false},
		{"what is allowed to it", udp(freshBridge, "172.31.0.2:9", "45.0.0.1:53"), false},
		{"it itself", udp("br-00000000bace", "172.18.0.2:9", "45.0.0.1:9"), false},
		{"what is allowed to it itself", udp("br-00000000bace", "172.18.0.2:9", "45.0.0.1:53"), true},
		{"another", udp("docker0", "172.17.0.2:9", "45.0.0.1:9"), true},
	}},
	{"egress: [{deny: any, network: bridge}]\n", inventoryOf(), []row{
		{"docker0 is never another's", udp(freshBridge, "172.31.0.2:9", "45.0.0.1:9"), true},
	}},
	{ownNetwork, withoutDocker(), []row{
		{"which of them it is isn't known", udp("br-00000000bace", "172.18.0.2:9", "45.0.0.1:9"), false},
		{"nor what is allowed to which", udp("br-00000000bace", "172.18.0.2:9", "45.0.0.1:53"), false},
		{"one made later", udp(freshBridge, "172.31.0.2:9", "45.0.0.1:9"), false},
	}},
	{ownNetwork, atBoot(), []row{
		{"made by Docker after the policy", udp("br-00000000bace", "172.18.0.2:9", "45.0.0.1:9"), false},
		{"the same over IPv6", udp("br-000000005eed", "[fd00:30::5]:9", "[2003:db8::9]:9"), false},
		{"routed from a bridge of others", udp("br-dmz", "10.77.0.9:9", "45.0.0.1:9"), true},
		{"from outside to a container", udp("eth0", "203.0.113.7:9", "172.18.0.2:9"), false},
	}},
}

// ownNetwork limits one network, as the example of docs/policy.md does.
const ownNetwork = "egress: [{allow: dns, network: backend}, {deny: any, network: backend}]\n"

// shared is what the host has when others than containers are on the bridge of a network.
func shared(network string) *inventory.Inventory {
	inv := inventoryOf()
	n, _ := inv.Network(network)
	inv.Networks = slices.DeleteFunc(inv.Networks, func(o inventory.Network) bool { return o.Name == network })
	inv.Shared = []inventory.Shared{{Name: network, Bridge: n.Bridge, Port: "eth9"}}
	return inv
}

func of(proto uint8, in, src, dst string) packet.Packet {
	return packet.Packet{Proto: proto, In: in, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst)}
}

func udp(in, src, dst string) packet.Packet {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return packet.Packet{Proto: policy.UDP, In: in, Src: s.Addr(), SrcPort: s.Port(), Dst: d.Addr(), DstPort: d.Port()}
}

func icmp(proto, icmpType uint8, in, src, dst string) packet.Packet {
	pk := of(proto, in, src, dst)
	pk.ICMPType = icmpType
	return pk
}

// isFresh tells whether a packet comes from a bridge that was made after the policy was compiled, or goes there: the
// evaluator doesn't know of such.
func isFresh(inv *inventory.Inventory, pk packet.Packet) bool {
	fresh := func(name string) bool {
		return inventory.IsDockerBridgeName(name) && !slices.Contains(inv.Bridges(), name)
	}
	return fresh(pk.In) || fresh(outOf(pk.Dst, pk.In))
}

// TestRows sends each row's packet past each backend, and asks the evaluator, which knows no bridges made later.
func TestRows(t *testing.T) {
	var benches []*bench
	for _, b := range backends() {
		benches = append(benches, newBench(t, b))
	}
	for _, r := range rows {
		text, inv, all := r.policy, r.inv, r.rows
		p, list := policy.Parse(policyFile, []byte("version: 1\n"+text))
		if err := list.Err(); err != nil {
			t.Fatal(err)
		}
		rs, list := compile.Compile(p, inv, compile.Options{LogGroup: logGroup})
		if err := list.Err(); err != nil {
			t.Fatal(err)
		}
		var probes []*probe
		for i, r := range all {
			pr := &probe{id: uint16(i + 1), pk: r.pk, about: packet.Packet{Proto: policy.UDP, Src: r.pk.Dst, Dst: r.pk.Src, SrcPort: 9, DstPort: 9}}
			pr.pk.State = firstState(pr)
			probes = append(probes, pr)
			if d := eval.Evaluate(p, inv, pr.pk); !isFresh(inv, r.pk) && (d.Verb == policy.Allow) != r.passes {
				t.Errorf("%s%s, %s: the evaluator takes it that the policy %ss it: %s", text, r.what, pr.pk, d.Verb, d.Why)
			}
		}
		for _, h := range benches {
			if err := h.commit(rs); err != nil {
				t.Fatal(err)
			}
			fates, err := h.send(probes)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range all {
				f := fates[probes[i].id]
				if f.passed != r.passes {
					t.Errorf("%s%s, %s: %s: %s, it should pass: %v", text, r.what, probes[i].pk, h.name, f, r.passes)
				}
				if f.carried != probes[i].isFlooded() {
					t.Errorf("%s%s, %s: %s: the bridge carried it: %v", text, r.what, probes[i].pk, h.name, f.carried)
				}
			}
		}
	}
}
