//go:build bench

package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quaywall/internal/compile"
	"quaywall/internal/files"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/netns"
)

func TestProgram(t *testing.T) {
	ns := netns.New(t)
	ms := repeat(20, func() float64 { return spend(t, ns, nil, *binary, "version").ms() })
	report.Add(Row{What: "program start (`version`)", Ours: ms, Unit: "ms", Target: "at most 15 ms", Met: ms <= 15})
	info, err := os.Stat(*binary)
	if err != nil {
		t.Fatal(err)
	}
	mb := float64(info.Size()) / 1e6
	report.Add(Row{What: "program on disk", Ours: mb, Unit: "MB", Target: "at most 25 MB", Met: mb <= 25})
}

func TestCompile(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\ninbound:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  - allow: %d/tcp\n    from: 10.%d.%d.%d\n", 1+i*5%60_000, i>>16, i>>8&255, i&255)
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ms := repeat(5, func() float64 {
		start := time.Now()
		p, _, list := policy.Load(files.Host{}, path)
		if err := list.Err(); err != nil {
			t.Fatal(err)
		}
		if _, list := compile.Compile(p, &inventory.Inventory{}, compile.Options{}); list.HasErrors() {
			t.Fatal(list)
		}
		return float64(time.Since(start).Microseconds()) / 1000
	})
	report.Add(Row{What: "parse and compile 10,000 rules", Ours: ms, Unit: "ms", Target: "at most 200 ms", Met: ms <= 200})
}

// s1 is the policy of scenario S1.
const s1 = `version: 1
sets:
  cluster: [192.168.0.1, 192.168.0.2, 192.168.0.3]
inbound:
  - allow: ssh
  - allow: [http, https]
  - allow: 6379/tcp
    from: cluster
  - allow: ping
`

// byHand is what administrators write instead, of the same meaning as far as such rules reach: a process a rule, into
// INPUT and DOCKER-USER, both families.
const byHand = `set -e
ipset create hand-cluster hash:net; for a in 1 2 3; do ipset add hand-cluster 192.168.0.$a; done
for t in iptables ip6tables; do
  $t -F DOCKER-USER; $t -F HAND 2>/dev/null || { $t -N HAND; $t -I INPUT -j HAND; }
  $t -A HAND -i lo -j ACCEPT
  $t -A HAND -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
  $t -A HAND -p tcp --dport 22 -j ACCEPT
  $t -A HAND -p tcp -m multiport --dports 80,443 -j ACCEPT
done
iptables -A HAND -p icmp -j ACCEPT; ip6tables -A HAND -p ipv6-icmp -j ACCEPT
iptables -A HAND -p tcp --dport 6379 -m set --match-set hand-cluster src -j ACCEPT
for t in iptables ip6tables; do
  $t -A HAND -j DROP
  $t -A DOCKER-USER -i eth0 -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
  $t -A DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 80 --ctdir ORIGINAL -j RETURN
  $t -A DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 443 --ctdir ORIGINAL -j RETURN
  $t -A DOCKER-USER -i eth0 -j DROP
done
`

const undoByHand = `for t in iptables ip6tables; do $t -F DOCKER-USER; $t -F INPUT; $t -F HAND; $t -X HAND; done; ipset destroy hand-cluster`

func TestApplyS1(t *testing.T) {
	for _, backend := range backends {
		ns := netns.New(t)
		ns.Output(t, "sh", "-c", "for t in iptables ip6tables; do $t -N DOCKER-USER; $t -A FORWARD -j DOCKER-USER; done")
		h := newHost(t, ns, backend)
		row := compare(Row{What: "apply of the S1 policy, whole process, " + backend, Unit: "ms", Beside: "DOCKER-USER rules by hand, ms",
			Target: "at most 100 ms and 1.0 ×"}, 9,
			func() float64 { defer h.stop(t); return h.apply(t, s1).ms() },
			func() float64 {
				defer spend(t, ns, nil, "sh", "-c", undoByHand)
				return spend(t, ns, nil, "sh", "-c", byHand).ms()
			})
		row.Met = row.Ours <= 100 && row.Ratio <= 1
		report.Add(row)
	}
}

// prefixes makes distinct prefixes that neither overlap nor touch, the same each time.
func prefixes(n int) []netip.Prefix {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	seen := make(map[netip.Prefix]bool, n)
	list := make([]netip.Prefix, 0, n)
	for len(list) < n {
		v := random.Uint32() &^ 7 // a /30 each in a /29 of its own, so that none touches
		a := netip.AddrFrom4([4]byte{byte(v>>24)%223 + 1, byte(v >> 16), byte(v >> 8), byte(v)})
		if p := netip.PrefixFrom(a, 30); !seen[p] {
			seen[p], list = true, append(list, p)
		}
	}
	return list
}

func TestApplySets(t *testing.T) {
	for _, n := range []int{100_000, 1_000_000} {
		list := prefixes(n)
		var plain, nft, restore bytes.Buffer
		nft.WriteString("table inet hand {\n set s { type ipv4_addr; flags interval; elements = {\n")
		fmt.Fprintf(&restore, "create hand hash:net family inet hashsize %d maxelem %d\n", n, 2*n)
		for _, p := range list {
			fmt.Fprintln(&plain, p)
			fmt.Fprintf(&nft, "%s,\n", p)
			fmt.Fprintf(&restore, "add hand %s\n", p)
		}
		nft.WriteString("} }\n chain c { type filter hook prerouting priority -149; ip saddr @s drop; }\n}\n")
		pairs := 3
		measureSet(t, n, pairs, "nft", plain.String(), []string{"nft", "delete table inet hand", "-f", "-"}, nft.Bytes(), 0.5)
		measureSet(t, n, pairs, "iptables", plain.String(), []string{"ipset", "destroy hand", "restore"}, restore.Bytes(), 1.2)
	}
}

// measureSet compares apply with a set from a file against the tool below it. tool is the program, the command that
// undoes it and the arguments that load what is on standard input.
func measureSet(t *testing.T, n, pairs int, backend, plain string, tool []string, input []byte, most float64) {
	ns := netns.New(t)
	h := newHost(t, ns, backend)
	h.write(t, "big.txt", plain)
	policy := "version: 1\nsets:\n  big: {file: big.txt}\ninbound:\n  - deny: any\n    from: big\n  - allow: ssh\n"
	var ours, theirs cost
	row := compare(Row{What: fmt.Sprintf("apply with a set of %d prefixes, %s", n, backend), Unit: "ms",
		Beside: "`" + tool[0] + " " + strings.Join(tool[2:], " ") + "`, ms", Target: fmt.Sprintf("at most %.1f ×", most)}, pairs,
		func() float64 { defer h.stop(t); ours = h.apply(t, policy); return ours.ms() },
		func() float64 {
			defer spend(t, ns, nil, tool[0], strings.Fields(tool[1])...)
			theirs = spend(t, ns, input, tool[0], tool[2:]...)
			return theirs.ms()
		})
	row.Met = row.Ratio <= most
	report.Add(row)
	if backend != "nft" {
		return
	}
	ratio := ours.rss / theirs.rss
	report.Add(Row{What: fmt.Sprintf("memory of apply with %d prefixes, nft", n), Ours: ours.rss, Theirs: theirs.rss, Unit: "MB",
		Beside: "`nft -f -`, MB", Ratio: ratio, Low: ratio, High: ratio, Target: "at most 0.3 ×", Met: ratio <= 0.3})
}
