package nft

import (
	"testing"

	"quaywall/internal/kernel/conformance"
)

// deleteRule deletes the rule of a policy line.
const deleteRule = `delete() {
	nft delete rule inet quaywall "$1" handle "$(nft -a list chain inet quaywall "$1" | sed -n "s/.*\"$2\".* handle //p")"
}
`

// drift is what other programs do to the table.
var drift = []conformance.Drift{
	{Name: "a rule deleted", Commands: deleteRule + `delete web policy.yaml:8`},
	{Name: "rules in another order", Commands: deleteRule + `delete web policy.yaml:8
		nft 'add rule inet quaywall web ip saddr 198.51.100.0/24 counter drop comment "policy.yaml:8"'`},
	{Name: "a rule added", Commands: `nft insert rule inet quaywall gate accept`},
	{Name: "a rule of an unknown kind", Commands: `nft add rule inet quaywall web numgen inc mod 3 0 drop`},
	{Name: "a verdict changed", Commands: deleteRule + `delete gate default
		nft 'add rule inet quaywall gate counter accept comment "default"'`},
	{Name: "an element added", Commands: `nft 'add element inet quaywall office { 100.64.0.0/10 }'`},
	{Name: "an element deleted", Commands: `nft 'delete element inet quaywall office { 192.0.2.77 }'`},
	{Name: "a set flushed", Commands: `nft flush set inet quaywall office`},
	{Name: "an interface added", Commands: `nft 'add element inet quaywall bridges { "eth0" }'`},
	{Name: "an element of a map changed", Commands: `nft 'delete element inet quaywall ports { 22 }
		add element inet quaywall ports { 22 comment "policy.yaml:5: administration" : drop }'`},
	{Name: "a chain added", Commands: `nft 'add chain inet quaywall more { type filter hook input priority 0; policy drop; }'`},
	{Name: "a chain flushed", Commands: `nft flush chain inet quaywall web`},
	{Name: "the policy of a chain changed", Commands: `nft 'chain inet quaywall gate { policy drop; }'`},
	{Name: "the table flushed", Commands: `nft flush table inet quaywall`},
	{Name: "the table put to sleep", Commands: `nft 'add table inet quaywall { flags dormant; }'`},
	{Name: "the table deleted", Commands: `nft delete table inet quaywall`},
	{Name: "everything flushed", Commands: `nft flush ruleset`},
	{Name: "a set added", Commands: `nft 'add set inet quaywall more { type ipv4_addr; }'`},
	{Name: "a table of hand-written rules", Commands: `nft 'add table inet quaywall_raw; add chain inet quaywall_raw x'`},
	{Name: "the base chain moved", Commands: `nft 'delete table inet quaywall; add table inet quaywall
		add chain inet quaywall gate { type filter hook prerouting priority 0; }'`},
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{Backend: New(), Tools: []string{"nft"}, Drift: drift})
}
