package analyze

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/dockerhost"
)

// rules makes random tables of iptables around those of Docker's.
type rules struct{ *rand.Rand }

func pick[T any](r rules, all ...T) T { return all[r.IntN(len(all))] }

// matches are those of a rule; hook is where it stands.
func (r rules) matches(hook string) string {
	var words []string
	add := func(format string, args ...any) {
		if r.IntN(3) == 0 {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	not := func() string { return pick(r, "", "! ") }
	add("%s-s %s", not(), pick(r, "198.51.100.0/24", "198.51.100.7/32", "172.17.0.0/16", "0.0.0.0/1"))
	add("%s-d %s", not(), pick(r, "203.0.113.1/32", "172.17.0.2/32", "172.17.0.0/16", "203.0.113.0/255.255.0.255"))
	if hook != "OUTPUT" {
		add("%s-i %s", not(), pick(r, "eth0", "docker0", "eth+", "lo"))
	}
	if hook == "FORWARD" || hook == "POSTROUTING" {
		add("%s-o %s", not(), pick(r, "eth0", "docker0", "d+"))
	}
	add("-m addrtype %s--dst-type %s", not(), pick(r, "LOCAL", "UNICAST"))
	add("-m mark %s--mark %s", not(), pick(r, "0x1/0x1", "0x2", "0x3/0x3", "0x0"))
	add("-m connlabel %s--label 86", not())
	add("-m conntrack --ctstate %s", pick(r, "NEW", "ESTABLISHED,RELATED", "NEW,INVALID"))
	if hook != "PREROUTING" {
		add("-m conntrack %s--ctorigdstport %s", not(), pick(r, "10000", "8000:10001"))
		add("-m conntrack %s--ctorigdst %s", not(), pick(r, "203.0.113.1", "172.17.0.0/16"))
		add("-m conntrack %s--ctstate DNAT", not())
	}
	switch r.IntN(4) {
	case 0:
		words = append(words, fmt.Sprintf("-p tcp -m tcp %s--dport %s", not(), pick(r, "8000", "10000", "22:8001", "10001:65535")))
	case 1:
		words = append(words, fmt.Sprintf("-p tcp -m multiport %s--dports %s", not(), pick(r, "22,10000", "8000:8001,10001")))
	case 2:
		words = append(words, fmt.Sprintf("%s-p udp", not()))
	}
	if r.IntN(25) == 0 {
		words = append(words, `-m string --algo bm --string x`)
	}
	return strings.Join(words, " ")
}

func (r rules) target(table string, chains []string) string {
	all := []string{"-j ACCEPT", "-j RETURN", "-j DROP"}
	for _, c := range chains {
		all = append(all, "-j "+c, "-j "+c, "-g "+c)
	}
	switch table {
	case "mangle":
		all = append(all, "-j MARK --set-xmark 0x1/0x1", "-j MARK --set-xmark 0x2/0xffffffff", "-j MARK --set-xmark 0x0/0x3",
			"-m connlabel --label 86 --set")
	case "nat":
		all = []string{"-j ACCEPT", "-j RETURN", "-p tcp -j DNAT --to-destination 172.17.0.2:8000", "-p tcp -j DNAT --to-destination 172.17.0.2",
			"-p tcp -j REDIRECT --to-ports 22", "-p tcp -j DNAT --to-destination :10001"}
		for _, c := range chains {
			all = append(all, "-j "+c, "-g "+c)
		}
	}
	return pick(r, all...)
}

// around puts random rules in front of those of a table's hooks.
func (r rules) around(text string) string {
	for _, at := range [][]string{{"mangle", "PREROUTING", "INPUT", "FORWARD"}, {"filter", "INPUT", "FORWARD"}, {"nat", "PREROUTING"}, {"raw", "PREROUTING"}} {
		table, hooks := at[0], at[1:]
		var heads, body strings.Builder
		for _, hook := range hooks {
			chains := []string{hook + "a", hook + "b", hook + "c"}
			for i, c := range chains {
				fmt.Fprintf(&heads, ":%s - [0:0]\n", c)
				for range r.IntN(4) {
					fmt.Fprintf(&body, "-A %s %s %s\n", c, r.matches(hook), r.target(table, chains[i+1:]))
				}
			}
			for range r.IntN(4) {
				fmt.Fprintf(&body, "-A %s %s %s\n", hook, r.matches(hook), r.target(table, chains))
			}
		}
		if table == "mangle" {
			text += "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n" + heads.String() + body.String() + "COMMIT\n"
			continue
		}
		at := strings.Index(text, "*"+table+"\n") + len(table) + 2
		text = text[:at] + heads.String() + text[at:]
		at = strings.Index(text[at:], "\n-A ") + at + 1
		text = text[:at] + body.String() + text[at:]
	}
	return text
}

// seedOf is where a random test begins, and how many hosts it tries: QUAYWALL_SEED repeats a run, QUAYWALL_POLICIES makes it
// longer.
func seedOf(t *testing.T) (seed uint64, hosts int) {
	seed, hosts = uint64(time.Now().UnixNano()), 100
	if s, err := strconv.ParseUint(os.Getenv("QUAYWALL_SEED"), 10, 64); err == nil {
		seed = s
	}
	if n, err := strconv.Atoi(os.Getenv("QUAYWALL_POLICIES")); err == nil {
		hosts = n
	}
	t.Logf("seed %d", seed)
	return seed, hosts
}

// TestAgainstSimulator asks the simulator, which shares no code with this, about single packets of random rules.
func TestAgainstSimulator(t *testing.T) {
	t.Parallel()
	seed, hosts := seedOf(t)
	for i := range uint64(hosts) {
		r := rules{rand.New(rand.NewPCG(seed+i, 1))}
		h := dockerhost.Make(1, 2)
		h.Sockets = append(h.Sockets, snapshot.Socket{Proto: 6, Addr: netip.IPv4Unspecified(), Port: 22, Process: "sshd"})
		text := r.around(h.Rules)
		var problems any
		h.Host.Rules.Tables, problems = iptsave.Parse(text, iptsave.Options{Family: netfilter.IPv4})
		a, s := New(&h.Host, netfilter.IPv4), sim.New(&h.Host)
		everything := a.union(a.everything())
		for range 40 {
			q := packet.Query{Packet: packet.Packet{Proto: pick[uint8](r, 6, 6, 6, 17), Src: netip.MustParseAddr(pick(r, "198.51.100.7", "198.51.100.9", "8.8.8.8", "172.17.0.9")),
				SrcPort: 40000, Dst: netip.MustParseAddr(pick(r, "203.0.113.1", "172.17.0.1", "172.17.0.2")), DstPort: pick[uint16](r, 22, 8000, 10000, 10001), Flags: packet.SYN, In: "eth0"}}
			if strings.HasPrefix(q.Src.String(), "172.17") {
				q.In = "docker0"
			}
			if q.Dst.String() == "172.17.0.2" && q.In == "docker0" {
				continue // from port to port of a bridge
			}
			trace, err := s.Explain(q, sim.Options{})
			if err != nil {
				t.Fatal(err)
			}
			may, must := a.reaches(q)
			want := map[sim.Verdict][2]bool{sim.Accept: {true, true}, sim.Drop: {false, false}, sim.Reject: {false, false}, sim.Unknown: {true, false}}[trace.Verdict]
			if in := a.holds(everything, q); in != may {
				t.Fatalf("seed %d: %s: may %v one by one, %v with all\n%s", seed+i, q, may, in, text)
			}
			if got := [2]bool{may, must}; got != want {
				t.Fatalf("seed %d: %s: the simulator says %s (%s), the sets say may %v, must %v\n%s%v", seed+i, q, trace.Verdict, trace.Why, may, must, text, problems)
			}
		}
	}
}

// holds tells whether a packet may be in a set.
func (a *Analyzer) holds(set bdd.Set, q packet.Query) bool {
	for f, v := range map[netfilter.Field]bdd.Value{netfilter.Dst: number(q.Dst), netfilter.DstPort: bdd.Small(uint64(q.DstPort)), netfilter.Src: number(q.Src),
		netfilter.SrcPort: bdd.Small(uint64(q.SrcPort)), netfilter.Proto: bdd.Small(uint64(q.Proto)), netfilter.InIface: a.iface(q.In)} {
		set = a.Cofactor(set, a.field(f), v)
	}
	return set != bdd.None
}

// reaches tells whether a packet gets anywhere, and whether it does whatever it is that isn't known.
func (a *Analyzer) reaches(q packet.Query) (may, must bool) {
	var all Way
	for _, w := range a.Dial(Target{q.Proto, q.Dst, q.DstPort}) {
		all.set = a.Or(all.set, w.set)
	}
	return a.May(all)[q.In].Contains(q.Src), a.Must(all)[q.In].Contains(q.Src)
}
