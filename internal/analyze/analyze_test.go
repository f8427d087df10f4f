package analyze

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/dockerhost"
)

// host is a made-up host with a container on two ports; rules are put in front of Docker's in a table.
func host(t *testing.T, edit func(rules string) string) *dockerhost.Host {
	t.Helper()
	h := dockerhost.Make(1, 2)
	tables, problems := iptsave.Parse(edit(h.Rules), iptsave.Options{Family: netfilter.IPv4})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	h.Host.Rules.Tables = tables
	return h
}

func asItIs(rules string) string { return rules }

// before puts a rule in front of the first of a chain.
func before(chain, rule string) func(string) string {
	return func(rules string) string {
		return strings.Replace(rules, "-A "+chain+" ", "-A "+chain+" "+rule+"\n-A "+chain+" ", 1)
	}
}

// rows are endpoints as a person reads them.
func rows(all []Endpoint) []string {
	var texts []string
	for _, e := range all {
		var from []string
		for _, o := range e.OpenTo {
			name := o.Name
			if name == "" {
				name = o.Addrs.String()
			}
			from = append(from, name+" by "+o.Iface)
		}
		sure := map[bool]string{false: " perhaps"}[e.Certain]
		texts = append(texts, fmt.Sprintf("%s:%d %s %s %s: %s%s", e.Addr, e.Port, e.Owner.Name, e.Way.Path, e.Way.To, strings.Join(from, ", "), sure))
	}
	return texts
}

func TestAudit(t *testing.T) {
	const (
		direct0 = "172.17.0.2:8000 c1 direct 172.17.0.2:8000: any by docker0"
		direct1 = "172.17.0.2:8001 c1 direct 172.17.0.2:8001: any by docker0"
		dnat0   = "0.0.0.0:10000 c1 dnat 172.17.0.2:8000: any by eth0"
		dnat1   = "0.0.0.0:10001 c1 dnat 172.17.0.2:8001: any by eth0"
		proxy0  = "0.0.0.0:10000 c1 proxy 172.17.0.2:8000: any by docker0"
		proxy1  = "0.0.0.0:10001 c1 proxy 172.17.0.2:8001: any by docker0"
	)
	all := []string{direct0, direct1, dnat0, proxy0, dnat1, proxy1}
	for name, test := range map[string]struct {
		edit func(string) string
		want []string
	}{
		"Docker's rules": {asItIs, all},
		"a port closed before DNAT": {func(s string) string {
			return "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 10000 -j DROP\nCOMMIT\n" + s
		}, []string{direct0, direct1, proxy0, dnat1, proxy1}},
		"a source let through": {before("DOCKER-FORWARD", "-i eth0 -p tcp -m tcp --dport 8000 ! -s 198.51.100.0/24 -j DROP"),
			[]string{direct0, direct1, "0.0.0.0:10000 c1 dnat 172.17.0.2:8000: 198.51.100.0/24 by eth0", proxy0, dnat1, proxy1}},
		"the dialled port": {before("FORWARD", "-i eth0 -p tcp -m conntrack --ctorigdstport 10001 --ctdir ORIGINAL -j DROP"),
			[]string{direct0, direct1, dnat0, proxy0, proxy1}},
		"a mark that is set and asked for": {func(s string) string {
			return "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 10000 -j MARK --set-xmark 0x10/0x10\nCOMMIT\n" +
				before("FORWARD", "-m mark --mark 0x10/0x10 -j DROP")(s)
		}, []string{direct0, direct1, proxy0, dnat1, proxy1}},
		"a label that is set and asked for": {func(s string) string {
			return "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 10000 -m connlabel --label 86 --set\nCOMMIT\n" +
				before("FORWARD", "-m connlabel --label 86 -j DROP")(s)
		}, []string{direct0, direct1, proxy0, dnat1, proxy1}},
		"what a connection was dialled by, before there is one": {func(s string) string {
			return strings.Replace(s, "*raw\n", "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack ! --ctorigdstport 1 -j DROP\n", 1)
		}, all},
		"a limit": {before("FORWARD", "-i eth0 -m limit --limit 1/sec -j DROP"),
			[]string{direct0, direct1, dnat0 + " perhaps", proxy0, dnat1 + " perhaps", proxy1}},
		"what isn't understood": {before("DOCKER-FORWARD", "-i eth0 -m string --string x --algo bm -j ACCEPT"), all},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rows(audited(t, &host(t, test.edit).Host)); !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// sameRows tells whether two audits found the same, in whatever order.
func sameRows(a, b []Endpoint) bool {
	return slices.Equal(slices.Sorted(slices.Values(rows(a))), slices.Sorted(slices.Values(rows(b))))
}

// audited is what an audit finds, which has to be the same where it keeps to what it asks about.
func audited(t testing.TB, h *snapshot.Host) []Endpoint {
	t.Helper()
	all, err := Audit(context.Background(), h, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, isTest := t.(*testing.T); isTest {
		narrowed, err := audit(context.Background(), h, netfilter.IPv4, nil, true)
		whole, err2 := audit(context.Background(), h, netfilter.IPv4, nil, false)
		if err != nil || err2 != nil || !sameRows(narrowed, whole) {
			t.Errorf("%v %v, all at once\n%s\nnarrowed\n%s", err, err2, strings.Join(rows(whole), "\n"), strings.Join(rows(narrowed), "\n"))
		}
	}
	return all
}

func compare(t testing.TB, before, after *snapshot.Host) Difference {
	t.Helper()
	d, err := Compare(context.Background(), before, after)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestBounds: an analysis ends when it is told to, and before it takes all of a host's memory.
func TestBounds(t *testing.T) {
	u := bdd.New()
	tangle := func(ctx context.Context, most int) (err error) {
		defer stopped(&err)
		limit(ctx, u, most)
		set := bdd.None
		for i := range uint64(1 << 20) { // addresses that have nothing in common
			set = u.Or(set, u.Equal(bdd.Field{First: 0, Bits: 32}, bdd.Small(i*2654435761%(1<<32))))
		}
		return nil
	}
	if err := tangle(context.Background(), 1<<17); !errors.Is(err, ErrTooLarge) || u.Nodes() > 1<<17+1<<16+1 {
		t.Errorf("%d nodes: %v", u.Nodes(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tangle(ctx, mostOfHost); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestChainsOfNAT: once a chain has translated a packet, the kernel calls no other.
func TestChainsOfNAT(t *testing.T) {
	h := host(t, asItIs)
	drop := &netfilter.Rule{Actions: []netfilter.Action{netfilter.Verdict{Kind: netfilter.Drop}}}
	h.Host.Rules.Tables = append(h.Host.Rules.Tables, &netfilter.Table{Family: netfilter.Inet, Name: "late", Chains: []*netfilter.Chain{{Name: "late",
		Base: &netfilter.Base{Type: netfilter.NAT, Hook: netfilter.Prerouting, Priority: -90, Policy: netfilter.Accept}, Rules: []*netfilter.Rule{drop}}}})
	open := slices.DeleteFunc(audited(t, &h.Host), func(e Endpoint) bool { return len(e.OpenTo) == 0 })
	want := []string{"0.0.0.0:10000 c1 dnat 172.17.0.2:8000: any by eth0", "0.0.0.0:10001 c1 dnat 172.17.0.2:8001: any by eth0"}
	if got := rows(open); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCompare(t *testing.T) {
	// What isn't this host's, and what containers may be sent among themselves.
	const elsewhere = "0.0.0.0-126.255.255.255 128.0.0.0-172.17.0.0 172.17.0.2-172.17.255.254 172.18.0.0-203.0.113.0 203.0.113.2-203.0.113.254 " +
		"203.0.114.0-255.255.255.255"
	const dialled = "172.17.0.1 203.0.113.1"
	h := host(t, asItIs)
	if d := compare(t, &h.Host, &host(t, asItIs).Host); !d.Equal() {
		t.Errorf("a host differs from itself: %+v", d)
	}
	for name, test := range map[string]struct {
		edit func(string) string
		want []string
	}{
		"a port closed": {before("FORWARD", "-i eth0 -p tcp -m tcp --dport 8000 -d 172.17.0.2 -j DROP"), []string{"lost 6 10000-10000 eth0 at " + dialled, "lost 6 10000-10000 eth0 at 127.0.0.0/8"}},
		"the policy of FORWARD decides": {before("FORWARD", "-j RETURN"), []string{"lost 6 8000-8000 docker0 at 172.17.0.2", "lost 6 8001-8001 docker0 at 172.17.0.2",
			"lost 6 10000-10000 eth0 at " + dialled, "lost 6 10001-10001 eth0 at " + dialled,
			"lost 6 10000-10001 eth0 at 127.0.0.0/8",
			"lost 6 0-7999 docker0 at " + elsewhere, "lost 6 8000-8001 docker0 at " + strings.Replace(elsewhere, "172.17.0.2-", "172.17.0.3-", 1),
			"lost 6 8002-65535 docker0 at " + elsewhere, "lost 17 0-65535 docker0 at " + elsewhere, "lost 1 0-0 docker0 at " + elsewhere,
			"lost 33 0-65535 docker0 at " + elsewhere, "lost 132 0-65535 docker0 at " + elsewhere, "lost 136 0-65535 docker0 at " + elsewhere}},
		"a source closed": {before("FORWARD", "-i eth0 -p tcp -m conntrack --ctorigdstport 10001 -s 192.0.2.0/25 -j DROP"), []string{"lost 6 10001-10001 eth0 at " + dialled, "lost 6 10001-10001 eth0 at 127.0.0.0/8"}},
		"sent somewhere else": {func(s string) string {
			return strings.Replace(s, "--to-destination 172.17.0.2:8000", "--to-destination 172.17.0.2:8001", 1)
		},
			[]string{"moved 6 10000-10000 eth0 at " + dialled, "moved 6 10000-10000 eth0 at 127.0.0.0/8"}},
		"the same in other words": {func(s string) string {
			return strings.Replace(s, "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8000 -j ACCEPT\n",
				"-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8000 -s 0.0.0.0/1 -j ACCEPT\n"+
					"-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8000 -s 128.0.0.0/1 -j ACCEPT\n", 1)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := compare(t, &h.Host, &host(t, test.edit).Host)
			var got []string
			for kind, changes := range map[string][]Change{"gained": d.Gained, "lost": d.Lost, "moved": d.Moved} {
				for _, c := range changes {
					got = append(got, fmt.Sprintf("%s %d %d-%d %s at %s", kind, c.Proto, c.First, c.Last, strings.Join(slices.Sorted(maps.Keys(c.From)), " "), c.To))
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The order is what keeps large rule sets small.
func TestOrder(t *testing.T) {
	want := []netfilter.Field{netfilter.Dst, netfilter.DstPort, netfilter.Proto, netfilter.OutIface, netfilter.InIface, netfilter.Src,
		netfilter.SrcPort, netfilter.CtOrigDst, netfilter.CtOrigDstPort}
	if !slices.Equal(order, want) {
		t.Error("measure a dump of 5,000 rules before this order changes, and write down what came out")
	}
}

func TestRouting(t *testing.T) {
	h := dockerhost.Make(1, 1)
	r := routingOf(h.Routes, netfilter.IPv4)
	for addr, want := range map[string]string{"172.17.0.2": "docker0", "198.51.100.7": "eth0", "203.0.113.9": "eth0", "203.0.113.1": "", "127.0.0.1": ""} {
		if got := r.dev(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s leaves by %q, want %q", addr, got, want)
		}
	}
	for kind, addrs := range map[int][]string{typeLocal: {"127.1.2.3", "203.0.113.1"}, typeBroadcast: {"203.0.113.255", "255.255.255.255"},
		typeMulticast: {"224.0.0.1"}, typeUnicast: {"203.0.113.9", "198.51.100.1"}} {
		for _, addr := range addrs {
			if !r.types(kind, "").Contains(netip.MustParseAddr(addr)) {
				t.Errorf("%s is not of type %d", addr, kind)
			}
		}
	}
}

func BenchmarkAudit(b *testing.B) {
	h := dockerhost.Make(1000, 5)
	h.Host.Rules.Tables, _ = iptsave.Parse(h.Rules, iptsave.Options{Family: netfilter.IPv4})
	b.ReportAllocs()
	for b.Loop() {
		if all := audited(b, &h.Host); len(all) != 15_000 {
			b.Fatal(len(all))
		}
	}
}

// TestLoopback: a port that is published on the loopback address is open to who sends such packets by a wire, since they are
// translated before the kernel would throw them away. What isn't translated is closed.
func TestLoopback(t *testing.T) {
	h := host(t, before("POSTROUTING", "-j ACCEPT"))
	for port, want := range map[uint16]bool{10_000: true, 22: false} {
		for _, localnet := range []string{"0", "1"} {
			h.Sysctls["net.ipv4.conf.all.route_localnet"] = localnet
			reached := false
			a := New(&h.Host, netfilter.IPv4)
			for _, w := range a.Dial(Target{6, netip.MustParseAddr("127.0.0.1"), port}) {
				reached = reached || !a.May(w)["eth0"].IsEmpty() && w.Path == ByDNAT
			}
			if reached != want {
				t.Errorf("port %d with route_localnet %s: %v", port, localnet, reached)
			}
		}
	}
}
