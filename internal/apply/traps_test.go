package apply_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/inventory"
	"quaywall/internal/testkit/netns"
)

// foreign is what others have in a namespace: rules as an engine, a firewall and a ban list would write them.
const foreign = `
table inet others {
	set banned { type ipv4_addr; elements = { 198.51.100.9 } }
	chain input { type filter hook input priority -5; policy accept; ip saddr @banned drop; }
}`

func (p *place) addForeign() {
	p.t.Helper()
	for _, tool := range []string{"nft", "iptables-nft", "ip6tables-nft", "ipset"} {
		netns.Tool(p.t, tool)
	}
	p.ns.Feed(p.t, foreign, "nft", "-f", "-")
	for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
		p.ns.Output(p.t, tool, "-N", "DOCKER-USER")
		p.ns.Output(p.t, tool, "-A", "FORWARD", "-j", "DOCKER-USER")
		p.ns.Output(p.t, tool, "-P", "FORWARD", "DROP")
		p.ns.Output(p.t, tool, "-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "--dport", "4000", "-j", "MARK", "--set-mark", "7")
	}
	p.ns.Output(p.t, "ipset", "create", "friends", "hash:net")
	p.ns.Output(p.t, "ipset", "add", "friends", "203.0.113.0/24")
}

var counted = regexp.MustCompile(`counter packets \d+ bytes \d+|\[\d+:\d+\]|(?m)^#.*\n`)

// dump is all rules and sets of the namespace, counters aside.
func (p *place) dump() string {
	p.t.Helper()
	var all strings.Builder
	for _, c := range [][]string{
		{"nft", "list", "ruleset"}, {"iptables-nft-save"}, {"ip6tables-nft-save"},
		{"iptables-legacy-save"}, {"ip6tables-legacy-save"}, {"ipset", "save"},
	} {
		all.WriteString(p.ns.Output(p.t, c[0], c[1:]...))
	}
	// The tables that iptables-legacy had to make can't be removed.
	return emptyTable.ReplaceAllString(counted.ReplaceAllString(all.String(), ""), "")
}

var emptyTable = regexp.MustCompile(`\*[a-z]+\n(:[A-Z]+ ACCEPT \n)+COMMIT\n`)

// Traps 1, 22 and 24: everybody else's rules stay what they were, and after stop there is not a trace of quaywall's.
func TestStopLeavesNoTrace(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		p := newPlace(t)
		p.addForeign()
		before := p.dump()
		rejects := filepath.Join(p.dir, "rejects.yaml")
		if err := os.WriteFile(rejects, []byte("version: 1\ninbound:\n  - allow: ssh\n  - reject: 113/tcp\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, policy := range []string{p.a, rejects, p.b, p.a, p.b, rejects} {
			p.apply(backend, policy, "").must(t, p.ns)
		}
		if p.held() == "" || p.dump() == before {
			t.Fatal("nothing was put in force")
		}
		task{Do: "stop", Dir: p.dir}.must(t, p.ns)
		if after := p.dump(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// Trap 21: an undo takes back quaywall's part alone, whatever others did to their rules meanwhile.
func TestUndoLeavesOthersRules(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		p := newPlace(t)
		p.addForeign()
		p.apply(backend, p.a, "").must(t, p.ns)
		before := p.held()
		change := p.apply(backend, p.b, "")
		change.Confirm = 2 * time.Second
		change.must(t, p.ns)
		p.ns.Output(t, "iptables-nft", "-N", "DOCKER-FOO")
		p.ns.Output(t, "iptables-nft", "-D", "FORWARD", "-j", "DOCKER-USER")
		p.ns.Output(t, "nft", "delete", "element", "inet", "others", "banned", "{ 198.51.100.9 }")
		if !comes(t, p.settled) || p.held() != before {
			t.Fatal("the policy of before did not come back")
		}
		dump := p.ns.Output(t, "iptables-nft-save") + p.ns.Output(t, "nft", "list", "table", "inet", "others")
		if !strings.Contains(dump, ":DOCKER-FOO") || strings.Contains(dump, "-j DOCKER-USER") || strings.Contains(dump, "198.51.100.9") {
			t.Errorf("what others did was undone, too:\n%s", dump)
		}
	})
}

// Trap 3: rules that somebody changed are told by status, and mended by the next apply; twice in a row gives one.
func TestDriftIsToldAndMended(t *testing.T) {
	t.Parallel()
	iptables := func(variant string) map[string][]string {
		ip := "iptables-" + variant
		return map[string][]string{
			"jump gone":      {ip, "-t", "mangle", "-D", "PREROUTING", "-j", "QUAYWALL-gate"},
			"jump not first": {ip, "-t", "mangle", "-I", "PREROUTING", "-p", "tcp", "--dport", "1", "-j", "ACCEPT"},
			"jump twice":     {ip, "-t", "mangle", "-A", "PREROUTING", "-j", "QUAYWALL-gate"},
			"rule gone":      {ip, "-t", "mangle", "-D", "QUAYWALL-denied", "-j", "DROP"},
			"one family":     {"ip6tables-" + variant, "-t", "mangle", "-F", "QUAYWALL-gate"},
			"flushed":        {ip, "-t", "mangle", "-F"},
			"early jump":     {ip, "-t", "raw", "-D", "PREROUTING", "-j", "QUAYWALL-early"},
			"early rules":    {"ip6tables-" + variant, "-t", "raw", "-F", "QUAYWALL-early-host"},
			"raw flushed":    {ip, "-t", "raw", "-F"},
		}
	}
	changes := map[string]map[string][]string{
		"nft": {
			"table gone":  {"nft", "delete", "table", "inet", "quaywall"},
			"chain empty": {"nft", "flush", "chain", "inet", "quaywall", "gate"},
			"rule more":   {"nft", "insert", "rule", "inet", "quaywall", "gate", "accept"},
			"early rule":  {"nft", "insert", "rule", "inet", "quaywall", "early", "accept"},
			"flushed":     {"nft", "flush", "ruleset"},
		},
		"iptables-nft": iptables("nft"), "iptables-legacy": iptables("legacy"),
	}
	onEachBackend(t, func(t *testing.T, backend string) {
		for name, change := range changes[backend] {
			t.Run(name, func(t *testing.T) {
				netns.Tool(t, change[0])
				p := newPlace(t)
				p.apply(backend, p.b, "").must(t, p.ns)
				whole := p.held()
				p.ns.Output(t, change[0], change[1:]...)
				p.ns.Do(t, func() {
					s, err := p.host.Status(t.Context())
					if err != nil || s.Drift == nil || s.Drift.None() {
						t.Errorf("status doesn't tell: %+v, %v", s, err)
					}
				})
				for range 2 {
					p.apply(backend, p.b, "").must(t, p.ns)
					if held := p.held(); held != whole {
						t.Errorf("not mended: the kernel holds\n%s", held)
					}
				}
			})
		}
	})
}

// Trap 2 and bad input: what is no policy is refused, and the old one stays in force.
func TestBadPoliciesChangeNothing(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		p := newPlace(t)
		p.apply(backend, p.a, "").must(t, p.ns)
		before := p.held()
		for name, text := range map[string]string{
			"empty": "", "binary": "\x00\x01\x7fELF", "no version": "inbound: []\n", "another kind": "- 1\n- 2\n", "cut": "version: 1\ninbound:\n  - allow: [ssh",
			"port 70000": "version: 1\ninbound:\n  - allow: 70000/tcp\n", "set file gone": "version: 1\nsets: {a: {file: gone.txt}}\ninbound:\n  - {allow: ssh, from: a}\n",
		} {
			file := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			p.ns.Do(t, func() {
				_, err := p.host.Apply(t.Context(), apply.Options{Policy: file, Given: true, Backend: backend, Wait: time.Minute})
				var invalid *apply.InvalidError
				if !errors.As(err, &invalid) {
					t.Errorf("%s: %v, want an InvalidError", name, err)
				}
			})
		}
		if after := p.held(); after != before {
			t.Errorf("the kernel was changed: it holds\n%s", after)
		}
	})
}

// Hosts with a VRF are refused before anything is changed.
func TestVRF(t *testing.T) {
	p := newPlace(t)
	p.host.Inventory = func(context.Context) (*inventory.Inventory, error) { // not every kernel makes one
		return &inventory.Inventory{Interfaces: []inventory.Interface{{Name: "red", Kind: "vrf"}}}, nil
	}
	p.ns.Do(t, func() {
		_, err := p.host.Apply(t.Context(), apply.Options{Policy: p.a, Given: true, Backend: apply.Auto})
		var invalid *apply.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "VRF") {
			t.Errorf("got %v", err)
		}
	})
	if held := p.held(); held != "" {
		t.Errorf("the kernel holds\n%s", held)
	}
}

// Design S14: hand-written rules live and die with the policy.
func TestRawRules(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		p := newPlace(t)
		text, raw := "version: 1\nraw: {iptables: mine}\ninbound:\n  - allow: ssh\n", "-A QUAYWALL-RAW -p tcp --dport 4444 -j DROP\n"
		if backend == apply.NFT {
			netns.Tool(t, "nft")
			text, raw = strings.Replace(text, "iptables", "nft", 1), "chain mine { type filter hook input priority 0; tcp dport 4444 drop; }\n"
		}
		file := filepath.Join(p.dir, "raw.yaml")
		for name, content := range map[string]string{file: text, filepath.Join(p.dir, "mine"): raw} {
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []bool{true, false} { // twice changes nothing
			p.ns.Do(t, func() {
				r, err := p.host.Apply(t.Context(), apply.Options{Policy: file, Given: true, Backend: backend, Wait: time.Minute})
				if err != nil || r.Changed != want {
					t.Errorf("changed: %+v, %v; want %v", r, err, want)
				}
			})
		}
		lines := strings.Split(p.held(), "\n")
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "4444") }) {
			t.Error("the hand-written rule is not there")
		}
		p.apply(backend, p.a, "").must(t, p.ns)
		if strings.Contains(p.held(), "4444") {
			t.Error("the hand-written rule outlived its policy")
		}
	})
}
