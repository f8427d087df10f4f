package truth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, "quaywall/cmd/quaywall")) }

// topology is the host of the shared examples, with its neighbours. Both send everything by way of it, lan even 127.0.0.1.
func topology(e lab.Engine, forward bool) lab.Topology {
	route := func(to, via string) lab.Route {
		return lab.Route{To: netip.MustParsePrefix(to), Via: netip.MustParseAddr(via)}
	}
	serve := []string{"9000/tcp", "9000/udp"}
	return lab.Topology{Nodes: []lab.NodeSpec{
		{Name: "host", Engine: &e, Forward: forward, Sysctls: map[string]string{"net.ipv4.icmp_ratelimit": "0", "net.ipv6.icmp.ratelimit": "0", "net.ipv4.icmp_ratemask": "0"}, Serve: []string{"22/tcp", "127.0.0.1:5432/tcp", "123/udp"},
			Links:  []lab.Link{lab.NewLink("wan", "eth0", "203.0.113.1/24", "2001:db8:113::1/64"), lab.NewLink("lan", "eth1", "192.168.50.1/24", "fd50::1/64")},
			Routes: []lab.Route{route("0.0.0.0/0", "203.0.113.2"), route("::/0", "2001:db8:113::2")}},
		{Name: "wan", Serve: serve, Links: []lab.Link{lab.NewLink("wan", "eth0", "203.0.113.2/24", "2001:db8:113::2/64")},
			Routes: []lab.Route{route("0.0.0.0/0", "203.0.113.1"), route("::/0", "2001:db8:113::1")}},
		{Name: "lan", Serve: serve, Links: []lab.Link{lab.NewLink("lan", "eth0", "192.168.50.2/24", "fd50::2/64")}, NoLo: true,
			Sysctls: map[string]string{"net.ipv4.conf.eth0.route_localnet": "1", "net.ipv4.conf.all.route_localnet": "1"},
			Routes:  []lab.Route{route("0.0.0.0/0", "192.168.50.1"), route("::/0", "fd50::1"), route("127.0.0.1/32", "192.168.50.1")}},
	}}
}

// world is a host that is played with.
type world struct {
	testing.TB
	host, wan, lan *lab.Node
	nodes          map[string]*lab.Node // by what a row calls them
	containers     []lab.Container
	ports          []port // of the host, to be dialled from everywhere
	extra          []Row  // From, Proto, Dst and Port alone
}

type port struct {
	proto, note string
	port        uint16
}

func newWorld(t testing.TB, e lab.Engine, forward bool) *world {
	t.Helper()
	l := lab.Start(t, topology(e, forward))
	w := &world{TB: t, host: l.Node("host"), wan: l.Node("wan"), lan: l.Node("lan"), nodes: map[string]*lab.Node{}}
	w.nodes["host"], w.nodes["wan"], w.nodes["lan"] = w.host, w.wan, w.lan
	w.ports = []port{{"tcp", "host service", 22}, {"udp", "host service", 123}, {"tcp", "host service", 5432}, {"tcp", "nobody listens", 4444}, {"icmp", "ping", 0}}
	return w
}

// usual is what containers serve where a set-up says nothing else; ports of these are dialled at their own addresses.
var usual = []string{"80/tcp", "81/tcp", "53/udp"}

// run starts a container; one that this engine can't have is left out.
func (w *world) run(c lab.Container) *lab.Node {
	w.Helper()
	if c.Serve == nil {
		c.Serve = usual
	}
	node, err := w.host.Run(w.Context(), c)
	if err != nil {
		w.Fatalf("%v\n%s", err, w.host.EngineLog(5))
	}
	w.nodes["container:"+c.Name] = node
	w.containers = append(w.containers, c)
	for _, text := range c.Publish {
		number, proto := text, "tcp"
		if before, after, ok := strings.Cut(text, "/"); ok {
			number, proto = before, after
		}
		parts := strings.Split(number, ":")
		if len(parts) > 1 {
			var p uint16
			if _, err := fmt.Sscan(parts[len(parts)-2], &p); err != nil {
				w.Fatal(err)
			}
			w.ports = append(w.ports, port{proto, "published port", p})
		}
	}
	return node
}

func (w *world) network(n lab.Network) {
	w.Helper()
	if err := w.host.AddNetwork(w.Context(), n); err != nil {
		w.Fatal(err)
	}
}

// sh runs lines of a shell on the host.
func (w *world) sh(lines ...string) string {
	w.Helper()
	return w.host.MustExec(w.TB, "sh", "-ec", strings.Join(lines, "\n"))
}

// take writes a snapshot and what real packets did into a folder.
func (w *world) take(dir string) []Row {
	w.Helper()
	run := func(ctx context.Context, command string) (string, error) {
		return w.host.Exec(ctx, "sh", "-c", command)
	}
	if err := Take(w.Context(), dir, run); err != nil {
		w.Fatal(err)
	}
	rows := w.dial(w.questions())
	if err := os.WriteFile(filepath.Join(dir, File), text(w, rows), 0o644); err != nil {
		w.Fatal(err)
	}
	return rows
}

// text has one row in a line.
func text(w *world, rows []Row) []byte {
	var lines []string
	for _, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			w.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n")
}

// hostAddrs are the addresses of the host that are dialled: those of its links and of Docker's bridges.
func (w *world) hostAddrs() []netip.Addr {
	w.Helper()
	var links []struct {
		Name  string `json:"ifname"`
		Addrs []struct {
			Local netip.Addr `json:"local"`
			Scope string     `json:"scope"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(w.sh("ip -j addr")), &links); err != nil {
		w.Fatal(err)
	}
	var all []netip.Addr
	for _, l := range links {
		for _, a := range l.Addrs {
			if a.Scope == "global" {
				all = append(all, a.Local)
			}
		}
	}
	return all
}

// questions are the rows that are tried.
func (w *world) questions() []Row {
	w.Helper()
	addrs := w.hostAddrs()
	var rows []Row
	for _, from := range w.sources() {
		dialled := addrs
		switch {
		case from == "host":
			dialled = append([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, addrs...)
		case from == "lan":
			dialled = append([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, addrs...)
		}
		for _, a := range dialled {
			for _, p := range w.ports {
				rows = append(rows, Row{From: from, Proto: p.proto, Dst: a.String(), Port: p.port, Note: p.note})
			}
		}
		rows = append(rows, w.direct(from)...)
		for name, c := range clients {
			for _, six := range []bool{false, true} {
				if a := c[!six].addr; name != from {
					rows = append(rows, Row{From: from, Proto: "tcp", Dst: a, Port: 9000, Note: "egress"}, Row{From: from, Proto: "udp", Dst: a, Port: 9000, Note: "egress"},
						Row{From: from, Proto: "icmp", Dst: a, Note: "egress"})
				}
			}
		}
	}
	return append(rows, w.extra...)
}

func (w *world) sources() []string {
	all := []string{"wan", "lan", "host"}
	for _, c := range w.containers {
		all = append(all, "container:"+c.Name)
	}
	return all
}

// direct dials each container by its own addresses.
func (w *world) direct(from string) (rows []Row) {
	w.Helper()
	for _, c := range w.containers {
		if from == "container:"+c.Name || len(c.Networks) > 0 && (c.Networks[0] == "host" || strings.HasPrefix(c.Networks[0], "container:")) {
			continue
		}
		node := w.nodes["container:"+c.Name]
		networks := c.Networks
		if len(networks) == 0 {
			networks = []string{"bridge"}
		}
		for _, n := range networks {
			for _, six := range []bool{false, true} {
				a, err := node.Addr(w.Context(), n, six)
				if err != nil {
					w.Fatal(err)
				}
				if !a.IsValid() || a.IsUnspecified() {
					continue
				}
				for _, s := range append([]string{"82/tcp"}, c.Serve...) {
					l, err := agent.ParseListen(s)
					if err != nil {
						w.Fatal(err)
					}
					rows = append(rows, Row{From: from, Proto: l.Proto, Dst: a.String(), Port: l.Port, Note: "direct to " + c.Name})
				}
				rows = append(rows, Row{From: from, Proto: "icmp", Dst: a.String(), Note: "direct to " + c.Name})
			}
		}
	}
	return rows
}

// patience of a row. Silence is believed after the first retransmission of a SYN, which comes after a second; it is tried twice.
const patience = 1600 * time.Millisecond

// dial tries the rows and fills in what came of them.
func (w *world) dial(rows []Row) []Row {
	w.Helper()
	w.sh("conntrack -F 2>/dev/null") // what was translated by rules that were there before
	results := make([]agent.DialResult, len(rows))
	var group errgroup.Group
	group.SetLimit(500)
	for i, r := range rows {
		group.Go(func() error {
			d := agent.Dial{Proto: r.Proto, Timeout: patience}
			dst, err := netip.ParseAddr(r.Dst)
			if err != nil {
				return err
			}
			if dst.Is6() && dst.IsLinkLocalUnicast() {
				dst = dst.WithZone("eth0")
			}
			d.To = netip.AddrPortFrom(dst, r.Port)
			for range 2 {
				if results[i], err = w.nodes[r.From].Dial(w.Context(), d); err != nil || results[i].Outcome != agent.Timeout {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		w.Fatal(err)
	}
	paths := w.tracked()
	for i := range rows {
		r, got := &rows[i], results[i]
		r.Reachable = got.Outcome == agent.Open
		if !r.Reachable {
			r.Err = strings.TrimSpace(string(got.Outcome) + " " + got.Error)
			continue
		}
		r.Src = got.From.Addr().String()
		r.By = strings.TrimPrefix(got.Answer.Node, "host.")
		if got.Answer.Remote.IsValid() {
			r.SeenSrc = got.Answer.Remote.Addr().String()
			r.Path = r.pathOf(paths, got)
		}
	}
	return rows
}

// entry is a connection of the host's connection tracking: who answers what was dialled.
type entry struct {
	proto, src, dst string
	sport           uint16
}

var original = regexp.MustCompile(`^(tcp|udp) .*?src=(\S+) dst=(\S+) sport=(\d+) dport=\d+ .*?src=(\S+) `)

// tracked are the addresses that answer each connection that the host knows of.
func (w *world) tracked() map[entry]string {
	w.Helper()
	all := map[entry]string{}
	for _, line := range strings.Split(w.sh("conntrack -L -f ipv4 2>/dev/null", "conntrack -L -f ipv6 2>/dev/null"), "\n") {
		if m := original.FindStringSubmatch(line); m != nil {
			e := entry{proto: m[1], src: m[2], dst: m[3]}
			if _, err := fmt.Sscan(m[4], &e.sport); err == nil {
				all[e] = m[5]
			}
		}
	}
	return all
}

func (r Row) pathOf(paths map[entry]string, got agent.DialResult) string {
	answers, known := paths[entry{r.Proto, got.From.Addr().String(), r.Dst, got.From.Port()}]
	isHost := r.Note == "published port" || r.Note == "host service" || r.Note == "link-local"
	switch {
	case !known && isHost && got.Answer.Local.Addr().String() == r.Dst:
		return "host"
	case !known:
		return ""
	case answers != r.Dst:
		return "dnat"
	case isHost && got.Answer.Local.Addr().String() != r.Dst:
		return "proxy"
	case isHost:
		return "host"
	}
	return "direct"
}
