package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/analyze"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

const auditLong = `Lists everything that can be dialled on this host: sockets, published ports, and the containers' own addresses, with the way
by which it is served, and from where it can be reached through all rules that are in the kernel, whoever made them. The sets
of packets are computed, not tried: what is said to be open is open, and what isn't said is closed. Where a rule can't be told
the effect of, since it counts, waits, or isn't understood, it is named, and taken to let through.

Ways: host (a process here), dnat (forwarded to a container), proxy (a docker-proxy here, which dials the container), direct (to
the container's own address).

With --from only what can be reached from an address, or from one of the addresses of a set of the policy in force, is listed.
With --fail-on the exit status is 4 where something is found: open-to-any is what anyone outside may reach, uncertain what hangs
on a rule that can't be told the effect of, or on a file that is missing or can't be read. --except leaves out ports that are meant to be so.

With --rules it lists rules that are of no use instead, in all tables, and the rules that make them so: dead (no packet gets to their
chain), shadowed (rules before leave them nothing, one or several together) and redundant (without them the same becomes of each
packet). That is proven for all packets, whatever sets hold and whatever a rule asks for that can't be foreseen. Rules that
Docker and other programs look after are counted; --verbose lists them. The rules are this host's, a snapshot's, or those of FILES:
what iptables-save, iptables -S, iptables -L or nft -j list ruleset print. --fail-on useless is for those that a person looks after.`

// AuditAnswer is what "audit --json" says.
type AuditAnswer struct {
	Endpoints   []AuditEndpoint `json:"endpoints"`
	Unseen      []AuditUnseen   `json:"unseen"`
	Unread      []string        `json:"unread,omitempty"` // what isn't known for want of a file that is missing or can't be read
	Assumptions []string        `json:"assumptions"`
	Warnings    []string        `json:"warnings,omitempty"` // what of the files that were read isn't understood, with its place
	nothing     string          // the sentence that stands in the place of endpoints where there are none
}

// AuditEndpoint is something that can be dialled, by one way.
type AuditEndpoint struct {
	Proto      string      `json:"proto"`
	Family     string      `json:"family"`  // "ipv4" or "ipv6"
	Address    string      `json:"address"` // "0.0.0.0" and "::" for all addresses of this host
	Port       uint16      `json:"port"`
	Owner      ReachOwner  `json:"owner"`
	Path       string      `json:"path"`         // "host", "dnat", "proxy", "direct"; "none" where nothing listens, "" where nothing gets anywhere
	To         string      `json:"to,omitempty"` // where it is forwarded to
	OpenTo     []AuditOpen `json:"open_to"`      // empty: closed
	Certain    bool        `json:"certain"`
	PolicyLine string      `json:"policy_line,omitempty"` // that lets the first of OpenTo in
	Doubts     []string    `json:"doubts,omitempty"`      // rules that this hangs on, and that can't be told the effect of

	class auditClass
}

// AuditOpen is a part of the world that an endpoint is open to.
type AuditOpen struct {
	From      string `json:"from"` // "any", a set of the policy's, addresses, or "all but" addresses
	Interface string `json:"interface"`
	inside    bool   // it is a Docker bridge: containers come by it
}

// AuditUnseen is a network that no rule of this host sees.
type AuditUnseen struct {
	Network   string `json:"network"`
	Driver    string `json:"driver"`
	Interface string `json:"interface"`
}

// auditClass is how far something is open, the widest first.
type auditClass int

const (
	openToAny auditClass = iota
	openToSome
	openToContainers
	closed
)

var auditHeads = [...]string{openToAny: "Open to anyone outside", openToSome: "Open to some", openToContainers: "Open to containers alone", closed: "Closed"}

type auditFlags struct {
	at     where
	from   string
	failOn []string
	except []string
	html   string
	rules  bool
}

// What --fail-on knows.
const (
	failOpenToAny = "open-to-any"
	failUncertain = "uncertain"
)

func (a *app) auditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit [--rules [FILE…]]",
		Short: "list what can be reached on this host, and from where; or rules that are of no use",
		Long:  auditLong,
		Example: lines("quaywall audit", "quaywall audit --from 203.0.113.99", "quaywall audit --fail-on open-to-any --except 22,80,443", "quaywall audit --snapshot DIR --json",
			"quaywall audit --rules", "quaywall audit --rules iptables-save.txt"),
		Args: func(cmd *cobra.Command, args []string) error {
			if f.rules {
				return nil
			}
			return arguments(0)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.rules {
				if err := f.knows(cmd, failUseless); err != nil {
					return err
				}
				return a.auditRules(cmd.Context(), cmd, f, args)
			}
			if err := f.knows(cmd, failOpenToAny, failUncertain); err != nil {
				return err
			}
			return a.audit(cmd.Context(), cmd, f)
		},
	}
	f.at.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "list only what can be reached from an address, or a set of the policy in force")
	flags.StringSliceVar(&f.failOn, "fail-on", nil, "exit with status 4 on open-to-any, uncertain, or both; with --rules on useless")
	flags.StringSliceVar(&f.except, "except", nil, "ports that --fail-on leaves out, as 443 or 53/udp")
	flags.StringVar(&f.html, "html", "", "write a page for a browser to this file as well")
	flags.BoolVar(&f.rules, "rules", false, "list rules that are of no use: of this host, or of the files that are named")
	for _, other := range []string{"from", "html", "except"} {
		cmd.MarkFlagsMutuallyExclusive("rules", other)
	}
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		if f.rules {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// knows tells of what --fail-on or --except doesn't know.
func (f *auditFlags) knows(cmd *cobra.Command, all ...string) error {
	for _, what := range f.failOn {
		if !slices.Contains(all, what) {
			return misusedf(cmd, "--fail-on knows %s here, not %s", strings.Join(all, " and "), quoted(what))
		}
	}
	for _, port := range f.except {
		if !isPort(port) {
			return misusedf(cmd, "--except is about ports, as 443 or 53/udp, not %s", quoted(port))
		}
	}
	return nil
}

// isPort tells whether a word is a port, or one of a protocol.
func isPort(word string) bool {
	port, name, named := strings.Cut(word, "/")
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	proto, err := packet.ParseProto(name)
	return !named || err == nil && packet.ProtoName(proto) == name
}

func (a *app) audit(ctx context.Context, cmd *cobra.Command, f auditFlags) error {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	seen, err := a.look(ctx, f.at)
	if err != nil {
		return err
	}
	sets := seen.sets()
	from, err := fromOf(f.from, sets)
	if err != nil {
		return misusedf(cmd, "%v", err)
	}
	found, err := analyze.Audit(ctx, seen.host, sets)
	if err != nil {
		return &failure{status: Failed, doing: "judging the rules of " + f.at.name(), err: err, next: "quaywall explain judges single packets by them"}
	}
	v := AuditAnswer{Endpoints: []AuditEndpoint{}, Unseen: []AuditUnseen{}, Unread: unreadOf(seen.host),
		Assumptions: auditAssumptions(seen.host), Warnings: warningsOf(seen.host)}
	for _, e := range found {
		if !from.IsEmpty() && !slices.ContainsFunc(e.OpenTo, func(o analyze.Opening) bool { return o.Addrs.Overlaps(from) }) {
			continue
		}
		v.Endpoints = append(v.Endpoints, auditEndpoint(seen, e))
	}
	if len(v.Endpoints) == 0 {
		v.nothing = auditNothing(seen.host, f.from)
	}
	for _, n := range seen.host.Inventory.Unseen {
		v.Unseen = append(v.Unseen, AuditUnseen{n.Name, n.Driver, n.Parent})
	}
	a.answer(v, func(w io.Writer, s style) { a.showAudit(w, s, v) })
	if f.html != "" {
		var page bytes.Buffer
		err := writeAuditPage(&page, f.at.name(), time.Now(), v)
		if err == nil {
			err = os.WriteFile(f.html, page.Bytes(), 0o600)
		}
		if err != nil {
			return &failure{status: Failed, doing: "writing the page", err: err, next: "choose another file"}
		}
	}
	unread := len(v.Unread) > 0 && slices.Contains(f.failOn, failUncertain)
	if unread || slices.ContainsFunc(v.Endpoints, func(e AuditEndpoint) bool { return e.fails(f) }) {
		return differences()
	}
	return nil
}

// fromOf reads --from: an address, a prefix, or a set's name.
func fromOf(text string, sets map[string]netset.Set) (netset.Set, error) {
	if text == "" {
		return netset.Set{}, nil
	}
	if set, ok := sets[text]; ok {
		return set, nil
	}
	r, err := netset.ParseRange(text)
	if err != nil {
		return netset.Set{}, fmt.Errorf("--from %s is neither an address nor a set of the policy in force", quoted(text))
	}
	var b netset.Builder
	b.Add(r)
	return b.Set()
}

// auditNothing says that there is nothing to be listed, and how far that is known.
func auditNothing(h *snapshot.Host, from string) string {
	text := "Nothing can be dialled here: no socket listens, and no container has a port."
	if from != "" {
		text = "Nothing here can be reached from " + from + "."
	}
	for _, m := range h.Missing {
		if m.Part == snapshot.PartSockets || m.Part == snapshot.PartContainers && !h.WithoutDocker() {
			text += " But " + m.So + "."
		}
	}
	return text
}

// fails tells whether --fail-on is about an endpoint.
func (e AuditEndpoint) fails(f auditFlags) bool {
	port := fmt.Sprint(e.Port)
	if slices.Contains(f.except, port) || slices.Contains(f.except, port+"/"+e.Proto) {
		return false
	}
	return slices.Contains(f.failOn, failOpenToAny) && e.class == openToAny || slices.Contains(f.failOn, failUncertain) && !e.Certain
}

func auditEndpoint(seen *seen, e analyze.Endpoint) AuditEndpoint {
	out := AuditEndpoint{Proto: packet.ProtoName(e.Proto), Family: "ipv4", Address: e.Addr.String(), Port: e.Port, Owner: ReachOwner(e.Owner),
		Path: string(e.Way.Path), OpenTo: []AuditOpen{}, Certain: e.Certain, class: classOf(&seen.host.Inventory, e)}
	if e.Addr.Is6() {
		out.Family = "ipv6"
	}
	if e.Way.To.IsValid() && (e.Way.Path == analyze.ByDNAT || e.Way.Path == analyze.ByProxy) {
		out.To = e.Way.To.String()
	}
	for _, o := range e.OpenTo {
		out.OpenTo = append(out.OpenTo, auditOpens(o, seen.host.Inventory.IsDockerBridge(o.Iface))...)
	}
	for _, r := range e.Doubts {
		out.Doubts = append(out.Doubts, r.Text)
	}
	out.PolicyLine = seen.lineOf(e)
	return out
}

// auditOpens is an opening as one entry, or where it has no name as one for each of its prefixes.
func auditOpens(o analyze.Opening, inside bool) []AuditOpen {
	if o.Name != "" {
		return []AuditOpen{{o.Name, o.Iface, inside}}
	}
	var all []AuditOpen
	for _, from := range sourcesOf(o.Addrs, o.All) {
		all = append(all, AuditOpen{from, o.Iface, inside})
	}
	return all
}

func classOf(inv *inventory.Inventory, e analyze.Endpoint) auditClass {
	class := closed
	for _, o := range e.OpenTo {
		switch {
		case inv.IsDockerBridge(o.Iface):
			class = min(class, openToContainers)
		case o.Name == "any":
			class = min(class, openToAny)
		default:
			class = min(class, openToSome)
		}
	}
	return class
}

// auditAssumptions are what the answer rests on.
func auditAssumptions(h *snapshot.Host) []string {
	all := []string{"connections that begin, by the rules of one moment; traffic control, XDP and what programs decide are not looked at",
		"containers use their own addresses; packets between ports of one bridge are not listed"}
	for _, m := range h.Missing {
		all = append(all, m.So)
	}
	return all
}

// unreadOf is what isn't known of a host for want of a file. Other programs than quaywall keep no routing rules and no kinds of
// interfaces in a snapshot: without these it is whole.
func unreadOf(h *snapshot.Host) (all []string) {
	for _, m := range h.Missing {
		docker := m.Part == snapshot.PartContainers || m.Part == snapshot.PartNetworks
		extra := m.Part == snapshot.PartLinks || m.Part == snapshot.PartPolicies
		if docker && h.WithoutDocker() || extra && m.Absent() {
			continue
		}
		all = append(all, m.String())
	}
	return all
}

// line is an endpoint as it is shown: those that differ in their family alone are one.
type auditLine struct {
	AuditEndpoint
	families []string
}

func (a *app) showAudit(w io.Writer, s style, v AuditAnswer) {
	if v.nothing != "" {
		fmt.Fprintln(w, v.nothing)
	}
	lines := auditLines(v.Endpoints, a.opts.verbose)
	for class := openToAny; class <= closed; class++ {
		of := slices.DeleteFunc(slices.Clone(lines), func(l auditLine) bool { return l.class != class })
		if len(of) == 0 || class == closed && !a.opts.verbose {
			continue
		}
		fmt.Fprintf(w, "%s:\n", s.strong(auditHeads[class]))
		rows := [][]cell{{{"PORT", s.faint}, {"WHAT", s.faint}, {"WAY", s.faint}, {"OPEN TO", s.faint}, {"BY", s.faint}}}
		for _, l := range of {
			rows = append(rows, l.row(s))
		}
		table(w, rows)
		fmt.Fprintln(w)
	}
	if n := len(slices.DeleteFunc(slices.Clone(lines), func(l auditLine) bool { return l.class != closed })); n > 0 && !a.opts.verbose {
		fmt.Fprintf(w, "%s closed to all (--verbose lists them).\n", count(n, "endpoint")+" "+map[bool]string{true: "is", false: "are"}[n == 1])
	}
	for _, u := range v.Unseen {
		fmt.Fprintf(w, "%s network %s is %s on %s: no rule of this host sees what goes to its containers\n", s.warn("Not seen:"), u.Network, u.Driver, u.Interface)
	}
	a.showDoubts(w, s, lines)
	for _, text := range v.Unread {
		fmt.Fprintf(w, "%s %s\n", s.warn("Not known:"), text)
	}
	if a.opts.verbose {
		for _, text := range v.Assumptions {
			fmt.Fprintf(w, "%s %s\n", s.faint("Assumed:"), text)
		}
	}
}

// showDoubts names the rules that nobody can tell the effect of.
func (a *app) showDoubts(w io.Writer, s style, lines []auditLine) {
	var all []string
	for _, l := range lines {
		for _, d := range l.Doubts {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	for _, d := range all {
		fmt.Fprintf(w, "%s what is marked with ? hangs on %s\n", s.warn("Not certain:"), d)
	}
}

// auditLines are the endpoints to be shown. That containers get to what is open to others is left out, unless everything is
// asked for.
func auditLines(all []AuditEndpoint, everything bool) []auditLine {
	var lines []auditLine
	for _, e := range all {
		if !everything && e.class < openToContainers {
			e.OpenTo = slices.DeleteFunc(slices.Clone(e.OpenTo), func(o AuditOpen) bool { return o.inside })
		}
		at := slices.IndexFunc(lines, func(l auditLine) bool { return l.same(e) })
		if at < 0 {
			lines, at = append(lines, auditLine{AuditEndpoint: e}), len(lines)
		}
		if !slices.Contains(lines[at].families, e.Family) {
			lines[at].families = append(lines[at].families, e.Family)
		}
	}
	slices.SortStableFunc(lines, func(x, y auditLine) int { return cmp.Or(cmp.Compare(x.Port, y.Port), cmp.Compare(x.Proto, y.Proto)) })
	return lines
}

// same tells whether an endpoint differs from a line in nothing but the family.
func (l auditLine) same(e AuditEndpoint) bool {
	wild := func(addr string) bool { a, err := netip.ParseAddr(addr); return err == nil && a.IsUnspecified() }
	return l.Port == e.Port && l.Proto == e.Proto && l.Owner == e.Owner && l.Path == e.Path && l.Certain == e.Certain && l.PolicyLine == e.PolicyLine &&
		wild(l.Address) && wild(e.Address) && slices.Equal(l.OpenTo, e.OpenTo)
}

func (l auditLine) row(s style) []cell {
	port := fmt.Sprintf("%d/%s", l.Port, l.Proto)
	if addr, err := netip.ParseAddr(l.Address); err == nil && !addr.IsUnspecified() {
		port = netip.AddrPortFrom(addr, l.Port).String() + "/" + l.Proto
	}
	to := l.openTo()
	if len(l.families) == 1 && l.Address != "" {
		to += map[string]string{"ipv4": " (IPv4)", "ipv6": " (IPv6)"}[l.families[0]]
	}
	if !l.Certain {
		to += " ?"
	}
	paint := map[auditClass]func(string) string{openToAny: s.bad, openToSome: s.warn, closed: s.faint}[l.class]
	return []cell{{port, nil}, {l.what(), nil}, {l.Path, s.faint}, {to, paint}, {l.PolicyLine, s.faint}}
}

func (l auditLine) what() string {
	if l.Owner.Kind == "container" {
		return "container " + l.Owner.Name
	}
	return l.Owner.Name
}

// shownSources is how many addresses of an opening are named.
const shownSources = 3

// openTo is in words from where it can be reached: by interface, what is the same on several joined.
func (l auditLine) openTo() string {
	byIface := map[string][]string{}
	var ifaces []string
	for _, o := range l.OpenTo {
		if byIface[o.Interface] == nil {
			ifaces = append(ifaces, o.Interface)
		}
		from := o.From
		if o.inside && from == "any" {
			from = "containers"
		}
		byIface[o.Interface] = append(byIface[o.Interface], from)
	}
	var order []string
	joined := map[string][]string{}
	for _, iface := range ifaces {
		from := sourcesText(byIface[iface])
		if joined[from] == nil {
			order = append(order, from)
		}
		joined[from] = append(joined[from], iface)
	}
	var parts []string
	for _, from := range order {
		parts = append(parts, from+" by "+strings.Join(joined[from], ", "))
	}
	return cmp.Or(strings.Join(parts, "; "), "nobody")
}

func sourcesText(all []string) string {
	switch {
	case len(all) == 1 && all[0] == "any":
		return "anyone"
	case len(all) > shownSources:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:shownSources], ", "), len(all)-shownSources)
	}
	return strings.Join(all, ", ")
}
