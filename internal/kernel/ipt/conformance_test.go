package ipt

import (
	"testing"

	"quaywall/internal/kernel/conformance"
)

// tools are shell functions: ip4 and ip6 change table mangle, office and bridges name sets of conformance.Sample.
func tools(v Variant) string {
	return `
ip4() { iptables-` + string(v) + ` -w 10 -t mangle "$@"; }
ip6() { ip6tables-` + string(v) + ` -w 10 -t mangle "$@"; }
office=$(ipset list -n | sed -n '/^quaywall4-office-/p')
bridges=$(ipset list -n | sed -n '/^quaywall4-bridges-/p')
`
}

// drift is what other programs do to chains, jumps and sets. A set has no room for more than quaywall puts into it: who
// adds an element must delete another one first.
func drift(v Variant) []conformance.Drift {
	all := []conformance.Drift{
		{Name: "a rule deleted", Commands: `ip4 -D QUAYWALL-web 1`},
		{Name: "rules in another order", Commands: `ip4 -D QUAYWALL-web 1
			ip4 -A QUAYWALL-web -s 198.51.100.0/24 -m comment --comment policy.yaml:8 -j DROP`},
		{Name: "a rule added", Commands: `ip4 -I QUAYWALL-gate -j RETURN`},
		{Name: "a verdict changed", Commands: `ip4 -R QUAYWALL-web 1 -s 198.51.100.0/24 -m comment --comment policy.yaml:8 -j RETURN`},
		{Name: "a rule of IPv6 deleted", Commands: `ip6 -D QUAYWALL-gate 1`},
		{Name: "a chain flushed", Commands: `ip6 -F QUAYWALL-gate`},
		{Name: "a chain added", Commands: `ip4 -N QUAYWALL-more`},
		{Name: "a chain renamed", Commands: `ip4 -E QUAYWALL-web QUAYWALL-elsewhere`},
		{Name: "the jump deleted", Commands: `ip4 -D PREROUTING -j QUAYWALL-gate`},
		{Name: "the jump not first", Commands: `ip4 -I PREROUTING -p tcp --dport 1 -j ACCEPT`},
		{Name: "the jump twice", Commands: `ip6 -A PREROUTING -j QUAYWALL-gate`},
		{Name: "the jump with a condition", Commands: `ip4 -R PREROUTING 1 -p tcp -j QUAYWALL-gate`},
		{Name: "a jump from elsewhere", Commands: `ip4 -A INPUT -g QUAYWALL-web`},
		{Name: "a table flushed", Commands: `ip4 -F`},
		{Name: "everything flushed", Commands: `for ip in ip4 ip6; do $ip -F; $ip -X; done; ipset destroy`},
		{Name: "an element deleted", Commands: `ipset del $office 192.0.2.77`},
		{Name: "an element added", Commands: `ipset del $office 192.0.2.77; ipset add $office 100.64.0.0/10`},
		{Name: "an element inverted", Commands: `ipset del $office 192.0.2.77; ipset add $office 192.0.2.77 nomatch`},
		{Name: "a set flushed", Commands: `ipset flush $office`},
		{Name: "a set swapped", Commands: `ipset create others hash:net; ipset add others 0.0.0.0/1; ipset swap others $office`},
		{Name: "an interface added", Commands: `ipset del $bridges 0.0.0.0/0,docker0; ipset add $bridges 0.0.0.0/0,eth0`},
		{Name: "an interface made the beginning of names", Commands: `ipset del $bridges 0.0.0.0/0,docker0
			ipset add $bridges 0.0.0.0/0,docker0 wildcard`},
	}
	if v == NFT {
		all = append(all,
			conformance.Drift{Name: "the table deleted", Commands: `nft delete table ip mangle`},
			conformance.Drift{Name: "the ruleset flushed", Commands: `nft flush ruleset`})
	}
	for i := range all {
		all[i].Commands = tools(v) + all[i].Commands
	}
	return all
}

// foreign are rules of others in the very chains that quaywall jumps from.
func foreign(v Variant) []string {
	return []string{tools(v) + `
for ip in ip4 ip6; do
	$ip -N MINE
	$ip -A MINE -p tcp --dport 4000 -j MARK --set-mark 7
	$ip -A PREROUTING -m comment --comment "goes to QUAYWALL-gate, they say" -j MINE
	$ip -P POSTROUTING ACCEPT
done
`}
}

// keptByLegacy are tables without rules: only unloading its kernel modules would take them away.
var keptByLegacy = []string{`^\*(raw|mangle|filter|security)$`, `^:[A-Z]+ ACCEPT $`, `^COMMIT$`}

func TestConformance(t *testing.T) {
	for v, leftover := range map[Variant][]string{NFT: nil, Legacy: keptByLegacy} {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel() // each has namespaces of its own; most of it is waiting
			conformance.Run(t, conformance.Subject{
				Backend: New(v, Options{}), Tools: []string{"iptables-" + string(v) + "-restore", "iptables-" + string(v) + "-save", "ipset"},
				Drift: drift(v), Foreign: foreign(v), Leftover: leftover,
			})
		})
	}
}
