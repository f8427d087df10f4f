package nft

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/kernel/conformance"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

const handWritten = `# braces } and "quotes in a comment
	set blocked { type ipv4_addr; elements = { 192.0.2.66 }; }
	chain early {
		type filter hook prerouting priority -160; policy accept;
		ip saddr @blocked counter drop comment "a } in a string"
	}
`

func withRaw(text string) *ruleset.Ruleset {
	rs := conformance.Sample()
	rs.Raw.NFT = text
	return rs
}

func TestRaw(t *testing.T) {
	netns.Tool(t, "nft")
	rs := withRaw(handWritten)
	planned, err := preflight(t, rs)
	if err != nil {
		t.Fatal(err)
	}
	ns := netns.New(t)
	for range 2 {
		commit(t, ns, rs)
		got := read(t, ns)
		if diff := cmp.Diff(planned, got); diff != "" {
			t.Errorf("planned (-), read (+):\n%s", diff)
		}
		want := `quaywall_raw early: meta nfproto ipv4 ip saddr @blocked counter drop comment "a } in a string"`
		if !slices.Contains(got.Rules, want) || got.Sets["quaywall_raw blocked"].Elements != 1 {
			t.Errorf("no line %q, or no set:\n%s", want, strings.Join(got.Rules, "\n"))
		}
	}
	ns.Output(t, "nft", "delete element inet quaywall_raw blocked { 192.0.2.66 }")
	if diff := cmp.Diff(planned, read(t, ns)); diff == "" {
		t.Error("drift of hand-written rules is not seen")
	}
	commit(t, ns, conformance.Sample())
	if tables := ns.Output(t, "nft", "list", "tables"); tables != "table inet quaywall\n" {
		t.Errorf("after a commit without hand-written rules there are:\n%s", tables)
	}
	commit(t, ns, rs)
	ns.Do(t, func() {
		if err := New().Remove(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	if tables := ns.Output(t, "nft", "list", "tables"); tables != "" {
		t.Errorf("after Remove there are:\n%s", tables)
	}
}

// Hand-written rules that reach out of their table are refused, with nothing changed, by the preflight and by the commit.
func TestRawStaysInItsTable(t *testing.T) {
	netns.Tool(t, "nft")
	ns := netns.New(t)
	commit(t, ns, conformance.Sample())
	before := ns.Output(t, "nft", "list", "ruleset")
	for name, c := range map[string]struct{ text, want string }{
		"another table":       {"chain x { }\n}\ntable ip other {", "line 2: a brace too many"},
		"another table first": {"} table ip other { chain x { }", "line 1: a brace too many"},
		"flush":               {"}; flush ruleset; table inet quaywall_raw {", "line 1: a brace too many"},
		"a file":              {"chain x { }\n include \"/etc/nftables.conf\"", "line 2: include is not allowed"},
		"open":                {"chain x {", "a brace is not closed"},
		"an open quote":       {"chain x { comment \"}", "line 1: a quote that is not closed"},
		"nonsense":            {"chain early { type filter hook prerouting priority 0; }\nnonsense", "line 2 of its payload"},
		"a chain unknown":     {"chain x {\n tcp dport 1 jump y\n}", "hand-written rules"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := preflight(t, withRaw(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Preflight: %v, want %q", err, c.want)
			}
			ns.Do(t, func() {
				if err := New().Commit(context.Background(), withRaw(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Commit: %v, want %q", err, c.want)
				}
			})
			if after := ns.Output(t, "nft", "list", "ruleset"); after != before {
				t.Errorf("changed: %s", cmp.Diff(before, after))
			}
		})
	}
}

func TestRawWithoutProgram(t *testing.T) {
	if err := rawError(raw{"chain x { }"}, sysexec.ErrNotFound); err == nil || !errors.Is(err, sysexec.ErrNotFound) ||
		!strings.Contains(err.Error(), "install the package nftables") {
		t.Errorf("got %v", err)
	}
	var refused *kernel.PayloadError
	crashed := &sysexec.Error{Command: "nft", Code: -1, Signal: 11}
	if err := rawError(raw{"chain x { }"}, crashed); !errors.As(err, &refused) || refused.Line != 0 || !errors.Is(err, crashed) {
		t.Errorf("got %v", err)
	}
}
