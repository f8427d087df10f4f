package hostfiles_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/snapshot"
)

func differ(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.EquateEmpty())
}

func addr(text string) netip.Addr     { return netip.MustParseAddr(text) }
func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// unread are the lines that weren't understood.
func unread(list diag.List) []int {
	var all []int
	for _, p := range list {
		all = append(all, p.Pos.Line)
	}
	return all
}

func TestRoutes(t *testing.T) {
	unicast := func(dst, dev string) snapshot.Route {
		return snapshot.Route{Table: "main", Type: 1, Dst: prefix(dst), Dev: dev}
	}
	with := func(r snapshot.Route, f func(*snapshot.Route)) snapshot.Route { f(&r); return r }
	for _, c := range []struct {
		text   string
		want   []snapshot.Route
		unread []int
	}{
		{"default via 203.0.113.2 dev eth0 proto static metric 100 onlink \n", []snapshot.Route{with(unicast("0.0.0.0/0", "eth0"), func(r *snapshot.Route) {
			r.Via, r.Metric = addr("203.0.113.2"), 100
		})}, nil},
		{"default dev tun0 scope link\r\n\r\n", []snapshot.Route{unicast("0.0.0.0/0", "tun0")}, nil},
		{"default dev tun0 metric 1024 pref medium", []snapshot.Route{with(unicast("::/0", "tun0"), func(r *snapshot.Route) { r.Metric = 1024 })}, nil},
		{"default via fe80::1 dev eth0", []snapshot.Route{with(unicast("::/0", "eth0"), func(r *snapshot.Route) { r.Via = addr("fe80::1") })}, nil},
		{"default via inet6 fe80::1 dev eth0", []snapshot.Route{with(unicast("0.0.0.0/0", "eth0"), func(r *snapshot.Route) { r.Via = addr("fe80::1") })}, nil},
		{"local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1", []snapshot.Route{{Table: "local", Type: 2,
			Dst: prefix("127.0.0.1/32"), Dev: "lo", Src: addr("127.0.0.1")}}, nil},
		{"172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown", []snapshot.Route{with(unicast("172.17.0.0/16", "docker0"),
			func(r *snapshot.Route) { r.Src, r.Down = addr("172.17.0.1"), true })}, nil},
		{"unreachable default metric 500\nblackhole 10.0.0.0/8 table 100", []snapshot.Route{{Table: "main", Type: 7, Dst: prefix("0.0.0.0/0"), Metric: 500},
			{Table: "100", Type: 6, Dst: prefix("10.0.0.0/8")}}, nil},
		// Next hops on lines of their own, and on one line.
		{"10.9.0.0/16 proto static \n\tnexthop via 10.0.0.2 dev eth0 weight 1 \n\tnexthop via 10.0.0.3 dev eth1 weight 1 dead", []snapshot.Route{
			with(unicast("10.9.0.0/16", "eth0"), func(r *snapshot.Route) { r.Via = addr("10.0.0.2") }),
			with(unicast("10.9.0.0/16", "eth1"), func(r *snapshot.Route) { r.Via, r.Down = addr("10.0.0.3"), true })}, nil},
		{"10.9.0.0/16 nexthop via 10.0.0.2 dev eth0 weight 1 nexthop dev eth1", []snapshot.Route{
			with(unicast("10.9.0.0/16", "eth0"), func(r *snapshot.Route) { r.Via = addr("10.0.0.2") }), unicast("10.9.0.0/16", "eth1")}, nil},
		// IPv6 is told twice where a newer ip is asked for all and then for IPv6.
		{"fe80::/64 dev eth0 metric 256\nfe80::/64 dev eth1 metric 256\nfe80::/64 dev eth0 metric 256", []snapshot.Route{
			with(unicast("fe80::/64", "eth0"), func(r *snapshot.Route) { r.Metric = 256 }),
			with(unicast("fe80::/64", "eth1"), func(r *snapshot.Route) { r.Metric = 256 })}, nil},
		{"$ ip route\n10.0.0.0/8 dev eth0\n10.1.0.0/16 via nowhere dev eth0\nnexthop\n10.2.0.0/16 via", []snapshot.Route{unicast("10.0.0.0/8", "eth0")}, []int{1, 3, 4, 5}},
		{"\x00\x00local", nil, []int{1}},
		{"local :: table\n10.0.0.0/8 dev", nil, []int{1, 2}},
	} {
		got, problems := hostfiles.Routes(c.text, "ip-route.txt")
		if diff := differ(c.want, got); diff != "" || !reflect.DeepEqual(unread(problems), c.unread) {
			t.Errorf("%q: %v\n%s", c.text, problems, diff)
		}
		if again, _ := hostfiles.Routes(hostfiles.FormatRoutes(got), ""); differ(got, again) != "" {
			t.Errorf("%q came back as %q", c.text, hostfiles.FormatRoutes(got))
		}
	}
}

func TestRules(t *testing.T) {
	v4, v6 := hostfiles.DefaultRules(netfilter.IPv4), hostfiles.DefaultRules(netfilter.IPv6)
	both := "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n"
	rule := func(line string, f func(*snapshot.RoutingRule)) (string, []snapshot.RoutingRule) {
		r := snapshot.RoutingRule{Family: netfilter.IPv4, Priority: 5, Action: "lookup", Table: "100", SuppressPrefix: -1}
		f(&r)
		return "5:\t" + line, append([]snapshot.RoutingRule{r}, v6...)
	}
	type row struct {
		text   string
		want   []snapshot.RoutingRule
		unread []int
	}
	rows := []row{
		{"", append(v4, v6...), nil},
		{both, append(v4, v6...), nil},
		{both + "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n", append(v4, v6...), nil},
		{"5: from all lookup 100\n0: from all lookup local\n", append([]snapshot.RoutingRule{{Family: netfilter.IPv4, Priority: 5, Action: "lookup", Table: "100",
			SuppressPrefix: -1}}, v6[0]), nil},
		{"nonsense\n5: nothing\n5: from all\n5: from all fwmark x lookup 5\n", append(v4, v6...), []int{1, 2, 3, 4}},
	}
	add := func(line string, f func(*snapshot.RoutingRule)) {
		text, want := rule(line, f)
		rows = append(rows, row{text: text, want: want})
	}
	add("not from 10.0.0.0/8 to 1.2.3.4 fwmark 0x1/0xff iif eth0 [detached] oif eth1 lookup 100", func(r *snapshot.RoutingRule) {
		r.Not, r.From, r.To, r.Mark, r.MarkMask, r.In, r.Out = true, prefix("10.0.0.0/8"), prefix("1.2.3.4/32"), 1, 0xff, "eth0", "eth1"
	})
	add("from all fwmark 0xca6c ipproto tcp sport 5 dport 80-90 lookup 100 suppress_prefixlength 0 proto static", func(r *snapshot.RoutingRule) {
		r.Mark, r.MarkMask, r.Proto, r.SrcPorts, r.DstPorts, r.SuppressPrefix = 0xca6c, 0xffffffff, 6, [2]uint16{5, 5}, [2]uint16{80, 90}, 0
	})
	add("from all goto 32766", func(r *snapshot.RoutingRule) { r.Action, r.Table, r.Goto = "goto", "", 32766 })
	add("from all prohibit", func(r *snapshot.RoutingRule) { r.Action, r.Table = "prohibit", "" })
	add("from all uidrange 5-10 lookup 100", func(r *snapshot.RoutingRule) { r.Unread = "uidrange 5-10" })
	for _, c := range rows {
		got, problems := hostfiles.Rules(c.text, "ip-rule.txt")
		if diff := differ(c.want, got); diff != "" || !reflect.DeepEqual(unread(problems), c.unread) {
			t.Errorf("%q: %v\n%s", c.text, problems, diff)
		}
		if again, problems := hostfiles.Rules(hostfiles.FormatRules(got), ""); differ(got, again) != "" || len(problems) > 0 {
			t.Errorf("%q came back as %q: %v", c.text, hostfiles.FormatRules(got), problems)
		}
	}
	// A VRF's own rule names its table by a word that isn't one.
	got, _ := hostfiles.Rules("1000:\tfrom all lookup [l3mdev-table]", "")
	if got[0].Unread == "" {
		t.Errorf("%+v", got[0])
	}
}

func TestSockets(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for _, c := range []struct {
		text   string
		want   []snapshot.Socket
		unread []int
	}{
		{`Netid State  Recv-Q Send-Q Local Address:Port  Peer Address:Port Process
tcp   LISTEN 0      4096   127.0.0.1:5432      0.0.0.0:*         users:(("postgres",pid=22670,fd=6),("postgres",pid=1,fd=6))`,
			[]snapshot.Socket{{Proto: 6, Addr: addr("127.0.0.1"), Port: 5432, Process: "postgres", PID: 22670}}, nil},
		{"tcp LISTEN 0 0 *:22 *:*", []snapshot.Socket{{Proto: 6, Addr: any6, Both: true, Port: 22}}, nil},
		{"tcp LISTEN 0 0 [::]:22 [::]:*\r\nudp UNCONN 0 0 0.0.0.0:53 0.0.0.0:*", []snapshot.Socket{{Proto: 6, Addr: any6, Port: 22}, {Proto: 17, Addr: any4, Port: 53}}, nil},
		{"udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*", []snapshot.Socket{{Proto: 17, Addr: addr("127.0.0.53"), Dev: "lo", Port: 53}}, nil},
		{"udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:*", []snapshot.Socket{{Proto: 17, Addr: addr("fe80::1"), Dev: "eth0", Port: 546}}, nil},
		{"tcp LISTEN 0 0 [::ffff:127.0.0.1]:80 *:*", []snapshot.Socket{{Proto: 6, Addr: addr("127.0.0.1"), Port: 80}}, nil},
		{"sctp LISTEN 0 0 0.0.0.0:9 0.0.0.0:*", []snapshot.Socket{{Proto: 132, Addr: any4, Port: 9}}, nil},
		{`tcp LISTEN 0 0 *:80 *:* users:(("a name, (odd)",pid=7,fd=1))`, []snapshot.Socket{{Proto: 6, Addr: any6, Both: true, Port: 80, Process: "a name, (odd)", PID: 7}}, nil},
		// What iproute2 wrote before 4.20.
		{"tcp LISTEN 0 0 *:22 *:*\ntcp LISTEN 0 0 :::22 :::*\ntcp LISTEN 0 0 :::80 :::*\ntcp LISTEN 0 0 ::1:25 :::*",
			[]snapshot.Socket{{Proto: 6, Addr: any4, Port: 22}, {Proto: 6, Addr: any6, Port: 22}, {Proto: 6, Addr: any6, Both: true, Port: 80},
				{Proto: 6, Addr: addr("::1"), Port: 25}}, nil},
		{"tcp ESTAB 0 0 1.2.3.4:22 5.6.7.8:99\nu_str LISTEN 0 0 /run/x 1 * 0\nudp UNCONN 0 0 0.0.0.0:* 0.0.0.0:*", nil, nil},
		{"hello\ntcp LISTEN 0 0 nowhere 0.0.0.0:*\ntcp LISTEN 0 0 1.2.3.4:99999 *:*\n6 LISTEN 0 0 1.2.3.4:9 *:*\ntcp LISTEN", nil, []int{1, 2, 3, 4, 5}},
	} {
		got, problems := hostfiles.Sockets(c.text, "ss-listen.txt")
		if diff := differ(c.want, got); diff != "" || !reflect.DeepEqual(unread(problems), c.unread) {
			t.Errorf("%q: %v\n%s", c.text, problems, diff)
		}
		if again, problems := hostfiles.Sockets(hostfiles.FormatSockets(got), ""); differ(got, again) != "" || len(problems) > 0 {
			t.Errorf("%q came back as %q: %v", c.text, hostfiles.FormatSockets(got), problems)
		}
	}
}

func TestSysctls(t *testing.T) {
	got, problems := hostfiles.Sysctls("net.ipv4.ip_forward = 1\r\nnet.ipv4.conf.eth0/5.rp_filter=2\nnet.ipv4.ip_local_port_range = 1\t9\n"+
		"sysctl: permission denied on key 'x'\nnet.ipv4.ip_forward = 0\n", "sysctl.txt")
	want := map[string]string{"net.ipv4.ip_forward": "0", "net.ipv4.conf.eth0/5.rp_filter": "2", "net.ipv4.ip_local_port_range": "1\t9"}
	if diff := differ(want, got); diff != "" || !reflect.DeepEqual(unread(problems), []int{4}) {
		t.Error(problems, diff)
	}
}

const addrs = `[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"link_type":"loopback","address":"00:00:00:00:00:00",
"addr_info":[{"local":"::1","prefixlen":128},{"local":"127.0.0.1","prefixlen":8},{"local":"x","prefixlen":8},{"local":"1.2.3.4","prefixlen":99}]},
{},{"ifindex":3,"ifname":"br-lan","flags":[]},{"ifindex":4,"link_index":2,"link_netnsid":0,"ifname":"p","master":"br-lan","link_type":"ether","address":"02:00:00:00:00:01"},
{"ifindex":5,"link":"p","ifname":"p.5"},{"ifindex":6,"ifname":"docker0"}]`

func TestInterfaces(t *testing.T) {
	links := `[{"ifindex":3,"ifname":"br-lan","linkinfo":{"info_kind":"bridge"}},{"ifindex":5,"link":"p","ifname":"p.5","linkinfo":{"info_kind":"vlan"}},
{"ifindex":4,"link_index":2,"link_netnsid":0,"ifname":"p","master":"br-lan","link_type":"ether","address":"02:00:00:00:00:01","linkinfo":{"info_kind":"veth"}},
{"ifindex":7,"ifname":"m","linkinfo":{"info_kind":"macvlan","info_data":{"mode":"bridge"}}},{"ifindex":8,"link":"v9","ifname":"v8","linkinfo":{"info_kind":"veth"}},
{"ifindex":9,"link":"v8","ifname":"v9","linkinfo":{"info_kind":"veth"}}]`
	lo := inventory.Interface{Name: "lo", Index: 1, Up: true, Addrs: []netip.Prefix{prefix("127.0.0.1/8"), prefix("::1/128")}}
	for _, c := range []struct {
		what, addrs, links string
		want               []inventory.Interface
		more               []snapshot.Link
	}{
		{"guessed", addrs, "", []inventory.Interface{{Name: "br-lan", Index: 3, Kind: "bridge"}, {Name: "docker0", Index: 6, Kind: "bridge"}, lo,
			{Name: "p", Index: 4, Kind: "veth", Master: "br-lan"}, {Name: "p.5", Index: 5}},
			[]snapshot.Link{{Name: "br-lan"}, {Name: "docker0"}, {Name: "lo"}, {Name: "p", MAC: "02:00:00:00:00:01", Peer: 2}, {Name: "p.5"}}},
		{"told", addrs, links, []inventory.Interface{{Name: "br-lan", Index: 3, Kind: "bridge"}, {Name: "docker0", Index: 6}, lo, {Name: "m", Index: 7, Kind: "macvlan"},
			{Name: "p", Index: 4, Kind: "veth", Master: "br-lan"}, {Name: "p.5", Index: 5, Kind: "vlan", Parent: "p"}, {Name: "v8", Index: 8, Kind: "veth"},
			{Name: "v9", Index: 9, Kind: "veth"}},
			[]snapshot.Link{{Name: "br-lan"}, {Name: "docker0"}, {Name: "lo"}, {Name: "m", Modes: "bridge"}, {Name: "p", MAC: "02:00:00:00:00:01", Peer: 2},
				{Name: "p.5"}, {Name: "v8", Peer: 9}, {Name: "v9", Peer: 8}}},
	} {
		got, more, problems := hostfiles.Interfaces(c.addrs, "a", c.links, "l")
		if diff := differ(c.want, got) + differ(c.more, more); diff != "" || len(problems) > 0 {
			t.Errorf("%s: %v\n%s", c.what, problems, diff)
		}
	}
}

// TestList: of a list that is damaged what stands before is given.
func TestList(t *testing.T) {
	type one struct{ N int }
	for _, c := range []struct {
		text    string
		n       int
		problem string
	}{
		{"", 0, ""},
		{" \r\n\x00", 0, ""},
		{`[]`, 0, ""},
		{"$ docker inspect\n" + `[{"N":1},{"N":2}]` + "\n$", 2, ""},
		{`[{"N":1},` + "\n" + `{"N":"x"},{"N":3}]`, 3, "f:2: warning: N is a string"},
		{`[{"N":1},` + "\n" + `{"N":`, 1, "f:1: warning: the rest can't be read"},
		{`[{"N":1}`, 1, "f:1: warning: the list is cut short"},
		{`{"N":1}`, 0, "this is no list"},
	} {
		got, problems := hostfiles.List[one](c.text, "f")
		if text := problems.Error(); len(got) != c.n || !strings.Contains(text, c.problem) || (text == "") != (c.problem == "") {
			t.Errorf("%q: %v, %q", c.text, got, text)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("default via 203.0.113.2 dev eth0\n10.9.0.0/16 nexthop via 10.0.0.2 dev eth0 nexthop dev eth1")
	f.Add("local fe80::1 dev lo table local metric 0 pref medium\nunreachable default metric 500")
	f.Add("5:\tnot from 10.0.0.0/8 fwmark 0x1/0xff iif d0 [detached] ipproto tcp dport 80-90 lookup 100\n0: from all goto 5")
	f.Add(`tcp LISTEN 0 4096 0.0.0.0%eth0:8080 0.0.0.0:* users:(("docker-proxy",pid=23077,fd=4))` + "\nudp UNCONN 0 0 *:123 *:*")
	f.Add("net.ipv4.ip_forward = 1")
	f.Fuzz(func(t *testing.T, text string) {
		hostfiles.Sysctls(text, "")
		hostfiles.Sockets(text, "")
		hostfiles.Rules(text, "")
		routes, _ := hostfiles.Routes(text, "")
		again, _ := hostfiles.Routes(hostfiles.FormatRoutes(routes), "")
		if diff := differ(routes, again); diff != "" {
			t.Errorf("came back as %q\n%s", hostfiles.FormatRoutes(routes), diff)
		}
	})
}

func FuzzInterfaces(f *testing.F) {
	f.Add(addrs, addrs)
	f.Fuzz(func(t *testing.T, a, b string) {
		interfaces, links, _ := hostfiles.Interfaces(a, "a", b, "b")
		if len(interfaces) != len(links) {
			t.Errorf("%d interfaces, %d links", len(interfaces), len(links))
		}
	})
}
