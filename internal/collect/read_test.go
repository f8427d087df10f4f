package collect_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/collect"
	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
)

var comparable = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{})

func read(t *testing.T, dir string) *snapshot.Host {
	t.Helper()
	h, err := collect.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const (
	old = "testdata/20.10.24-published-port"
	new = "testdata/29.7.2-nftables-published-port"
)

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, comparable); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// summary is what tables there are, with how many rules each chain has.
func summary(r netfilter.Rules) []string {
	var all []string
	for _, t := range r.Tables {
		line := fmt.Sprintf("%d %d %s:", t.Dialect, t.Family, t.Name)
		for _, c := range t.Chains {
			line += fmt.Sprintf(" %s %d", c.Name, len(c.Rules))
		}
		all = append(all, line)
	}
	return all
}

// TestIPTables reads every file of a host of Docker 20.10 into what it says.
func TestIPTables(t *testing.T) {
	h := read(t, old)
	if len(h.Problems) > 0 {
		t.Error(h.Problems)
	}
	// nft's list has the same tables, without what xtables do in them: the dump goes first.
	same(t, "rules", []string{
		"1 1 filter: INPUT 0 FORWARD 6 OUTPUT 0 DOCKER 1 DOCKER-ISOLATION-STAGE-1 2 DOCKER-ISOLATION-STAGE-2 2 DOCKER-USER 1",
		"1 1 nat: PREROUTING 1 INPUT 0 OUTPUT 1 POSTROUTING 2 DOCKER 2",
	}, summary(h.Rules))
	same(t, "interfaces", []inventory.Interface{
		{Name: "docker0", Index: 4, Kind: "bridge", Up: true, Addrs: prefixes("172.17.0.1/16", "fe80::42:3fff:fe35:407b/64")},
		{Name: "eth0", Index: 2, Kind: "veth", Up: true, Addrs: prefixes("203.0.113.1/24", "2001:db8:113::1/64", "fe80::6cc9:3eff:fe9f:88a/64")},
		{Name: "eth1", Index: 3, Kind: "veth", Up: true, Addrs: prefixes("192.168.50.1/24", "fd50::1/64", "fe80::4075:9cff:fef8:91aa/64")},
		{Name: "lo", Index: 1, Up: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "vethb66dfb8", Index: 6, Kind: "veth", Master: "docker0", Up: true, Addrs: prefixes("fe80::50e4:67ff:fe37:5fed/64")},
	}, h.Inventory.Interfaces)
	same(t, "links", snapshot.Link{Name: "vethb66dfb8", MAC: "52:e4:67:37:5f:ed", Peer: 5}, h.Links[4])
	same(t, "networks", []inventory.Network{{Name: "bridge", ID: h.Inventory.Networks[0].ID, Bridge: "docker0", Subnets: prefixes("172.17.0.0/16")}},
		h.Inventory.Networks)
	same(t, "Docker", inventory.Docker{Reachable: true, Version: "20.10.24+dfsg1"}, h.Inventory.Docker)
	same(t, "published", []inventory.Published{
		{Addr: netip.MustParseAddr("0.0.0.0"), Proto: 6, Port: 8080, Container: "c1", Networks: []string{"bridge"}, Target: 80},
		{Addr: netip.MustParseAddr("::"), Proto: 6, Port: 8080, Container: "c1", Networks: []string{"bridge"}, Target: 80},
	}, h.Inventory.Published)
	same(t, "containers", []snapshot.Container{{Name: "c1", ID: h.Containers[0].ID, Mode: "default", Exposed: []snapshot.Port{{Proto: 6, Port: 80}},
		Networks: []snapshot.Endpoint{{Network: "bridge", Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2")}, MAC: "02:42:ac:11:00:02",
			Gateways: []netip.Addr{netip.MustParseAddr("172.17.0.1")}}}}}, h.Containers)
	to := netip.MustParseAddrPort("172.17.0.2:80")
	same(t, "sockets", []snapshot.Socket{
		{Proto: 17, Addr: netip.IPv6Unspecified(), Both: true, Port: 123, Process: "dvprobe", PID: 22670},
		{Proto: 6, Addr: netip.MustParseAddr("127.0.0.1"), Port: 5432, Process: "dvprobe", PID: 22670},
		{Proto: 6, Addr: netip.IPv4Unspecified(), Port: 8080, Process: "docker-proxy", PID: 23077, To: to, Container: "c1"},
		{Proto: 6, Addr: netip.IPv6Unspecified(), Both: true, Port: 22, Process: "dvprobe", PID: 22670},
		{Proto: 6, Addr: netip.IPv6Unspecified(), Port: 8080, Process: "docker-proxy", PID: 23090, To: to, Container: "c1"},
	}, h.Sockets)
	if len(h.Routes) != 31 {
		t.Errorf("%d routes", len(h.Routes))
	}
	same(t, "default route", snapshot.Route{Table: "main", Type: 1, Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("203.0.113.2"), Dev: "eth0"}, h.Routes[0])
	same(t, "sysctl", "1", h.Sysctls["net.ipv4.ip_forward"])
	same(t, "missing", []string{"routing rules", "interfaces"}, missing(h))
}

func missing(h *snapshot.Host) []string {
	var all []string
	for _, m := range h.Missing {
		all = append(all, string(m.Part))
	}
	return all
}

// TestNFT reads a host of Docker 29 with its nftables backend.
func TestNFT(t *testing.T) {
	h := read(t, new)
	if len(h.Problems) > 0 {
		t.Error(h.Problems)
	}
	same(t, "rules", []string{
		"0 1 docker-bridges: filter-FORWARD 2 nat-OUTPUT 1 nat-POSTROUTING 2 nat-PREROUTING 1 nat-prerouting-and-output 1 raw-PREROUTING 1" +
			" filter-forward-in__docker0 4 filter-forward-out__docker0 2 nat-postrouting-in__docker0 0 nat-postrouting-out__docker0 1",
		"0 2 docker-bridges: filter-FORWARD 2 nat-OUTPUT 1 nat-POSTROUTING 2 nat-PREROUTING 1 nat-prerouting-and-output 0 raw-PREROUTING 0",
	}, summary(h.Rules))
	same(t, "Docker", inventory.Docker{Reachable: true, Version: "29.7.2"}, h.Inventory.Docker)
	same(t, "missing", []string{"routing rules", "interfaces"}, missing(h))
	if s := h.Sockets[2]; s.Container != "c1" || s.To.String() != "172.17.0.2:80" {
		t.Errorf("%+v", s)
	}
	anycast := slices.ContainsFunc(h.Routes, func(r snapshot.Route) bool {
		return r.Type == 4 && r.Dst.String() == "fd50::/128" && r.Dev == "eth1" && r.Table == "local"
	})
	if !anycast {
		t.Error("no anycast route")
	}
}

// folder is a folder with some files of a snapshot, and others.
func folder(t *testing.T, of string, names []string, more map[string]string) fstest.MapFS {
	t.Helper()
	dir := fstest.MapFS{}
	for _, name := range names {
		text, err := os.ReadFile(of + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		dir[name] = &fstest.MapFile{Data: text}
	}
	for name, text := range more {
		dir[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return dir
}

// TestMissing: each file that isn't there is named, with what follows.
func TestMissing(t *testing.T) {
	const header = "# Generated by iptables-save v1.8.9 (%s) on Sat Nov 21 05:57:30 2026\n"
	set := fmt.Sprintf(header, "legacy") + "*filter\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -m set --match-set x src -j DROP\nCOMMIT\n"
	for _, c := range []struct {
		what  string
		of    string
		names []string
		more  map[string]string
		want  []string // "part file: why"
		rules []string
	}{
		{what: "rules alone", of: old, names: []string{"iptables-save.txt"}, want: []string{
			"nf_tables nft-ruleset.json: it is not there", "IPv6 rules ip6tables-save.txt: it is not there",
			"Docker networks network-inspect.json: it is not there", "containers container-inspect.json: it is not there",
			"routes ip-route.txt: it is not there", "routing rules ip-rule.txt: it is not there", "addresses ip-addr.json: it is not there",
			"interfaces ip-link.json: it is not there", "sockets ss-listen.txt: it is not there", "sysctls sysctl.txt: it is not there"},
			rules: []string{"1 1 filter", "1 1 nat"}},
		{what: "nft's list alone, of iptables' tables", of: old, names: []string{"nft-ruleset.json", "ip-addr.json", "ip-route.txt", "sysctl.txt", "ss-listen.txt",
			"network-inspect.json", "container-inspect.json"}, more: map[string]string{"ip-rule.txt": "", "ip-link.json": ""},
			want: []string{"IPv4 rules iptables-save.txt: it is not there", "IPv4 rules iptables-save.txt: table nat of iptables-nft is not in it, which nft-ruleset.json has",
				"IPv4 rules iptables-save.txt: table filter of iptables-nft is not in it, which nft-ruleset.json has", "IPv6 rules ip6tables-save.txt: it is not there"},
			rules: []string{"1 1 nat", "1 1 filter"}},
		{what: "text of nft", of: new, names: []string{"nft-ruleset.txt", "iptables-save.txt", "ip6tables-save.txt", "ip-addr.json", "ip-route.txt", "sysctl.txt",
			"ss-listen.txt", "network-inspect.json", "container-inspect.json"}, more: map[string]string{"ip-rule.txt": "", "ip-link.json": ""},
			want: []string{"nf_tables nft-ruleset.json: it is not there; nft-ruleset.txt is, but it is written for people: make the other by nft -j list ruleset"}},
		{what: "sets", of: old, names: []string{"nft-ruleset.json", "ip6tables-save.txt", "ip-addr.json", "ip-route.txt", "sysctl.txt", "ss-listen.txt", "network-inspect.json",
			"container-inspect.json", "iptables-save.txt"}, more: map[string]string{"ip-rule.txt": "", "ip-link.json": "", "iptables-legacy-save.txt": set},
			want: []string{"ipset sets ipset-save.txt: it is not there"}, rules: []string{"1 1 filter", "1 1 nat", "2 1 filter"}},
		{what: "cut short", of: old, names: []string{"nft-ruleset.json", "ip6tables-save.txt", "ip-addr.json", "ip-route.txt", "sysctl.txt",
			"network-inspect.json", "container-inspect.json"}, more: map[string]string{"ip-rule.txt": "0:\tfrom all lookup local\n32766:\tfr", "ip-link.json": "", "ss-listen.txt": "tcp LISTEN 0",
			"iptables-save.txt": fmt.Sprintf(header, "nf_tables") + "*nat\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -j DROP\n"},
			want: []string{"IPv4 rules iptables-save.txt: iptables-save.txt:6: warning: table \"filter\" is cut short: what stood behind is not known",
				`routing rules ip-rule.txt: ip-rule.txt:2: warning: this is no rule of routing: "32766:\tfr"`, `sockets ss-listen.txt: ss-listen.txt:1: warning: this is no line of ss: "tcp LISTEN 0"`},
			rules: []string{"1 1 nat", "1 1 filter"}},
	} {
		h, err := collect.Read(folder(t, c.of, c.names, c.more))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		var got, rules []string
		for _, m := range h.Missing {
			got = append(got, fmt.Sprintf("%s %s: %s", m.Part, m.File, m.Why))
			if m.So == "" || h.Has(m.Part) {
				t.Errorf("%s: %+v", c.what, m)
			}
		}
		for _, s := range summary(h.Rules) {
			rules = append(rules, s[:strings.Index(s, ":")])
		}
		same(t, c.what, c.want, got)
		if c.rules != nil {
			same(t, c.what, c.rules, rules)
		}
		if len(h.Policies) != 5 && c.what != "cut short" {
			t.Errorf("%s: rules of routing: %+v", c.what, h.Policies)
		}
	}
}

func TestNoRules(t *testing.T) {
	_, err := collect.Read(folder(t, old, []string{"ip-addr.json"}, nil))
	if !errors.Is(err, collect.ErrNoRules) || !strings.Contains(err.Error(), "iptables-save.txt") {
		t.Error(err)
	}
}

// TestProxies: a docker-proxy of IPv6 goes to the container's IPv6 address if it has one, and never by an internal network if
// there is another.
func TestProxies(t *testing.T) {
	h, err := collect.Read(folder(t, old, []string{"iptables-save.txt"}, map[string]string{
		"ip-addr.json": `[{"ifindex":1,"ifname":"br-in","flags":["UP"],"addr_info":[{"local":"10.1.0.1","prefixlen":16}]},
{"ifindex":2,"ifname":"br-out","flags":["UP"],"addr_info":[{"local":"10.2.0.1","prefixlen":16},{"local":"fd02::1","prefixlen":64}]}]`,
		"network-inspect.json": `[{"Name":"in","Id":"1","Driver":"bridge","Internal":true,"IPAM":{"Config":[{"Subnet":"10.1.0.0/16"}]},"Options":{"com.docker.network.bridge.name":"br-in"}},
{"Name":"out","Id":"2","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.2.0.0/16"},{"Subnet":"fd02::/64"}]},"Options":{"com.docker.network.bridge.name":"br-out"}}]`,
		"container-inspect.json": `[{"Id":"c","Name":"/web","State":{"Running":true},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]},
"Networks":{"in":{"IPAddress":"10.1.0.2"},"out":{"IPAddress":"10.2.0.2","GlobalIPv6Address":"fd02::2"}}}},
{"Id":"d","Name":"/gone","State":{"Running":false},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"","HostPort":"9090"}]},"Networks":{"out":{}}}}]`,
		"ss-listen.txt": `tcp LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* users:(("docker-proxy",pid=1,fd=4))
tcp LISTEN 0 4096 [::]:8080 [::]:* users:(("docker-proxy",pid=2,fd=4))
tcp LISTEN 0 4096 [::]:9090 [::]:* users:(("docker-proxy",pid=3,fd=4))`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range h.Sockets {
		got = append(got, s.Container+" "+s.To.String())
	}
	same(t, "proxies", []string{"web 10.2.0.2:80", "web [fd02::2]:80", " invalid AddrPort"}, got)
	if names := h.Inventory.Bridges(); len(names) != 2 {
		t.Errorf("bridges: %v", names)
	}
	if len(h.Containers) != 1 {
		t.Errorf("containers: %+v", h.Containers)
	}
}

// TestGuesses: what a missing file would have told follows from the others, as far as it does.
func TestGuesses(t *testing.T) {
	const (
		networks = `[{"Name":"in","Id":"1","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.1.0.0/16"}]},"Options":{"com.docker.network.bridge.name":"brown"}}]`
		addrs    = `[{"ifindex":1,"ifname":"brown","flags":["UP"],"addr_info":[{"local":"10.1.0.1","prefixlen":16}]},
{"ifindex":2,"ifname":"eth0","flags":["UP"],"addr_info":[{"local":"192.0.2.1","prefixlen":24}]}]`
		routes = `default via 192.0.2.2 dev eth0
10.1.0.0/16 dev brown proto kernel scope link src 10.1.0.1
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.1
local 10.1.0.1 dev brown table local proto kernel scope host src 10.1.0.1
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
local 192.0.2.1 dev eth0 table local proto kernel scope host src 192.0.2.1
fd01::/64 dev brown proto kernel metric 256 pref medium
local fd01::1 dev brown table local proto kernel metric 0 pref medium
`
		container = `[{"Id":"c","Name":"/web","State":{"Running":true},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],
"53/udp":[{"HostIp":"0.0.0.0","HostPort":"53"}]},"Networks":{"in":{"IPAddress":"10.1.0.2","Gateway":"10.1.0.1"},"sealed":{"IPAddress":"10.3.0.2","Gateway":""}}}}]`
		sockets = `tcp LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* users:(("docker-proxy",pid=1,fd=4))
udp UNCONN 0 0 0.0.0.0:53 0.0.0.0:* users:(("dockerd",pid=2,fd=4))
tcp LISTEN 0 4096 127.0.0.1:2375 0.0.0.0:* users:(("dockerd",pid=2,fd=5))`
	)
	all := map[string]string{"network-inspect.json": networks, "ip-addr.json": addrs, "ip-route.txt": routes, "container-inspect.json": container, "ss-listen.txt": sockets}
	for _, without := range []string{"", "ip-addr.json", "ip-route.txt", "network-inspect.json"} {
		files := maps.Clone(all)
		delete(files, without)
		h, err := collect.Read(folder(t, old, []string{"iptables-save.txt"}, files))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range h.Inventory.Interfaces {
			got = append(got, fmt.Sprint(i.Name, " ", i.Addrs))
		}
		for _, n := range h.Inventory.Networks {
			got = append(got, fmt.Sprint(n.Name, " ", n.Bridge, " ", n.Subnets))
		}
		want := []string{"brown [10.1.0.1/16]", "eth0 [192.0.2.1/24]", "in brown [10.1.0.0/16]"}
		if without == "ip-addr.json" {
			want = []string{"brown [10.1.0.1/16 fd01::1/64]", "eth0 [192.0.2.1/24]", "lo [127.0.0.1/8]", "in brown [10.1.0.0/16]"}
		}
		same(t, "without "+without, want, got)
		if s := h.Sockets; s[0].To.String() != "10.1.0.2:80" || !s[1].Idle || s[2].Idle {
			t.Errorf("without %s: sockets %+v", without, s)
		}
		if e := h.Containers[0].Networks; len(e[0].Gateways) != 1 || e[1].Gateways == nil || len(e[1].Gateways) != 0 {
			t.Errorf("gateways: %+v", e)
		}
	}
}
