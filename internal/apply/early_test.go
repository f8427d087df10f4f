package apply_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/netns"
)

// banPolicy denies the client's first address of each family and lets everybody else in.
const banPolicy = `version: 1
log: {denied: off}
inbound:
  - deny: any
    from: [203.0.113.2, "2001:db8:1::2"]
  - allow: [7/tcp, 7/udp, ping]
`

// masquerade gives what containers send to the outside the host's address, as Docker does: what answers them is for the
// host, where it comes in.
const masquerade = `table inet nat {
	chain postrouting { type nat hook postrouting priority 100; iifname "docker0" oifname "eth0" masquerade; }
}`

// attempt is one question and how it must end.
type attempt struct {
	who  string
	node node
	dial agent.Dial
	want agent.Outcome
}

// attempts are a question of each kind and family.
func attempts(who string, from node, sources, targets [2]string, want agent.Outcome) (all []attempt) {
	for family, target := range targets {
		to := netip.AddrPortFrom(netip.MustParseAddr(target), 7)
		var source netip.AddrPort
		if sources[family] != "" {
			source = netip.AddrPortFrom(netip.MustParseAddr(sources[family]), 0)
		}
		for _, proto := range []string{"tcp", "udp", "icmp"} {
			d := agent.Dial{Proto: proto, To: to, From: source, Timeout: patience}
			if want == agent.Timeout {
				d.Timeout = 1500 * time.Millisecond // longer than a SYN waits to be sent again
			}
			all = append(all, attempt{fmt.Sprintf("%s: %s to %s", who, proto, target), from, d, want})
		}
	}
	return all
}

// Design 9: what the first rules deny is dropped in front of connection tracking, where nothing tells an answer from a
// question. Whatever this host or a container asks of a denied address is answered all the same.
func TestDeniedSourcesMayAnswer(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"nft", "iptables-nft-save", "iptables-legacy-save"} {
		netns.Tool(t, tool)
	}
	onEachBackend(t, func(t *testing.T, backend string) {
		s := newStreet(t)
		s.client.Addr(t, "eth0", "203.0.113.3/24", "2001:db8:1::3/64")
		s.host.Feed(t, masquerade, "nft", "-f", "-")
		for _, n := range []node{s.host, s.client} {
			answer(t, n)
		}
		s.host.Do(t, func() { applyText(t, local(t, t.TempDir()), backend, banPolicy) })
		denied, other := [2]string{s.client.v4, s.client.v6}, [2]string{"203.0.113.3", "2001:db8:1::3"}
		host := [2]string{s.host.v4, s.host.v6}
		all := attempts("the host asks", s.host, [2]string{}, denied, agent.Open)
		all = append(all, attempts("a container asks", s.container, [2]string{}, denied, agent.Open)...)
		all = append(all, attempts("a denied source", s.client, denied, host, agent.Timeout)...)
		all = append(all, attempts("another source", s.client, other, host, agent.Open)...)
		try(t, all)
		early(t, s.host, backend)
	})
}

// answer serves on port 7 of a node.
func answer(t *testing.T, n node) {
	t.Helper()
	server := agent.Server{Name: "server"}
	n.Do(t, func() {
		for _, l := range []agent.Listen{{Proto: "tcp", Port: 7}, {Proto: "udp", Port: 7}} {
			if err := server.Listen(l); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// try makes all attempts at a time.
func try(t *testing.T, all []attempt) {
	t.Helper()
	var done sync.WaitGroup
	for _, a := range all {
		done.Add(1)
		go func() {
			defer done.Done()
			var r agent.DialResult
			a.node.Do(t, func() { r = agent.Try(a.dial) })
			if r.Outcome != a.want {
				t.Errorf("%s: %s (%s), want %s", a.who, r.Outcome, r.Error, a.want)
			}
		}()
	}
	done.Wait()
}

// early demands that the line of banPolicy counted packets of both families in front of connection tracking.
func early(t *testing.T, host node, backend string) {
	t.Helper()
	commands := []string{"nft list chain inet quaywall early-host"}
	counter := `counter packets [1-9][0-9]* bytes [0-9]+ drop comment "policy.yaml:4"`
	if backend != "nft" {
		commands, counter = nil, `\[[1-9][0-9]*:[0-9]+\] -A QUAYWALL-early-host .*"?policy.yaml:4"? -j DROP`
		for _, family := range []string{"iptables", "ip6tables"} {
			commands = append(commands, family+strings.TrimPrefix(backend, "iptables")+"-save -c -t raw")
		}
	}
	for _, c := range commands {
		words := strings.Fields(c)
		if out := host.Output(t, words[0], words[1:]...); !regexp.MustCompile(counter).MatchString(out) {
			t.Errorf("nothing was dropped in front of connection tracking: %s prints\n%s", c, out)
		}
	}
}
