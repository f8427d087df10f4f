package apply

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"quaywall/internal/compile"
	"quaywall/internal/guard"
	"quaywall/internal/recheck"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
)

// Ended is the live connections that a policy ends, or would end.
type Ended struct {
	Connections int         `json:"connections"`
	Lines       []EndedLine `json:"lines,omitempty"`
	Uncertain   int         `json:"uncertain,omitempty"` // may be denied, and are left alone: it can't be told by which interface or from which side they began
}

// EndedLine is how many connections a line of the policy ends.
type EndedLine struct {
	Line        string `json:"line"` // "policy.yaml:12", "default"; "" for what always holds
	Connections int    `json:"connections"`
}

// denied is what is known of the connections that run and that the policy denies.
type denied struct {
	known     bool                     // they were looked at
	flows     []recheck.Flow           // of the last look at all, and of those at what began since
	lines     map[recheck.Tuple]string // of all looks, by their two ends
	uncertain int
	running   *Running // of the last look at all
	judge     *recheck.Judge
}

// findDenied looks for the connections that the policy denies. That they can't be listed keeps nobody from a new policy:
// it is told, and never an error.
func (c *change) findDenied() error {
	if !c.policy.Keep && !c.opts.Observe && c.host.Running != nil {
		return c.step("connections", func() error { c.listDenied(); return nil })
	}
	return nil
}

func (c *change) listDenied() {
	if c.inv.Docker.Problem != "" && recheck.AsksDocker(c.policy) {
		c.note("connections that the policy denies go on, since Docker doesn't answer: which ports it publishes is not known")
		return
	}
	d := &c.denied
	running, err := d.look(c.host.Running, recheck.AsksForInterfaces(c.policy))
	if err != nil {
		c.note("connections that the policy denies may go on, since the live ones are not known: %v", err)
		return
	}
	if d.lines == nil {
		d.lines = map[recheck.Tuple]string{}
	}
	if d.judge == nil {
		d.judge = recheck.New(c.policy, c.inv, running.Host)
	}
	d.judge.Update(running.Host) // what it knows of each source stays true, and is most of the work
	for _, f := range running.Flows {
		switch v := d.judge.Judge(f); {
		case v.Denied:
			d.flows = append(d.flows, f)
			d.lines[ends(f)] = v.Line
		case v.Uncertain:
			d.uncertain++
		}
	}
}

// look lists the connections to be judged: all, or those that began since the look before, besides which what that found
// still holds.
func (d *denied) look(c Connections, routes bool) (*Running, error) {
	var more *Running
	var err error
	if d.running != nil {
		more, err = c.Begun(d.running)
	}
	if err != nil {
		return nil, err
	}
	if more != nil {
		d.running.Sockets = more.Sockets
		return more, nil
	}
	d.forget()
	if d.running, err = c.List(routes); err != nil {
		return nil, err
	}
	d.known = true
	return d.running, nil
}

// forget makes the next look one at all connections.
func (d *denied) forget() {
	d.running.close()
	d.running, d.flows, d.uncertain = nil, nil, 0
}

// ends are the two ends of a connection, whichever side was seen first: that differs between two looks at one whose
// beginning nobody saw.
func ends(f recheck.Flow) recheck.Tuple {
	if f.MidStream && f.Orig.Dst.Compare(f.Orig.Src) < 0 {
		return f.Orig.Reversed()
	}
	return f.Orig
}

// spare takes the ways in out of what is denied. The guard refuses policies that deny them, so there should be none; but
// nothing may end the connection by which somebody came. --allow-lockout says that they may end.
func (c *change) spare() {
	if c.opts.AllowLockout || len(c.denied.flows) == 0 {
		return
	}
	ways := map[recheck.Tuple]bool{}
	tunnel := ""
	for _, w := range c.found.Ways {
		t := recheck.Tuple{Proto: w.Proto, Src: w.Peer, Dst: w.Local}
		ways[t], ways[recheck.Tuple{Proto: w.Proto, Src: w.Local, Dst: w.Peer}] = true, true
		tunnel = cmp.Or(tunnel, c.tunnelOf(w))
	}
	left := 0
	c.denied.flows = slices.DeleteFunc(c.denied.flows, func(f recheck.Flow) bool {
		carries := tunnel != "" && c.mayCarry(f)
		if carries {
			left++
		}
		if carries || ways[f.Orig] || ways[f.Reply] {
			delete(c.denied.lines, ends(f))
			return true
		}
		return false
	})
	if left > 0 {
		c.note("you came in by %s: %d connections that the policy denies go on, since one of them may carry that tunnel", tunnel, left)
	}
}

// tunnels are the kinds of interface whose packets travel in those of another connection.
var tunnels = []string{"wireguard", "tun", "tap", "ppp", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ipip", "ip6tnl", "sit", "vti",
	"vti6", "xfrm", "vxlan", "geneve", "fou", "l2tp", "openvpn", "ovpn"}

// tunnelOf is the tunnel that a way leads through, "" for none.
func (c *change) tunnelOf(w guard.Way) string {
	if w.Kind == guard.Listener {
		return ""
	}
	for _, i := range c.inv.Interfaces {
		if slices.Contains(w.Interfaces, i.Name) && slices.Contains(tunnels, i.Kind) {
			return i.Name
		}
	}
	return ""
}

// mayCarry tells whether a connection may be the outside of a tunnel that ends at this host.
func (c *change) mayCarry(f recheck.Flow) bool {
	for _, i := range c.inv.Interfaces {
		for _, p := range i.Addrs {
			if a := p.Addr().Unmap().WithZone(""); a == f.Orig.Dst.Addr() || a == f.Orig.Src.Addr() {
				return true
			}
		}
	}
	return false
}

// cutInForce is the possible value of compile.Options.Cut for when nothing else changes: the rules that are in force have it.
func (c *change) cutInForce() (asIs compile.Cut) {
	if c.record != nil && c.record.Cut != "" && c.chosen.holds() && c.record.Backend == c.chosen.backend.Name() {
		asIs.ID = c.record.Cut
	}
	return asIs
}

// freshCut is compile.Options.Cut for when something changes.
func (c *change) freshCut(ctx context.Context) (fresh compile.Cut) {
	if !c.denied.known {
		return fresh
	}
	fresh.Flows = c.denied.judge.Cut(c.denied.flows)
	fresh.Flows = append(fresh.Flows, c.denied.judge.StillDenied(c.cutBefore(ctx))...)
	if fresh.Flows = distinct(fresh.Flows); len(fresh.Flows) > 0 {
		fresh.ID = newCutID()
	}
	return fresh
}

// cutBefore is what was cut by the policies in force.
func (c *change) cutBefore(ctx context.Context) []ruleset.Flow {
	var all []ruleset.Flow
	if c.record != nil && c.record.Cut != "" && !c.holdsRecorded() { // somebody flushed it
		rules, err := c.recordedRules(c.record)
		if err != nil {
			c.note("connections that were ended before may come back: %v", err)
			return nil
		}
		for _, s := range rules.FlowSets() {
			all = append(all, s.Flows...)
		}
	}
	for _, r := range append(c.strays(), c.chosen) {
		if !r.holds() {
			continue
		}
		flows, err := r.backend.Flows(ctx)
		if err != nil {
			c.note("connections that were ended before may come back: %v", err)
		}
		all = append(all, flows...)
	}
	return all
}

// holdsRecorded tells whether the kernel holds what is recorded.
func (c *change) holdsRecorded() bool {
	return slices.ContainsFunc(append(c.strays(), c.chosen), func(r reading) bool {
		return r.backend.Name() == c.record.Backend && r.holds() && Compare(r.listing, &c.record.Listing).None()
	})
}

func distinct(flows []ruleset.Flow) []ruleset.Flow {
	seen := make(map[ruleset.Flow]bool, len(flows))
	return slices.DeleteFunc(flows, func(f ruleset.Flow) bool {
		before := seen[f]
		seen[f] = true
		return before
	})
}

func newCutID() string {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails: see its documentation
	return hex.EncodeToString(id)
}

// endDenied ends the connections that the policy denies, once it is in force. Whatever goes wrong here is told: the policy
// is in force, and new connections are judged by it.
func (c *change) endDenied(ctx context.Context) {
	if c.spare(); len(c.denied.flows) == 0 {
		return
	}
	err := c.keepEnded(ctx)
	if err != nil {
		c.note("connections that were ended may come back: %v", c.host.withPayload(err))
	}
	if err := c.host.Running.End(c.denied.running, c.denied.flows); err != nil {
		c.note("connections that the policy denies may go on: %v", err)
	}
}

// keepEnded adds to the sets in force what was not known when they were filled.
func (c *change) keepEnded(ctx context.Context) error {
	known := map[ruleset.Flow]bool{}
	for _, f := range c.cut.Flows {
		known[f] = true
	}
	more := slices.DeleteFunc(c.denied.judge.Cut(c.denied.flows), func(f ruleset.Flow) bool { return known[f] })
	if len(more) == 0 {
		return nil
	}
	if c.cut.ID == "" {
		return c.recut(ctx, more)
	}
	var sets []ruleset.Set
	for _, s := range c.rules.FlowSets() {
		begin := len(s.Flows)
		s.AddFlows(more)
		added := *s
		added.Flows = s.Flows[begin:]
		sets = append(sets, added)
	}
	c.cut.Flows = append(slices.Clip(c.cut.Flows), more...)
	return c.chosen.backend.AddFlows(ctx, sets)
}

// recordCut has the ruleset that is recorded hold what its sets of flows hold in the kernel, where it was compiled for a
// cut of before.
func (c *change) recordCut(ctx context.Context) {
	if c.cut.ID == "" || c.cut.ID != c.cutInForce().ID {
		return
	}
	flows, err := c.chosen.backend.Flows(ctx)
	if err != nil {
		c.note("should somebody take quaywall's rules away, connections that were ended may come back: %v", err)
		return
	}
	for _, s := range c.rules.FlowSets() {
		s.Flows = nil
		s.AddFlows(flows)
	}
}

// recordedRules is the ruleset of a record. It holds the connections that were ended as long as these are to be kept from
// coming back, whoever took them away with the rules.
func (c *change) recordedRules(r *store.Record) (*ruleset.Ruleset, error) {
	rules, err := c.host.Store.Ruleset(r.ID)
	if err != nil {
		return nil, err
	}
	for _, s := range rules.FlowSets() {
		if r.Boot != c.host.Boot || c.host.ago(r.Stamp) > s.Timeout {
			s.Flows = nil
		}
	}
	return rules, nil
}

// recut puts the policy in force once more, with sets for connections that nobody knew of before.
func (c *change) recut(ctx context.Context, flows []ruleset.Flow) error {
	before, expected := c.rules, c.expected
	c.cut = compile.Cut{ID: newCutID(), Flows: flows}
	err := c.compile()
	if err == nil {
		err = c.preflight(ctx)
	}
	if err == nil {
		err = c.chosen.backend.Commit(ctx, c.rules)
	}
	if err != nil {
		c.rules, c.expected, c.cut = before, expected, compile.Cut{}
	}
	return err
}

// LastEnded is the live connections that an apply ended.
type LastEnded struct {
	When time.Time `json:"when"`
	Hash string    `json:"hash"` // of the policy that ended them
	*Ended
}

// endedName is LastEnded's in the store.
const endedName = "ended"

// noteEnded keeps for status which connections were ended.
func (c *change) noteEnded() {
	e := c.ended()
	if e == nil || e.Connections == 0 {
		return
	}
	if err := c.host.Store.Note(endedName, LastEnded{c.host.Now(), c.policy.Hash, e}); err != nil {
		c.note("status won't tell of connections that were ended: %v", err)
	}
}

// lastEnded is what was noted; nil where nothing was.
func (h *Host) lastEnded() *LastEnded {
	var e LastEnded
	if found, err := h.Store.Kept(endedName, &e); !found || err != nil || e.Ended == nil {
		return nil
	}
	return &e
}

// ended sums up which connections are denied.
func (c *change) ended() *Ended {
	if !c.denied.known {
		return nil
	}
	e := &Ended{Connections: len(c.denied.lines), Uncertain: c.denied.uncertain}
	count := map[string]int{}
	for _, line := range c.denied.lines {
		count[line]++
	}
	for _, line := range slices.SortedFunc(maps.Keys(count), compareLines) {
		e.Lines = append(e.Lines, EndedLine{Line: line, Connections: count[line]})
	}
	return e
}
