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
// taken out where somebody brought them back (by loading an old dump); rules that Docker wrote since stay.
//
// Be aware: this is the one place where quaywall touches rules that are not its own. It touches those alone that have the
// form of Docker's: its chains, except what the administrator wrote into DOCKER-USER, and rules of built-in chains that
// lead into them or name nothing but its bridges and containers. Whether Docker is just about to write them itself is for
// the caller to judge. Docker's nftables backend (29) is not mended.
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
	Dump(ctx context.Context, f ruleset.Family) ([]byte, error)
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
	Mended    int      // rules and chains that came back, or went
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
	mended := 0
	for _, family := range families {
		c := f.plan(s.was.of(family, f), s.now[family], dropStale)
		if c.payload.Len() == 0 {
			continue
		}
		if dropStale {
			if err := r.remember(s.was, family, c.stale); err != nil {
				return Report{}, err
			}
			mended += len(c.stale)
		}
		if err := r.Tools(s.variant).Feed(ctx, family, []byte(c.payload.String())); err != nil {
			return Report{}, fmt.Errorf("putting Docker's %s rules back: %w", family, err)
		}
		mended += len(c.missing)
	}
	report, err := r.Check(ctx, f, false)
	report.Mended = mended
	return report, err
}

// remember puts rules that are about to go into the attic.
func (r *Repairer) remember(s *Snapshot, family ruleset.Family, stale []string) error {
	for _, text := range stale {
		table, rest, _ := strings.Cut(text, " -A ")
		chain, spec, _ := strings.Cut(rest, " ")
		if old := (Stale{family, table, chain, spec}); !slices.Contains(s.Attic, old) {
			s.Attic = append(s.Attic, old)
		}
	}
	if more := len(s.Attic) - atticSize; more > 0 {
		s.Attic = s.Attic[more:]
	}
	return r.Store.Keep(name, s)
}

func (r *Repairer) read(ctx context.Context, f Facts) (*state, error) {
	s := &state{facts: f, now: map[ruleset.Family]dump{}}
	var was Snapshot
	found, err := r.Store.Kept(name, &was)
	if err != nil {
		return nil, err
	}
	if found && was.Boot == r.Boot {
		s.was, s.variant = &was, ipt.Variant(was.Variant)
	} else {
		s.variant, _ = r.Detect(ctx)
	}
	for _, family := range families {
		text, err := r.Tools(s.variant).Dump(ctx, family)
		if err != nil {
			return nil, fmt.Errorf("reading Docker's %s rules: %w", family, err)
		}
		if s.now[family], err = parse(string(bytes.TrimLeft(text, "\x00"))); err != nil {
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
		c := s.facts.plan(s.was.of(f, s.facts), s.now[f], false)
		if s.was == nil || fresh && len(lacks) == 0 {
			c.missing, c.structural = nil, false
		}
		whole = whole && len(lacks)+len(c.missing) == 0
		report.Structural = report.Structural || c.structural
		for _, text := range slices.Concat(lacks, c.missing, c.stale) {
			report.Problems = append(report.Problems, fmt.Sprintf("%s %s", f, text))
		}
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
		now.Attic = s.was.Attic
	}
	return r.Store.Keep(name, now)
}

// Text is the problems in one line, cut short where there are many.
func (r Report) Text() string {
	const shown = 4
	if n := len(r.Problems); n > shown {
		return fmt.Sprintf("%s; and %d more", strings.Join(r.Problems[:shown], "; "), n-shown)
	}
	return strings.Join(r.Problems, "; ")
}
