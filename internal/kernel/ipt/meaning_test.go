package ipt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/iptwalk"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/testkit/rulegen"
	"quaywall/internal/testkit/rulewalk"
)

// What the save programs print of random rulesets still means what the rulesets mean: no variant has lost or changed a
// test on the way into the kernel and back.
func TestKernelKeepsTheMeaning(t *testing.T) {
	seeds := uint64(25)
	if testing.Short() {
		seeds = 5
	}
	for _, v := range []Variant{NFT, Legacy} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/%d", v, seed), func(t *testing.T) {
				netns.Tool(t, "iptables-"+string(v)+"-restore")
				netns.Run(t, func() { keepsTheMeaning(t, New(v, Options{}), seed) })
			})
		}
	}
}

func keepsTheMeaning(t *testing.T, b *Backend, seed uint64) {
	d := rulegen.New(seed)
	table := d.Table()
	rs := &ruleset.Ruleset{Tables: []ruleset.Table{table}}
	planned, err := render.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(context.Background(), rs); err != nil {
		var p *kernel.PayloadError
		if b.variant == NFT && strings.Contains(err.Error(), "Too many links") {
			// Deeper than nf_tables allows: refused, and then nothing of it may be there.
			if l, err := b.Read(context.Background()); err != nil || l.Present {
				t.Fatalf("after a refusal: %+v, %v", l, err)
			}
			return
		}
		if errors.As(err, &p) {
			t.Fatalf("%v\n%s", err, p.Numbered())
		}
		t.Fatal(err)
	}
	s, err := b.tables(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	inKernel := &render.Rules{Sets: planned.Sets, IPv4: *s.family(ruleset.IPv4), IPv6: *s.family(ruleset.IPv6)}
	for range 100 {
		pk, host := d.Packet(), d.Host()
		want, err := rulewalk.Walk(&table, ruleset.Prerouting, pk, host)
		if err != nil {
			t.Fatal(err)
		}
		got, err := iptwalk.Walk(inKernel, "PREROUTING", pk, host)
		if err != nil {
			t.Fatal(err)
		}
		if !iptwalk.Same(pk, want, got) {
			t.Fatalf("packet %v, %+v:\nruleset:   %+v\nin kernel: %+v\n%s", pk, host, want, got, strings.Join(s.lines(ruleset.IPv4), "\n"))
		}
	}
}
