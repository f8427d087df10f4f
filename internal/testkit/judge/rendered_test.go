package judge

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"quaywall/internal/kernel/ipt"
	"quaywall/internal/kernel/nft"
	"quaywall/internal/sysexec"
)

// renderedFault is a mistake of a renderer: the rules that a backend put in force are read as text, changed, and loaded
// again. The text of iptables is one table's, as the save programs print it.
type renderedFault struct {
	name  string
	tool  string // "nft", or the family's program: "iptables" or "ip6tables"
	table string // of iptables; "" is mangle
	old   string // a regular expression; all that matches is changed
	new   string
}

var renderedFaults = []renderedFault{
	{name: "a port is one too high", tool: "iptables", old: `--dport (\d*)8(\s)`, new: "--dport ${1}9$2"},
	{name: "a source is taken for a destination", tool: "iptables", old: `(--match-set quaywall4-\S+) src`, new: "$1 dst"},
	{name: "a source is taken for a destination", tool: "ip6tables", old: `(--match-set quaywall6-\S+) src( .*policy)`, new: "$1 dst$2"},
	{name: "a negation is lost", tool: "iptables", old: `! (--match-set|-s|-d) `, new: "$1 "},
	{name: "multicast is forgotten", tool: "iptables", old: `,MULTICAST`},
	{name: "anycast is forgotten", tool: "ip6tables", old: `(?m)^.*--dst-type ANYCAST.*\n`},
	{name: "related is not established", tool: "iptables", old: `RELATED,ESTABLISHED`, new: "ESTABLISHED"},
	{name: "TCP is taken for UDP", tool: "ip6tables", old: `-p tcp -m tcp --dport`, new: "-p udp -m udp --dport"},
	{name: "a type of ICMP is missing", tool: "iptables", old: `(?m)^.*--icmp-type 3 .*\n`},
	{name: "neighbours are not found", tool: "ip6tables", old: `(?m)^.*--icmpv6-type 135 .*\n`},
	{name: "a reject labels with another bit", tool: "iptables", old: `--label "86" --set`, new: `--label "87" --set`},
	{name: "a reset is no reset", tool: "iptables", table: "filter", old: `--reject-with tcp-reset`, new: "--reject-with icmp-port-unreachable"},
	{name: "nobody leads to the gate", tool: "ip6tables", old: `(?m)^-A PREROUTING -j QUAYWALL.*\n`},
	{name: "nobody leads to the rules on containers' addresses", tool: "iptables", old: `(?m)^-A FORWARD -j QUAYWALL.*\n`},
	{name: "a source port is taken for the dialled one", tool: "iptables", old: `(-p tcp -m tcp) --dport `, new: "$1 --sport "},
	{name: "the loopback network is too small", tool: "iptables", old: `-d 127\.0\.0\.0/8`, new: "-d 127.0.0.0/31"},
	{name: "the default lets in", tool: "iptables", old: `(no inbound rule matched" )-[jg] .*`, new: "$1-j RETURN"},

	{name: "a source is taken for a destination", tool: "nft", old: `ip saddr @`, new: "ip daddr @"},
	{name: "a source port is taken for the dialled one", tool: "nft", old: `tcp dport vmap`, new: "tcp sport vmap"},
	{name: "a negation is lost", tool: "nft", old: `(ip6? [sd]addr) != `, new: "$1 "},
	{name: "the type of a source is asked for", tool: "nft", old: `fib daddr type`, new: "fib saddr type"},
	{name: "related is not established", tool: "nft", old: `ct state established,related`, new: "ct state established"},
	{name: "a reset is silent", tool: "nft", old: `reject with tcp reset`, new: "drop"},
	{name: "TCP is taken for UDP", tool: "nft", old: `\btcp dport`, new: "udp dport"},
	{name: "the loopback network is too small", tool: "nft", old: `ip daddr 127\.0\.0\.0/8`, new: "ip daddr 127.0.0.0/31"},
	{name: "the way out is taken for the way in", tool: "nft", old: `oifname`, new: "iifname"},
	{name: "the rules on containers' addresses are never met", tool: "nft", old: `hook forward`, new: "hook input"},
	{name: "a comment is all that is left of the default", tool: "nft", old: `(goto denied|drop) (comment "[^"]*no inbound rule)`, new: "accept $2"},
}

// TestRenderedFaults plants each fault behind a backend and asks whether the judge finds it within a run of the usual length.
func TestRenderedFaults(t *testing.T) {
	benches := map[string][]*bench{
		"nft":       {newBench(t, nft.New())},
		"iptables":  {newBench(t, ipt.New(ipt.NFT, ipt.Options{})), newBench(t, ipt.New(ipt.Legacy, ipt.Options{}))},
		"ip6tables": nil,
	}
	benches["ip6tables"] = benches["iptables"]
	for i, f := range renderedFaults {
		of := benches[f.tool]
		h := of[i%len(of)]
		t.Run(h.name+" "+f.tool+": "+f.name, func(t *testing.T) { findRendered(t, h, f) })
	}
}

func findRendered(t *testing.T, h *bench, f renderedFault) {
	tried := 0
	for seed := uint64(faultSeed); seed < faultSeed+usual; seed++ {
		c, err := newCase(seed, packetsEach)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.commit(c.rules); err != nil {
			t.Fatal(err)
		}
		var planted bool
		if err := h.do(func() error { planted, err = f.plant(h.name); return err }); err != nil {
			t.Fatal(err)
		}
		if !planted {
			continue
		}
		tried++
		fates, err := h.send(c.probes)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := c.wrong(fates); len(wrong) > 0 {
			t.Logf("found by seed %d, the policy number %d that has it: %s\n%s by %q, %s; %s", seed, tried, wrong[0], wrong[0].want.Verb,
				wrong[0].want.Origin, wrong[0].want.Why, fates[wrong[0].id])
			return
		}
	}
	t.Errorf("not found in %d policies, of which %d have it", usual, tried)
}

// plant changes what a backend has in force in this namespace, and tells whether there was a place for it.
func (f renderedFault) plant(backend string) (bool, error) {
	save := sysexec.Command{Path: "nft", Args: []string{"--stateless", "list", "table", "inet", "quaywall"}}
	load := sysexec.Command{Path: "nft", Args: []string{"--file", "-"}}
	head := "delete table inet quaywall\n"
	if f.tool != "nft" {
		table := f.table
		if table == "" {
			table = "mangle"
		}
		programs := f.tool + strings.TrimPrefix(backend, "iptables")
		save = sysexec.Command{Path: programs + "-save", Args: []string{"--table", table}}
		load = sysexec.Command{Path: programs + "-restore", Args: []string{"--table", table}}
		head = ""
	}
	before, err := sysexec.Run(context.Background(), save)
	if err != nil {
		return false, err
	}
	after := regexp.MustCompile(f.old).ReplaceAllString(string(before), f.new)
	if after == string(before) {
		return false, nil
	}
	load.Stdin = strings.NewReader(head + after)
	_, err = sysexec.Run(context.Background(), load)
	return true, err
}
