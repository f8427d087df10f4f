package ipt

import (
	"slices"
	"strings"
	"testing"

	"quaywall/internal/testkit/netns"
)

// Trap 22: built-in chains and tables that iptables-nft made for quaywall's jumps go when they are not needed any more: not
// those that were there before, and not those that somebody has come to use.
func TestWhatWasMadeGoes(t *testing.T) {
	const docker = `
		iptables-nft -P FORWARD DROP
		iptables-nft -N DOCKER-USER
		iptables-nft -A FORWARD -j DOCKER-USER
		iptables-nft -t mangle -A FORWARD -p tcp -j RETURN
	`
	for name, test := range map[string]struct {
		before, meanwhile string
		more              string // lines of nft that are there in the end and were not in the beginning
	}{
		"nothing there":  {},
		"Docker's rules": {before: docker},
		"an empty chain": {before: `iptables-nft -A INPUT -j ACCEPT; iptables-nft -F INPUT; ip6tables-nft -t mangle -P INPUT ACCEPT`},
		"a chain that somebody uses": {before: docker, meanwhile: `iptables-nft -A INPUT -p tcp -j ACCEPT`,
			more: "chain INPUT { type filter hook input priority filter; policy accept; meta l4proto tcp counter packets 0 bytes 0 accept }"},
		"a policy that somebody made": {before: docker, meanwhile: `iptables-nft -P OUTPUT DROP`,
			more: "chain OUTPUT { type filter hook output priority filter; policy drop; }"},
		"a chain that somebody added": {meanwhile: `ip6tables-nft -N MINE`,
			more: "table ip6 filter { chain MINE { } }"},
		"a rule that came and went": {before: docker, meanwhile: `iptables-nft -A INPUT -j ACCEPT; iptables-nft -D INPUT -j ACCEPT`},
	} {
		for _, end := range []string{"remove", "a policy that rejects nothing", "the same twice"} {
			t.Run(name+"/"+end, func(t *testing.T) {
				for _, tool := range []string{"iptables-nft", "nft", "ipset"} {
					netns.Tool(t, tool)
				}
				host, b := netns.New(t), New(NFT, Options{})
				host.Output(t, "sh", "-ec", test.before)
				before := host.Output(t, "nft", "list", "ruleset")
				host.Do(t, func() { commit(t, b, sample()) })
				host.Output(t, "sh", "-ec", test.meanwhile)
				switch end {
				case "the same twice":
					host.Do(t, func() { commit(t, b, sample()) })
				case "a policy that rejects nothing":
					host.Do(t, func() { commit(t, b, setPolicy(3)) })
					if s := host.Output(t, "nft", "list", "ruleset"); strings.Contains(s, "table ip security") || strings.Contains(s, "QUAYWALL+INPUT") {
						t.Errorf("without reject there is still\n%s", s)
					}
				}
				host.Do(t, func() { remove(t, b) })
				after := host.Output(t, "nft", "list", "ruleset")
				if more := linesMore(before, after); more != test.more || linesMore(after, before) != "" {
					t.Errorf("before:\n%safter:\n%smore:\n%s", before, after, more)
				}
			})
		}
	}
}

// linesMore are the lines of b that are not in a, in order.
func linesMore(a, b string) string {
	left := strings.Split(a, "\n")
	more := slices.DeleteFunc(strings.Split(b, "\n"), func(line string) bool {
		i := slices.Index(left, line)
		if i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
		return i >= 0 || strings.TrimSpace(line) == ""
	})
	return strings.Join(strings.Fields(strings.Join(more, " ")), " ")
}
