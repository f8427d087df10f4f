package ipt

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/scratch"
)

// Read lists chains, jumps with their position, and sets. Rules stand in order, chains by name.
func (b *Backend) Read(ctx context.Context) (*kernel.Listing, error) {
	s, err := b.tables(ctx)
	if err != nil {
		return nil, err
	}
	return s.listing()
}

func (s *state) listing() (*kernel.Listing, error) {
	l := &kernel.Listing{Sets: map[string]kernel.SetSummary{}, Counters: map[string]kernel.PacketCount{}}
	for _, f := range families {
		l.Rules = append(l.Rules, s.lines(f)...)
		for _, t := range s.tables[f] {
			addCounts(l.Counters, t.counters)
		}
	}
	l.Present = len(l.Rules) > 0
	return l, readSets(l)
}

// readAll is Read where these rules are in force, and demands that nothing of them is missing.
func (b *Backend) readAll(ctx context.Context, rules *render.Rules) (*kernel.Listing, error) {
	s, err := b.tables(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.lost(rules); err != nil {
		return nil, fmt.Errorf("%s doesn't keep the rules that it is given: %w. Upgrade iptables, or use --backend nft", b.Name(), err)
	}
	return s.listing()
}

// readSets adds the sets to a listing. A set that is left over, and in no rule's use, is no part of the policy.
func readSets(l *kernel.Listing) error {
	used := usedSets(l.Rules)
	if len(used) == 0 {
		return nil
	}
	conn, err := dialIPSet()
	if err != nil {
		return err
	}
	defer conn.Close()
	// What a set of flows holds changes by itself, and is no part of the policy.
	maps.DeleteFunc(used, func(name string, _ bool) bool { return render.IsFlows(name) })
	all, err := conn.readMany(slices.Sorted(maps.Keys(used)))
	for name, c := range all {
		l.Sets[name] = c.summary()
		addCounts(l.Counters, c.counters)
	}
	return err
}

// usedSets are the sets of quaywall's that rules name.
func usedSets(rules []string) map[string]bool {
	used := map[string]bool{}
	for _, r := range rules {
		for rest := r; ; {
			_, after, ok := strings.Cut(rest, " --match-set ")
			if !ok {
				break
			}
			name, more, _ := strings.Cut(after, " ")
			if render.OwnSet(name) {
				used[name] = true
			}
			rest = more
		}
	}
	return used
}

func addCounts(to, from map[string]kernel.PacketCount) {
	for line, c := range from {
		sum := to[line]
		to[line] = kernel.PacketCount{Packets: sum.Packets + c.Packets, Bytes: sum.Bytes + c.Bytes}
	}
}

// preflightEntries is how many entries of a set are enough to see that the kernel takes them.
const preflightEntries = 8

// Preflight commits a ruleset to the scratch namespace that the caller is in.
func (b *Backend) Preflight(ctx context.Context, rs *ruleset.Ruleset) (*kernel.Listing, error) {
	if err := scratch.Check(); err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	whole, err := render.Render(rs)
	if err != nil {
		return nil, err
	}
	cut := *whole
	cut.Sets = nil
	for _, s := range whole.Sets {
		cut.Sets = append(cut.Sets, s.Cut(preflightEntries))
	}
	if err := b.commit(ctx, &cut, nil); err != nil {
		return nil, fmt.Errorf("trying the rules in a scratch namespace: %w", err)
	}
	l, err := b.readAll(ctx, &cut)
	if err != nil {
		return nil, err
	}
	for _, s := range whole.Sets {
		if s.Kind != render.Flows {
			l.Sets[s.Name] = summary(&s)
		}
	}
	l.Counters = map[string]kernel.PacketCount{}
	return l, nil
}
