package nft

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/nft"
	"quaywall/internal/ruleset"
	"quaywall/internal/scratch"
)

// sample is how many elements of each set the preflight commits.
const sample = 16

// Preflight commits the ruleset with short sets, reads it back, and puts the summaries of the whole sets into the
// listing.
func (b *Backend) Preflight(ctx context.Context, rs *ruleset.Ruleset) (*kernel.Listing, error) {
	if err := scratch.Check(); err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	table, err := render.Render(rs)
	if err != nil {
		return nil, err
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	defer s.close()
	short := table.Cut(sample)
	if err := s.commit(ctx, short, raw{}); err != nil {
		return nil, err
	}
	before, err := s.listing(ctx)
	if err != nil {
		return nil, err
	}
	if err := compareSets(short, before); err != nil {
		return nil, err
	}
	if err := s.tryRaw(ctx, rs.Raw.NFT, before); err != nil {
		return nil, err
	}
	listing, err := s.listing(ctx)
	if err != nil {
		return nil, err
	}
	for _, set := range table.Plain().Sets {
		if set.Flags&unix.NFT_SET_EVAL == 0 {
			listing.Sets[set.Name] = summary(set.Summarize())
		}
	}
	return listing, nil
}

// compareSets finds sets that the kernel keeps otherwise than they were rendered.
func compareSets(table *render.Table, l *kernel.Listing) error {
	for _, set := range table.Plain().Sets {
		want := summary(set.Summarize())
		if got, ok := l.Sets[set.Name]; set.Flags&unix.NFT_SET_EVAL == 0 && (!ok || got != want) {
			return fmt.Errorf("preflight: the kernel took set %s and holds something else: %d elements, %d were sent",
				set.Name, got.Elements, want.Elements)
		}
	}
	return nil
}

// tryRaw loads hand-written rules into the scratch namespace, where nothing but quaywall's own is, and looks what they
// did beside making their table.
func (s *socket) tryRaw(ctx context.Context, text string, before *kernel.Listing) error {
	raw, err := newRaw(text)
	if err != nil || raw.text == "" {
		return err
	}
	if err := raw.load(ctx); err != nil {
		return err
	}
	tables, err := s.tables()
	if err != nil {
		return err
	}
	want := []string{"inet " + tableName, "inet " + rawTable} // sorted
	if slices.Sort(tables); !slices.Equal(tables, want) {
		return fmt.Errorf("the hand-written nft rules leave the tables %q, where %q are expected: %s", tables, want, rawAdvice)
	}
	st, err := s.readTable(ctx, tableName)
	if err != nil {
		return err
	}
	after := &kernel.Listing{Sets: map[string]kernel.SetSummary{}}
	if st.addTo(after); !slices.Equal(before.Rules, after.Rules) {
		return fmt.Errorf("the hand-written nft rules change table inet %s: %s", tableName, rawAdvice)
	}
	return nil
}

// tables lists all tables of the namespace.
func (s *socket) tables() ([]string, error) {
	var names []string
	families := map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
		unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge"}
	err := s.queryFamily(unix.NFPROTO_UNSPEC, unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, nil, func(family byte, body []byte) error {
		t, err := render.ParseTable(body)
		names = append(names, families[family]+" "+t.Name)
		return err
	})
	return names, err
}
