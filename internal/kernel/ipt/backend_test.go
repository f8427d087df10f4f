package ipt

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// each runs a test for both variants, each in a namespace of its own.
func each(t *testing.T, f func(t *testing.T, b *Backend)) {
	for _, v := range []Variant{NFT, Legacy} {
		t.Run(string(v), func(t *testing.T) {
			for _, program := range []string{"iptables-" + string(v) + "-restore", "ipset"} {
				netns.Tool(t, program)
			}
			netns.Run(t, func() { f(t, New(v, Options{})) })
		})
	}
}

func commit(t *testing.T, b *Backend, rs *ruleset.Ruleset) {
	t.Helper()
	if err := netns.Guard(); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(context.Background(), rs); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, b *Backend) *kernel.Listing {
	t.Helper()
	l, err := b.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func remove(t *testing.T, b *Backend) {
	t.Helper()
	if err := netns.Guard(); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// planned is what Preflight gives, from a namespace of its own.
func planned(t *testing.T, b *Backend, rs *ruleset.Ruleset) *kernel.Listing {
	t.Helper()
	var l *kernel.Listing
	var err error
	netns.Run(t, func() { l, err = b.Preflight(context.Background(), rs) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// inForce demands that what is in the kernel is what was planned.
func inForce(t *testing.T, b *Backend, want *kernel.Listing) {
	t.Helper()
	got := read(t, b)
	if diff := cmp.Diff(want.Rules, got.Rules); diff != "" {
		t.Errorf("rules, planned and in the kernel:\n%s", diff)
	}
	if diff := cmp.Diff(want.Sets, got.Sets); diff != "" {
		t.Errorf("sets, planned and in the kernel:\n%s", diff)
	}
}

// sets are the names of quaywall's sets in the kernel.
func sets(t *testing.T) []string {
	t.Helper()
	conn, err := dialIPSet()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	names, err := conn.own()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// saved is all rules and sets, counters aside.
func saved(t *testing.T, b *Backend) string {
	t.Helper()
	var all []string
	for _, f := range families {
		out, err := b.run(context.Background(), call{tool: program(f, "save")})
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "#") {
				all = append(all, line)
			}
		}
	}
	return strings.Join(all, "")
}

func TestCommitReadRemove(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		if l := read(t, b); l.Present || len(l.Rules)+len(l.Sets) > 0 {
			t.Errorf("something is there before anything was done: %v", l)
		}
		remove(t, b)
		before := saved(t, b)
		rs := sample()
		want := planned(t, b, rs)
		for range 3 {
			commit(t, b, rs)
			inForce(t, b, want)
		}
		rs.Tables[0].Chains[0].Rules = slices.Delete(rs.Tables[0].Chains[0].Rules, 1, 12)
		rs.Tables[0].Maps[0].Elements = rs.Tables[0].Maps[0].Elements[:3]
		want = planned(t, b, rs)
		commit(t, b, rs)
		inForce(t, b, want)
		remove(t, b)
		if l := read(t, b); l.Present {
			t.Errorf("still there: %v", l.Rules)
		}
		if left := sets(t); len(left) > 0 {
			t.Errorf("sets are left: %v", left)
		}
		if after := saved(t, b); b.variant == NFT && after != before {
			t.Errorf("before:\n%safter:\n%s", before, after)
		}
		remove(t, b)
	})
}

// Nothing of quaywall's there, so nothing is made by asking.
func TestReadMakesNoTables(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		read(t, b)
		remove(t, b)
		for _, f := range families {
			legacy, err := legacyTables(f)
			if err != nil || len(legacy) > 0 {
				t.Errorf("tables of iptables-legacy: %v %v", legacy, err)
			}
			there, missing, err := nftTables(f)
			if err != nil || len(there) > 0 || !slices.Contains(missing["mangle"], render.MissingTable) {
				t.Errorf("a table mangle was made: %v %v %v", there, missing, err)
			}
		}
	})
}

func TestProbe(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		start := time.Now()
		if err := b.Probe(context.Background()); err != nil {
			t.Error(err)
		}
		t.Log(time.Since(start))
	})
}

// A mend puts back what is missing, and touches nothing where nothing is. What somebody does between its reading and its
// writing the next one mends at the latest.
func TestMend(t *testing.T) {
	each(t, func(t *testing.T, b *Backend) {
		rs := sample()
		commit(t, b, rs)
		want := read(t, b)
		want.Counters = nil
		mend := func(meanwhile func()) (mended bool) {
			t.Helper()
			amiss := func(l *kernel.Listing) bool {
				l.Counters = nil
				if mended = !cmp.Equal(l, want); mended {
					meanwhile()
				}
				return mended
			}
			if err := b.Mend(context.Background(), amiss, func() (*ruleset.Ruleset, error) { return rs, nil }); err != nil {
				t.Error(err)
			}
			return mended
		}
		change := func(args ...string) func() {
			return func() {
				if _, err := sysexec.Run(context.Background(), sysexec.Command{Path: "iptables-" + string(b.variant), Args: args}); err != nil {
					t.Error(err)
				}
			}
		}
		flush, cut := change("-t", "mangle", "-F"), change("-t", "mangle", "-D", "PREROUTING", "1")
		others := change("-t", "mangle", "-I", "PREROUTING", "-m", "mark", "--mark", "7")
		nothing, all := func() {}, func() { remove(t, b) }
		for name, c := range map[string]struct {
			damage, meanwhile func()
			unseen            bool // the programs can't tell that somebody did something meanwhile
		}{
			"flushed":                      {flush, nothing, false},
			"a jump taken":                 {cut, nothing, false},
			"all taken":                    {all, nothing, false},
			"another rule first, then all": {others, all, false},
			"a jump taken, then flush":     {cut, flush, true},
			"flush, then all taken":        {flush, all, true},
			"all taken, then another rule": {all, others, true},
		} {
			c.damage()
			if !mend(c.meanwhile) {
				t.Errorf("%s: nothing was amiss", name)
			}
			if c.unseen {
				mend(nothing)
			}
			if mend(nothing) {
				t.Errorf("%s: it is not mended", name)
			}
		}
		inForce(t, b, want)
	})
}
