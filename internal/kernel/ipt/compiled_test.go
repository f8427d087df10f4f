package ipt

import (
	"net/netip"
	"testing"

	"quaywall/internal/compile"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// compiled is the ruleset of a policy on a host with two Docker networks.
func compiled(t testing.TB, text string) *ruleset.Ruleset {
	t.Helper()
	p, list := policy.Parse("policy.yaml", []byte("version: 1\n"+text))
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	inv := &inventory.Inventory{
		Docker: inventory.Docker{Reachable: true, Version: "28.5.2"},
		Networks: []inventory.Network{
			{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}},
			{Name: "web", Bridge: "br-0123456789ab", Mode4: "routed", Mode6: "routed", Subnets: []netip.Prefix{
				netip.MustParsePrefix("172.18.0.0/16"), netip.MustParsePrefix("2001:db8:18::/64")}},
		},
		Published: []inventory.Published{{Addr: netip.IPv4Unspecified(), Proto: 6, Port: 8080, Container: "web", Networks: []string{"web"}, Target: 80}},
	}
	rs, list := compile.Compile(p, inv, compile.Options{LogGroup: 86, PickUp: true})
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return rs
}

const everything = `
sets:
  office: [203.0.113.0/24, 198.51.100.7-198.51.100.20, "2001:db8:aa::/48"]
  cluster: [192.168.0.1, 192.168.0.2, 192.168.0.3]
inbound:
  - deny: any
    from: [192.0.2.99, 192.0.2.101, "2001:db8::99"]
  - allow: [http, https, 8000-8100/udp]
  - allow: 6379/tcp
    from: cluster
  - allow: ssh
    from: [office, 192.0.2.4]
    limit: 10/minute
    note: "the \"office\" it's"
  - reject: 113/tcp
  - reject: 5000/udp
    log: true
  - allow: published
    network: web
  - allow: [esp, gre, 132/tcp]
    from: {not: office}
  - allow: 80/tcp
    to: {network: web}
  - allow: ping
    on: "eth*"
egress:
  - allow: [dns, 443/tcp]
    network: web
    to: [10.0.0.0/8]
  - reject: any
    network: web
outbound:
  - allow: [dns, https]
  - reject: 25/tcp
  - deny: any
    to: 198.51.100.0/24
defaults: {inbound: deny, egress: allow, outbound: allow}
trusted: [wg0, "virbr*"]
log: {denied: 10/second}
hygiene: on
`

func TestCompiledPolicies(t *testing.T) {
	for name, text := range map[string]string{
		"default":    "inbound: [{allow: ssh}, {allow: ping}]\n",
		"everything": everything,
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, b *Backend) {
				rs := compiled(t, text)
				want := planned(t, b, rs)
				for range 2 {
					commit(t, b, rs)
					inForce(t, b, want)
				}
				for _, r := range want.Rules {
					t.Log(r)
				}
			})
		})
	}
}
