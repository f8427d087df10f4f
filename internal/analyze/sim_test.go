package analyze

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/parse/ipset"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/dockerhost"
)

// rules makes random tables of iptables around those of Docker's. They are written for IPv4; six makes them IPv6's.
type rules struct{ *rand.Rand }

// six has addresses of IPv6 in the place of those of IPv4, in rules and in packets.
var six = strings.NewReplacer("203.0.113.0/255.255.0.255", "2001:db8::/ffff:ffff::ffff", "172.17.0.2:8000", "[fd00:17::2]:8000", "0.0.0.0/1", "::/1",
	"198.51.100.0/24", "2001:db8:51::/64", "203.0.113.1/32", "2001:db8:113::1/128", "172.17.0.2/32", "fd00:17::2/128", "172.17.0.0/16", "fd00:17::/64",
	"127.0.0.0/8", "::1/128", "/32", "/128", "198.51.100.", "2001:db8:51::", "203.0.113.", "2001:db8:113::", "172.17.0.", "fd00:17::", "8.8.8.8", "2a00::8",
	"-p icmp -m icmp --icmp-type", "-p ipv6-icmp -m icmp6 --icmpv6-type", "icmp:8/0", "icmpv6:128/0", "family inet ", "family inet6 ")

func pick[T any](r rules, all ...T) T { return all[r.IntN(len(all))] }

// matches are those of a rule; hook is where it stands.
func (r rules) matches(hook string) string {
	var words []string
	add := func(format string, args ...any) {
		if r.IntN(3) == 0 {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	not := func() string { return pick(r, "", "! ") }
	add("%s-s %s", not(), pick(r, "198.51.100.0/24", "198.51.100.7/32", "172.17.0.0/16", "0.0.0.0/1"))
	add("%s-d %s", not(), pick(r, "203.0.113.1/32", "172.17.0.2/32", "172.17.0.0/16", "203.0.113.0/255.255.0.255"))
	if hook != "OUTPUT" {
		add("%s-i %s", not(), pick(r, "eth0", "docker0", "eth+", "lo"))
	}
	if hook == "FORWARD" || hook == "POSTROUTING" {
		add("%s-o %s", not(), pick(r, "eth0", "docker0", "d+"))
	}
	add("-m addrtype %s--dst-type %s", not(), pick(r, "LOCAL", "UNICAST"))
	add("-m mark %s--mark %s", not(), pick(r, "0x1/0x1", "0x2", "0x3/0x3", "0x0"))
	add("-m connlabel %s--label 86", not())
	add("-m conntrack --ctstate %s", pick(r, "NEW", "ESTABLISHED,RELATED", "NEW,INVALID"))
	if hook != "PREROUTING" {
		add("-m conntrack %s--ctorigdstport %s", not(), pick(r, "10000", "8000:10001"))
		add("-m conntrack %s--ctorigdst %s", not(), pick(r, "203.0.113.1", "172.17.0.0/16"))
		add("-m conntrack %s--ctstate DNAT", not())
	}
	add("-m set %s--match-set ports %s", not(), pick(r, "src", "dst"))
	add("-m set %s--match-set pairs %s", not(), pick(r, "src,dst", "dst,dst"))
	switch r.IntN(5) {
	case 3:
		words = append(words, "-p icmp -m icmp --icmp-type "+pick(r, "8", "9"))
	case 0:
		words = append(words, fmt.Sprintf("-p tcp -m tcp %s--dport %s", not(), pick(r, "8000", "10000", "22:8001", "10001:65535")))
	case 1:
		words = append(words, fmt.Sprintf("-p tcp -m multiport %s--dports %s", not(), pick(r, "22,10000", "8000:8001,10001")))
	case 2:
		words = append(words, fmt.Sprintf("%s-p udp", not()))
	}
	if r.IntN(25) == 0 {
		words = append(words, `-m string --algo bm --string x`)
	}
	return strings.Join(words, " ")
}

func (r rules) target(table string, chains []string) string {
	all := []string{"-j ACCEPT", "-j RETURN", "-j DROP"}
	for _, c := range chains {
		all = append(all, "-j "+c, "-j "+c, "-g "+c)
	}
	switch table {
	case "mangle":
		all = append(all, "-j MARK --set-xmark 0x1/0x1", "-j MARK --set-xmark 0x2/0xffffffff", "-j MARK --set-xmark 0x0/0x3",
			"-m connlabel --label 86 --set")
	case "nat":
		all = []string{"-j ACCEPT", "-j RETURN", "-p tcp -j DNAT --to-destination 172.17.0.2:8000", "-p tcp -j DNAT --to-destination 172.17.0.2",
			"-p tcp -j REDIRECT --to-ports 22", "-p tcp -j DNAT --to-destination :10001"}
		for _, c := range chains {
			all = append(all, "-j "+c, "-g "+c)
		}
	}
	return pick(r, all...)
}

// around puts random rules in front of those of a table's hooks.
func (r rules) around(text string) string {
	for _, at := range [][]string{{"mangle", "PREROUTING", "INPUT", "FORWARD"}, {"filter", "INPUT", "FORWARD"}, {"nat", "PREROUTING"}, {"raw", "PREROUTING"}} {
		table, hooks := at[0], at[1:]
		var heads, body strings.Builder
		for _, hook := range hooks {
			chains := []string{hook + "a", hook + "b", hook + "c"}
			for i, c := range chains {
				fmt.Fprintf(&heads, ":%s - [0:0]\n", c)
				for range r.IntN(4) {
					fmt.Fprintf(&body, "-A %s %s %s\n", c, r.matches(hook), r.target(table, chains[i+1:]))
				}
			}
			for range r.IntN(4) {
				fmt.Fprintf(&body, "-A %s %s %s\n", hook, r.matches(hook), r.target(table, chains))
			}
		}
		if table == "mangle" {
			text += "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n" + heads.String() + body.String() + "COMMIT\n"
			continue
		}
		at := strings.Index(text, "*"+table+"\n") + len(table) + 2
		text = text[:at] + heads.String() + text[at:]
		at = strings.Index(text[at:], "\n-A ") + at + 1
		text = text[:at] + body.String() + text[at:]
	}
	return text
}

// sets are what rules ask for: ports in a row, which are an element each, pairs of an address and a port, and the numbers that
// stand for types of ICMP.
func (r rules) sets() string {
	var b strings.Builder
	b.WriteString("create ports bitmap:port range 0-65535\ncreate pairs hash:ip,port family inet hashsize 1024 maxelem 65536\n")
	first := pick(r, 20, 2040, 8000, 9995)
	for i := range 1 + r.IntN(30) {
		fmt.Fprintf(&b, "add ports %d\n", first+i)
	}
	for range r.IntN(5) {
		fmt.Fprintf(&b, "add pairs %s,%s\n", pick(r, "198.51.100.7", "203.0.113.1", "172.17.0.2"), pick(r, "tcp:8000", "tcp:10000", "udp:22", "icmp:8/0"))
	}
	return b.String()
}

// dual has a made-up host have IPv6 beside IPv4.
func dual(h *dockerhost.Host) {
	h.Sysctls["net.ipv6.conf.all.forwarding"] = "1"
	h.Inventory.Networks[0].Subnets = append(h.Inventory.Networks[0].Subnets, netip.MustParsePrefix("fd00:17::/64"))
	for i, addr := range []string{"fd00:17::1/64", "2001:db8:113::1/64", "::1/128"} {
		p, dev := netip.MustParsePrefix(addr), h.Inventory.Interfaces[i].Name
		h.Inventory.Interfaces[i].Addrs = append(h.Inventory.Interfaces[i].Addrs, p)
		h.Routes = append(h.Routes, snapshot.Route{Table: "local", Type: typeLocal, Dst: netip.PrefixFrom(p.Addr(), 128), Dev: dev},
			snapshot.Route{Table: "main", Type: typeUnicast, Dst: p.Masked(), Dev: dev})
	}
	h.Routes = append(h.Routes, snapshot.Route{Table: "main", Type: typeUnicast, Dst: netip.MustParsePrefix("::/0"), Dev: "eth0"})
	for _, rule := range h.Policies {
		rule.Family = netfilter.IPv6
		h.Policies = append(h.Policies, rule)
	}
}

// dialled is a packet from outside.
func (r rules) dialled(family netfilter.Family) packet.Query {
	addr := func(texts ...string) netip.Addr {
		text := pick(r, texts...)
		if family == netfilter.IPv6 {
			text = six.Replace(text)
		}
		return netip.MustParseAddr(text)
	}
	pk := packet.Packet{Proto: pick[uint8](r, 6, 6, 6, 17, 1), Src: addr("198.51.100.7", "198.51.100.9", "8.8.8.8", "172.17.0.9"),
		Dst: addr("203.0.113.1", "172.17.0.1", "172.17.0.2"), In: "eth0"}
	switch pk.Proto {
	case 1:
		pk.ICMPType = pick[uint8](r, 8, 8, 13)
		if family == netfilter.IPv6 {
			pk.Proto, pk.ICMPType = 58, 128
		}
	default:
		pk.SrcPort, pk.DstPort, pk.Flags = 40000, pick[uint16](r, 22, 8000, 10000, 10001), packet.SYN
	}
	if s := pk.Src.String(); s == "172.17.0.9" || s == "fd00:17::9" {
		pk.In = "docker0"
	}
	return packet.Query{Packet: pk}
}

// seedOf is where a random test begins, and how many hosts it tries: QUAYWALL_SEED repeats a run, QUAYWALL_POLICIES makes it
// longer.
func seedOf(t *testing.T) (seed uint64, hosts int) {
	seed, hosts = uint64(time.Now().UnixNano()), 100
	if s, err := strconv.ParseUint(os.Getenv("QUAYWALL_SEED"), 10, 64); err == nil {
		seed = s
	}
	if n, err := strconv.Atoi(os.Getenv("QUAYWALL_POLICIES")); err == nil {
		hosts = n
	}
	t.Logf("seed %d", seed)
	return seed, hosts
}

// TestAgainstSimulator asks the simulator, which shares no code with this, about single packets of random rules, in both families.
func TestAgainstSimulator(t *testing.T) {
	t.Parallel()
	seed, hosts := seedOf(t)
	for i := range uint64(hosts) {
		r := rules{rand.New(rand.NewPCG(seed+i, 1))}
		family := pick(r, netfilter.IPv4, netfilter.IPv6)
		h := dockerhost.Make(1, 2)
		dual(h)
		h.Sockets = append(h.Sockets, snapshot.Socket{Proto: 6, Addr: netip.IPv6Unspecified(), Both: true, Port: 22, Process: "sshd"})
		text, sets := r.around(h.Rules), r.sets()
		if family == netfilter.IPv6 {
			text, sets = six.Replace(text), six.Replace(sets)
		}
		var problems diag.List
		if h.Host.Rules.Sets, problems = ipset.Parse(sets, "sets"); len(problems) > 0 {
			t.Fatal(problems)
		}
		h.Host.Rules.Tables, problems = iptsave.Parse(text, iptsave.Options{Family: family, Sets: h.Host.Rules.Sets})
		whole, err1 := audit(context.Background(), &h.Host, family, nil, false)
		narrowed, err2 := audit(context.Background(), &h.Host, family, nil, true)
		if !sameRows(whole, narrowed) || err1 != nil || err2 != nil {
			t.Fatalf("seed %d: all at once %q %v, narrowed %q %v", seed+i, rows(whole), err1, rows(narrowed), err2)
		}
		a, s := New(&h.Host, family), sim.New(&h.Host)
		for range 40 {
			q := r.dialled(family)
			if q.In == "docker0" && slices.ContainsFunc(h.Inventory.Networks[0].Subnets, func(p netip.Prefix) bool { return p.Contains(q.Dst) }) && !a.local.Contains(q.Dst) {
				continue // from port to port of a bridge
			}
			trace, err := s.Explain(q, sim.Options{})
			if err != nil {
				t.Fatal(err)
			}
			may, must := a.Dials(q)
			want := map[sim.Verdict][2]bool{sim.Accept: {true, true}, sim.Drop: {false, false}, sim.Reject: {false, false}, sim.Unknown: {true, false}}[trace.Verdict]
			if in, sure := a.Holds(q); in != may || sure != must {
				t.Fatalf("seed %d: %s: may %v, must %v one by one, %v and %v with all\n%s", seed+i, q, may, must, in, sure, text)
			}
			if got := [2]bool{may, must}; got != want {
				t.Fatalf("seed %d: %s: the simulator says %s (%s), the sets say may %v, must %v\n%s%s%v", seed+i, q, trace.Verdict, trace.Why, may, must, sets, text, problems)
			}
		}
	}
}
