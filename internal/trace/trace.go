// Package trace shows live packets on their way through the kernel's rules.
//
//	summary, err := trace.Run(ctx, trace.Options{Filter: filter, For: 30 * time.Second, Packets: 100}, func(p *trace.Packet) error { … })
//
// A table of quaywall's own marks the packets of a filter (kernel/nft), the kernel tells of each rule that they match
// (watch/nftrace), and rules, containers and policy lines get their names from the rules as they are listed (collect). Packets
// are marked at a bounded rate.
//
// Be aware: what is told is what the kernel did, and that only: rules that a packet did not match, routing and what connection
// tracking rewrites are not among it. The namespace is the one of the calling operating system thread.
package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"quaywall/internal/collect"
	"quaywall/internal/kernel/nft"
	"quaywall/internal/kernel/tracelog"
	"quaywall/internal/packet"
	"quaywall/internal/rate"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/watch/nftrace"
)

// Options say what is traced.
type Options struct {
	Filter     packet.Filter
	For        time.Duration
	Packets    int    // most of them
	DockerHost string // of Docker's API; "" for Docker's own rules
	RunDir     string
	Note       func(text string) // takes what there is to say beside the packets
	Ready      func()            // is called once packets are marked
}

// Packet is a packet and what became of it. Place and Step are those of the simulator.
type Packet struct {
	Time    time.Time `json:"time"`
	Packet  string    `json:"packet"` // as it was before all rules, written as for explain
	From    string    `json:"from_container,omitempty"`
	To      string    `json:"to_container,omitempty"`
	Flags   string    `json:"flags,omitempty"` // of TCP
	Mark    uint32    `json:"mark,omitempty"`  // that it had last
	Verdict string    `json:"verdict"`         // accept, drop, reject, unknown
	// DecidedBy is the rule or the policy that stopped it; nil where none did.
	DecidedBy *sim.Place `json:"decided_by"`
	Path      []sim.Step `json:"path"`
	Why       string     `json:"why"`
}

// Summary is how a trace ended.
type Summary struct {
	Packets int
	Lost    uint32 // events that had no room
	Ended   string // why: a sentence without a full stop
}

// perSecond is how many packets are marked at most in a second.
const perSecond = 50

// pause is the time between two looks whether it is over.
const pause = 100 * time.Millisecond

// Run traces until the time is over, there were enough packets, or the context or show ends it, and then takes away what it has
// put into the kernel.
func Run(ctx context.Context, o Options, show func(*Packet) error) (summary Summary, err error) {
	unlock, err := tracelog.Lock(o.RunDir)
	if err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	t := &tracer{Options: o, show: show}
	if err := t.listen(ctx); err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if o.Ready != nil {
		o.Ready()
	}
	err = t.run(ctx)
	lost, lostErr := t.reader.Lost()
	return Summary{t.shown, lost, t.ended}, errors.Join(err, lostErr)
}

type tracer struct {
	Options
	show    func(*Packet) error
	names   *names
	reader  *nftrace.Reader
	tracing *nft.Tracing
	restore func() error // of what iptables-legacy tells to
	packets assembler
	shown   int
	ended   string
}

// listen begins to read, and has packets marked.
func (t *tracer) listen(ctx context.Context) (err error) {
	host, err := collect.Here(ctx, collect.Options{DockerHost: t.DockerHost})
	if err != nil {
		return err
	}
	filters, err := resolved(t.Filter, host)
	if err != nil {
		return err
	}
	if t.names, err = newNames(host); err != nil {
		return err
	}
	if t.reader, err = nftrace.Open(); err != nil {
		return err
	}
	t.tracing, err = nft.Trace(nft.TraceWanted{Filters: filters, Rate: rate.Rate{Count: perSecond, Per: time.Second, Burst: perSecond}, Time: t.For})
	if err != nil {
		return errors.Join(err, t.close())
	}
	t.listenToLegacy()
	return nil
}

// listenToLegacy is for hosts that have rules of iptables-legacy; without them being told the rest is worth its while.
func (t *tracer) listenToLegacy() {
	restore, err := tracelog.Take(t.RunDir)
	if err == nil {
		t.restore = restore
		err = t.reader.WithLegacy()
	}
	if err != nil && !errors.Is(err, tracelog.ErrNone) {
		t.note("the rules of iptables-legacy are not shown: %v", err)
	}
}

func (t *tracer) note(format string, args ...any) {
	if t.Note != nil {
		t.Note(fmt.Sprintf(format, args...))
	}
}

// close takes away what listen has put there.
func (t *tracer) close() error {
	var errs []error
	if t.tracing != nil {
		errs = append(errs, t.tracing.Stop())
	}
	if t.restore != nil {
		errs = append(errs, t.restore())
	}
	return errors.Join(append(errs, t.reader.Close())...)
}

// resolved are the filters by addresses that a filter by container stands for.
func resolved(f packet.Filter, host *snapshot.Host) ([]packet.Filter, error) {
	if f.Container == "" {
		return []packet.Filter{f}, nil
	}
	i := slices.IndexFunc(host.Containers, func(c snapshot.Container) bool { return c.Name == f.Container })
	if i < 0 {
		return nil, fmt.Errorf("there is no running container %s", f.Container)
	}
	var all []packet.Filter
	is4, is6 := f.Families()
	for _, n := range host.Containers[i].Networks {
		for _, a := range n.Addrs {
			if (a.Is4() && is4 || a.Is6() && is6) && (!f.Src.IsValid() || f.Src.Contains(a)) {
				one := f
				one.Src = netip.PrefixFrom(a, a.BitLen())
				all = append(all, one)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("container %s has no address of its own that such a packet could come from", f.Container)
	}
	return all, nil
}

// run reads until it is over, and then what has happened until then.
func (t *tracer) run(ctx context.Context) error {
	deadline := time.Now().Add(t.For)
	for t.ended == "" {
		if err := t.step(ctx); err != nil {
			return err
		}
		switch {
		case t.ended != "":
			return nil
		case ctx.Err() != nil:
			t.ended = "interrupted"
		case !time.Now().Before(deadline):
			t.ended = fmt.Sprintf("the time of %v is over", t.For)
		}
	}
	err := t.tracing.Stop()
	t.tracing = nil
	for end := time.Now().Add(patience); err == nil && time.Now().Before(end); {
		err = t.step(ctx)
	}
	return errors.Join(err, t.tell(ctx, t.packets.silent(time.Now(), true)))
}

// step reads what comes within a pause.
func (t *tracer) step(ctx context.Context) error {
	events, err := t.reader.Read(time.Now().Add(pause))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	now := time.Now()
	for _, e := range events {
		if err := t.tell(ctx, t.packets.add(e, now)); err != nil {
			return err
		}
	}
	return t.tell(ctx, t.packets.silent(now, false))
}

// tell shows packets that are complete.
func (t *tracer) tell(ctx context.Context, packets []*seen) error {
	for _, s := range packets {
		if t.shown == t.Packets {
			return nil
		}
		t.refresh(ctx, s)
		if err := t.show(t.names.packet(s)); err != nil {
			return err
		}
		if t.shown++; t.shown == t.Packets {
			t.ended = fmt.Sprintf("%d packets were shown", t.shown)
		}
	}
	return nil
}

// refreshEvery is the time between two listings of the rules.
const refreshEvery = 2 * time.Second

// refresh lists the rules again where a packet met some that are not known.
func (t *tracer) refresh(ctx context.Context, s *seen) {
	if time.Since(t.names.read) < refreshEvery || t.names.knows(s) {
		return
	}
	host, err := collect.Here(ctx, collect.Options{DockerHost: t.DockerHost})
	if err != nil {
		return
	}
	if names, err := newNames(host); err == nil {
		t.names = names
	}
}
