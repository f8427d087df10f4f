package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/diag"
	"quaywall/internal/netset"
	"quaywall/internal/rate"
)

// design is the example of the design without what comes with later versions.
const design = `version: 1

sets:                                    # named groups of addresses; entries of both families may mix
  cluster: [192.168.0.1, 192.168.0.2, 192.168.0.3]
  office:  [203.0.113.0/24, 198.51.100.7-198.51.100.20, "2001:db8:aa::/48"]
  friends: {file: friends.txt}           # one per line, # comments; watched

inbound:                                 # who may come in; the port is the one that the client dials
  - deny: any
    from: friends
  - allow: [http, https]                 # no from: anyone
  - allow: 6379/tcp
    from: cluster
  - allow: ssh
    from: [office, 192.0.2.4]
    limit: 10/minute                     # new connections per source address
  - allow: published                     # every port that container web publishes, whatever the number
    from: office
  - allow: swarm                         # 2377/tcp 7946/tcp 7946/udp 4789/udp esp
    from: cluster
  - allow: ping

egress:                                  # what containers may reach
  - allow: [dns, 443/tcp]
    network: backend
    to: [office, 10.0.0.0/8]
  - deny: any
    network: backend

outbound: []                             # what the host itself may reach

defaults: {inbound: deny, egress: allow, outbound: allow}   # these are the defaults; reject instead of deny answers the client
trusted: [wg0, virbr0]                   # interfaces that are not filtered
log: {denied: 10/second}                 # off | rate; by NFLOG, never to dmesg
established: recheck                     # keep: live connections that a new policy denies go on
docker-repair: mend                      # off | tell | mend
hygiene: on                              # bogus TCP flags, NEW without SYN, invalid state, spoofed sources
`

func TestDesignExample(t *testing.T) {
	files := Memory{"/etc/q/policy.yaml": design, "/etc/q/friends.txt": "# them\n\n198.51.100.200\r\n2001:db8::/64 # v6\n"}
	p, _, list := Load(files, "/etc/q/policy.yaml")
	if list.HasErrors() {
		t.Fatal(list.Format(func(string) []byte { return []byte(design) }))
	}
	if len(p.Inbound) != 7 || len(p.Egress) != 2 || len(p.Outbound) != 0 || len(p.Sets) != 3 {
		t.Fatalf("%d %d %d rules, %d sets", len(p.Inbound), len(p.Egress), len(p.Outbound), len(p.Sets))
	}
	if got := p.Inbound[3].Origin(); got != "policy.yaml:14" {
		t.Errorf("origin %s", got)
	}
	if s, _ := p.Set("friends"); s.File != "/etc/q/friends.txt" || s.Addrs.String() != "198.51.100.200 2001:db8::/64" {
		t.Errorf("friends: %+v", s)
	}
}

func TestDefault(t *testing.T) {
	p, list := Parse("default", []byte(DefaultText))
	if len(list) > 0 {
		t.Fatal(list)
	}
	if len(Default().Inbound) != 2 || Default().Inbound[0].Origin() != "default" || !p.Hygiene || p.Log.Count != 10 {
		t.Errorf("%+v", p)
	}
}

func TestVerbs(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       map[string]string
	}{
		{"built-in defaults", "inbound:\n  - allow: ssh\n  - reject: 81/tcp\n", map[string]string{"p.yaml:3": "allow", "p.yaml:4": "reject", "default": "deny"}},
		{"what leaves is judged", "inbound:\n  - allow: ssh\negress:\n  - deny: any\n    to: 192.0.2.1\n",
			map[string]string{"p.yaml:3": "allow", "p.yaml:5": "deny", "default": "deny, allow"}},
		{"defaults of its own", "defaults:\n  inbound: reject\n  outbound: deny\n", map[string]string{"p.yaml:3": "reject", "p.yaml:4": "deny"}},
		{"on one line", "inbound: [{allow: ssh}, {allow: ping}, {deny: 81/tcp}, {allow: http}]\ndefaults: {inbound: deny}\n",
			map[string]string{"p.yaml:2": "allow, deny", "p.yaml:3": "deny"}},
	} {
		p, list := Parse("/etc/p.yaml", []byte("version: 1\n"+c.text))
		if list.HasErrors() {
			t.Fatal(list)
		}
		if diff := cmp.Diff(c.want, p.Verbs()); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
	if diff := cmp.Diff(map[string]string{"default": "allow, deny"}, Default().Verbs()); diff != "" {
		t.Error(diff)
	}
}

// TestHashes: a policy is told from another by all that it names, and what people edit by itself. Entries are counted as
// they were written.
func TestHashes(t *testing.T) {
	load := func(change string, to string) *Policy {
		files := Memory{
			"p.yaml":    "version: 1\ninclude: more.yaml\nsets: {a: {file: a.txt}, b: [192.0.2.0/25, 192.0.2.128/25]}\ninbound: [{deny: any, from: [a, b]}]\n",
			"more.yaml": "inbound: [{allow: ssh}]\n", "a.txt": "192.0.2.1\n192.0.2.2\n",
		}
		if change != "" {
			files[change] = to
		}
		p, _, list := Load(files, "p.yaml")
		if list.HasErrors() {
			t.Fatal(list)
		}
		return p
	}
	before := load("", "")
	if a, b := before.Sets[0], before.Sets[1]; a.Entries != 2 || b.Entries != 2 || a.Addrs.Len() != 1 {
		t.Errorf("the sets are %+v and %+v", a, b)
	}
	if again := load("", ""); again.Hash != before.Hash || again.Written != before.Written || before.Hash == before.Written {
		t.Errorf("hashes %s and %s, then %s and %s", before.Hash, before.Written, again.Hash, again.Written)
	}
	set := load("a.txt", "# none\n")
	if set.Hash == before.Hash || set.Written != before.Written || set.Sets[0].Entries != 0 {
		t.Errorf("another set file: hash %s, written %s, %d entries", set.Hash, set.Written, set.Sets[0].Entries)
	}
	if text := load("more.yaml", "inbound: [{allow: http}]\n"); text.Hash == before.Hash || text.Written == before.Written {
		t.Errorf("another fragment: hash %s, written %s", text.Hash, text.Written)
	}
}

// TestTyped looks at what each key of a rule becomes.
func TestTyped(t *testing.T) {
	text := `version: 1
sets: {b: [192.0.2.0/24], a: ["2001:db8::/32", 10.0.0.1-10.0.0.3]}
inbound:
  - note: "größer: ja"
    reject: [ssh, 8080]
    from: [b, a, 192.0.2.1, b]
    to: {not: 192.0.2.9}
    on: [wg*, eth0, wg*]
    network: [back, app]
    log: true
  - allow: any
    to: {network: dmz}
    limit: 10/minute burst 20
    from: any
egress:
  - deny: any
    to: host
defaults: {inbound: reject, outbound: deny}
trusted: [virbr*, lo]
log: {denied: 5/hour}
established: keep
docker-repair: tell
hygiene: off
`
	p, list := Parse("/etc/q/p.yaml", []byte(text))
	if p == nil {
		t.Fatal(list)
	}
	at := func(line, col int) diag.Pos { return diag.Pos{File: "/etc/q/p.yaml", Line: line, Col: col} }
	r := p.Inbound[0]
	want := Rule{
		Pos: at(4, 5), Verb: Reject, What: []Traffic{tcp(22), tcp(8080)},
		From: Addresses{Given: true, Sets: []string{"a", "b"}, Inline: netset.MustParse("192.0.2.1")},
		To:   Addresses{Given: true, Not: true, Inline: netset.MustParse("192.0.2.9")},
		On:   []string{"eth0", "wg*"}, Networks: []string{"app", "back"}, Log: true, Note: "größer: ja",
	}
	if diff := cmp.Diff(want, r, cmp.Comparer(netset.Set.Equal)); diff != "" {
		t.Error(diff)
	}
	r = p.Inbound[1]
	if r.Verb != Allow || r.From.Given || !r.To.Given || r.To.Network != "dmz" || r.Limit != (rate.Rate{Count: 10, Per: time.Minute, Burst: 20}) {
		t.Errorf("%+v", r)
	}
	if to := p.Egress[0].To; !to.Given || !to.Host {
		t.Errorf("%+v", to)
	}
	d := Defaults{Inbound: Verdict{Reject, at(18, 21)}, Egress: Verdict{Verb: Allow}, Outbound: Verdict{Deny, at(18, 39)}}
	if p.Defaults != d || !p.Keep || p.Repair != RepairTell || p.Hygiene || p.Log != (rate.Rate{Count: 5, Per: time.Hour, Burst: 5}) {
		t.Errorf("%+v", p)
	}
	if !slices.Equal(p.Trusted, []string{"lo", "virbr*"}) || p.Sets[0].Name != "a" || p.Sets[0].Pos != at(2, 27) {
		t.Errorf("%v %v", p.Trusted, p.Sets)
	}
}
