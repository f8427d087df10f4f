package collect

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/snapshot"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// busy is a namespace with something of everything.
func busy(t *testing.T) *netns.NS {
	t.Helper()
	here, there := netns.New(t), netns.New(t)
	netns.Veth(t, here, "eth0", there, "peer0")
	here.Addr(t, "eth0", "192.0.2.1/24", "2001:db8::1/64")
	here.Bridge(t, "docker0")
	for _, args := range [][]string{
		{"link", "add", "v0", "type", "veth", "peer", "name", "v1"}, {"link", "set", "v0", "master", "docker0", "up"},
		{"route", "add", "default", "via", "192.0.2.2"}, {"route", "add", "10.9.0.0/16", "table", "100", "via", "192.0.2.3", "metric", "7", "src", "192.0.2.1"},
		{"route", "add", "10.8.0.0/16", "nexthop", "via", "192.0.2.4", "dev", "eth0", "nexthop", "via", "192.0.2.5", "dev", "eth0"},
		{"route", "add", "blackhole", "10.7.0.0/16"}, {"-6", "route", "add", "default", "via", "2001:db8::2"}, {"route", "add", "10.6.0.0/16", "via", "inet6", "2001:db8::3"},
		{"rule", "add", "priority", "5", "not", "from", "10.0.0.0/8", "to", "192.0.2.0/24", "fwmark", "0x1/0xff", "iif", "eth0", "ipproto", "tcp", "dport", "80-90", "lookup", "100"},
		{"rule", "add", "priority", "6", "goto", "32766"}, {"rule", "add", "priority", "7", "to", "1.2.3.4", "prohibit"},
		{"-6", "rule", "add", "priority", "8", "oif", "eth0", "lookup", "main", "suppress_prefixlength", "0"},
	} {
		here.Output(t, "ip", args...)
	}
	return here
}

// TestWithoutIP: what netlink says is what ip does.
func TestWithoutIP(t *testing.T) {
	netns.Tool(t, "ip")
	busy(t).Do(t, func() {
		tool := func(args ...string) string {
			out, err := sysexec.Run(context.Background(), sysexec.Command{Path: "ip", Args: args})
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		same := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.SortSlices(func(a, b snapshot.Route) bool {
			return hostfiles.FormatRoutes([]snapshot.Route{a}) < hostfiles.FormatRoutes([]snapshot.Route{b})
		})}
		a, l := must(t, addrsByNetlink), must(t, linksByNetlink)
		got, gotLinks, _ := hostfiles.Interfaces(a, "", l, "")
		want, wantLinks, _ := hostfiles.Interfaces(tool("-j", "addr"), "", tool("-d", "-j", "link"), "")
		if diff := cmp.Diff(want, got, same) + cmp.Diff(wantLinks, gotLinks); diff != "" || len(want) != 5 {
			t.Errorf("%d interfaces\n%s", len(want), diff)
		}
		routes, _ := hostfiles.Routes(must(t, routesByNetlink), "")
		wantRoutes, _ := hostfiles.Routes(tool("-4", "route", "show", "table", "all")+tool("-6", "route", "show", "table", "all"), "")
		if diff := cmp.Diff(wantRoutes, routes, same); diff != "" || len(wantRoutes) < 15 {
			t.Errorf("%d routes\n%s", len(wantRoutes), diff)
		}
		rules, _ := hostfiles.Rules(must(t, rulesByNetlink), "")
		wantRules, _ := hostfiles.Rules(tool("-4", "rule")+tool("-6", "rule"), "")
		if diff := cmp.Diff(wantRules, rules, same); diff != "" || len(wantRules) != 9 {
			t.Errorf("%d rules\n%s", len(wantRules), diff)
		}
	})
}

func must(t *testing.T, f func() ([]byte, error)) string {
	t.Helper()
	text, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
