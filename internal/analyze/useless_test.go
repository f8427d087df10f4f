package analyze

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/netfilter"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/parse/nftjson"
	"quaywall/internal/testkit/dockerhost"
)

// said are useless rules in few words: "FORWARD 3 shadowed by 1 2".
func said(all []Useless) []string {
	var out []string
	for _, u := range all {
		text := fmt.Sprintf("%s %d %s", u.Chain.Name, u.Rule.Number, u.Why)
		for i, by := range u.By {
			if i == 0 {
				text += " by"
			}
			if by.Chain != u.Chain {
				text += " " + by.Chain.Name
			}
			text += fmt.Sprintf(" %d", by.Rule.Number)
		}
		for i, yes := range []bool{u.Never, u.Outside, u.End, u.Passes} {
			if yes {
				text += [...]string{" never", " outside", " end", " passes"}[i]
			}
		}
		out = append(out, text)
	}
	return out
}

// filter is a table filter of iptables with FORWARD (policy DROP) and INPUT (policy ACCEPT), and the chains that rules are in.
func filter(rules string) string {
	heads := ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n"
	for line := range strings.Lines(rules) {
		if chain := strings.Fields(line)[1]; chain != "INPUT" && chain != "FORWARD" && !strings.Contains(heads, ":"+chain+" ") {
			heads += ":" + chain + " - [0:0]\n"
		}
	}
	return "*filter\n" + heads + rules + "COMMIT\n"
}

func findUseless(t testing.TB, rules *netfilter.Rules) ([]Useless, []Unsorted) {
	t.Helper()
	all, unsorted, err := FindUseless(context.Background(), rules)
	if err != nil {
		t.Fatal(err)
	}
	return all, unsorted
}

func TestFindUseless(t *testing.T) {
	for name, test := range map[string]struct {
		rules string
		want  []string
	}{
		"one covers": {"-A FORWARD -s 10.0.0.0/8 -j DROP\n-A FORWARD -s 10.1.0.0/16 -p tcp -j ACCEPT\n-A FORWARD -s 11.0.0.0/8 -j ACCEPT\n",
			[]string{"FORWARD 2 shadowed by 1"}},
		"a union covers": {"-A FORWARD -s 10.0.0.0/9 -j DROP\n-A FORWARD -p udp -j ACCEPT\n-A FORWARD -s 10.128.0.0/9 -j ACCEPT\n-A FORWARD -s 10.0.0.0/8 -p tcp -j ACCEPT\n-A FORWARD -j ACCEPT\n",
			[]string{"FORWARD 2 redundant by 5", "FORWARD 3 redundant by 5", "FORWARD 4 shadowed by 1 3"}},
		"not quite": {"-A FORWARD -s 10.0.0.0/9 -j DROP\n-A FORWARD -s 10.128.0.0/10 -j DROP\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n", nil},
		"of several the one that is enough": {"-A FORWARD -s 10.0.0.0/9 -j ACCEPT\n-A FORWARD -s 10.0.0.0/8 -j REJECT\n-A FORWARD -s 10.0.0.0/8 -p tcp -j ACCEPT\n",
			[]string{"FORWARD 3 shadowed by 2"}},
		"established is no new":   {"-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -m conntrack --ctstate NEW -p tcp -j ACCEPT\n", nil},
		"states":                  {"-A FORWARD -m conntrack --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED -j ACCEPT\n-A FORWARD -p tcp -j DROP\n", []string{"FORWARD 2 shadowed by 1"}},
		"fragments have no ports": {"-A FORWARD -p tcp -m tcp --dport 0:65535 -j ACCEPT\n-A FORWARD -p tcp -j REJECT\n", nil},
		"like the policy":         {"-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -s 10.0.0.0/8 -j DROP\n-A INPUT -j ACCEPT\n", []string{"INPUT 3 redundant end"}},
		"like a rule behind": {"-A FORWARD -s 10.0.0.1/32 -j ACCEPT\n-A FORWARD -s 10.0.0.0/24 -j ACCEPT\n-A FORWARD -s 10.0.0.2/32 -j DROP\n",
			[]string{"FORWARD 1 redundant by 2", "FORWARD 3 shadowed by 2"}},
		"taken out together": {"-A FORWARD -s 10.0.0.1/32 -j ACCEPT\n-A FORWARD -s 10.0.0.0/31 -j ACCEPT\n-A FORWARD -s 10.0.0.0/32 -j ACCEPT\n", []string{"FORWARD 1 redundant by 2", "FORWARD 3 shadowed by 2"}},
		"across a jump": {"-A FORWARD -s 10.0.0.2/32 -j ACCEPT\n-A FORWARD -j C\n-A C -s 10.0.0.2/31 -j ACCEPT\n-A C -s 10.0.0.2/32 -j ACCEPT\n-A C -s 10.0.0.3/32 -j ACCEPT\n",
			[]string{"FORWARD 1 redundant by 2", "C 2 shadowed by FORWARD 2 outside", "C 3 shadowed by 1"}},
		"no rule leads there":                    {"-A FORWARD -j ACCEPT\n-A C -j DROP\n", []string{"C 1 dead"}},
		"no packet gets there":                   {"-A FORWARD -j ACCEPT\n-A FORWARD -j C\n-A C -j DROP\n", []string{"FORWARD 2 shadowed by 1", "C 1 dead by FORWARD 2 outside"}},
		"nothing of it comes in":                 {"-A FORWARD -p tcp -j C\n-A C -p udp -j ACCEPT\n-A C -j ACCEPT\n", []string{"C 1 shadowed by FORWARD 1 outside"}},
		"matches nothing":                        {"-A FORWARD -m mark --mark 1 -m mark --mark 2 -j ACCEPT\n-A INPUT -o eth0 -j DROP\n", []string{"INPUT 1 shadowed never", "FORWARD 1 shadowed never"}},
		"back to a caller that does the same":    {"-A FORWARD -j C\n-A FORWARD -j REJECT\n-A C -s 10.0.0.0/8 -j ACCEPT\n-A C -p udp -j REJECT\n", []string{"C 2 redundant end"}},
		"callers that differ":                    {"-A FORWARD -j C\n-A INPUT -j C\n-A C -s 10.0.0.0/8 -j DROP\n-A C -p tcp -j REJECT\n", nil},
		"it keeps others from their work":        {"-A FORWARD -j C\n-A C -j RETURN\n-A C -s 10.0.0.0/8 -j ACCEPT\n-A C -s 11.0.0.0/8 -j DROP\n", []string{"FORWARD 1 redundant passes", "C 2 shadowed by 1", "C 3 shadowed by 1"}},
		"a jump for nothing before what is told": {"-A FORWARD -p tcp -j C\n-A FORWARD -j LOG\n-A C -j RETURN\n", []string{"FORWARD 1 redundant passes", "C 1 redundant end"}},
		"a jump for nothing":                     {"-A FORWARD -j C\n-A FORWARD -p tcp -j ACCEPT\n-A C -p udp -j RETURN\n", []string{"FORWARD 1 redundant passes", "C 1 redundant end"}},
		"a goto goes home":                       {"-A FORWARD -p tcp -g C\n-A FORWARD -p tcp -j ACCEPT\n-A C -s 10.0.0.0/8 -j ACCEPT\n", []string{"FORWARD 2 shadowed by 1"}},
		"telling is more than deciding":          {"-A FORWARD -s 10.0.0.1/32 -j ACCEPT\n-A FORWARD -j LOG\n-A FORWARD -j ACCEPT\n-A FORWARD -j LOG\n", []string{"FORWARD 4 shadowed by 3"}},
		"a limit that leads nowhere else":        {"-A FORWARD -m limit --limit 1/sec -j ACCEPT\n-A FORWARD -p tcp -j ACCEPT\n-A FORWARD -j ACCEPT\n", []string{"FORWARD 1 redundant by 3", "FORWARD 2 redundant by 3"}},
		"a limit that decides":                   {"-A FORWARD -m limit --limit 1/sec -j ACCEPT\n-A FORWARD -m limit --limit 1/sec -j ACCEPT\n", nil},
		"a list that is kept":                    {"-A FORWARD -m recent --set --name x -j ACCEPT\n-A FORWARD -j ACCEPT\n", nil},
		"a list in front of nothing":             {"-A FORWARD -p tcp -j ACCEPT\n-A FORWARD -p tcp -m recent --set --name x -j DROP\n-A FORWARD -m mark --mark 1 -j REJECT\n-A FORWARD -m recent --set --name x -m mark --mark 1 -j DROP\n-A FORWARD -m mark --mark 1 -m recent --set --name x -j DROP\n", []string{"FORWARD 2 shadowed by 1", "FORWARD 5 shadowed by 3"}},
		"what isn't understood":                  {"-A FORWARD -m string --string x --algo bm -j DROP\n-A FORWARD -m string --string x --algo bm -j ACCEPT\n-A FORWARD -m string --string x --algo bm -p tcp -j ACCEPT\n", nil},
		"what sets hold may change": {"-A FORWARD -m set --match-set a src -j ACCEPT\n-A FORWARD -m set --match-set a dst -j ACCEPT\n-A FORWARD -m set --match-set b src -j ACCEPT\n-A FORWARD -p tcp -m set --match-set a src -j DROP\n",
			[]string{"FORWARD 4 shadowed by 1"}},
		"marks":                           {"-A FORWARD -j MARK --set-xmark 0x1/0x1\n-A FORWARD -m mark ! --mark 0x1/0x1 -j ACCEPT\n-A FORWARD -m mark --mark 0x2/0x2 -j ACCEPT\n", []string{"FORWARD 2 shadowed"}},
		"a wildcard":                      {"-A FORWARD -i eth+ -j ACCEPT\n-A FORWARD -i eth1 -p tcp -j DROP\n-A FORWARD ! -i eth+ -j ACCEPT\n-A FORWARD -i wg0 -j DROP\n", []string{"FORWARD 2 shadowed by 1", "FORWARD 4 shadowed by 3"}},
		"the host's addresses may change": {"-A INPUT -m addrtype --dst-type LOCAL -j DROP\n-A INPUT -d 192.0.2.1/32 -j ACCEPT\n-A INPUT -m addrtype --dst-type LOCAL -p tcp -j DROP\n", []string{"INPUT 2 redundant end", "INPUT 3 shadowed by 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			sets := []*netfilter.Set{{Name: "a", Type: "hash:ip", Parts: []netfilter.Kind{netfilter.Address}}, {Name: "b", Type: "hash:ip", Parts: []netfilter.Kind{netfilter.Address}}}
			tables, problems := iptsave.Parse(filter(test.rules), iptsave.Options{Family: netfilter.IPv4, Sets: sets})
			found, unsorted := findUseless(t, &netfilter.Rules{Tables: tables})
			if got := said(found); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q %v %v", got, test.want, unsorted, problems)
			}
		})
	}
}

// TestFindUselessNFT: rules of nf_tables, of both families, with verdict maps, and rules that are read as several.
func TestFindUselessNFT(t *testing.T) {
	const text = `{"nftables": [{"table": {"family": "inet", "name": "t", "handle": 1}},
{"chain": {"family": "inet", "table": "t", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "t", "name": "web", "handle": 2}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 3, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.1"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 4, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "saddr"}}, "right": "2001:db8::1"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 5, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv4"}}, {"drop": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 6, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.2"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 7, "expr": [{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [[80, {"jump": {"target": "web"}}], [22, {"accept": null}], [23, {"drop": null}]]}}}]}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 8, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 9, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 23}}, {"log": {"prefix": "x"}}, {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "sport"}}, "right": 1}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "web", "handle": 10, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 81}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "t", "chain": "web", "handle": 11, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}}]}`
	tables, problems := nftjson.Parse(text, "dump")
	found, unsorted := findUseless(t, &netfilter.Rules{Tables: tables})
	want := []string{"in 4 shadowed by 3", "in 6 shadowed by 3 5", "in 7 shadowed by 3 5", "web 1 shadowed by in 5 outside"}
	if got := said(found); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q %v %v", got, want, unsorted, problems)
	}
}

// BenchmarkFindUseless: Docker's rules for 1,000 containers, and rules by hand that name source, destination and port.
func BenchmarkFindUseless(b *testing.B) {
	byHand := func(n int) string {
		r := rand.New(rand.NewPCG(1, 2))
		var text strings.Builder
		for range n {
			fmt.Fprintf(&text, "-A FORWARD -s 10.%d.%d.0/24 -d 172.%d.%d.%d/32 -p tcp -m tcp --dport %d -j %s\n", r.IntN(256), r.IntN(256), 16+r.IntN(16), r.IntN(256),
				r.IntN(256), 1+r.IntN(2000), []string{"ACCEPT", "DROP"}[r.IntN(2)])
		}
		return filter(text.String())
	}
	for name, text := range map[string]string{"docker": dockerhost.Make(1000, 5).Rules, "byHand": byHand(5000), "sources": bySource(5000)} {
		b.Run(name, func(b *testing.B) {
			tables, _ := iptsave.Parse(text, iptsave.Options{Family: netfilter.IPv4})
			b.ReportAllocs()
			for b.Loop() {
				if _, unsorted := findUseless(b, &netfilter.Rules{Tables: tables}); len(unsorted) > 0 {
					b.Fatal(unsorted)
				}
			}
		})
	}
}

// bySource are rules for one source each, a tenth of them twice.
func bySource(n int) string {
	var text strings.Builder
	for i := range n {
		i -= i % 10 / 9
		fmt.Fprintf(&text, "-A FORWARD -s 10.%d.%d.%d/32 -j DROP\n", i>>16, i>>8&255, i*7&255)
	}
	return filter(text.String() + "-A FORWARD -j ACCEPT\n")
}
