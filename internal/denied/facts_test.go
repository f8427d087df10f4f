package denied

import (
	"net/netip"
	"strings"
	"testing"

	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

var testInventory = &inventory.Inventory{
	Interfaces: []inventory.Interface{
		{Name: "eth0", Addrs: prefixes("203.0.113.1/24", "2001:db8::1/64")},
		{Name: "docker0", Addrs: prefixes("172.17.0.1/16")},
	},
	Networks: []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16")}},
	Published: []inventory.Published{
		{Addr: netip.MustParseAddr("0.0.0.0"), Proto: policy.TCP, Port: 8080, Container: "web", Networks: []string{"bridge"}, Target: 80},
		{Addr: netip.MustParseAddr("203.0.113.1"), Proto: policy.TCP, Port: 5432, Container: "db", Networks: []string{"bridge"}, Target: 5432},
	},
}

var testAddrs = map[string][]netip.Addr{"web": {netip.MustParseAddr("172.17.0.2")}, "db": {netip.MustParseAddr("172.17.0.3")}}

func prefixes(all ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range all {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

// testPolicy is a policy whose second line is the first of these.
func testPolicy(t *testing.T, lines ...string) *policy.Policy {
	t.Helper()
	p, list := policy.Parse("policy.yaml", []byte("version: 1\n"+strings.Join(lines, "\n")))
	if list.HasErrors() {
		t.Fatal(list)
	}
	return p
}

func TestExplain(t *testing.T) {
	p := testPolicy(t, "inbound:", "  - deny: 8080", "  - reject: 9090", "  - allow: ssh", "    limit: 10/minute", "  - allow: 80", "egress:",
		"  - deny: 53/udp", "outbound:", "  - deny: 25")
	for _, test := range []struct {
		packet, prefix string
		want           string // verdict, line, section, container, why
	}{
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:8080 in eth0", "quaywall denied", "deny policy.yaml:3 inbound web"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:9090 in eth0", "quaywall denied", "reject policy.yaml:4 inbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:5432 in eth0", "quaywall denied", "deny default inbound db"},
		{"tcp [2001:db8::9]:40000 -> [2001:db8::1]:8080 in eth0", "quaywall denied", "deny policy.yaml:3 inbound"},
		{"icmp/8 203.0.113.9 -> 203.0.113.1 in eth0", "quaywall denied", "deny default inbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:22 in eth0", "quaywall denied",
			"deny policy.yaml:5 inbound more than the rule's limit came from this source"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall denied", "deny  inbound the policy or Docker's networks have changed since"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0 state invalid", "quaywall denied",
			"deny  inbound hygiene: connection tracking calls it invalid"},
		{"tcp 203.0.113.9:40000 -> 172.17.0.2:8080 in eth0", "quaywall denied",
			"deny  inbound web a container's own address is dialled from outside"},
		{"tcp 203.0.113.9:40000 -> 172.17.0.9:8080 in eth0", "quaywall denied",
			"deny  inbound a container's own address is dialled from outside"},
		{"udp 172.17.0.3:40000 -> 203.0.113.9:53 in docker0", "quaywall denied", "deny policy.yaml:9 egress db"},
		{"udp 172.17.0.3:40000 -> 203.0.113.1:53 in docker0", "quaywall denied", "deny policy.yaml:9 egress db"},
		{"tcp 203.0.113.1:40000 -> 203.0.113.9:25 from host", "quaywall denied", "deny policy.yaml:11 outbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall allow policy.yaml:7", "allow policy.yaml:7 inbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall deny other.yaml:70", "deny other.yaml:70 inbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:9090 in eth0", "quaywall would deny", "would reject policy.yaml:4 inbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:22 in eth0", "quaywall would deny",
			"would deny policy.yaml:5 inbound more than the rule's limit came from this source"},
		{"tcp 203.0.113.9:40000 -> 172.17.0.2:8080 in eth0", "quaywall would deny",
			"would deny  inbound web a container's own address is dialled from outside"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall would reject other.yaml:70", "would reject other.yaml:70 inbound"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall would", "none"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall would somehow", "none"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall deny", "none"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "", "none"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall", "none"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "quaywall somehow", "none"},
		{"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0", "ulogd denied", "none"},
	} {
		q, err := packet.Parse(test.packet)
		if err != nil {
			t.Fatal(err)
		}
		var e Entry
		got := "none"
		if (Facts{p, testInventory, testAddrs}).explain(&e, q.Packet, test.prefix) {
			got = strings.TrimRight(strings.Join(append([]string{e.Verdict, e.Line, e.Section}, nonEmpty(e.Container, e.Why)...), " "), " ")
		}
		if got != test.want {
			t.Errorf("%s, %q:\n got %s\nwant %s", test.packet, test.prefix, got, test.want)
		}
		if got != "none" && (e.Packet != test.packet || e.Src != q.Src || e.DstPort != q.DstPort || e.In != q.In) {
			t.Errorf("%s is told as %+v", test.packet, e)
		}
	}
}

func nonEmpty(all ...string) []string {
	var list []string
	for _, s := range all {
		if s != "" {
			list = append(list, s)
		}
	}
	return list
}

// TestLongLine: of a line too long for the kernel the end is logged; the policy knows the rest.
func TestLongLine(t *testing.T) {
	name := strings.Repeat("long-", 12) + "name.yaml"
	p, list := policy.Parse(name, []byte("version: 1\ninbound:\n  - deny: 80\n    log: true\n"))
	if list.HasErrors() {
		t.Fatal(list)
	}
	q, err := packet.Parse("tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0")
	if err != nil {
		t.Fatal(err)
	}
	line := name + ":3"
	head := "quaywall deny "
	for want, logged := range map[string]string{line: line[len(head)+len(line)-prefixMax:], "name.yaml:3": "name.yaml:3"} {
		var e Entry
		if !(Facts{p, testInventory, nil}).explain(&e, q.Packet, head+logged) || e.Line != want {
			t.Errorf("%q is told as line %q, want %q", logged, e.Line, want)
		}
	}
}

// TestNothingKnown: without a policy a packet is told all the same.
func TestNothingKnown(t *testing.T) {
	for text, want := range map[string]string{
		"tcp 203.0.113.9:40000 -> 203.0.113.1:80 in eth0":   "inbound",
		"tcp 172.17.0.2:40000 -> 203.0.113.1:80 in docker0": "egress",
		"tcp 203.0.113.1:40000 -> 203.0.113.9:25 from host": "outbound",
	} {
		q, err := packet.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var e Entry
		if !(Facts{}).explain(&e, q.Packet, "quaywall denied") || e.Verdict != "deny" || e.Section != want || e.Why != "the policy in force is not known" {
			t.Errorf("%s is told as %+v", text, e)
		}
	}
}
