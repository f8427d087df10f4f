package judge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"quaywall/internal/compile"
	"quaywall/internal/inventory"
	"quaywall/internal/kernel"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// Case is a policy and the packets to try it with.
type Case struct {
	Seed   uint64
	inv    *inventory.Inventory
	doc    document
	policy *policy.Policy
	rules  *ruleset.Ruleset
	probes []*probe
}

// packetsEach is how many packets a policy is tried with, beside its floods.
const packetsEach = 64

// countedEach is how often the counters are compared as well: for one policy of so many.
const countedEach = 16

// silentEach is how often Docker doesn't answer when a policy is compiled: for one of so many.
const silentEach = 5

// logGroup is the NFLOG group of the policies. Nobody listens there.
const logGroup = 86

// newCase makes the case of a seed, with so many packets and its floods.
func newCase(seed uint64, packets int) (*Case, error) {
	g, inv := newGenerator(seed), inventoryOf()
	if seed%silentEach == 0 {
		inv = withoutDocker()
	}
	for range 50 {
		c, err := prepare(g.document(), inv)
		if err != nil {
			return nil, fmt.Errorf("seed %d: %w", seed, err)
		}
		if c == nil {
			continue
		}
		c.Seed = seed
		c.probes = g.probes(c.policy, inv, packets)
		return c, nil
	}
	return nil, fmt.Errorf("seed %d: the parser takes none of 50 documents", seed)
}

// prepare reads and compiles a document. A document that the parser refuses is no case, and no error: random text
// contradicts itself now and then.
func prepare(d document, inv *inventory.Inventory) (*Case, error) {
	p, list := d.load()
	if list.HasErrors() {
		return nil, nil
	}
	rs, list := compile.Compile(p, inv, compile.Options{LogGroup: logGroup})
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("compiling: %w\n%s", err, d.text())
	}
	if err := rs.Validate(); err != nil {
		return nil, fmt.Errorf("the compiled ruleset is not valid: %w\n%s", err, d.text())
	}
	return &Case{inv: inv, doc: d, policy: p, rules: rs}, nil
}

// Options are how Run judges.
type Options struct {
	Seed     uint64 // of the first policy; the next ones have the next numbers
	Policies int
	Packets  int // for each policy; 0 is packetsEach
	Backends []kernel.Backend
	ReadEach uint64 // those who read the rules in force are asked about one policy of so many; 0 is 1
}

// reads tells whether the rules in force of a case are read.
func (o Options) reads(c *Case) bool { return c.Seed%max(1, o.ReadEach) == 0 }

// Report is what a run did.
type Report struct {
	Policies, Packets int
	Coverage          *Coverage
	Asked             map[string]int // packets, by who judges them beside the evaluator, over all backends
}

// Run judges policies until all are done or one is read differently: that fails the test, with everything that is needed
// to see why.
func Run(t *testing.T, o Options) Report {
	if o.Packets == 0 {
		o.Packets = packetsEach
	}
	r := &run{t: t, o: o, report: Report{Coverage: newCoverage(), Asked: map[string]int{}}}
	for _, b := range o.Backends {
		r.benches = append(r.benches, newBench(t, b))
	}
	r.judge()
	return r.report
}

// run is one run of the judge.
type run struct {
	t       *testing.T
	o       Options
	benches []*bench
	report  Report
}

// verdictOf is how those at one bench judged one case.
type verdictOf struct {
	c     *Case
	bench *bench
	all   []opinion
	err   error
}

// judge hands each case to all benches, which work at their own pace, and looks at what comes back.
func (r *run) judge() {
	queues := make([]chan *Case, len(r.benches))
	results := make(chan verdictOf)
	stop := make(chan struct{})
	var working sync.WaitGroup
	for i, h := range r.benches {
		queues[i] = make(chan *Case, 32)
		working.Add(1)
		go func() {
			defer working.Done()
			for c := range queues[i] {
				own := *c
				own.probes = cloneProbes(c.probes) // floods change theirs
				all, err := h.opinions(&own, r.o.reads(c))
				if err == nil && c.Seed%countedEach == 0 {
					err = h.recount(&own)
				}
				select {
				case results <- verdictOf{c, h, all, err}:
				case <-stop:
					return
				}
			}
		}()
	}
	made := make(chan error, 1)
	go func() { made <- r.feed(queues, stop) }()
	go func() { working.Wait(); close(results) }()
	var bad []verdictOf
	for v := range results {
		for _, o := range v.all {
			r.report.Asked[o.by] += len(o.fates)
		}
		if _, wrong := someWrong(v.all); wrong || v.err != nil {
			if len(bad) == 0 {
				close(stop)
			}
			bad = append(bad, v)
			break
		}
	}
	if err := <-made; err != nil {
		r.t.Fatal(err)
	}
	for _, v := range bad {
		for range results { // the others finish what they have in hand
		}
		r.t.Fatal(r.explain(v))
	}
}

// recount is counted with one more try, in case the machine was slow.
func (h *bench) recount(c *Case) error {
	var diff string
	for range 2 {
		var err error
		if diff, err = h.counted(c); err != nil || diff == "" {
			return err
		}
	}
	return errors.New("packets are counted otherwise than they are judged:\n" + diff)
}

// feed makes the cases.
func (r *run) feed(queues []chan *Case, stop chan struct{}) error {
	defer func() {
		for _, q := range queues {
			close(q)
		}
	}()
	for i := range r.o.Policies {
		c, err := newCase(r.o.Seed+uint64(i), r.o.Packets)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(c.probes, func(p *probe) bool { return p.flood == 0 && isWalkedWrong(c, p) }); i >= 0 {
			cut, p := cutDown(*c, c.probes[i], isWalkedWrong)
			return errors.New(r.describe(&cut, p, nil))
		}
		for _, q := range queues {
			select {
			case q <- c:
			case <-stop:
				return nil
			}
		}
		r.report.Policies++
		r.report.Packets += len(c.probes)
		r.report.Coverage.add(c)
	}
	return nil
}

// explain cuts a disagreement down to what is needed, and tells it.
func (r *run) explain(v verdictOf) string {
	if v.err != nil {
		return fmt.Sprintf("seed %d: %v\n%s", v.c.Seed, v.err, v.c.doc.text())
	}
	c := *v.c
	first, _ := someWrong(v.all)
	p := first.wrong[0]
	if p.flood == 0 {
		c, p = cutDown(c, p, v.bench.isWrong)
	}
	fates := map[string]fate{}
	for _, h := range r.benches {
		own := c
		own.probes = []*probe{p}
		if p.flood > 0 {
			own.probes = cloneProbes(c.probes)
		}
		all, err := h.opinions(&own, true)
		if err != nil {
			return fmt.Sprintf("seed %d: %v", c.Seed, err)
		}
		for _, o := range all {
			if f, asked := o.fates[p.id]; asked || o.by == byKernel {
				fates[o.String()] = f
			}
		}
	}
	return r.describe(&c, p, fates)
}

// describe tells a disagreement.
func (r *run) describe(c *Case, p *probe, fates map[string]fate) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: the policy is not read alike (again: go test ./internal/testkit/judge -run TestJudge -seed %d -policies 1)\n\n%s",
		c.Seed, c.Seed, c.doc.text())
	for name, text := range c.doc.files() {
		if name != policyFile {
			fmt.Fprintf(&b, "\n%s:\n%s", name, text)
		}
	}
	fmt.Fprintf(&b, "\npacket %s\n", p)
	fmt.Fprintf(&b, "  evaluator: %s by %q, %s\n", p.want.Verb, p.want.Origin, p.want.Why)
	f, walked, err := c.walk(p)
	fmt.Fprintf(&b, "  compiled: %s, counted by %v, through %s", f, walked.Lines, strings.Join(walked.Path, " > "))
	if err != nil {
		fmt.Fprintf(&b, ": %v", err)
	}
	b.WriteString("\n")
	for _, name := range slices.Sorted(mapsKeys(fates)) {
		fmt.Fprintf(&b, "  %s: %s\n", name, fates[name])
	}
	return b.String()
}

// String tells everything about a probe that may matter.
func (p *probe) String() string {
	s := p.pk.String()
	if p.pk.In == "" {
		s += " via " + p.pk.Out
	}
	if p.pk.Proto == policy.TCP {
		s += " flags " + flagNames(p.pk.Flags)
	}
	for _, extra := range []struct {
		is   bool
		what string
	}{
		{p.pk.Socket, "of a socket"}, {p.pieces > 1, fmt.Sprintf("in %d fragments", p.pieces)}, {p.badSum, "with a wrong checksum"},
		{p.bridged, "bridged"}, {p.flood > 0, "one of a flood"},
	} {
		if extra.is {
			s += ", " + extra.what
		}
	}
	if p.known != nil {
		s += ", of the known connection " + p.known.String()
	}
	return s + " (" + p.kind + ")"
}

func flagNames(flags uint8) string {
	s := ""
	for i, name := range []string{"F", "S", "R", "P", "A", "U"} {
		if flags&(1<<i) != 0 {
			s += name
		}
	}
	if s == "" {
		return "none"
	}
	return s
}

func cloneProbes(all []*probe) []*probe {
	out := make([]*probe, len(all))
	for i, p := range all {
		own := *p
		out[i] = &own
	}
	return out
}

func mapsKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// cutDown leaves out of a policy whatever isn't needed for a disagreement on one probe. isWrong tells whether there still
// is one.
func cutDown(c Case, p *probe, isWrong func(*Case, *probe) bool) (Case, *probe) {
	inv := c.inv
	for progress := true; progress; {
		progress = false
		for _, d := range smaller(c.doc) {
			cut, err := prepare(d, inv)
			if cut == nil || err != nil {
				continue
			}
			own := *p
			own.judgedBy(cut.policy, inv)
			cut.Seed, cut.probes = c.Seed, []*probe{&own}
			if isWrong(cut, &own) {
				c, p, progress = *cut, &own, true
				break
			}
		}
	}
	return c, p
}

// isWrong tells whether somebody at a bench judges a case otherwise than the evaluator.
func (h *bench) isWrong(c *Case, _ *probe) bool {
	all, err := h.opinions(c, true)
	_, wrong := someWrong(all)
	return err == nil && wrong
}

// isWalkedWrong tells whether the compiled ruleset judges a probe otherwise than the evaluator.
func isWalkedWrong(c *Case, p *probe) bool {
	f, _, err := c.walk(p)
	return err != nil || !p.agrees(f)
}

// smaller are the documents with one part less.
func smaller(d document) (all []document) {
	for s := range d.rules {
		for i := range d.rules[s] {
			less := d
			less.rules[s] = slices.Delete(slices.Clone(d.rules[s]), i, i+1)
			all = append(all, less)
		}
	}
	for i := range d.settings {
		less := d
		less.settings = slices.Delete(slices.Clone(d.settings), i, i+1)
		all = append(all, less)
	}
	for i := range d.sets {
		less := d
		less.sets = slices.Delete(slices.Clone(d.sets), i, i+1)
		all = append(all, less)
	}
	if len(d.services) > 0 {
		less := d
		less.services = nil
		all = append(all, less)
	}
	for s := range d.rules {
		for i, r := range d.rules[s] {
			all = append(all, smallerRule(d, s, i, r)...)
		}
	}
	return append(all, smallerSets(d)...)
}

func smallerRule(d document, s, i int, r rowText) (all []document) {
	with := func(r rowText) {
		less := d
		less.rules[s] = slices.Clone(d.rules[s])
		less.rules[s][i] = r
		all = append(all, less)
	}
	for q := range r.quals {
		cut := r
		cut.quals = slices.Delete(slices.Clone(r.quals), q, q+1)
		with(cut)
	}
	for w := range r.what {
		if len(r.what) > 1 {
			cut := r
			cut.what = slices.Delete(slices.Clone(r.what), w, w+1)
			with(cut)
		}
	}
	return all
}

// smallerSets halve the sets.
func smallerSets(d document) (all []document) {
	for i, s := range d.sets {
		n := len(s.entries)
		if n < 2 {
			continue
		}
		for _, part := range [][]string{s.entries[:n/2], s.entries[n/2:]} {
			less := d
			less.sets = slices.Clone(d.sets)
			less.sets[i].entries = part
			all = append(all, less)
		}
	}
	return all
}
