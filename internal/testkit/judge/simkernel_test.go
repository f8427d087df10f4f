package judge

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/parse/ipset"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/parse/nftjson"
	"quaywall/internal/policy"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/nftlist"
)

// endTable sees packets where they end: at the host's sockets, or as they leave, with all that was rewritten.
const endTable = `table inet judge {
 chain sentinel { type filter hook prerouting priority -600;
  ip id 65535 log group 4321 snaplen 256
  ip id 65535 drop
 }
 chain input { type filter hook input priority 300;
  log group 4321 snaplen 256
  drop
 }
 chain postrouting { type filter hook postrouting priority 300;
  oifname "lo" accept
  log group 4321 snaplen 256
  drop
 }
}
`

var simPackets = flag.Int("sim-packets", 0, "how many packets the simulator and the kernel judge; 0 is QUAYWALL_SIM_PACKETS, or 12,000")

// simEach is how many packets a rule set is tried with.
const simEach = 250

func howManyForSim(t *testing.T) int {
	if *simPackets > 0 {
		return *simPackets
	}
	text := os.Getenv("QUAYWALL_SIM_PACKETS")
	if text == "" {
		return 12_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal("QUAYWALL_SIM_PACKETS: ", err)
	}
	return n
}

// dialectsOf are who keeps rules on a host.
var simHosts = [][]netfilter.Dialect{{netfilter.NFT}, {netfilter.IPTablesNFT}, {netfilter.IPTablesLegacy},
	{netfilter.IPTablesLegacy, netfilter.IPTablesNFT, netfilter.NFT}}

// TestSimulatorAgainstKernel: what the simulator says of random rule sets of others, read from dumps, is what the kernel does
// with the packets.
func TestSimulatorAgainstKernel(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	left, judged, unsure := howManyForSim(t), 0, 0
	var hosts []*simHost
	for _, dialects := range simHosts {
		hosts = append(hosts, newSimHost(t, dialects))
	}
	start := time.Now()
	for i := 0; left > 0; i++ {
		now := first + uint64(i)
		j, u := hosts[now%uint64(len(hosts))].judge(t, now)
		judged, unsure, left = judged+j, unsure+u, left-simEach
		if t.Failed() {
			t.Logf("again: -run TestSimulatorAgainstKernel -seed %d -sim-packets 1", now)
			break
		}
	}
	t.Logf("seed %d: %d packets judged alike, %d more of which the simulator doesn't know, in %v", first, judged, unsure, time.Since(start).Round(time.Millisecond))
}

// simHost is a host whose rules are random.
type simHost struct {
	*bench
	dialects []netfilter.Dialect
	script   string // of the rules in force, for a report
}

func newSimHost(t *testing.T, dialects []netfilter.Dialect) *simHost {
	netns.Tool(t, "ipset")
	h := &simHost{bench: &bench{name: "sim", world: newWorld(t, endTable)}, dialects: dialects}
	h.start(t)
	h.world.host.Feed(t, ipsetsMade(), "ipset", "restore")
	return h
}

// judge tries one rule set, and gives how many packets both agree on, and of how many the simulator isn't sure.
func (h *simHost) judge(t *testing.T, seed uint64) (judged, unsure int) {
	g := newGenerator(seed)
	h.load(t, g)
	host := worldSnapshot()
	h.readRules(t, host, seed)
	s := sim.New(host)
	probes := g.strangers(simEach)
	for _, p := range probes {
		p.bridged = p.pk.In == "docker0" && isNeighbour(p.pk.Src) && isNeighbour(p.pk.Dst)
	}
	fates := h.sure(t, probes)
	var wrong []*probe
	for _, p := range probes {
		tr := h.ask(t, s, p)
		switch {
		case isUnsure(p, tr):
			unsure++
		case !isAlike(p, tr, fates[p.id]):
			wrong = append(wrong, p)
		default:
			judged++
		}
	}
	if len(wrong) > 0 {
		h.report(t, seed, s, wrong)
	}
	return judged, unsure
}

// isUnsure tells whether nothing can be compared: the simulator doesn't know, or the packet belongs to a connection that it
// takes to be translated or marked, which the judge's connections are not. A bridge asks its neighbours where to send what is translated
// on its way from port to port, and here nobody answers.
func isUnsure(p *probe, tr *sim.Trace) bool {
	isChanged := func(a string) bool { return strings.HasPrefix(a, "its connection ") }
	// What the host sends to itself is a connection once it has left: of two whose sources become one the second is lost.
	mayClash := p.pk.In == "" && tr.Verdict == sim.Accept && tr.DeliveredTo.Kind == "host" && tr.DeliveredTo.SourcePort != p.pk.SrcPort
	return mayClash || tr.Verdict == sim.Unknown || slices.ContainsFunc(tr.Assumptions, isChanged) ||
		p.bridged && tr.Verdict == sim.Accept && tr.DeliveredTo.Address != p.pk.Dst.String()
}

// isNeighbour tells whether an address is behind docker0.
func isNeighbour(a netip.Addr) bool {
	return slices.ContainsFunc(prefixes("172.17.0.0/16", "fd00:17::/64"), func(p netip.Prefix) bool { return p.Contains(a) }) && !isIn(hostAddrs(), a)
}

// sure sends packets until all were seen to their end: a slow machine needs more than one try.
func (h *simHost) sure(t *testing.T, probes []*probe) map[uint16]fate {
	var fates map[uint16]fate
	var err error
	for range 20 {
		if fates, err = h.send(probes); err == nil {
			return fates
		}
		h.world.seen.drain()
	}
	t.Fatal(err)
	return nil
}

func (h *simHost) ask(t *testing.T, s *sim.Sim, p *probe) *sim.Trace {
	tr, err := s.Explain(query(p), sim.Options{})
	if err != nil {
		t.Fatalf("%s: %v", p.pk, err)
	}
	return tr
}

// report sends again what looks wrong, in case the machine was slow, and tells of the first that still is.
func (h *simHost) report(t *testing.T, seed uint64, s *sim.Sim, wrong []*probe) {
	var fates map[uint16]fate
	for range 3 {
		h.world.seen.drain()
		fates = h.sure(t, wrong)
		wrong = slices.DeleteFunc(wrong, func(p *probe) bool { return isAlike(p, h.ask(t, s, p), fates[p.id]) })
		if len(wrong) == 0 {
			return
		}
	}
	p := wrong[0]
	tr := h.ask(t, s, p)
	t.Errorf("seed %d, %v: %s flags %#x bridged %v\nsimulator: %s: %s\nkernel:    %s\n%s\n%s", seed, h.dialects, p.pk, p.pk.Flags, p.bridged,
		simFate(tr), tr.Why, kernelFate(fates[p.id]), pathText(tr), h.script)
}

func pathText(tr *sim.Trace) string {
	var b strings.Builder
	for _, s := range tr.Path {
		if s.Leg != sim.Request {
			break
		}
		fmt.Fprintf(&b, "  %s %s %s %d %s %s %s %s\n", s.Hook, s.Table, s.Chain, s.Priority, s.Verdict, s.Text, s.Before, s.After)
		for _, r := range s.Rules {
			if r.Matched != "no" {
				fmt.Fprintf(&b, "      %s %d %s => %s %s\n", r.Chain, r.Rule, r.Text, r.Did, r.Failed)
			}
		}
	}
	return b.String()
}

// isAlike tells whether simulator and kernel agree. What the host sends to itself is a connection once it has left, and another
// that would look the same on the way back gets another source port.
func isAlike(p *probe, tr *sim.Trace, f fate) bool {
	if p.pk.In == "" && f.passed && f.hook == unix.NF_INET_LOCAL_IN && f.seen.SrcPort != p.pk.SrcPort && tr.DeliveredTo.SourcePort != 0 {
		f.seen.SrcPort = tr.DeliveredTo.SourcePort
	}
	return simFate(tr) == kernelFate(f)
}

// simFate is where a packet ended, to the simulator.
func simFate(tr *sim.Trace) string {
	d := tr.DeliveredTo
	if tr.Verdict != sim.Accept {
		return "stopped"
	}
	where := "left"
	if d.Kind == "host" || d.Kind == "proxy" {
		where = "input"
	}
	return fmt.Sprintf("%s %s:%d -> %s:%d", where, d.Source, d.SourcePort, d.Address, d.Port)
}

// kernelFate is where the kernel had it.
func kernelFate(f fate) string {
	if !f.passed {
		return "stopped"
	}
	where := "left"
	if f.hook == unix.NF_INET_LOCAL_IN {
		where = "input"
	}
	return fmt.Sprintf("%s %s:%d -> %s:%d", where, f.seen.Src, f.seen.SrcPort, f.seen.Dst, f.seen.DstPort)
}

// load puts random rules in force.
func (h *simHost) load(t *testing.T, g generator) {
	h.script = ipsets(g)
	h.world.host.Feed(t, h.script, "ipset", "restore")
	for _, d := range h.dialects {
		if d == netfilter.NFT {
			h.loadNFT(t, g)
			continue
		}
		variant := map[netfilter.Dialect]string{netfilter.IPTablesNFT: "nft", netfilter.IPTablesLegacy: "legacy"}[d]
		for _, family := range []int{4, 6} {
			program := map[int]string{4: "iptables-", 6: "ip6tables-"}[family] + variant + "-restore"
			text := ruleWriter{generator: g, family: family}.iptables()
			h.script += "# " + program + "\n" + text
			h.world.host.Feed(t, text, program)
		}
	}
}

func (h *simHost) loadNFT(t *testing.T, g generator) {
	var text string
	for _, family := range []string{"inet", "ip", "ip6"} {
		w := ruleWriter{generator: g, family: map[string]int{"inet": 4, "ip": 4, "ip6": 6}[family]}
		if g.oneIn(3) {
			text += fmt.Sprintf("table %s strangers\ndelete table %s strangers\n", family, family)
			continue
		}
		text += w.nft(family, "strangers")
	}
	h.script += text
	h.world.host.Feed(t, text, "nft", "-f", "-")
}

// readRules reads the rules as the tools print them, without the judge's own.
func (h *simHost) readRules(t *testing.T, to *snapshot.Host, seed uint64) {
	sets, problems := ipset.Parse(h.world.host.Output(t, "ipset", "save"), "ipset-save.txt")
	to.Rules.Sets = sets
	h.clean(t, problems)
	for _, d := range h.dialects {
		switch d {
		case netfilter.NFT:
			continue
		case netfilter.IPTablesNFT:
			h.readIPTables(t, to, "nft", d)
		case netfilter.IPTablesLegacy:
			h.readIPTables(t, to, "legacy", d)
		}
	}
	tables, problems := nftjson.Parse(h.listNFT(t, seed), "nft-ruleset.json")
	for _, table := range tables {
		switch {
		case table.Dialect != netfilter.NFT || table.Name == "judge":
		case table.Name == "strangers":
			to.Rules.Tables = append(to.Rules.Tables, table)
		default: // of the host from the beginning, before all others
			to.Rules.Tables = slices.Insert(to.Rules.Tables, 0, table)
		}
	}
	if !slices.Contains(h.dialects, netfilter.IPTablesNFT) {
		h.clean(t, problems)
	}
}

// listNFT lists the rules of nf_tables, half of the times without the program nft.
func (h *simHost) listNFT(t *testing.T, seed uint64) (list string) {
	if seed/uint64(len(simHosts))%2 == 0 {
		return h.world.host.Output(t, "nft", "-j", "list", "ruleset")
	}
	h.world.host.Do(t, func() {
		text, err := nftlist.List()
		if err != nil {
			t.Fatal(err)
		}
		list = string(text)
	})
	return list
}

func (h *simHost) readIPTables(t *testing.T, to *snapshot.Host, variant string, d netfilter.Dialect) {
	for program, family := range map[string]netfilter.Family{"iptables-": netfilter.IPv4, "ip6tables-": netfilter.IPv6} {
		text := h.world.host.Output(t, program+variant+"-save")
		tables, problems := iptsave.Parse(text, iptsave.Options{File: program, Family: family, Dialect: d, Sets: to.Rules.Sets})
		h.clean(t, problems)
		to.Rules.Tables = append(to.Rules.Tables, tables...)
	}
}

func (h *simHost) clean(t *testing.T, problems diag.List) {
	for _, p := range problems {
		t.Fatalf("a dump of this host isn't read whole: %s\n%s", p.Message, h.script)
	}
}

// strangers are packets of all kinds, from anywhere to anywhere.
func (g generator) strangers(n int) (all []*probe) {
	for len(all) < n {
		p := g.stranger()
		if p != nil {
			p.id = uint16(len(all) + 1)
			all = append(all, p)
		}
	}
	return all
}

var (
	from4 = []string{"192.0.2.77", "192.0.2.9", "198.51.100.9", "45.0.0.1", "203.0.113.7", "172.17.0.2", "172.17.0.9", "172.18.0.2", "10.9.0.77", untracked4}
	from6 = []string{"2001:db8:2::77", "2001:db8:51::9", "2003:db8::9", "fd00:17::2", "fd00:17::9", "fd00:30::5", "fd09::77", untracked6}
	to4   = []string{"192.0.2.1", "198.51.100.1", "172.17.0.1", "10.9.0.1", "172.17.0.2", "172.17.0.9", "172.18.0.2", "45.0.0.1", "192.0.2.77", "10.9.0.77", "127.0.0.1"}
	to6   = []string{"2001:db8:2::1", "2001:db8:51::1", "fd00:17::1", "fd09::1", "fd00:17::2", "fd00:17::9", "fd00:30::5", "2003:db8::9", "2001:db8:2::77", "fd09::77"}
	own4  = []string{"192.0.2.1", "198.51.100.1", "172.17.0.1", "10.9.0.1"}
	own6  = []string{"2001:db8:2::1", "2001:db8:51::1", "fd00:17::1", "fd09::1"}
)

// stranger is a packet, nil for one that can't be sent.
func (g generator) stranger() *probe {
	w := ruleWriter{generator: g, family: pick(g, 4, 6)}
	p := &probe{pk: packet.Packet{Proto: pick[uint8](g, policy.TCP, policy.TCP, policy.UDP, policy.ICMP), In: pick(g, "eth0", "eth0", "eth1", "docker0", "wg0", "")}}
	pk := &p.pk
	pk.Src, pk.Dst = netip.MustParseAddr(w.of(from4, from6)), netip.MustParseAddr(w.of(to4, to6))
	if pk.In == "" {
		pk.Src = netip.MustParseAddr(w.of(own4, own6))
	}
	if pk.Src == pk.Dst && pk.In != "" {
		return nil
	}
	switch pk.Proto {
	case policy.ICMP:
		pk.ICMPType = 8
		if w.family == 6 {
			pk.Proto, pk.ICMPType = policy.ICMPv6, 128
		}
	default:
		pk.SrcPort, pk.DstPort = g.portOf(), g.portOf()
		if g.oneIn(2) {
			pk.SrcPort = uint16(20000 + g.IntN(20000))
		}
	}
	g.state(p)
	return p
}

func (g generator) portOf() uint16 {
	return pick[uint16](g, 22, 53, 80, 443, 7000, 8080, 81, 500, 1500, 9999)
}

// state gives a packet a state: most are new, some of a connection that is known, some of none that could be.
func (g generator) state(p *probe) {
	pk := &p.pk
	if pk.Proto == policy.TCP {
		pk.Flags = packet.SYN
	}
	switch g.IntN(8) {
	case 0:
		first := *pk
		p.known, pk.State = &first, packet.Established
		if pk.Proto == policy.TCP {
			pk.Flags = packet.ACK
		}
	case 1:
		if pk.Proto == policy.TCP {
			pk.Flags, pk.State = packet.SYN|packet.FIN, packet.Invalid
		}
	case 2:
		if pk.Proto == policy.TCP {
			pk.Flags = packet.ACK // conntrack picks it up
		}
	}
}
