package iptsave

import (
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
)

type (
	match   = netfilter.Match
	compare = netfilter.Compare
)

// sets are what the rules of tests ask for.
var sets = []*netfilter.Set{
	{Name: "hosts", Type: "hash:ip", Family: netfilter.IPv4},
	{Name: "hosts6", Type: "hash:net", Family: netfilter.IPv6},
	{Name: "services", Type: "hash:ip,port", Family: netfilter.IPv4},
	{Name: "ports", Type: "bitmap:port", Family: netfilter.Inet},
	{Name: "macs", Type: "hash:mac", Family: netfilter.Inet},
	{Name: "links", Type: "hash:net,iface", Family: netfilter.IPv4},
	{Name: "both", Type: "list:set", Members: []string{"hosts", "services"}},
	{Name: "alike", Type: "list:set", Members: []string{"hosts"}},
}

func addrs(f netfilter.Field, list string, not bool) match {
	return compare{Field: f, Values: netfilter.Values{Addrs: netset.MustParse(list)}, Not: not}
}

func named(f netfilter.Field, not bool, list ...string) match {
	return compare{Field: f, Values: netfilter.Values{Names: list}, Not: not}
}

// nums compares with ranges, given as pairs of their ends.
func nums(f netfilter.Field, not bool, ends ...uint64) match {
	c := compare{Field: f, Not: not}
	for i := 0; i < len(ends); i += 2 {
		c.Numbers = append(c.Numbers, netfilter.Range{First: ends[i], Last: ends[i+1]})
	}
	return c
}

func bits(f netfilter.Field, value, mask uint64, not bool) match {
	return compare{Field: f, Mask: mask, Values: netfilter.Values{Numbers: []netfilter.Range{{First: value, Last: value}}}, Not: not}
}

func not(ms ...match) match { return netfilter.Any{Of: [][]match{ms}, Not: true} }

func anyOf(of ...[]match) match { return netfilter.Any{Of: of} }

// parseRule reads one rule of a table that has a chain X.
func parseRule(t *testing.T, family netfilter.Family, spec string) *netfilter.Rule {
	t.Helper()
	tables, _ := Parse("*mangle\n:INPUT ACCEPT [0:0]\n:X - [0:0]\n-A INPUT "+spec+"\nCOMMIT\n",
		Options{Family: family, Dialect: netfilter.IPTablesLegacy, Sets: sets})
	return tables[0].Chains[0].Rules[0]
}

const (
	src, dst   = netfilter.Src, netfilter.Dst
	proto      = netfilter.Proto
	sport      = netfilter.SrcPort
	dport      = netfilter.DstPort
	state      = netfilter.CtState
	status     = netfilter.CtStatus
	in, out    = netfilter.InIface, netfilter.OutIface
	icmp, code = netfilter.ICMPType, netfilter.ICMPCode
)

var tcp = nums(proto, false, 6, 6)

// TestMatches: each line means what the kernel does with it.
func TestMatches(t *testing.T) {
	ct4 := nums(state, false, 3, 4)
	for _, c := range []struct {
		spec string
		want []match
	}{
		{"", nil},
		{"-s 10.0.0.0/8", []match{addrs(src, "10.0.0.0/8", false)}},
		{"! -s 10.0.0.0/8", []match{addrs(src, "10.0.0.0/8", true)}},
		{"-s ! 10.0.0.0/8", []match{addrs(src, "10.0.0.0/8", true)}},
		{"-d 10.1/255.255.0.0", []match{addrs(dst, "10.1.0.0/16", false)}},
		{"-d 10.1.2.3,192.0.2.1/32", []match{addrs(dst, "10.1.2.3 192.0.2.1", false)}},
		{"! -d 10.9.9.1/255.0.0.255", []match{compare{Field: dst, AddrMask: netip.MustParseAddr("255.0.0.255"),
			Values: netfilter.Values{Addrs: netset.MustParse("10.0.0.1")}, Not: true}}},
		{"-s 0.0.0.0/0", []match{addrs(src, "0.0.0.0/0", false)}},
		{"-s example.org", []match{netfilter.Opaque{Text: "-s example.org"}}},
		{"-i eth+ ! -o docker0", []match{named(in, false, "eth*"), named(out, true, "docker0")}},
		{"-i eth*", []match{named(in, false, `eth\*`)}},
		{"! -i +", []match{named(in, true, "*")}},
		{`-i ""`, []match{named(in, false, "*")}},
		{"-p all", nil},
		{"! -p tcp", []match{nums(proto, true, 6, 6)}},
		{"-p 47 -f", []match{nums(proto, false, 47, 47), nums(netfilter.FragmentOffset, false, 1, 8191)}},
		{"! -f", []match{nums(netfilter.FragmentOffset, false, 0, 0)}},
		{"-p tcp -m tcp", []match{tcp, nums(dport, false, 0, 65535)}},
		{"-p tcp -m tcp --dport 80", []match{tcp, nums(dport, false, 80, 80)}},
		{"-p tcp -m tcp ! --sport 1024: --dport :80", []match{tcp, nums(sport, true, 1024, 65535), nums(dport, false, 0, 80)}},
		{"-p tcp --dport ! ssh", []match{tcp, nums(dport, true, 22, 22)}},
		{"-p tcp -m state --state NEW --dport 22", []match{tcp, nums(state, false, 0, 0), nums(dport, false, 22, 22)}},
		{"-p udp --sport 90:80", []match{nums(proto, false, 17, 17), nums(sport, false)}},
		{"-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", []match{tcp, bits(netfilter.TCPFlags, 2, 23, false)}},
		{"-p tcp -m tcp ! --syn", []match{tcp, bits(netfilter.TCPFlags, 2, 23, true)}},
		{"-p tcp -m tcp --tcp-flags ALL NONE", []match{tcp, bits(netfilter.TCPFlags, 0, 63, false)}},
		{"-p tcp -m tcp --tcp-flags NONE NONE", []match{tcp, nums(dport, false, 0, 65535), netfilter.Any{Not: true}}},
		{"-p tcp -m tcp ! --tcp-option 5", []match{tcp, nums(dport, false, 0, 65535), not(nums(netfilter.TCPOption, false, 5, 5))}},
		{"-p udplite -m multiport --dports 53,1000:2000", []match{nums(proto, false, 136, 136), nums(dport, false, 53, 53, 1000, 2000)}},
		{"-p tcp -m multiport ! --ports 80", []match{tcp, nums(dport, false, 0, 65535), netfilter.Any{Not: true,
			Of: [][]match{{nums(sport, false, 80, 80)}, {nums(dport, false, 80, 80)}}}}},
		{"-p icmp -m icmp --icmp-type 8", []match{nums(proto, false, 1, 1), nums(icmp, false, 8, 8)}},
		{"-p icmp -m icmp --icmp-type any", []match{nums(proto, false, 1, 1), nums(icmp, false, 0, 255)}},
		{"-p icmp -m icmp ! --icmp-type 255", []match{nums(proto, false, 1, 1), nums(icmp, true, 0, 255)}},
		{"-p icmp --icmp-type host-unreachable", []match{nums(proto, false, 1, 1), nums(icmp, false, 3, 3), nums(code, false, 1, 1)}},
		{"-p icmp -m icmp ! --icmp-type 3/4", []match{nums(proto, false, 1, 1), nums(icmp, false, 0, 255),
			not(nums(icmp, false, 3, 3), nums(code, false, 4, 4))}},
		{"-m conntrack --ctstate RELATED,ESTABLISHED", []match{nums(state, false, 2, 2, 1, 1)}},
		{"-m state ! --state INVALID", []match{nums(state, true, 3, 3)}},
		{"-m conntrack --ctstate DNAT", []match{compare{Field: status, Mask: 32, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 1, Last: 32}}}}}},
		{"-m conntrack ! --ctstate DNAT", []match{not(compare{Field: status, Mask: 32, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 1, Last: 32}}}})}},
		{"-m conntrack --ctstate NEW,SNAT", []match{anyOf([]match{nums(state, false, 0, 0)},
			[]match{compare{Field: status, Mask: 16, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 1, Last: 16}}}}})}},
		{"-m conntrack --ctstate INVALID --ctorigdst 192.0.2.1", []match{nums(state, false, 3, 3),
			anyOf([]match{ct4}, []match{addrs(netfilter.CtOrigDst, "192.0.2.1", false)})}},
		{"-m conntrack --ctstate NEW --ctorigdstport 80", []match{nums(state, false, 0, 0), nums(netfilter.CtOrigDstPort, false, 80, 80)}},
		{"-m conntrack --ctdir REPLY --ctproto 17", []match{nums(netfilter.CtDirection, false, 1, 1), nums(netfilter.CtProto, false, 17, 17)}},
		{"-m conntrack ! --ctstatus ASSURED,EXPECTED", []match{compare{Field: status, Mask: 5, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 1, Last: 5}}}, Not: true}}},
		{"-m conntrack --ctstatus NONE", []match{nums(status, false)}},
		{"-m conntrack --ctstate BOGUS", []match{netfilter.Opaque{Text: "-m conntrack --ctstate BOGUS"}}},
		{"-m addrtype --dst-type LOCAL", []match{nums(netfilter.DstType, false, 2, 2)}},
		{"-m addrtype ! --src-type LOCAL,UNICAST --limit-iface-in", []match{nums(netfilter.SrcTypeIn, true, 2, 2, 1, 1)}},
		{"-m addrtype --src-type LOCAL --limit-iface-out", []match{nums(netfilter.SrcTypeOut, false, 2, 2)}},
		{"-m set --match-set hosts src", []match{netfilter.In{Fields: []netfilter.Field{src}, Set: "hosts"}}},
		{"-m set ! --match-set services dst,src", []match{not(netfilter.In{Fields: []netfilter.Field{dst, proto, netfilter.IPSetSrcPort}, Set: "services"})}},
		{"-m set --match-set services src", []match{netfilter.Any{}}},
		{"-m set ! --match-set hosts6 src", []match{netfilter.Any{Not: true}}},
		{"-m set --set ports dst", []match{netfilter.In{Fields: []netfilter.Field{proto, netfilter.IPSetDstPort}, Set: "ports"}}},
		{"-m set ! --match-set links src,dst", []match{netfilter.In{Fields: []netfilter.Field{src, out}, Set: "links", Not: true}}},
		{"-m set --match-set both src,dst", []match{anyOf([]match{netfilter.In{Fields: []netfilter.Field{src}, Set: "hosts"}},
			[]match{netfilter.In{Fields: []netfilter.Field{src, proto, netfilter.IPSetDstPort}, Set: "services"}})}},
		{"-m set --match-set alike src", []match{netfilter.In{Fields: []netfilter.Field{src}, Set: "alike"}}},
		{"-m set --match-set gone src", []match{netfilter.Opaque{Text: "-m set --match-set gone src"}}},
		{"-m mark --mark 0x1/0xff", []match{bits(netfilter.Mark, 1, 255, false)}},
		{"-m mark ! --mark 10", []match{nums(netfilter.Mark, true, 10, 10)}},
		{"-m mark --mark 0/0", []match{netfilter.Any{Not: true}}},
		{"-m connmark --mark 0x20/0x20", []match{bits(netfilter.CtMark, 32, 32, false)}},
		{"-m connlabel ! --label 3", []match{not(nums(netfilter.CtLabel, false, 3, 3))}},
		{"-m connlabel --label 3 --set -j X", []match{nums(netfilter.CtDirection, false, 0, 1)}},
		{"-m connlabel --label 3 --set -m ttl --ttl-eq 1", []match{netfilter.Opaque{Text: "-m connlabel --label 3 --set"}, nums(netfilter.TTL, false, 1, 1)}},
		{"-m mac ! --mac-source 02:00:00:00:00:0A", []match{nums(netfilter.SrcMAC, true, 0x02000000000a, 0x02000000000a)}},
		{"-m physdev --physdev-is-bridged --physdev-in veth+", []match{nums(netfilter.Bridged, false, 1, 1), named(netfilter.InBridgePort, false, "veth*")}},
		{"-m physdev ! --physdev-is-in", []match{named(netfilter.InBridgePort, false, "")}},
		{"-m physdev ! --physdev-out v1", []match{anyOf([]match{named(netfilter.InBridgePort, false, ""), named(netfilter.OutBridgePort, false, "")},
			[]match{named(netfilter.OutBridgePort, true, "", "v1")})}},
		{"-m iprange --src-range 10.0.0.1-10.0.0.9 ! --dst-range 192.0.2.1-192.0.2.1",
			[]match{addrs(src, "10.0.0.1-10.0.0.9", false), addrs(dst, "192.0.2.1", true)}},
		{"-m owner --uid-owner 1000-1999", []match{nums(netfilter.UID, false, 1000, 1999)}},
		{"-m owner ! --gid-owner 5", []match{not(nums(netfilter.GID, false, 5, 5))}},
		{"-m pkttype --pkt-type broadcast", []match{nums(netfilter.PacketType, false, 1, 1)}},
		{"-m length --length 100:", []match{nums(netfilter.Length, false, 100, 65535)}},
		{"-m ttl --ttl-gt 5", []match{nums(netfilter.TTL, false, 6, 255)}},
		{"-m ttl --ttl-lt 5", []match{nums(netfilter.TTL, false, 0, 4)}},
		{"-m ttl ! --ttl-eq 5", []match{nums(netfilter.TTL, true, 5, 5)}},
		{"-m dscp ! --dscp-class AF41", []match{nums(netfilter.DSCP, true, 34, 34)}},
		{"-m tos --tos 0x10/0x3f", []match{bits(netfilter.DSCP, 4, 15, false), bits(netfilter.ECN, 0, 3, false)}},
		{"-m ecn ! --ecn-ip-ect 1", []match{nums(netfilter.ECN, true, 1, 1)}},
		{"-m devgroup --src-group 0x1/0xf", []match{bits(netfilter.InGroup, 1, 15, false)}},
		{"-m policy --dir in --pol ipsec", []match{nums(netfilter.IPsecIn, false, 1, 1)}},
		{"-m policy --dir out --pol none", []match{nums(netfilter.IPsecOut, false, 0, 0)}},
		{"-m rpfilter --invert", []match{nums(netfilter.ReverseRoute, true, 1, 1)}},
		{"-m rpfilter --loose", []match{nums(netfilter.ReverseRouteLoose, false, 1, 1)}},
		{"-m socket --transparent", []match{nums(netfilter.SocketFound, false, 1, 1), nums(netfilter.SocketTransparent, false, 1, 1), nums(netfilter.SocketWildcard, false, 0, 0)}},
		{"-m cgroup --path user.slice", []match{named(netfilter.CGroup, false, "/user.slice", "/user.slice/*")}},
		{"-m helper ! --helper ftp", []match{not(named(netfilter.CtHelper, false, "ftp"))}},
		{"-m limit --limit 3/min --limit-burst 10", []match{netfilter.Stateful{Kind: "limit", Text: "-m limit --limit 3/min --limit-burst 10", Fresh: true}}},
		{"-m recent --rcheck --seconds 60 --name BAD --rsource", []match{netfilter.Stateful{Kind: "recent", Text: "-m recent --rcheck --seconds 60 --name BAD --rsource"}}},
		{"-m recent ! --rcheck --name BAD", []match{netfilter.Stateful{Kind: "recent", Text: "-m recent ! --rcheck --name BAD", Fresh: true}}},
		{"-m recent --set", []match{netfilter.Stateful{Kind: "recent", Text: "-m recent --set", Fresh: true}}},
		{"-m hashlimit --hashlimit-above 5/sec --hashlimit-name a", []match{netfilter.Stateful{Kind: "hashlimit", Text: "-m hashlimit --hashlimit-above 5/sec --hashlimit-name a"}}},
		{"-m hashlimit --hashlimit-upto 5/sec --hashlimit-name a", []match{netfilter.Stateful{Kind: "hashlimit", Text: "-m hashlimit --hashlimit-upto 5/sec --hashlimit-name a", Fresh: true}}},
		{"-m connlimit --connlimit-above 2", []match{netfilter.Stateful{Kind: "connlimit", Text: "-m connlimit --connlimit-above 2"}}},
		{"-m quota --quota 100", []match{netfilter.Stateful{Kind: "quota", Text: "-m quota --quota 100", Fresh: true}}},
		{"-m string --algo bm --string \"a -j DROP\" -i lo", []match{netfilter.Opaque{Text: `-m string --algo bm --string "a -j DROP"`}, named(in, false, "lo")}},
		{"-m frobnicate --x 1 ! --y -s 10.0.0.1", []match{addrs(src, "10.0.0.1", false), netfilter.Opaque{Text: "-m frobnicate --x 1 ! --y"}}},
		{"-m tcpmss --mss 1:500", []match{netfilter.Opaque{Text: "-m tcpmss --mss 1:500"}}},
		{"[unsupported revision] -s 10.0.0.1", []match{netfilter.Opaque{Text: "[unsupported"}, netfilter.Opaque{Text: "revision]"}, addrs(src, "10.0.0.1", false)}},
		{"-m comment --comment -j -s 10.0.0.1", []match{addrs(src, "10.0.0.1", false)}},
	} {
		checkMatches(t, parseRule(t, netfilter.IPv4, c.spec), c.want, c.spec)
	}
}

// checkMatches compares matches in whichever order: those of the packet's header stand before the others in a rule's text.
func checkMatches(t *testing.T, r *netfilter.Rule, want []match, spec string) {
	t.Helper()
	left := append([]match(nil), r.Matches...)
	for _, w := range want {
		found := -1
		for i, m := range left {
			if reflect.DeepEqual(m, w) {
				found = i
			}
		}
		if found < 0 {
			t.Errorf("%s\n  got  %+v\n  want %+v", spec, r.Matches, want)
			return
		}
		left = append(left[:found], left[found+1:]...)
	}
	if len(left) > 0 {
		t.Errorf("%s\n  has besides %+v", spec, left)
	}
}

func TestMatches6(t *testing.T) {
	icmp6 := nums(proto, false, 58, 58)
	for _, c := range []struct {
		spec string
		want []match
	}{
		{"-p ipv6-icmp -m icmp6 --icmpv6-type 135", []match{icmp6, nums(netfilter.ICMPv6Type, false, 135, 135)}},
		{"-p icmpv6 --icmpv6-type neighbour-advertisement", []match{icmp6, nums(netfilter.ICMPv6Type, false, 136, 136)}},
		{"-p ipv6-icmp -m icmp6 --icmpv6-type 1/4", []match{icmp6, nums(netfilter.ICMPv6Type, false, 1, 1), nums(netfilter.ICMPv6Code, false, 4, 4)}},
		{"-d ::1234/::ffff:ffff:ffff:ffff", []match{compare{Field: dst, AddrMask: netip.MustParseAddr("::ffff:ffff:ffff:ffff"),
			Values: netfilter.Values{Addrs: netset.MustParse("::1234")}}}},
		{"-m addrtype --dst-type UNICAST,LOCAL", []match{addrs(dst, "ff00::/8 ::", true), nums(netfilter.DstType, false, 2, 2)}},
		{"-m addrtype ! --dst-type MULTICAST", []match{not(addrs(dst, "ff00::/8", false))}},
		{"-m hl --hl-eq 255", []match{nums(netfilter.TTL, false, 255, 255)}},
		{"-m frag --fragfirst", []match{nums(netfilter.ExtHeader, false, 44, 44), nums(netfilter.FragmentOffset, false, 0, 0)}},
		{"-m rt --rt-type 0 --rt-segsleft 1", []match{netfilter.Opaque{Text: "-m rt --rt-type 0"}, netfilter.Opaque{Text: "-m rt --rt-segsleft 1"}}},
		{"-m rpfilter --validmark --invert", []match{anyOf(
			[]match{nums(netfilter.ReverseRoute, true, 1, 1), nums(netfilter.Mark, false, 0, 0)},
			[]match{nums(netfilter.Mark, true, 0, 0), netfilter.Opaque{Text: "-m rpfilter --validmark --invert"}})}},
		{"-m set --match-set hosts6 src", []match{netfilter.In{Fields: []netfilter.Field{src}, Set: "hosts6"}}},
	} {
		checkMatches(t, parseRule(t, netfilter.IPv6, c.spec), c.want, c.spec)
	}
}

func TestTargets(t *testing.T) {
	type action = netfilter.Action
	assign := func(f netfilter.Field, value, mask uint64) action {
		return netfilter.Assign{Field: f, Mask: mask, Value: value}
	}
	group := func(n uint16) *uint16 { return &n }
	to := func(list string, ports ...netfilter.Range) netfilter.Translate {
		return netfilter.Translate{Addrs: netfilter.Values{Addrs: netset.MustParse(list)}, Ports: ports}
	}
	kind := func(k netfilter.NATKind, tr netfilter.Translate) netfilter.Translate { tr.Kind = k; return tr }
	shifted := to("", netfilter.Range{First: 5000, Last: 5010})
	shifted.Base = 80
	for _, c := range []struct {
		spec string
		want action // nil where there is none
	}{
		{"", nil},
		{"-j ACCEPT", netfilter.Verdict{Kind: netfilter.Accept}},
		{"-j RETURN", netfilter.Verdict{Kind: netfilter.Return}},
		{"-j QUEUE", netfilter.Verdict{Kind: netfilter.Queue}},
		{"-j NFQUEUE --queue-num 3 --queue-bypass", netfilter.Verdict{Kind: netfilter.Queue}},
		{"-j X", netfilter.Verdict{Kind: netfilter.Jump, Chain: "X"}},
		{"-g X", netfilter.Verdict{Kind: netfilter.Goto, Chain: "X"}},
		{"-j NOWHERE", netfilter.OpaqueAction{Text: "-j NOWHERE"}},
		{"-g NOWHERE", netfilter.OpaqueAction{Text: "-g NOWHERE"}},
		{"-j FROB --nicate 5", netfilter.OpaqueAction{Text: "-j FROB --nicate 5"}},
		{"-j ACCEPT -j DROP", netfilter.OpaqueAction{Text: "more than one target"}},
		{"-j REJECT", netfilter.Reject{}},
		{"-j REJECT --reject-with tcp-reset", netfilter.Reject{With: "tcp reset"}},
		{"-j REJECT --reject-with icmp-port-unreachable", netfilter.Reject{With: "icmp-port-unreachable"}},
		{"-j DNAT --to-destination 172.17.0.2:80", to("172.17.0.2", netfilter.Range{First: 80, Last: 80})},
		{"-j DNAT --to-destination :5000-5010/80", shifted},
		{"-j DNAT --to-destination 10.0.0.1-10.0.0.9", to("10.0.0.1-10.0.0.9")},
		{"-j DNAT --to-destination [fd00::2]:80", to("fd00::2", netfilter.Range{First: 80, Last: 80})},
		{"-j DNAT --to-destination fd00::2", to("fd00::2")},
		{"-j DNAT --to-destination nonsense", netfilter.OpaqueAction{Text: "-j DNAT --to-destination nonsense"}},
		{"-j SNAT --to-source 192.0.2.1:1000-2000 --persistent", kind(netfilter.SNAT, to("192.0.2.1", netfilter.Range{First: 1000, Last: 2000}))},
		{"-j MASQUERADE", kind(netfilter.Masquerade, to(""))},
		{"-j MASQUERADE --to-ports 1024-2048 --random", netfilter.Translate{Kind: netfilter.Masquerade, Ports: []netfilter.Range{{First: 1024, Last: 2048}}, Random: true}},
		{"-j REDIRECT --to-ports 8080", kind(netfilter.Redirect, to("", netfilter.Range{First: 8080, Last: 8080}))},
		{"-j NETMAP --to 10.1.0.0/16", kind(netfilter.Netmap, to("10.1.0.0/16"))},
		{"-j MARK --set-xmark 0x1/0xff", assign(netfilter.Mark, 1, 0xff)},
		{"-j MARK --set-mark 0x100/0xff", assign(netfilter.Mark, 0x100, 0x1ff)},
		{"-j MARK --set-mark 7", assign(netfilter.Mark, 7, 0xffffffff)},
		{"-j MARK --and-mark 0xff", assign(netfilter.Mark, 0, 0xffffff00)},
		{"-j MARK --or-mark 0x8", assign(netfilter.Mark, 8, 8)},
		{"-j MARK --xor-mark 0x8", assign(netfilter.Mark, 8, 0)},
		{"-j CONNMARK --set-xmark 0x1/0x1", assign(netfilter.CtMark, 1, 1)},
		{"-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf0", netfilter.Assign{Field: netfilter.CtMark, Mask: 0xf0, From: netfilter.Mark, FromMask: 0xff}},
		{"-j CONNMARK --restore-mark --mask 0xf", netfilter.Assign{Field: netfilter.Mark, Mask: 0xf, From: netfilter.CtMark, FromMask: 0xf}},
		{"-j CONNMARK --restore-mark", netfilter.Assign{Field: netfilter.Mark, Mask: 0xffffffff, From: netfilter.CtMark, FromMask: 0xffffffff}},
		{"-j CT --notrack", netfilter.Untrack{}},
		{"-j NOTRACK", netfilter.Untrack{}},
		{"-j CT --zone 5", assign(netfilter.CtZone, 5, 0xffff)},
		{"-j CT --helper ftp", netfilter.Note{Text: "-j CT --helper ftp"}},
		{"-j CT --zone-orig 5", netfilter.OpaqueAction{Text: "-j CT --zone-orig 5"}},
		{"-j LOG --log-prefix \"[UFW BLOCK] \" --log-level 4", netfilter.Log{Prefix: "[UFW BLOCK] "}},
		{"-j NFLOG --nflog-prefix x --nflog-group 86", netfilter.Log{Prefix: "x", Group: group(86)}},
		{"-j NFLOG", netfilter.Log{Group: group(0)}},
		{"-j ULOG", netfilter.Log{Group: group(1)}},
		{"-j TPROXY --on-port 3128 --on-ip 127.0.0.1 --tproxy-mark 0x1/0x1", netfilter.TProxy{Port: 3128, Mark: 1, Mask: 1,
			Addrs: netfilter.Values{Addrs: netset.MustParse("127.0.0.1")}}},
		{"-j SET --add-set services src,dst --exist --timeout 60", netfilter.Update{Fields: []netfilter.Field{src, proto, netfilter.IPSetDstPort}, Set: "services"}},
		{"-j SET --del-set hosts dst", netfilter.Update{Fields: []netfilter.Field{dst}, Set: "hosts", Delete: true}},
		{"-j TCPMSS --clamp-mss-to-pmtu", netfilter.Note{Text: "-j TCPMSS --clamp-mss-to-pmtu"}},
		{"-j CLASSIFY --set-class 1:a", assign(netfilter.Priority, 0x1000a, 0xffffffff)},
		{"-j DSCP --set-dscp-class EF", assign(netfilter.DSCP, 46, 63)},
		{"-j TOS --set-tos 0x10/0x3c", assign(netfilter.DSCP, 4, 15)},
		{"-j TTL --ttl-inc 1", netfilter.Assign{Field: netfilter.TTL, Add: 1}},
		{"-j HL --hl-set 64", assign(netfilter.TTL, 64, 0xff)},
		{"-j SYNPROXY --sack-perm", netfilter.OpaqueAction{Text: "-j SYNPROXY --sack-perm"}},
		{"-j AUDIT --type drop", netfilter.Note{Text: "-j AUDIT --type drop"}},
		{"-j TRACE", netfilter.Note{Text: "-j TRACE"}},
		{"-m connlabel --label \"86\" --set", netfilter.Assign{Field: netfilter.CtLabel, Value: 86}},
	} {
		got := parseRule(t, netfilter.IPv4, c.spec).Actions
		if c.want == nil && len(got) == 0 {
			continue
		}
		if len(got) != 1 || !reflect.DeepEqual(got[0], c.want) {
			t.Errorf("%s\n  got  %+v\n  want %+v", c.spec, got, c.want)
		}
	}
}

const docker = `# Generated by ip6tables-save v1.8.9 (nf_tables) on Sat Nov 21 05:57:30 2026
*nat
:PREROUTING ACCEPT [1:60]
:OUTPUT ACCEPT [0:0]
[5:300] -A PREROUTING -m comment --comment "a \"quoted\" \\ one" -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -c 7 8 ! -d ::1/128 -j DOCKER
:DOCKER - [0:0]
-A DOCKER -i docker0 -m comment --comment "two
lines" -j RETURN
COMMIT
# Completed
# Generated by iptables-save v1.4.21 on Sat Nov 21 05:57:30 2026
*mangle
:OUTPUT DROP
COMMIT
`

// TestSecurity: the two variants have this table at different priorities.
func TestSecurity(t *testing.T) {
	for variant, want := range map[string]int{"legacy": 50, "nf_tables": 150} {
		tables, _ := Parse("# Generated by iptables-save v1.8.9 ("+variant+") on Sat Nov 21 05:57:30 2026\n*security\n:INPUT ACCEPT [0:0]\nCOMMIT\n", Options{})
		if got := tables[0].Chains[0].Base.Priority; got != want {
			t.Errorf("%s: %d, want %d", variant, got, want)
		}
	}
}

func TestTables(t *testing.T) {
	tables, problems := Parse(docker, Options{Family: netfilter.IPv4})
	if len(problems) > 0 || len(tables) != 2 {
		t.Fatalf("%d tables, %v", len(tables), problems)
	}
	nat, mangle := tables[0], tables[1]
	if nat.Family != netfilter.IPv6 || nat.Dialect != netfilter.IPTablesNFT || nat.Name != "nat" {
		t.Errorf("%+v", nat)
	}
	if mangle.Family != netfilter.IPv4 || mangle.Dialect != netfilter.IPTablesLegacy {
		t.Errorf("%+v", mangle)
	}
	if b := mangle.Chains[0].Base; b.Type != netfilter.Route || b.Hook != netfilter.Output || b.Priority != -150 || b.Policy != netfilter.Drop {
		t.Errorf("%+v", b)
	}
	if c := nat.Chains[0]; *c.Count != (netfilter.Count{Packets: 1, Bytes: 60}) || c.Base.Priority != -100 || c.Base.Type != netfilter.NAT {
		t.Errorf("%+v", c)
	}
	want := []netfilter.Rule{
		{Number: 1, Text: "-m addrtype --dst-type LOCAL -j DOCKER", Comment: `a "quoted" \ one`, Line: 5, Count: &netfilter.Count{Packets: 5, Bytes: 300}},
		{Number: 1, Text: "! -d ::1/128 -j DOCKER", Line: 6, Count: &netfilter.Count{Packets: 7, Bytes: 8}},
		{Number: 1, Text: "-i docker0 -j RETURN", Comment: "two\nlines", Line: 8},
	}
	for i, w := range want {
		got := *nat.Chains[i].Rules[0]
		got.Matches, got.Actions = nil, nil
		if !reflect.DeepEqual(got, w) {
			t.Errorf("got  %+v\nwant %+v", got, w)
		}
	}
	if v := nat.Chains[0].Rules[0].Actions[0]; v != (netfilter.Verdict{Kind: netfilter.Jump, Chain: "DOCKER"}) {
		t.Errorf("%+v", v)
	}
}

func TestRulesOfMinusS(t *testing.T) {
	tables, problems := Parse("-P INPUT DROP -c 3 4\n-N F\n-A INPUT -j F\n-I INPUT 1 -i lo -j ACCEPT\n-A F -g GONE\n",
		Options{Table: "filter", Family: netfilter.IPv6, Dialect: netfilter.IPTablesLegacy})
	if len(tables) != 1 || len(problems) != 1 || problems[0].Pos.Line != 5 {
		t.Fatalf("%v %v", tables, problems)
	}
	input := tables[0].Chains[0]
	if input.Base.Policy != netfilter.Drop || input.Count.Bytes != 4 || tables[0].Family != netfilter.IPv6 {
		t.Errorf("%+v", input)
	}
	if input.Rules[0].Text != "-i lo -j ACCEPT" || input.Rules[1].Number != 2 {
		t.Errorf("%+v %+v", input.Rules[0], input.Rules[1])
	}
}

// TestDirty: what can be known of a dump is given, and what can't is told with its line.
// TestUFW reads the rules of ufw in both families: all of them are understood, but for the type of a routing header, which a
// rule asks for besides that there is one.
func TestUFW(t *testing.T) {
	for file, rules := range map[string]int{"ufw.rules": 73, "ufw6.rules": 111} {
		text, err := os.ReadFile("../../testkit/truth/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		tables, problems := Parse(string(text), Options{File: file})
		got := 0
		for _, table := range tables {
			for _, c := range table.Chains {
				got += len(c.Rules)
				for _, r := range c.Rules {
					if isOpaque(r) != strings.Contains(r.Text, "--rt-type") {
						t.Errorf("%s: %s", file, r.Text)
					}
				}
			}
		}
		if len(problems) > 0 || got != rules || len(tables) != 1 || (tables[0].Family == netfilter.IPv6) != strings.Contains(file, "6") {
			t.Errorf("%s: %d tables, %d rules, want %d; %v", file, len(tables), got, rules, problems)
		}
	}
}

func TestDirty(t *testing.T) {
	for _, c := range []struct {
		name, text string
		rules      int
		problems   []string // parts of them, in order
	}{
		{"nothing", "", 0, nil},
		{"prose", "Here is my firewall:\n\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\nthanks!\n", 1, []string{"not part of any rules", "2 lines"}},
		{"cut short", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\n-A INPUT -m comment --comm", 2, []string{"--comm", "cut short"}},
		{"CRLF and NUL", "*filter\r\n:INPUT DROP [0:0]\r\n-A INPUT -j\x00 ACCEPT\r\nCOMMIT\r\n", 1, nil},
		{"open quote", "*filter\n:INPUT ACCEPT\n-A INPUT -m comment --comment \"never closed\n-A INPUT -j DROP\nCOMMIT\n", 2, []string{"quote"}},
		{"policy is not there", "-A FORWARD -j DROP", 1, []string{"policy of chain"}},
		{"no such table", "*broute\n:BROUTING ACCEPT\nCOMMIT", 0, []string{"no table", "none of table"}},
		{"twice", "*filter\n:INPUT ACCEPT\n-A INPUT -j DROP\nCOMMIT\n*filter\n:INPUT DROP\nCOMMIT\n", 0, []string{"second time"}},
		{"of others", "# Generated by ebtables-save 1.0\n*filter\n:INPUT ACCEPT\n-A INPUT -j DROP\n", 0, []string{"not read"}},
		{"warning", "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n", 0, []string{"iptables-legacy tables present"}},
		{"junk", "[\n[1:2\n-A\n:\n-\n[1:2]\n*\n", 0, []string{"not part", "no table", "cut short", "6 lines"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tables, problems := Parse(c.text, Options{Family: netfilter.IPv4, File: "dump"})
			rules := 0
			for _, table := range tables {
				for _, chain := range table.Chains {
					rules += len(chain.Rules)
				}
			}
			if rules != c.rules {
				t.Errorf("%d rules, want %d", rules, c.rules)
			}
			if len(problems) != len(c.problems) {
				t.Fatalf("%v", problems)
			}
			for i, want := range c.problems {
				if !strings.Contains(problems[i].Message, want) {
					t.Errorf("problem %v, want one with %q", problems[i], want)
				}
			}
		})
	}
}

// TestProblemsAreBounded: a text of anything gives no list of its own length.
func TestProblemsAreBounded(t *testing.T) {
	for _, line := range []string{"*x%\n", ":%s ACCEPT\n", "-A INPUT --x \"open\n", "prose\n", "-j NOWHERE\n", "-A INPUT -m m%\n"} {
		var b strings.Builder
		for i := range 3000 {
			b.WriteString(strings.Replace(line, "%", strconv.Itoa(i), 1))
		}
		if _, problems := Parse(b.String(), Options{}); len(problems) == 0 || len(problems) > maxProblems+1 {
			t.Errorf("%q: %d problems", line, len(problems))
		}
	}
}

// TestSharedJump: rules that say the same are read once, and what one of their jumps leads to in its table is not what it does in
// another.
func TestSharedJump(t *testing.T) {
	tables, _ := Parse("*filter\n-A INPUT -j X\n-A INPUT -j X\nCOMMIT\n*nat\n:X - [0:0]\n-A INPUT -j X\nCOMMIT\n", Options{Family: netfilter.IPv4})
	for i, want := range []netfilter.Action{netfilter.OpaqueAction{Text: "-j X"}, netfilter.Verdict{Kind: netfilter.Jump, Chain: "X"}} {
		for _, rule := range tables[i].Chain("INPUT").Rules {
			if len(rule.Actions) != 1 || rule.Actions[0] != want {
				t.Errorf("table %s: %v, want %v", tables[i].Name, rule.Actions, want)
			}
		}
	}
}
