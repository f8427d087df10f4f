package guard

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Cut is a way in that a policy closes, or several to one port of one process that it closes by one line.
type Cut struct {
	Ways    []Way // at least one
	Section policy.Section
	Origin  string // the line that decides: "policy.yaml:12", "default", or "" for what always holds
	Why     string // a short sentence without a full stop
	Add     string // the line for the section that keeps the way open, in the policy's language; "" where no line can
	Above   string // the line that Add must stand above; "" where any place in the section will do
}

// String says what is cut, by what, and what to do.
func (c Cut) String() string {
	switch {
	case c.Add == "":
		return c.Closes()
	case c.Above != "":
		return fmt.Sprintf("%s; add above %s: %s", c.Closes(), c.Above, c.Add)
	}
	return fmt.Sprintf("%s; add to %s: %s", c.Closes(), c.Section, c.Add)
}

// Closes says what is cut, and by what.
func (c Cut) Closes() string {
	text := fmt.Sprintf("%s: %s", c.Ways[0].describe(c.Ways), c.Why)
	if c.Origin != "" {
		text += fmt.Sprintf(" (%s)", c.Origin)
	}
	return text
}

// describe is "sshd (process 812), port 22/tcp, from 198.51.100.7" of ways that share process and port.
func (w Way) describe(ways []Way) string {
	who := cmp.Or(w.Via, "a connection")
	if w.PID != 0 {
		who = fmt.Sprintf("%s (process %d)", w.Process, w.PID)
	}
	peers := peersOf(ways)
	more := ""
	if n := len(peers); n > maxPeers {
		peers, more = peers[:maxPeers], fmt.Sprintf(" and %d more", n-maxPeers)
	}
	list := strings.Join(peers, ", ") + more
	switch w.Kind {
	case Dialled:
		return fmt.Sprintf("%s, its connection to port %s of %s", who, w.what(), list)
	case Listener:
		return fmt.Sprintf("%s, port %s, which nobody could reach any more", who, w.what())
	}
	return fmt.Sprintf("%s, port %s, from %s", who, w.what(), list)
}

// maxPeers is how many addresses a line to add may name.
const maxPeers = 8

// peersOf are the addresses of the peers, sorted, each once.
func peersOf(ways []Way) []string {
	var addrs []netip.Addr
	for _, w := range ways {
		if w.Peer.IsValid() {
			addrs = append(addrs, w.Peer.Addr().WithZone(""))
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var names []string
	for _, a := range slices.Compact(addrs) {
		names = append(names, a.String())
	}
	return names
}

// Check tells which ways in a policy would close. It asks for the first packet of the same connection made anew:
// conntrack may not know the connection there is, and the person wants to come back.
//
// A listening socket counts together with all others of its port: sshd has one for each family.
func Check(ways []Way, p *policy.Policy, inv *inventory.Inventory) []Cut {
	var cuts []Cut
	var closed []decided
	open := map[place]bool{}
	for _, w := range ways {
		if d, cut := judge(w, p, inv); cut {
			closed = append(closed, decided{w, d})
		} else if w.Kind != Dialled {
			open[place{w.Proto, w.port()}] = true
		}
	}
	for _, c := range closed {
		w, d := c.way, c.decision
		if w.Kind == Listener && open[place{w.Proto, w.port()}] {
			continue
		}
		same := slices.IndexFunc(cuts, func(c Cut) bool { return c.covers(w, d) })
		if same < 0 {
			cuts = append(cuts, cutBy(d))
			same = len(cuts) - 1
		}
		cuts[same].Ways = append(cuts[same].Ways, w)
	}
	for i, c := range cuts {
		if c.Origin != "" { // what always holds can't be opened by a rule
			cuts[i].Add = "- " + line(c.Ways, c.Section)
		}
	}
	return cuts
}

// decided is a way with the decision that cuts it.
type decided struct {
	way      Way
	decision eval.Decision
}

// place is a port that is dialled.
type place struct {
	proto uint8
	port  uint16
}

func cutBy(d eval.Decision) Cut {
	c := Cut{Section: d.Section, Origin: d.Origin, Why: d.Why}
	if d.Rule >= 0 {
		c.Above = d.Origin
	}
	return c
}

// covers tells whether a way belongs to this cut.
func (c Cut) covers(w Way, d eval.Decision) bool {
	o := c.Ways[0]
	return c.Origin == d.Origin && c.Section == d.Section && c.Why == d.Why && o.Kind == w.Kind && o.Proto == w.Proto &&
		o.PID == w.PID && o.Via == w.Via && o.port() == w.port()
}

// judge gives the decision that cuts a way, if one does.
func judge(w Way, p *policy.Policy, inv *inventory.Inventory) (eval.Decision, bool) {
	if w.Kind == Listener {
		return judgeListener(w, p, inv)
	}
	for _, pk := range w.packets() {
		if d := eval.Evaluate(p, inv, pk); d.Verb != policy.Allow {
			return d, true
		}
	}
	return eval.Decision{}, false
}

// judgeListener tells whether a policy lets nobody reach a listening socket. It tries one source from each range of
// addresses that the policy names, and one that it doesn't name, on each of the host's addresses and interfaces. The
// decision is that on a source that the policy doesn't name.
func judgeListener(w Way, p *policy.Policy, inv *inventory.Inventory) (eval.Decision, bool) {
	var stranger eval.Decision
	found := false
	for _, to := range listenerTargets(w, inv) {
		for _, from := range sources(w, p, to.addr.Is4()) {
			pk := packet.Packet{Proto: w.Proto, Src: from, SrcPort: 49152, Dst: to.addr, DstPort: w.Local.Port(), In: to.iface}
			if w.Proto == protoTCP {
				pk.Flags = packet.SYN
			}
			d := eval.Evaluate(p, inv, pk)
			if d.Verb == policy.Allow {
				return eval.Decision{}, false
			}
			if !found {
				stranger, found = d, true
			}
		}
	}
	return stranger, found
}

// target is an address of the host and an interface by which packets for it come in.
type target struct {
	addr  netip.Addr
	iface string
}

// listenerTargets are where a listening socket can be reached: its address, or for a wildcard all addresses of the host
// that aren't loopback ones. An IPv6 wildcard usually takes IPv4 as well. A host without addresses has no targets.
func listenerTargets(w Way, inv *inventory.Inventory) []target {
	var ts []target
	for _, i := range inv.Interfaces {
		for _, p := range i.Addrs {
			a := p.Addr().Unmap().WithZone("")
			wild := w.Local.Addr().IsUnspecified() && (w.Local.Addr().Is6() || a.Is4())
			if i.Name != "lo" && !inv.IsDockerBridge(i.Name) && (wild || a == w.Local.Addr().WithZone("")) {
				ts = append(ts, target{a, i.Name})
			}
		}
	}
	return ts
}

// Sources that no policy is likely to name: addresses for documentation (RFC 5737, RFC 3849).
var (
	stranger4 = netip.MustParseAddr("192.0.2.254")
	stranger6 = netip.MustParseAddr("2001:db8:ffff:ffff::fe")
)

// maxSources bounds how many sources are tried: a set may have a million ranges.
const maxSources = 256

// sources are addresses of one family to try as sources for a way's port: a stranger's first, then the ends of the
// ranges that inbound rules allow to come to it.
func sources(w Way, p *policy.Policy, is4 bool) []netip.Addr {
	list := []netip.Addr{stranger6}
	if is4 {
		list[0] = stranger4
	}
	for _, r := range p.Inbound {
		if r.Verb != policy.Allow || !r.From.Given || !slices.ContainsFunc(r.What, w.isOf) {
			continue
		}
		matched := p.Resolve(r.From).V6()
		if is4 {
			matched = p.Resolve(r.From).V4()
		}
		for _, rg := range matched.Ranges() {
			if list = append(list, rg.From(), rg.To()); len(list) >= maxSources {
				return list
			}
		}
	}
	return list
}

// isOf tells whether the way's port may be among a kind of traffic.
func (w Way) isOf(t policy.Traffic) bool {
	return t.Proto == 0 || t.Proto == w.Proto && t.Ports.Contains(w.port())
}

// port is the port that is dialled.
func (w Way) port() uint16 {
	if w.Kind == Dialled {
		return w.Peer.Port()
	}
	return w.Local.Port()
}

// what is the way's traffic as a policy writes it without a service's name: "22/tcp".
func (w Way) what() string { return fmt.Sprintf("%d/%s", w.port(), packet.ProtoName(w.Proto)) }

// service is the way's traffic as a person would write it.
func (w Way) service() string {
	if w.Proto == protoTCP && w.port() == 22 {
		return "ssh"
	}
	return w.what()
}

// line is the rule that allows ways to one port, for a section: from (outbound: to) their peers, unless they have none
// or too many.
func line(ways []Way, s policy.Section) string {
	w, peers := ways[0], peersOf(ways)
	side := "from"
	if s == policy.Outbound {
		side = "to"
	}
	words := []string{"allow: " + w.service()}
	switch n := len(peers); {
	case n == 0 || n > maxPeers:
	case n == 1:
		words = append(words, side+": "+yamlAddr(peers[0]))
	default:
		for i := range peers {
			peers[i] = yamlAddr(peers[i])
		}
		words = append(words, side+": ["+strings.Join(peers, ", ")+"]")
	}
	if s == policy.Egress {
		words = append(words, "to: host")
	}
	if len(words) == 1 {
		return words[0]
	}
	return "{" + strings.Join(words, ", ") + "}"
}

// yamlAddr quotes an IPv6 address: inside braces YAML takes "::" for the end of a key.
func yamlAddr(a string) string {
	if strings.Contains(a, ":") {
		return `"` + a + `"`
	}
	return a
}

// Lines are rules for inbound that keep each way in open, one line each and each with a comment, for a first policy.
// SSH is open to all, as in the built-in default: whoever came by it may have another address tomorrow. Any other port
// is open to the peers seen, and to all where none was seen. Ways that the host itself dialled need no line there.
func Lines(ways []Way) []string {
	var groups [][]Way
	for _, w := range ways {
		if w.Kind == Dialled {
			continue
		}
		same := slices.IndexFunc(groups, func(g []Way) bool { return g[0].Proto == w.Proto && g[0].port() == w.port() })
		if same < 0 {
			groups = append(groups, nil)
			same = len(groups) - 1
		}
		groups[same] = append(groups[same], w)
	}
	var lines []string
	for _, g := range groups {
		lines = append(lines, keepingLine(g))
	}
	return lines
}

func keepingLine(g []Way) string {
	isSSH := slices.ContainsFunc(g, func(w Way) bool { return strings.HasPrefix(w.Process, "sshd") }) || g[0].service() == "ssh"
	rule := line(g, policy.Inbound)
	if isSSH {
		rule = "allow: " + g[0].service()
	}
	return fmt.Sprintf("- %s  # %s", rule, g[0].comment(peersOf(g)))
}

// comment says whose port it is and who was seen there.
func (w Way) comment(peers []string) string {
	who := cmp.Or(w.Process, w.Via, "a live connection")
	switch {
	case len(peers) == 0:
		return who + " listens here; narrow it with from"
	case len(peers) > maxPeers:
		return fmt.Sprintf("%s, now in use by %s and %d more", who, peers[0], len(peers)-1)
	}
	return who + ", now in use by " + strings.Join(peers, ", ")
}
