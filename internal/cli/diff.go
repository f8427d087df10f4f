package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go4.org/netipx"

	"quaywall/internal/analyze"
	"quaywall/internal/apply"
	"quaywall/internal/files"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

const diffLong = `Says who can reach what by B and not by A, and the other way round, for all packets that begin a connection from outside
of the host. Where it says that nothing differs, nothing does: that is proven, not tried. For each difference one packet is shown,
with what becomes of it on both sides, and why.

A and B are each one of: live (this host as it is), none (this host without quaywall), a policy file (this host with that policy
in force), @1, @2, … (with a policy that was in force, as quaywall rollback --list numbers them), or a folder that quaywall
snapshot wrote. With --snapshot policies are put on the host of that snapshot instead of this one. With --exit-code the status
is 4 where something differs.`

// DiffAnswer is what "diff --json" says.
type DiffAnswer struct {
	Equal  bool         `json:"equal"` // the two let in the same, whatever the packet
	Gained []DiffChange `json:"gained"`
	Lost   []DiffChange `json:"lost"`
	Moved  []DiffChange `json:"moved"`          // let in by both, and to another place or by another way
	More   bool         `json:"more,omitempty"` // there are more than are listed
}

// DiffChange is access that one of two has and the other has not.
type DiffChange struct {
	Family  string      `json:"family"` // "ipv4" or "ipv6"
	Proto   string      `json:"proto"`
	Also    []string    `json:"also,omitempty"`  // further protocols with the same change
	Ports   string      `json:"ports,omitempty"` // that are dialled: "80", "1-1023"
	To      []string    `json:"to"`              // addresses that are dialled
	From    []AuditOpen `json:"from"`            // with "all but" in front those that are not among them
	Served  bool        `json:"served"`          // something listens there, or is published, on one of the two
	Witness string      `json:"witness"`         // one such packet, as quaywall explain takes it
	Before  DiffSide    `json:"before"`
	After   DiffSide    `json:"after"`
	whole   bool        // To are all addresses of the host
}

// DiffSide is what becomes of the witness on one side.
type DiffSide struct {
	Verdict    string `json:"verdict"`
	Why        string `json:"why"`
	PolicyLine string `json:"policy_line,omitempty"`
}

func (a *app) diffCommand() *cobra.Command {
	var at where
	var exitCode bool
	cmd := &cobra.Command{
		Use:     "diff A B",
		Short:   "say who gains and who loses access between two policies, hosts or moments",
		Long:    diffLong,
		Example: lines("quaywall diff live policy.yaml", "quaywall diff @1 live", "quaywall diff none policy.yaml", "quaywall diff before/ after/"),
		Args:    arguments(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return misusedf(cmd, "name the two that are to be compared")
			}
			equal, err := a.diff(cmd, at, args[0], args[1])
			if err == nil && exitCode && !equal {
				err = differences()
			}
			return err
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 4 where something differs")
	return cmd
}

// side is one of the two that are compared.
type side struct {
	name string
	host *snapshot.Host
}

func (a *app) diff(cmd *cobra.Command, at where, before, after string) (equal bool, err error) {
	base := baseHost{app: a, at: at}
	var sides [2]side
	for i, name := range []string{before, after} {
		if sides[i].host, err = base.side(cmd.Context(), cmd, name); err != nil {
			return false, err
		}
		sides[i].name = name
	}
	v, err := difference(cmd.Context(), sides[0].host, sides[1].host)
	if err != nil {
		return false, &failure{status: Failed, doing: "comparing " + before + " with " + after, err: err}
	}
	a.answer(v, func(w io.Writer, s style) { a.showDiff(w, s, sides, v) })
	return v.Equal, nil
}

// difference is what two hosts let in differently, explained.
func difference(ctx context.Context, before, after *snapshot.Host) (DiffAnswer, error) {
	d, err := analyze.Compare(ctx, before, after)
	if err != nil {
		return DiffAnswer{}, err
	}
	x := explainer{[2]*sim.Sim{sim.New(before), sim.New(after)}, ownAddrs(after)}
	return DiffAnswer{Equal: d.Equal(), Gained: x.changes(d.Gained), Lost: x.changes(d.Lost), Moved: x.changes(d.Moved), More: d.More}, nil
}

// baseHost is the host that policies are put on, looked at once.
type baseHost struct {
	app  *app
	at   where
	host *snapshot.Host
}

func (b *baseHost) look(ctx context.Context) (*snapshot.Host, error) {
	if b.host == nil {
		seen, err := b.app.look(ctx, b.at)
		if err != nil {
			return nil, err
		}
		b.host = seen.host
	}
	return b.host, nil
}

// side finds what a person means by a word.
func (b *baseHost) side(ctx context.Context, cmd *cobra.Command, word string) (*snapshot.Host, error) {
	if info, err := os.Stat(word); err == nil && info.IsDir() {
		seen, err := b.app.look(ctx, where{snapshot: word})
		if err != nil {
			return nil, err
		}
		return seen.host, nil
	}
	host, err := b.look(ctx)
	if err != nil || word == "live" {
		return host, err
	}
	p, err := b.policy(cmd, word)
	if err != nil {
		return nil, err
	}
	after, problems := with(host, p)
	if problems.HasErrors() {
		return nil, &failure{status: Usage, err: fmt.Errorf("%s does not fit the host", word), list: problems}
	}
	return after, nil
}

func (b *baseHost) policy(cmd *cobra.Command, word string) (*policy.Policy, error) {
	if word == "none" {
		return nil, nil
	}
	if number, ok := strings.CutPrefix(word, "@"); ok {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return nil, misusedf(cmd, "%s: use a number as quaywall rollback --list tells", quoted(word))
		}
		return b.app.policyOf(n)
	}
	if _, err := os.Stat(word); errors.Is(err, fs.ErrNotExist) {
		return nil, misusedf(cmd, "%s is neither a file nor a folder, nor live, none or @NUMBER", quoted(word))
	}
	p, sources, list := policy.Load(files.Host{}, word)
	if list.HasErrors() {
		return nil, &failure{status: Usage, err: invalidPolicy(word, list, ""), list: list, source: sources.Text}
	}
	return p, nil
}

// policyOf is the policy that was in force so many before.
func (a *app) policyOf(number int) (*policy.Policy, error) {
	all, err := a.host().History()
	if err != nil {
		return nil, &failure{status: Failed, doing: "reading the policies that were in force", err: err}
	}
	for _, past := range all {
		if past.Number == number {
			p, err := past.Policy()
			if err != nil {
				return nil, &failure{status: Failed, doing: "reading " + apply.PolicyName(past.File, past.Hash), err: err}
			}
			return p, nil
		}
	}
	return nil, &failure{status: Failed, err: fmt.Errorf("there is no policy @%d", number), next: "see quaywall rollback --list"}
}

// explainer tells what becomes of packets on two hosts.
type explainer struct {
	hosts [2]*sim.Sim
	own   netset.Set // addresses that the host is dialled by
}

// loopbacks are the addresses that nobody thinks of who says "this host", though some packets to them come by a wire.
var loopbacks = netset.MustParse("127.0.0.0/8 ::1")

// ownAddrs are the addresses that a host is dialled by from outside.
func ownAddrs(h *snapshot.Host) netset.Set {
	var b netset.Builder
	for _, i := range h.Inventory.Interfaces {
		for _, p := range i.Addrs {
			if !p.Addr().IsLoopback() {
				b.AddAddr(p.Addr())
			}
		}
	}
	set, _ := b.Set() // single addresses
	return set
}

func (x explainer) changes(all []analyze.Change) []DiffChange {
	list := []DiffChange{}
	for _, c := range all {
		list = append(list, x.change(c))
	}
	return list
}

func (x explainer) change(c analyze.Change) DiffChange {
	out := DiffChange{Family: "ipv4", Proto: packet.ProtoName(c.Proto), To: simply(c.To, netset.All()), Served: c.Served}
	if c.Family == netfilter.IPv6 {
		out.Family = "ipv6"
	}
	for _, p := range c.Also {
		out.Also = append(out.Also, packet.ProtoName(p))
	}
	if c.Last > 0 {
		out.Ports = netset.Ports{First: c.First, Last: c.Last}.String()
	}
	for _, iface := range slices.Sorted(maps.Keys(c.From)) {
		for _, from := range sourcesOf(c.From[iface], c.All[iface]) {
			out.From = append(out.From, AuditOpen{From: from, Interface: iface})
		}
	}
	own := x.own.V4()
	if c.Family == netfilter.IPv6 {
		own = x.own.V6()
	}
	out.whole = c.To.Subtract(loopbacks).Equal(own)
	w := c.Witness
	q := packet.Query{Packet: packet.Packet{Proto: w.Proto, Src: w.Src, SrcPort: w.SrcPort, Dst: w.Dst, DstPort: w.DstPort, In: w.In, ICMPType: w.ICMPType, Flags: packet.SYN}}
	out.Witness = q.String()
	out.Before, out.After = sideOf(x.hosts[0], q), sideOf(x.hosts[1], q)
	return out
}

// sideOf asks the simulator, which shares nothing with what found the difference.
func sideOf(s *sim.Sim, q packet.Query) DiffSide {
	trace, err := s.Explain(q, sim.Options{Fast: true})
	if err != nil {
		return DiffSide{Verdict: string(sim.Unknown), Why: err.Error()}
	}
	side := DiffSide{Verdict: string(trace.Verdict), Why: trace.Why}
	if trace.DecidedBy != nil {
		side.PolicyLine = trace.DecidedBy.PolicyLine
	}
	return side
}

// sourcesOf says which of all addresses these are, by the shorter of two ways: those that are among them, or those that are
// not.
func sourcesOf(set, all netset.Set) []string {
	if set.Equal(all) {
		return []string{"any"}
	}
	in, out := simply(set, all), simply(all.Subtract(set), all)
	if len(out) < len(in) {
		return []string{"all but " + strings.Join(out, ", ")}
	}
	return in
}

// simply writes addresses by few prefixes and ranges, where those that are not among all do no harm: the host's own address
// leaves no hole in the network that it is in.
func simply(set, all netset.Set) []string {
	list := []string{}
	harmless := func(r netipx.IPRange) bool {
		var b netset.Builder
		b.Add(r)
		more, err := b.Set()
		return err == nil && more.Subtract(set).Intersect(all).IsEmpty()
	}
	var last netipx.IPRange
	flush := func() {
		if !last.IsValid() {
			return
		}
		if p := covering(last); harmless(netipx.RangeOfPrefix(p)) {
			last = netipx.RangeOfPrefix(p)
		}
		list = append(list, netset.FormatRange(last))
	}
	for r := range set.Each() {
		if joined := netipx.IPRangeFrom(last.From(), r.To()); last.IsValid() && joined.IsValid() && harmless(joined) {
			last = joined
			continue
		}
		flush()
		last = r
	}
	flush()
	return list
}

// covering is the longest prefix that holds a range.
func covering(r netipx.IPRange) netip.Prefix {
	bits := r.From().BitLen()
	for ; bits > 0; bits-- {
		if p, err := r.From().Prefix(bits); err == nil && p.Contains(r.To()) {
			return p
		}
	}
	return netip.PrefixFrom(r.From(), 0).Masked()
}

func (a *app) showDiff(w io.Writer, s style, sides [2]side, v DiffAnswer) {
	if v.Equal {
		fmt.Fprintf(w, "%s: %s and %s let in the same, whatever the packet\n", s.good("No difference"), sides[0].name, sides[1].name)
		return
	}
	for _, part := range []struct {
		head    string
		changes []DiffChange
	}{
		{s.bad("Gained") + ", let in by " + sides[1].name + " and not by " + sides[0].name, v.Gained},
		{s.good("Lost") + ", let in by " + sides[0].name + " and not by " + sides[1].name, v.Lost},
		{s.warn("Moved") + ", let in by both, to another place or by another way", v.Moved},
	} {
		if len(part.changes) > 0 {
			fmt.Fprintf(w, "%s:\n", part.head)
			a.showChanges(w, s, part.changes)
			fmt.Fprintln(w)
		}
	}
	if v.More {
		fmt.Fprintf(w, "and more than these %d of a kind\n", analyze.Most)
	}
}

// showChanges shows changes, each with its packet; those where nothing listens are counted, unless everything is asked for.
func (a *app) showChanges(w io.Writer, s style, all []DiffChange) {
	served, idle := a.told(all)
	for _, c := range served {
		showChange(w, s, c)
	}
	showIdle(w, s, idle)
}

// told are the changes that are shown, and how many are not: those where nothing listens, unless everything is asked for.
func (a *app) told(all []DiffChange) (shown []DiffChange, idle int) {
	if a.opts.verbose {
		return all, 0
	}
	shown = slices.DeleteFunc(slices.Clone(all), func(c DiffChange) bool { return !c.Served })
	return shown, len(all) - len(shown)
}

func showIdle(w io.Writer, s style, idle int) {
	if idle > 0 {
		fmt.Fprintf(w, "  %s\n", s.faint(fmt.Sprintf("and %s of ports and protocols where nothing listens now (--verbose lists them)", count(idle, "range"))))
	}
}

// what is the protocol and the ports of a change in words.
func (c DiffChange) what() string {
	text := c.Proto
	if c.Ports != "" {
		text = c.Ports + "/" + c.Proto
	}
	if n := len(c.Also); n > 0 {
		text += fmt.Sprintf(" and %d more protocols", n)
	}
	return text
}

// from is in words who has the access.
func (c DiffChange) from() string {
	return auditLine{AuditEndpoint: AuditEndpoint{OpenTo: c.From}}.openTo()
}

// at is in words what is dialled.
func (c DiffChange) at() string {
	if c.whole {
		return "this host, " + c.Family
	}
	return sourcesText(c.To)
}

func showChange(w io.Writer, s style, c DiffChange) {
	fmt.Fprintf(w, "  %s at %s, from %s\n", s.strong(c.what()), c.at(), c.from())
	fmt.Fprintf(w, "    %s\n", s.faint("for example "+c.Witness))
	fmt.Fprintf(w, "      before: %s\n      after:  %s\n", c.Before.Why, c.After.Why)
}
