// Package truth holds what quaywall says of a host against what real packets did there.
//
//	rows, err := truth.Rows(dir)         // of a snapshot's truth.json
//	wrong := truth.Judge(host, rows)     // what explain or audit would say differently
//
// Its tests make such hosts: a real Docker engine in namespaces, set up in many ways, of which ordinary tools take a snapshot
// and around which clients dial everything. `make truth` plays all of them with every engine that is there.
//
// Be aware: a row tells what one connection did. Whether a container listens at a port that it doesn't publish can't be seen
// from its host: there an answer that leaves it open is right, if the rest is.
package truth

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/analyze"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

// File is the rows' place in a snapshot.
const File = "truth.json"

// Row is what a real packet did.
type Row struct {
	From      string `json:"from"` // "wan", "lan", "host", "container:NAME"
	Proto     string `json:"proto"`
	Dst       string `json:"dst"`
	Port      uint16 `json:"dport,omitempty"`
	Reachable bool   `json:"reachable"`
	By        string `json:"by,omitempty"`       // who answered: a container's name, "host", "wan" or "lan"
	SeenSrc   string `json:"seen_src,omitempty"` // that it saw
	Err       string `json:"err,omitempty"`
	Note      string `json:"note,omitempty"`
	Src       string `json:"src,omitempty"` // that the client sent from
	// Path is how the connection got there, as the host's connection tracking has it: "host", "dnat", "proxy" or "direct"; ""
	// where that isn't known.
	Path string `json:"path,omitempty"`
}

// Rows reads the rows of a snapshot.
func Rows(dir fs.FS) ([]Row, error) {
	text, err := fs.ReadFile(dir, File)
	if err != nil {
		return nil, err
	}
	var rows []Row
	return rows, json.Unmarshal(text, &rows)
}

// clients are the machines outside, by "is IPv4".
var clients = map[string]map[bool]client{
	"wan": {true: {"203.0.113.2", "eth0"}, false: {"2001:db8:113::2", "eth0"}},
	"lan": {true: {"192.168.50.2", "eth1"}, false: {"fd50::2", "eth1"}},
}

type client struct{ addr, iface string }

// Query is the packet as a person would ask for it.
func (r Row) Query() (packet.Query, error) {
	dst, err := netip.ParseAddr(r.Dst)
	if err != nil {
		return packet.Query{}, err
	}
	proto, to := r.Proto, r.Dst
	if proto == "icmp" && dst.Is6() {
		proto = "icmp6"
	}
	if r.Port != 0 {
		to = netip.AddrPortFrom(dst, r.Port).String()
	}
	text := proto + " -> " + to
	switch c, ok := clients[r.From]; {
	case ok && dst.Is6() && dst.IsLinkLocalUnicast():
		src, _, _ := strings.Cut(r.Src, "%")
		text = proto + " " + src + " -> " + to + " in " + c[false].iface
	case ok:
		text = proto + " " + c[dst.Is4()].addr + " -> " + to + " in " + c[dst.Is4()].iface
	case r.From == "host":
		text += " from host"
	default:
		text += " from container " + strings.TrimPrefix(r.From, "container:")
	}
	return packet.Parse(text)
}

func (r Row) String() string {
	did := "reached " + r.By + " from " + r.SeenSrc
	if r.Path != "" {
		did += " by " + r.Path
	}
	if !r.Reachable {
		did = "not reached (" + r.Err + ")"
	}
	return fmt.Sprintf("%s %s -> %s port %d: %s", r.From, r.Proto, r.Dst, r.Port, did)
}

// Wrong is a row of which something else is said than what happened.
type Wrong struct {
	Row
	Said string
}

func (w Wrong) String() string { return w.Row.String() + "; said: " + w.Said }

// Judge asks a host's snapshot about each row: first the simulator, then for machines outside the sets of the analyser. A
// snapshot that isn't whole may leave questions open, but what it does say has to be right.
func Judge(host *snapshot.Host, rows []Row) ([]Wrong, error) {
	var wrong []Wrong
	s := sim.New(host)
	of := map[bool]*analyze.Analyzer{true: analyze.New(host, netfilter.IPv4), false: analyze.New(host, netfilter.IPv6)}
	whole := isWhole(host)
	for _, r := range rows {
		q, err := r.Query()
		if err != nil {
			return nil, err
		}
		t, err := s.Explain(q, sim.Options{Fast: true})
		switch {
		case err != nil && whole:
			return nil, fmt.Errorf("%s: %w", q, err)
		case err != nil:
		default:
			if said := r.against(t, whole); said != "" {
				wrong = append(wrong, Wrong{r, fmt.Sprintf("explain: %s: %s %s", said, describe(t), t.Why)})
			}
		}
		// The analyser is asked whether requests get there, and not what becomes of the answers.
		if t != nil && !r.Reachable && t.Verdict == sim.Accept {
			continue
		}
		if said := r.againstSets(of[q.Dst.Is4()], q, whole); said != "" {
			wrong = append(wrong, Wrong{r, "audit: " + said})
		}
	}
	return wrong, nil
}

// isWhole tells whether all is known of a host that a row may hang on; the kinds of interfaces and the usual rules of routing
// can be done without.
func isWhole(host *snapshot.Host) bool {
	return host.Inventory.Docker.Version != "" && !slices.ContainsFunc(host.Missing, func(m snapshot.Missing) bool {
		return m.Part != snapshot.PartLinks && m.Part != snapshot.PartPolicies
	})
}

func describe(t *sim.Trace) string {
	reachable := "perhaps"
	if t.Reachable != nil {
		reachable = fmt.Sprint(*t.Reachable)
	}
	return fmt.Sprintf("[%s, reachable %s, %s %s from %s]", t.Verdict, reachable, t.DeliveredTo.Kind, t.DeliveredTo.Name, t.DeliveredTo.Source)
}

// against says what of an explanation isn't what happened; "" for nothing.
func (r Row) against(t *sim.Trace, whole bool) string {
	open := t.Verdict == sim.Unknown || t.Reachable == nil && t.Verdict == sim.Accept
	if !whole && t.Verdict == sim.Unknown {
		return ""
	}
	if !r.Reachable {
		return r.refusal(t, open, whole)
	}
	kinds := map[string]string{"host": "host", "wan": "remote", "lan": "remote"}
	kind := kinds[r.By]
	if kind == "" {
		kind = map[string]string{"proxy": "proxy", "host": "host"}[r.Path]
	}
	seen, _, _ := strings.Cut(r.SeenSrc, "%")
	switch d := t.DeliveredTo; {
	case t.Verdict != sim.Accept:
		return "the verdict"
	case t.Reachable != nil && !*t.Reachable:
		return "reachable"
	case r.By == "": // nobody said who it was
		return ""
	case !whole && (d.Kind == "" || d.Name == ""):
		return ""
	case kind != "" && d.Kind != kind, kind == "" && d.Kind != "container" && (r.Path != "" || d.Kind != "proxy"):
		return "to whom"
	case (d.Kind == "container" || d.Kind == "proxy") && d.Name != r.By:
		return "to whom"
	case r.SeenSrc != "" && d.Source != seen && (whole || d.Source != ""):
		return "the source"
	}
	return ""
}

// refusal judges an explanation of what didn't get there. Who is refused at a closed port gets an answer; who hears nothing was
// dropped somewhere.
func (r Row) refusal(t *sim.Trace, open, whole bool) string {
	refused := strings.Contains(r.Err, "refused")
	switch {
	case t.Verdict == sim.Accept && !open && *t.Reachable:
		return "reachable"
	case t.Verdict == sim.Accept && open && !refused && whole:
		return "it was lost, and not refused where it got to"
	case t.Verdict == sim.Drop && refused:
		return "somebody refused it"
	}
	return ""
}

// againstSets holds the analyser's sets against a row from outside.
func (r Row) againstSets(a *analyze.Analyzer, q packet.Query, whole bool) string {
	c, ok := clients[r.From]
	if !ok || r.Port == 0 || q.Dst.IsLinkLocalUnicast() {
		return ""
	}
	from := c[q.Dst.Is4()]
	var may, must bool
	var paths []string
	for _, w := range a.Dial(analyze.Target{Proto: q.Proto, Addr: q.Dst, Port: r.Port}) {
		in := func(s analyze.Sources) bool { return s[from.iface].Contains(netip.MustParseAddr(from.addr)) }
		if w.Path != analyze.NoSocket && in(a.May(w)) {
			may, must = true, must || in(a.Must(w))
			paths = append(paths, string(w.Path))
		}
	}
	switch {
	case r.Reachable && !may && whole:
		return "closed"
	case !r.Reachable && must && !strings.Contains(r.Err, "refused"):
		return "open by " + strings.Join(paths, ", ")
	case r.Reachable && whole && r.Path != "" && len(paths) == 1 && paths[0] != r.Path && paths[0] != string(analyze.Aside):
		return "by " + paths[0]
	}
	return ""
}
