package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/testkit/dockerhost"
)

// patient is a host that is well until something is done to it.
type patient struct {
	rules, rules6 string
	legacy        string
	*dockerhost.Host
	facts Facts
}

func well() *patient {
	h := dockerhost.Make(2, 1)
	h.Sysctls["net.bridge.bridge-nf-call-iptables"] = "1"
	return &patient{rules: h.Rules, Host: h}
}

// edit replaces text in the rules, which must be there.
func (p *patient) edit(t *testing.T, old, new string) {
	t.Helper()
	if !strings.Contains(p.rules, old) {
		t.Fatalf("the rules have no %q", old)
	}
	p.rules = strings.ReplaceAll(p.rules, old, new)
}

func (p *patient) examine(t *testing.T) []Finding {
	t.Helper()
	for _, d := range []struct {
		text    string
		options iptsave.Options
	}{
		{p.rules, iptsave.Options{Family: netfilter.IPv4, Dialect: netfilter.IPTablesNFT}},
		{p.rules6, iptsave.Options{Family: netfilter.IPv6, Dialect: netfilter.IPTablesNFT}},
		{p.legacy, iptsave.Options{Family: netfilter.IPv4, Dialect: netfilter.IPTablesLegacy}},
	} {
		tables, problems := iptsave.Parse(d.text, d.options)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		p.Host.Host.Rules.Tables = append(p.Host.Host.Rules.Tables, tables...)
	}
	return Examine(&p.Host.Host, p.facts)
}

func TestExamine(t *testing.T) {
	const forward = "-A FORWARD -j DOCKER-USER\n"
	for name, test := range map[string]struct {
		hurt func(*testing.T, *patient)
		want string // the findings' names
	}{
		"a host that is well": {func(*testing.T, *patient) {}, ""},
		"iptables: false":     {func(_ *testing.T, p *patient) { p.rules, p.facts.Settings = "", map[string]string{"iptables": "false"} }, "docker-iptables-off"},
		"everything flushed":  {func(_ *testing.T, p *patient) { p.rules = "" }, "docker-rules-gone"},
		"nat flushed": {func(t *testing.T, p *patient) {
			p.edit(t, "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n", "")
		}, "docker-rules-incomplete"},
		"a port lost": {func(t *testing.T, p *patient) {
			p.edit(t, "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 10000 -j DNAT --to-destination 172.17.0.2:8000\n", "")
		}, "docker-rules-incomplete"},
		"no way out": {func(t *testing.T, p *patient) {
			p.edit(t, "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n", "")
		}, "docker-rules-incomplete"},
		"FORWARD flushed": {func(t *testing.T, p *patient) { p.edit(t, "-A FORWARD -j DOCKER-FORWARD\n", "") }, "docker-rules-incomplete forward-drop"},
		"ip_forward off":  {func(_ *testing.T, p *patient) { p.Sysctls["net.ipv4.ip_forward"] = "0" }, "ip-forward-off"},
		"rules in both": {func(_ *testing.T, p *patient) {
			p.legacy = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 23 -j DROP\nCOMMIT\n"
		}, "two-variants"},
		"bridge netfilter": {func(t *testing.T, p *patient) { p.Sysctls["net.bridge.bridge-nf-call-iptables"] = "0" }, ""},
		"icc=false without it": {func(t *testing.T, p *patient) {
			p.Sysctls["net.bridge.bridge-nf-call-iptables"] = "0"
			p.edit(t, "-A DOCKER-FORWARD -i docker0 -j ACCEPT\n", "-A DOCKER-FORWARD -i docker0 -o docker0 -j DROP\n-A DOCKER-FORWARD -i docker0 ! -o docker0 -j ACCEPT\n")
		}, "bridge-netfilter-off"},
		"DOCKER-USER gone": {func(t *testing.T, p *patient) { p.edit(t, ":DOCKER-USER - [0:0]\n", ""); p.edit(t, forward, "") }, "docker-user-missing"},
		"DOCKER-USER not first": {func(t *testing.T, p *patient) {
			p.edit(t, forward, "-A FORWARD -i docker0 -j ACCEPT\n"+forward+"-A DOCKER-USER -s 192.0.2.1/32 -j DROP\n")
		}, "docker-user-not-first"},
		"after RETURN": {func(t *testing.T, p *patient) {
			p.edit(t, forward, forward+"-A DOCKER-USER -j RETURN\n-A DOCKER-USER -s 192.0.2.1/32 -j DROP\n")
		}, "docker-user-dead"},
		"RETURN at the end": {func(t *testing.T, p *patient) {
			p.edit(t, forward, forward+"-A DOCKER-USER -s 192.0.2.1/32 -j DROP\n-A DOCKER-USER -j RETURN\n")
		}, ""},
		"a rule that sank": {func(t *testing.T, p *patient) {
			p.edit(t, "-A FORWARD -j DOCKER-FORWARD\n", "-A FORWARD -j DOCKER-FORWARD\n-A FORWARD -i eth0 -p tcp -m tcp --dport 8000 -j DROP\n")
		}, "forward-rules-sunken"},
		"an old dump": {func(t *testing.T, p *patient) {
			p.edit(t, "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 10000", "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9999 -j DNAT --to-destination 172.17.0.2:22\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport 10000")
		}, "docker-rules-stale"},
		"IPv6 without rules": {func(_ *testing.T, p *patient) {
			p.Inventory.Networks[0].Subnets = append(p.Inventory.Networks[0].Subnets, netip.MustParsePrefix("2001:db8:1::/64"))
		}, "ip6tables-off"},
		"two firewalls": {func(t *testing.T, p *patient) {
			p.edit(t, forward, "-A ufw-before-input -i lo -j ACCEPT\n"+forward)
			p.Host.Host.Rules.Tables = append(p.Host.Host.Rules.Tables, &netfilter.Table{Name: "firewalld"})
		}, "two-firewalls"},
		"macvlan": {func(_ *testing.T, p *patient) {
			p.Inventory.Unseen = []inventory.Unseen{{Name: "lan", Driver: "macvlan", Parent: "eth0"}}
		}, "unseen-network"},
		"published on lo":  {func(_ *testing.T, p *patient) { p.Inventory.Published[0].Addr = netip.MustParseAddr("127.0.0.1") }, "loopback-published"},
		"quaywall flushed": {func(_ *testing.T, p *patient) { p.facts.Applied = true }, "quaywall-gone"},
		"its jump gone": {func(_ *testing.T, p *patient) {
			p.rules += "*mangle\n:PREROUTING ACCEPT [0:0]\n:QUAYWALL-gate - [0:0]\n-A QUAYWALL-gate -j DROP\nCOMMIT\n"
		}, "quaywall-bypassed"},
		"its jump second": {func(_ *testing.T, p *patient) {
			p.rules += "*mangle\n:PREROUTING ACCEPT [0:0]\n:QUAYWALL-gate - [0:0]\n-A PREROUTING -i eth0 -j ACCEPT\n-A PREROUTING -j QUAYWALL-gate\n-A QUAYWALL-gate -j DROP\nCOMMIT\n"
		}, "quaywall-bypassed"},
		"drift": {func(_ *testing.T, p *patient) {
			p.facts.Drift, p.facts.Applied = true, true
			p.Host.Host.Rules.Tables = []*netfilter.Table{{Name: "quaywall"}}
		}, "quaywall-drift"},
		"Docker is silent": {func(_ *testing.T, p *patient) { p.facts.Problem = "permission denied" }, "docker-silent"},
		"after a flush, its own table": {func(_ *testing.T, p *patient) {
			p.rules = ""
			p.Host.Host.Rules.Tables = []*netfilter.Table{{Name: dockerTable, Family: netfilter.IPv4, Chains: []*netfilter.Chain{{Name: "nat-prerouting-and-output"}}}}
		}, "docker-table-incomplete"},
		"left by the other backend": {func(_ *testing.T, p *patient) {
			base := &netfilter.Base{Policy: netfilter.Accept}
			var chains []*netfilter.Chain
			for _, name := range []string{"filter-FORWARD", "nat-PREROUTING", "nat-POSTROUTING", "raw-PREROUTING"} {
				chains = append(chains, &netfilter.Chain{Name: name, Base: base})
			}
			p.Host.Host.Rules.Tables = []*netfilter.Table{{Name: dockerTable, Family: netfilter.IPv4, Chains: chains}}
			p.rules = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
		}, "forward-drop"},
	} {
		t.Run(name, func(t *testing.T) {
			p := well()
			test.hurt(t, p)
			var got []string
			for _, f := range p.examine(t) {
				got = append(got, f.ID)
				if f.Title == "" || f.Means == "" || len(f.Evidence) == 0 || f.Do == "" || strings.HasSuffix(f.Title, ".") {
					t.Errorf("%s is not told whole: %+v", f.ID, f)
				}
			}
			if want := strings.Fields(test.want); !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}
