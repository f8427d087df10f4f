// Package repair puts Docker's own rules back where somebody else took them away, without restarting Docker or any
// container.
//
//	report, err := r.Check(ctx, facts, false)    // do Docker's rules agree with what Docker says?
//	if len(report.Problems) > 0 && report.Mendable {
//		report, err = r.Mend(ctx, facts)
//	}
//
// Docker writes its rules when it starts and when a network or a container changes, and never looks at them again. While
// they agree with what Docker says of its networks and containers, a snapshot of them is kept. What is lost later comes
// back from it, adjusted to what runs by then: rules of containers and networks that are gone are not revived, and are
// taken out where somebody brought them back (by loading an old dump). Nothing is emptied: single rules come and go.
//
// Be aware: this is the one place where quaywall touches rules that are not its own. A rule is taken for this engine's if it
// has the form of Docker's and names nothing but networks, containers and published ports that the engine lists. Only a
// rule that was recorded so is ever taken out, and none that names an interface which is here and not this engine's: a
// second engine has its rules in the same chains, and administrators write there too. What an old dump brought back that
// was never recorded therefore stays. Whether Docker is just about to write rules itself is for the caller to judge, and
// that the engine is one of this host. Docker's nftables backend (29) is not mended.
package repair

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"quaywall/internal/kernel/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
)

// Repairer looks after Docker's rules on one host.
type Repairer struct {
	Store  *store.Store
	Boot   string // tells one boot of the kernel from another
	Now    func() time.Time
	Detect func(context.Context) (ipt.Variant, string)
	Tools  func(ipt.Variant) Tools
}

// Tools are the programs of a variant of iptables.
type Tools interface {
	Dump(ctx context.Context) (map[ruleset.Family][]byte, error)
	Feed(ctx context.Context, f ruleset.Family, payload []byte) error
}

// Local repairs the host that the process runs on.
func Local(s *store.Store, boot string) *Repairer {
	return &Repairer{Store: s, Boot: boot, Now: time.Now, Detect: ipt.Detect,
		Tools: func(v ipt.Variant) Tools { return ipt.New(v, ipt.Options{}) }}
}

// Report is how Docker's rules are.
type Report struct {
	Unmanaged bool     // Docker writes no rules here, as far as can be told: it was told not to, or speaks nftables
	Problems  []string // what is missing or stale, a line each; none where the rules agree with what Docker says
	Mendable  bool     // there is a snapshot to mend them from
	Mended    int      // rules and chains that came back
	TakenOut  []string // rules of what is gone that went, as "ipv4 nat -A DOCKER …"
	Missing   bool     // something is missing
	// Structural says that more is missing than rules of single containers, which Docker writes and deletes all the time.
	Structural bool
}

// name is the snapshot's in the store.
const name = "docker-rules"

// families in the order in which they are read.
var families = []ruleset.Family{ruleset.IPv4, ruleset.IPv6}

// state is Docker's rules as they are, and as they were.
type state struct {
	facts   Facts
	variant ipt.Variant
	was     *Snapshot // of this boot; nil for none
	past    []Past    // of snapshots of other boots
	now     map[ruleset.Family]dump
}

// Check compares. fresh says that Docker may have started anew since the snapshot was taken, by other options perhaps:
// then what agrees with what it says is right, and else nothing of the snapshot may be missing. Where nothing is missing, a
// new snapshot is kept, without what is stale.
func (r *Repairer) Check(ctx context.Context, f Facts, fresh bool) (Report, error) {
	s, err := r.read(ctx, f)
	if err != nil {
		return Report{}, err
	}
	report, whole := s.report(fresh)
	if report.Unmanaged || !whole || len(report.Problems) > 0 && s.was != nil && !fresh {
		return report, nil
	}
	report.Mendable = true
	return report, r.keep(s)
}

// Mend puts back what is missing, takes out what is stale if dropStale says so, and looks again. A container's rules are
// there before Docker says that it runs: they look stale for as long as it takes to start.
func (r *Repairer) Mend(ctx context.Context, f Facts, dropStale bool) (Report, error) {
	s, err := r.read(ctx, f)
	if err != nil || s.was == nil {
		return Report{}, err
	}
	mended, takenOut := 0, []string(nil)
	for _, family := range families {
		c := f.plan(s.was, family, s.now[family], dropStale)
		if c.payload.Len() == 0 {
			continue
		}
		if dropStale && len(c.stale) > 0 {
			if err := r.remember(s.was, c.stale); err != nil {
				return Report{}, err
			}
			takenOut = append(takenOut, texts(c.stale)...)
		}
		if err := r.Tools(s.variant).Feed(ctx, family, []byte(c.payload.String())); err != nil {
			return Report{}, fmt.Errorf("mending Docker's %s rules: %w", family, err)
		}
		mended += len(c.missing)
	}
	report, err := r.Check(ctx, f, false)
	report.Mended, report.TakenOut = mended, takenOut
	return report, err
}

// remember notes that rules are about to be taken out.
func (r *Repairer) remember(s *Snapshot, stale []Past) error {
	s.Past = slices.DeleteFunc(s.Past, func(o Past) bool {
		return slices.ContainsFunc(stale, func(n Past) bool { return o.is(n.Family, n.Table, n.Chain, n.Spec) })
	})
	s.Past = append(s.Past, stale...)
	return r.Store.Keep(name, s)
}

func texts(rules []Past) []string {
	all := make([]string, len(rules))
	for i, o := range rules {
		all[i] = fmt.Sprintf("%s %s -A %s %s", o.Family, o.Table, o.Chain, o.Spec)
	}
	return all
}

func (r *Repairer) read(ctx context.Context, f Facts) (*state, error) {
	s := &state{facts: f, now: map[ruleset.Family]dump{}}
	var was Snapshot
	found, err := r.Store.Kept(name, &was)
	if err != nil {
		return nil, err
	}
	switch {
	case found && was.Boot == r.Boot:
		s.was, s.variant = &was, ipt.Variant(was.Variant)
	default:
		s.variant, _ = r.Detect(ctx)
		s.past = was.ended()
	}
	texts, err := r.Tools(s.variant).Dump(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading Docker's rules: %w", err)
	}
	for _, family := range families {
		if s.now[family], err = parse(string(bytes.TrimLeft(texts[family], "\x00"))); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// manages tells whether Docker writes rules for a family.
func (s *state) manages(f ruleset.Family) bool {
	d := s.now[f]
	return len(s.was.of(f, s.facts)) > 0 || d.has("nat", "DOCKER") || d.has("filter", "DOCKER")
}

// report also tells whether nothing is missing.
func (s *state) report(fresh bool) (report Report, whole bool) {
	report, whole = Report{Unmanaged: true, Mendable: s.was != nil}, true
	for _, f := range families {
		if !s.manages(f) {
			continue
		}
		report.Unmanaged = false
		lacks := s.facts.lacks(s.now[f], f == ruleset.IPv6)
		c := s.facts.plan(s.was, f, s.now[f], false)
		if s.was == nil || fresh && len(lacks) == 0 {
			c.missing, c.structural = nil, false
		}
		whole = whole && len(lacks)+len(c.missing) == 0
		report.Structural = report.Structural || c.structural
		for _, text := range slices.Concat(lacks, c.missing) {
			report.Problems = append(report.Problems, fmt.Sprintf("%s %s", f, text))
		}
		report.Problems = append(report.Problems, texts(c.stale)...)
	}
	report.Missing = !whole
	return report, whole
}

// keep keeps a snapshot, if it differs from the one that is kept.
func (r *Repairer) keep(s *state) error {
	now := Snapshot{Taken: r.Now(), Boot: r.Boot, Variant: string(s.variant), IPv4: s.facts.extract(s.now[ruleset.IPv4]),
		IPv6: s.facts.extract(s.now[ruleset.IPv6])}
	if s.was != nil {
		if same(s.was.IPv4, now.IPv4) && same(s.was.IPv6, now.IPv6) {
			return nil
		}
		now.inherit(slices.Concat(s.was.Past, s.was.rules()))
	}
	now.inherit(s.past)
	return r.Store.Keep(name, now)
}

// Text is the problems in one line, cut short where there are many.
func (r Report) Text() string { return Line(r.Problems) }

// Line is some rules or problems in one line, cut short where there are many.
func Line(all []string) string {
	const shown = 4
	if n := len(all); n > shown {
		return fmt.Sprintf("%s; and %d more", strings.Join(all[:shown], "; "), n-shown)
	}
	return strings.Join(all, "; ")
}
