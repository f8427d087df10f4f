package judge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/testkit/rulewalk"
)

// bench tries rulesets with one backend, on a host of its own.
type bench struct {
	name  string
	world *world
	jobs  chan func()
	b     kernel.Backend

	// fault spoils a ruleset on its way to the backend, for the judge's own trial; nil for none.
	fault func(*ruleset.Ruleset)
}

// newBench builds a host for a backend and a thread that lives in it.
func newBench(t testing.TB, b kernel.Backend) *bench {
	h := &bench{name: b.Name(), world: newWorld(t, observerTable), b: b}
	h.start(t)
	return h
}

// start makes the thread that lives in the host.
func (h *bench) start(t testing.TB) {
	h.jobs = make(chan func())
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := h.enter(); err != nil {
			ready <- err
			return
		}
		close(ready)
		for job := range h.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(h.jobs) })
}

func (h *bench) enter() error {
	if err := unix.Setns(h.world.host.Fd(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the host of %s: %w", h.name, err)
	}
	return errors.Join(netns.Guard(), pin())
}

// pin keeps the thread on one processor, any of those it may use: packets that one thread sends on one processor arrive
// in order.
func pin() error {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	nth := rand.IntN(allowed.Count())
	for cpu := 0; ; cpu++ {
		if allowed.IsSet(cpu) {
			if nth == 0 {
				var one unix.CPUSet
				one.Set(cpu)
				return unix.SchedSetaffinity(0, &one)
			}
			nth--
		}
	}
}

// do runs f in the host's namespace.
func (h *bench) do(f func() error) error {
	done := make(chan error)
	h.jobs <- func() { done <- f() }
	return <-done
}

// commit puts a ruleset into force.
func (h *bench) commit(rs *ruleset.Ruleset) error {
	if h.fault != nil {
		rs = clone(rs)
		h.fault(rs)
	}
	return h.do(func() error { return h.b.Commit(context.Background(), rs) })
}

// isMute tells whether a reject is not told to a packet's sender: of what is to be rejected iptables answers only what begins a
// connection, since what it says by is the connection.
func (h *bench) isMute(p *probe) bool {
	return strings.HasPrefix(h.name, "iptables-") && p.pk.State != packet.New
}

// send sends a batch under what is in force.
func (h *bench) send(probes []*probe) (fates map[uint16]fate, err error) {
	err = h.do(func() error {
		fates, err = h.world.send(probes)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range probes {
		f := fates[p.id]
		f.mute = h.isMute(p)
		fates[p.id] = f
	}
	return fates, nil
}

// try puts a case into force and gives the probes' fates. What looks wrong is sent again, in case the machine was slow:
// packets that one processor left to another may come late.
func (h *bench) try(c *Case) (map[uint16]fate, error) {
	if err := h.commit(c.rules); err != nil {
		return nil, fmt.Errorf("%s: committing: %w", h.name, err)
	}
	fates, err := h.send(c.probes)
	for range 2 {
		if err == nil && len(c.wrong(fates)) == 0 {
			return fates, nil
		}
		h.world.seen.drain()
		again := c.again(fates)
		var more map[uint16]fate
		if more, err = h.send(again); err != nil {
			continue
		}
		if fates == nil {
			fates = more
		}
		for _, p := range again {
			fates[p.id] = more[p.id]
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.name, err)
	}
	return fates, nil
}

// again are the probes to send once more: those that look wrong, or all where nothing is known. Floods come from new
// sources.
func (c *Case) again(fates map[uint16]fate) []*probe {
	again := c.probes
	if fates != nil {
		again = c.wrong(fates)
	}
	for _, p := range again {
		if p.flood > 0 {
			p.pk.Src = elseSource(p.pk.Src)
		}
	}
	return again
}

// elseSource is an address that a limit counts for itself.
func elseSource(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	if a.Is4() {
		b[3]++
	} else {
		b[7]++
	}
	next, _ := netip.AddrFromSlice(b)
	return next
}

// agrees tells whether a fate is what the evaluator said.
func (p *probe) agrees(f fate) bool {
	silent := !f.passed && f.answer == noAnswer
	switch {
	case p.isFlooded() && !f.carried:
		return false
	case p.want.Verb == policy.Allow && p.lost():
		return true
	case f.doubtful:
		return p.want.Verb == policy.Allow && p.want.Limited && f.passed
	case p.want.Verb == policy.Allow:
		return f.passed || p.narrow && silent
	case p.want.Verb == policy.Reject && f.mute:
		return silent
	case p.want.Verb == policy.Reject && p.answerable():
		return !f.passed && f.answer == p.rightAnswer()
	case p.want.Verb == policy.Reject:
		return !f.passed
	}
	return silent
}

func (p *probe) rightAnswer() answer {
	if p.pk.Proto == policy.TCP {
		return reset
	}
	return unreachable
}

// wrong are the probes whose fate isn't what the evaluator said. A flood is wrong as a whole.
func (c *Case) wrong(fates map[uint16]fate) (wrong []*probe) {
	passed := map[int]int{}
	members := map[int][]*probe{}
	for _, p := range c.probes {
		f := fates[p.id]
		switch {
		case p.flood == 0 && !p.agrees(f):
			wrong = append(wrong, p)
		case p.flood > 0:
			members[p.flood] = append(members[p.flood], p)
			passed[p.flood] += btoi(f.passed)
		}
	}
	for number, all := range members {
		burst := int(c.policy.Inbound[number-1].Limit.Burst)
		if n := passed[number]; !all[0].lost() && (n < burst || n > burst+1) {
			wrong = append(wrong, all...)
		}
	}
	return wrong
}

// walk is what rulewalk makes of the case's ruleset: what the compiler meant, whoever renders it.
func (c *Case) walk(p *probe) (fate, rulewalk.Result, error) {
	pk, dnated := p.pk, false
	table := &c.rules.Tables[0]
	hooks := []ruleset.Hook{ruleset.Prerouting}
	switch {
	case pk.In == "":
		hooks = []ruleset.Hook{ruleset.Output}
	case addrType(pk.Dst, pk.In) == 0:
		hooks = append(hooks, ruleset.Forward)
		pk.Out = outOf(pk.Dst, pk.In)
	case isDNATed(pk):
		hooks, pk.Out, dnated = append(hooks, ruleset.Forward), "docker0", true
	default:
		hooks = append(hooks, ruleset.Input)
	}
	var all rulewalk.Result
	for _, hook := range hooks {
		host := rulewalk.Host{DNAT: dnated && hook == ruleset.Forward, AddrType: func(a netip.Addr) ruleset.AddrType { return addrType(a, pk.In) }}
		r, err := rulewalk.Walk(table, hook, pk, host)
		all.Kind, all.Lines, all.Path = r.Kind, append(all.Lines, r.Lines...), append(all.Path, r.Path...)
		if err != nil || r.Kind != ruleset.Accept {
			f := fateOf(r.Kind)
			f.carried = p.isFlooded() && hook == ruleset.Input
			return f, all, err
		}
	}
	return fate{passed: true, carried: p.isFlooded()}, all, nil
}

func fateOf(k ruleset.Kind) fate {
	return map[ruleset.Kind]fate{ruleset.Accept: {passed: true}, ruleset.TCPReset: {answer: reset}, ruleset.Unreachable: {answer: unreachable}}[k]
}

// addrType is what the host's routing says of an address of a packet that comes in by an interface.
func addrType(a netip.Addr, in string) ruleset.AddrType {
	switch {
	case isFar(a, in):
		return 0
	case a.IsMulticast():
		return ruleset.TypeMulticast
	case a.IsLoopback() || isIn(hostAddrs(), a):
		return ruleset.TypeLocal
	case isIn(directed, a) || a == broadcast4 || a.Is4() && a.As4()[0] == 0:
		return ruleset.TypeBroadcast
	case isIn(anycast6, a):
		return ruleset.TypeAnycast
	}
	return 0
}

// isFar tells whether an address is the link-local one of another interface than the packet came in by: on the packet's link it
// is nobody's.
func isFar(a netip.Addr, in string) bool {
	here := func(c card) bool { return c.name == in && slices.Contains(c.addrs, a.String()+"/64") }
	return a.Is6() && a.IsLinkLocalUnicast() && in != "" && isIn(hostAddrs(), a) && !slices.ContainsFunc(cards, here)
}

// outOf is the interface that routes lead to an address by.
func outOf(a netip.Addr, in string) string {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return in
	}
	for _, c := range cards {
		for _, p := range prefixes(slices.Concat(c.addrs, c.behind)...) {
			if p.Contains(a) {
				return c.name
			}
		}
	}
	return "eth1"
}

// isDNATed tells whether Docker leads a packet to a container.
func isDNATed(pk packet.Packet) bool {
	for _, pub := range published {
		here := pub.Addr == pk.Dst
		if pub.Addr.IsUnspecified() { // which is no local address itself
			here = pub.Addr.Is4() == pk.Dst.Is4() && addrType(pk.Dst, pk.In) == ruleset.TypeLocal
		}
		if pub.dnat != "" && here && pub.Proto == pk.Proto && pub.Port == pk.DstPort && pk.State == packet.New {
			return true
		}
	}
	return false
}

// counted puts a case into force, sends what certainly meets its chains, and compares what the backend counted for each
// line of the policy with what the walk through the ruleset counts. It gives what differs, "" for nothing.
func (h *bench) counted(c *Case) (string, error) {
	var sure []*probe
	want := map[string]uint64{}
	for _, p := range c.probes {
		if p.flood > 0 || p.narrow || p.lost() || p.bridged || p.turnsBack() {
			continue
		}
		sure = append(sure, p)
		_, walked, err := c.walk(p)
		if err != nil {
			return "", err
		}
		for _, line := range walked.Lines {
			want[line]++
		}
	}
	if err := h.commit(c.rules); err != nil {
		return "", err
	}
	before, err := h.read()
	if err != nil {
		return "", err
	}
	if _, err := h.send(sure); err != nil {
		return "", err
	}
	after, err := h.read()
	if err != nil {
		return "", err
	}
	diff := ""
	for line := range after.Counters {
		if got := after.Counters[line].Packets - before.Counters[line].Packets; got != want[line] {
			diff += fmt.Sprintf("%s: %s counted %d packets, the policy is met by %d\n", line, h.name, got, want[line])
		}
		delete(want, line)
	}
	for line, n := range want {
		diff += fmt.Sprintf("%s: %s counted none, the policy is met by %d\n", line, h.name, n)
	}
	return diff, nil
}

// turnsBack tells whether a packet leaves by the interface that it came in by. Of such the kernel tells the sender of a better
// way, by a redirect that is judged and counted as any packet of the host's is.
func (p *probe) turnsBack() bool {
	return outOf(p.pk.Dst, p.pk.In) == p.pk.In || isDNATed(p.pk) && p.pk.In == "docker0"
}

// read reads what the backend has in force.
func (h *bench) read() (l *kernel.Listing, err error) {
	err = h.do(func() error {
		l, err = h.b.Read(context.Background())
		return err
	})
	return l, err
}

// clone copies a ruleset, so that a fault in it stays with one backend.
func clone(rs *ruleset.Ruleset) *ruleset.Ruleset {
	own := *rs
	own.Tables = slices.Clone(rs.Tables)
	for i := range own.Tables {
		t := &own.Tables[i]
		t.Chains, t.Sets, t.Maps = slices.Clone(t.Chains), slices.Clone(t.Sets), slices.Clone(t.Maps)
		for j := range t.Chains {
			t.Chains[j].Rules = slices.Clone(t.Chains[j].Rules)
			for k := range t.Chains[j].Rules {
				t.Chains[j].Rules[k].Matches = slices.Clone(t.Chains[j].Rules[k].Matches)
			}
		}
		for j := range t.Maps {
			t.Maps[j].Elements = slices.Clone(t.Maps[j].Elements)
		}
	}
	return &own
}
