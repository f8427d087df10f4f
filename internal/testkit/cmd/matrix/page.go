package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// variants are the rows of an engine, in their order, and how Docker and quaywall write their rules there.
var variants = []struct{ name, docker, quaywall string }{
	{"nft", "iptables-nft", "nftables"}, {"iptables-nft", "iptables-nft", "iptables-nft"},
	{"iptables-legacy", "iptables-legacy", "iptables-legacy"}, {"nft-beside-legacy", "iptables-legacy", "nftables"},
}

const head = `# Docker by version

` + "`make matrix`" + ` wrote this, on one machine, with real engines and real packets. S1 and S4 are tried with Docker's defaults; each
other cell stands for every configuration of the engine: userland-proxy on and off, IPv6 on and off (for leaks and life with
ip6tables off where it is on, for S3 with ip6tables on), and for the leaks also "iptables": false. A cell that is not ok would be
a bug. –: not tried. What S3 wants back are rules of iptables; with Docker's iptables-legacy it is tried without IPv6, where
ip6tables-legacy 1.8.9 keeps Docker from writing its rules.

## Scenarios
S1: three servers with one policy. S2: started, changed and stopped under traffic. S3: flushed by somebody else. S4: Docker
late, restarted, upgraded. S7: what containers reach. The leaks and the life of a host are below.

`

// page is the whole of the tables.
func page(results []result) string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("| Docker | its rules by | quaywall |")
	for _, s := range scenarios {
		b.WriteString(" " + s.title + " |")
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(scenarios)) + "\n")
	for _, r := range results {
		writeScenarios(&b, r)
	}
	writeLeaks(&b, results)
	writeLives(&b, results)
	return b.String()
}

func writeScenarios(b *strings.Builder, r result) {
	for _, v := range variants {
		var cells []string
		ran := false
		for _, s := range scenarios {
			passed, ok := r.passed[[2]string{v.name, s.test}]
			ran = ran || ok
			switch {
			case !ok:
				cells = append(cells, "–")
			case passed:
				cells = append(cells, "ok")
			default:
				cells = append(cells, "FAILED")
			}
		}
		docker := v.docker
		if r.engine.backend == "nftables" {
			docker = "nftables"
		}
		if ran {
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", r.engine.version, docker, v.quaywall, strings.Join(cells, " | "))
		}
	}
}

func writeHead(b *strings.Builder, first string, results []result) {
	b.WriteString("| " + first + " |")
	for _, r := range results {
		fmt.Fprintf(b, " %v |", r.engine)
	}
	b.WriteString("\n|" + strings.Repeat("---|", strings.Count(first, "|")+1+len(results)) + "\n")
}

func writeLeaks(b *strings.Builder, results []result) {
	b.WriteString("\n## Leaks\nWhat is open with nothing in force → with a policy in force that denies it.\n\n")
	writeHead(b, "# | a way in", results)
	type key struct {
		number int
		what   string
	}
	known := map[key]bool{}
	for _, r := range results {
		for _, f := range r.leaks {
			known[key{f.Leak, f.What}] = true
		}
	}
	order := slices.SortedFunc(maps.Keys(known), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(a.what, b.what))
	})
	for _, k := range order {
		fmt.Fprintf(b, "| %d | %s |", k.number, k.what)
		for _, r := range results {
			var before, after []answer
			for _, f := range r.leaks {
				if f.Leak == k.number && f.What == k.what {
					before = append(before, answer{f.Engine, f.Before})
					after = append(after, answer{f.Engine, f.After})
				}
			}
			fmt.Fprintf(b, " %s |", transition(before, after))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nA container on a macvlan network has an interface of its own on the network outside. No rule of the host sees its packets;\n" +
		"`apply`, `plan` and `status` name such networks.\n")
}

// answer is what one configuration of an engine gave.
type answer struct {
	engine string
	yes    bool
}

func transition(before, after []answer) string {
	if len(before) == 0 {
		return "–"
	}
	return summary(before, "open", "closed") + " → " + summary(after, "open", "closed")
}

// summary is one word where all say the same, and else what it depends on.
func summary(all []answer, yes, no string) string {
	count, byProxy := 0, true
	for _, a := range all {
		if a.yes {
			count++
		}
		byProxy = byProxy && a.yes == strings.Contains(a.engine, "proxy=true")
	}
	switch {
	case count == len(all):
		return yes
	case count == 0:
		return no
	case byProxy:
		return yes + " with docker-proxy"
	}
	return fmt.Sprintf("%s in %d of %d runs", yes, count, len(all))
}

func writeLives(b *strings.Builder, results []result) {
	b.WriteString("\n## The life of a host\nWhat is allowed goes on, or waits for Docker to be restarted. What is denied stays closed, or quaywall's own rules are gone\n" +
		"with everybody's: then `status` tells, and the next `apply` closes it. With iptables `status` also speaks of drift when Docker's\n" +
		"jumps came to stand before the one that answers what is rejected; until the next `apply` that is dropped.\n\n")
	writeHead(b, "what happens", results)
	var order []string
	for _, r := range results {
		for _, f := range r.lives {
			if !slices.Contains(order, f.Event) {
				order = append(order, f.Event)
			}
		}
	}
	for _, name := range order {
		b.WriteString("| " + name + " |")
		for _, r := range results {
			fmt.Fprintf(b, " %s |", life(r.lives, name))
		}
		b.WriteString("\n")
	}
}

func life(all []lifeFact, name string) string {
	var works []answer
	gone, told := false, true
	for _, f := range all {
		if f.Event == name {
			works = append(works, answer{f.Engine, f.Works})
			gone, told = gone || !f.Held, told && (f.Held || f.Noticed)
		}
	}
	switch {
	case len(works) == 0:
		return "–"
	case !told:
		return "OPEN"
	case gone:
		return summary(works, "goes on", "waits") + "; told, closed by apply"
	}
	return summary(works, "goes on", "waits") + "; closed"
}
