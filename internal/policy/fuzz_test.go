package policy

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"go4.org/netipx"

	"quaywall/internal/diag"
	"quaywall/internal/netset"
)

// checkPlaces holds diagnostics to places that exist.
func checkPlaces(t *testing.T, list diag.List, sources Sources) {
	t.Helper()
	for _, d := range list {
		text, ok := sources[d.Pos.File]
		if !ok || d.Pos.Line == 0 {
			continue
		}
		lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
		if d.Pos.Line > len(lines) || d.Pos.Col > utf8.RuneCountInString(lines[d.Pos.Line-1])+1 {
			t.Fatalf("%v is outside of the file\n%q", d, text)
		}
	}
	list.Format(sources.Text)
}

func FuzzLoad(f *testing.F) {
	for _, text := range texts(f) {
		f.Add(text, "inbound: [{allow: ssh}]\n", "192.0.2.1\n")
	}
	f.Add("version: 1\ninclude: f.yaml\nsets: {a: {file: s.txt}}\ninbound: [{allow: ssh, from: a}]\n", DefaultText, "add a 192.0.2.0/24\n")
	f.Fuzz(func(t *testing.T, policy, fragment, set string) {
		files := Memory{"p": policy, "f.yaml": fragment, "s.txt": set, "friends.txt": set}
		p, sources, list := Load(files, "p")
		if (p == nil) != list.HasErrors() {
			t.Fatalf("a policy is %t, errors are %v", p != nil, list)
		}
		checkPlaces(t, list, sources)
		if p == nil {
			return
		}
		for _, s := range []Section{Inbound, Egress, Outbound} {
			for _, r := range p.Rules(s) {
				if len(r.What) == 0 || r.Pos.Line == 0 || r.From.Not && !r.From.Given || r.Limit.Count > 0 && r.Verb != Allow {
					t.Fatalf("a rule that can't be: %+v", r)
				}
			}
		}
	})
}

func FuzzFormat(f *testing.F) {
	for _, text := range append(texts(f), strange...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, source string) { checkFormat(t, []byte(source)) })
}

// naiveSet reads a set file of plain entries with the standard library alone.
func naiveSet(text string) (netset.Set, bool) {
	var b netset.Builder
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if p, err := netip.ParsePrefix(line); err == nil && p == p.Masked() && !p.Addr().Is4In6() {
			b.AddPrefix(p)
		} else if a, err := netip.ParseAddr(line); err == nil && a.Zone() == "" && !a.Is4In6() {
			b.AddAddr(a)
		} else if r, err := netipx.ParseIPRange(line); err == nil && !strings.Contains(line, "%") && !r.From().Is4In6() && !r.To().Is4In6() {
			b.Add(r)
		} else {
			return netset.Set{}, false
		}
	}
	s, err := b.Set()
	return s, err == nil
}

func FuzzSetFile(f *testing.F) {
	for _, text := range []string{
		"192.0.2.1\n10.0.0.0/8 # all\n\n2001:db8::/32\r\n192.0.2.1-192.0.2.9", "\ufeff::1\n", "0.0.0.0/0\n::/0\n", "1.2.3.4/32\n1.2.3.4/33\n",
		"create a hash:net family inet\nadd a 192.0.2.0/24 timeout 300\n", "add a 10.0.0.0/8 nomatch\n", "01.2.3.4\n", "1.2.3.4/08\n", "999.1.1.1\n",
		"# only\n", "1.2.3.4/1\n", "128.0.0.0/1\n", "192.0.2.1/31\n", "192.0.2.2/31\n192.0.2.9/32\n", strings.Repeat("x", 5000) + "\n1.1.1.1\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		files := Memory{"p": "version: 1\nsets: {a: {file: f}}\ninbound: [{allow: ssh, from: a}]\n", "f": text}
		p, sources, list := Load(files, "p")
		checkPlaces(t, list, sources)
		if len(list) > maxSetErrors+2 {
			t.Fatalf("%d diagnostics", len(list))
		}
		if strings.Contains(text, "add ") || strings.Contains(text, "create ") {
			return
		}
		want, ok := naiveSet(text)
		if ok != (p != nil) {
			t.Fatalf("%q: valid is %t; %v", text, ok, list)
		}
		if p != nil && !p.Sets[0].Addrs.Equal(want) {
			t.Fatalf("%q: read as %v, is %v", text, p.Sets[0].Addrs, want)
		}
	})
}
