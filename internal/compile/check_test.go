package compile_test

import (
	"strings"
	"testing"

	"quaywall/internal/compile"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

// TestWarnings: what the policy says and the host doesn't have is told, with the place and what to do.
func TestWarnings(t *testing.T) {
	rule := func(change func(*policy.Rule)) *policy.Policy {
		p := defaultPolicy()
		r := policy.Rule{Pos: at(7), Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 80)}}
		change(&r)
		p.Inbound = []policy.Rule{r}
		return p
	}
	on := func(names ...string) *policy.Policy { return rule(func(r *policy.Rule) { r.On = names }) }
	silent := inventory.Docker{Problem: "permission denied on /run/docker.sock"}
	cases := []struct {
		name   string
		policy *policy.Policy
		host   func(*inventory.Inventory)
		want   string // "" is no warning at all
	}{
		{"nothing", defaultPolicy(), nil, ""},
		{"unknown network", rule(func(r *policy.Rule) { r.Networks = []string{"shp"} }), nil,
			"/etc/quaywall/policy.yaml:7: warning: Docker has no network shp with a bridge on this host: the rule matches nothing (shop is meant?)"},
		{"one of two networks", rule(func(r *policy.Rule) { r.Networks = []string{"shop", "somewhere-else"} }), nil,
			"somewhere-else with a bridge on this host: the rule matches nothing there (`docker network ls` lists the networks)"},
		{"network without Docker", rule(func(r *policy.Rule) { r.Networks = []string{"backend"} }),
			func(inv *inventory.Inventory) { inv.Docker = silent },
			"network backend is not known, since Docker doesn't answer (permission denied on /run/docker.sock): the rule matches nothing (apply again when Docker answers)"},
		{"egress of a network without Docker", payments(policy.Deny), func(inv *inventory.Inventory) { inv.Docker = silent },
			"network payments is not known, since Docker doesn't answer (permission denied on /run/docker.sock): until it does, the rule holds for every network (apply again when Docker answers)"},
		{"egress allowed to a network without Docker", payments(policy.Allow), func(inv *inventory.Inventory) { inv.Docker = silent },
			"network payments is not known, since Docker doesn't answer (permission denied on /run/docker.sock): the rule matches nothing"},
		{"to an unknown network", rule(func(r *policy.Rule) { r.To = policy.Addresses{Given: true, Network: "brige"} }), nil,
			"Docker has no network brige with a bridge on this host: the rule matches nothing (bridge is meant?)"},
		{"to a routed network", rule(func(r *policy.Rule) { r.To = policy.Addresses{Given: true, Network: "shop"} }), nil, ""},
		{"to a network that isn't routed", rule(func(r *policy.Rule) { r.To = policy.Addresses{Given: true, Network: "bridge"} }), nil,
			"network bridge is not in gateway mode routed or nat-unprotected"},
		{"published", rule(func(r *policy.Rule) { r.What = []policy.Traffic{{Published: true}} }), nil, ""},
		{"nothing published", rule(func(r *policy.Rule) { r.What = []policy.Traffic{{Published: true}} }),
			func(inv *inventory.Inventory) { inv.Published = nil },
			"no port is published now: the rule matches nothing (apply again when a container publishes one)"},
		{"nothing published there", rule(func(r *policy.Rule) {
			r.What, r.Networks = []policy.Traffic{{Published: true}}, []string{"shop"}
		}), func(inv *inventory.Inventory) { inv.Published = inv.Published[:2] },
			"no port is published now on shop: the rule matches nothing"},
		{"published without Docker", rule(func(r *policy.Rule) { r.What = []policy.Traffic{{Published: true}} }),
			func(inv *inventory.Inventory) { inv.Docker, inv.Published = silent, nil },
			"published ports are not known, since Docker doesn't answer (permission denied on /run/docker.sock): the rule opens none"},
		{"no such interface", on("etj0"), nil, "no interface is named etj0: the rule matches nothing until there is one (eth0 is meant?)"},
		{"no such interfaces", on("ppp*"), nil, "no interface is named ppp*: the rule matches nothing until there is one (`ip link` lists the interfaces)"},
		{"interfaces", on("eth*", "lo"), nil, ""},
		{"interfaces not known", on("ppp0"), func(inv *inventory.Inventory) { inv.Interfaces = nil }, ""},
		{"a bridge's port", on("eth0"), func(inv *inventory.Inventory) { inv.Interfaces[2].Master = "docker0" },
			"IP doesn't see eth0, it is a port of the bridge docker0: the rule matches nothing on it (name docker0)"},
		{"a bridge's port among others", on("eth*"), func(inv *inventory.Inventory) { inv.Interfaces[2].Master = "docker0" }, ""},
		{"only a bond's slaves", on("eth*"), func(inv *inventory.Inventory) {
			inv.Interfaces[2].Master, inv.Interfaces[3].Master, inv.Interfaces[5].Kind = "wg0", "wg0", "bond"
		}, "IP doesn't see eth1, it is a port of the bond wg0"},
		{"a VLAN's carrier", on("eth0"), func(inv *inventory.Inventory) {
			inv.Interfaces[2].Addrs = nil
			inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "eth0.5", Kind: "vlan", Parent: "eth0"})
		}, "IP doesn't see eth0, it has no address and carries the VLAN eth0.5: the rule matches nothing on it (name eth0.5)"},
		{"a VLAN's carrier with an address", on("eth0"), func(inv *inventory.Inventory) {
			inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "eth0.5", Kind: "vlan", Parent: "eth0"})
		}, ""},
		{"a shared bridge", defaultPolicy(), share, "Docker's network shop is on bridge br-0123456789ab, and so is eth1: what comes in by br-0123456789ab may come " +
			"from anywhere, so its containers are judged by the inbound rules, as strangers are, and egress doesn't judge them " +
			"(give the network a bridge of its own, or take eth1 out of br-0123456789ab)"},
		{"egress of a network on it", restricted(), share, "policy.yaml:14: warning: others than containers are on network shop: the rule matches nothing (take eth1 out of br-0123456789ab)"},
		{"libvirt", defaultPolicy(), func(inv *inventory.Inventory) {
			inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "virbr0", Kind: "bridge"})
		}, "virbr0 is a bridge of libvirt: what it sends to this host is judged by the inbound rules (add virbr0 to trusted to leave it unfiltered)"},
		{"libvirt trusted", restricted(), func(inv *inventory.Inventory) {
			inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "wg0", Kind: "bridge"})
		}, ""},
		{"egress by guessed names", restricted(), func(inv *inventory.Inventory) { inv.Docker = silent },
			"policy.yaml:13: warning: Docker doesn't answer (permission denied on /run/docker.sock): egress takes interfaces named like its bridges for its networks"},
		{"no Docker at all", withoutNetworks(), func(inv *inventory.Inventory) { *inv = inventory.Inventory{} }, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inv := testHost()
			if c.host != nil {
				c.host(inv)
			}
			rs, list := compile.Compile(c.policy, inv, compile.Options{})
			if list.HasErrors() || rs == nil {
				t.Fatalf("errors: %v", list)
			}
			if text := list.Error(); c.want == "" && text != "" || !strings.Contains(text, c.want) {
				t.Errorf("warnings %q, want %q", text, c.want)
			}
		})
	}
}

// share puts eth1 on the bridge of the network shop.
func share(inv *inventory.Inventory) {
	inv.Networks = inv.Networks[:1]
	inv.Shared = []inventory.Shared{{Name: "shop", Bridge: "br-0123456789ab", Port: "eth1"}}
}

// payments does something with what a network sends.
func payments(verb policy.Verb) *policy.Policy {
	p := defaultPolicy()
	p.Egress = []policy.Rule{{Pos: at(7), Verb: verb, What: []policy.Traffic{{}}, Networks: []string{"payments"}}}
	return p
}

// withoutNetworks restricts egress and names nothing that a host could lack.
func withoutNetworks() *policy.Policy {
	p := defaultPolicy()
	p.Defaults.Egress.Verb = policy.Deny
	return p
}

func TestVRFIsRefused(t *testing.T) {
	inv := testHost()
	inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "red", Kind: "vrf"})
	rs, list := compile.Compile(defaultPolicy(), inv, compile.Options{})
	if rs != nil || !list.HasErrors() || !strings.Contains(list.Error(), "interface red is a VRF") {
		t.Errorf("ruleset %v, list %v", rs, list)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	first, _ := compile.Compile(restricted(), testHost(), compile.Options{LogGroup: 86})
	for range 5 {
		again, _ := compile.Compile(restricted(), testHost(), compile.Options{LogGroup: 86})
		if again.String() != first.String() {
			t.Fatal("two runs differ")
		}
	}
}

func TestRawIsHandedOn(t *testing.T) {
	p := defaultPolicy()
	p.Raw.NFT.Text, p.Raw.IPTables.Text = "chain x {}", "-A x"
	rs, _ := compile.Compile(p, testHost(), compile.Options{})
	if rs.Raw.NFT != "chain x {}" || rs.Raw.IPTables != "-A x" {
		t.Errorf("%+v", rs.Raw)
	}
}
