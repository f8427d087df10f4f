package repair

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/ruleset"
)

// fake is iptables with a dump for a kernel.
type fake struct {
	ipv4 string
	fed  string
}

func (f *fake) Dump(context.Context) (map[ruleset.Family][]byte, error) {
	return map[ruleset.Family][]byte{ruleset.IPv4: []byte(f.ipv4)}, nil
}

// Feed is iptables-restore --noflush.
func (f *fake) Feed(_ context.Context, _ ruleset.Family, payload []byte) error {
	f.fed += string(payload)
	d, err := parse(f.ipv4)
	if err != nil {
		return err
	}
	var name string
	for line := range strings.Lines(string(payload)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line[0] == '*':
			if name = line[1:]; d[name] == nil {
				d[name] = &table{policies: maps.Clone(builtIn[name]), chains: map[string][]string{}}
			}
		case line == "COMMIT":
		case line[0] == ':':
			chain, rest, _ := strings.Cut(line[1:], " ")
			if policy, _, _ := strings.Cut(rest, " "); policy != "-" {
				d[name].policies[chain] = policy
				continue
			}
			d[name].chains[chain] = []string{} // one that is there is emptied
		default:
			if err := d[name].do(line); err != nil {
				return err
			}
		}
	}
	f.ipv4 = print(d)
	return nil
}

var builtIn = map[string]map[string]string{
	"raw":    {"PREROUTING": "ACCEPT", "OUTPUT": "ACCEPT"},
	"filter": {"INPUT": "ACCEPT", "FORWARD": "ACCEPT", "OUTPUT": "ACCEPT"},
	"nat":    {"PREROUTING": "ACCEPT", "INPUT": "ACCEPT", "OUTPUT": "ACCEPT", "POSTROUTING": "ACCEPT"},
}

// do carries out a line of a payload: -I CHAIN NUMBER RULE, or -D CHAIN RULE.
func (t *table) do(line string) error {
	words := strings.SplitN(line, " ", 3)
	verb, chain, rest := words[0], words[1], words[2]
	rules, there := t.chains[chain]
	if _, ok := t.policies[chain]; !ok && !there {
		return fmt.Errorf("%s: no such chain", line)
	}
	switch verb {
	case "-I":
		number, spec, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > len(rules)+1 {
			return fmt.Errorf("%s: index of insertion too big", line)
		}
		t.chains[chain] = slices.Insert(rules, n-1, spec)
	case "-D":
		i := slices.Index(rules, rest)
		if i < 0 {
			return fmt.Errorf("%s: no such rule", line)
		}
		t.chains[chain] = slices.Delete(rules, i, i+1)
	default:
		return fmt.Errorf("%s: not known here", line)
	}
	return nil
}

// print writes a dump as iptables-save does.
func print(d dump) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d)) {
		t := d[name]
		fmt.Fprintf(&b, "*%s\n", name)
		for _, chain := range slices.Sorted(maps.Keys(t.policies)) {
			fmt.Fprintf(&b, ":%s %s [0:0]\n", chain, t.policies[chain])
		}
		for _, chain := range slices.Sorted(maps.Keys(t.chains)) {
			if _, ok := t.policies[chain]; !ok {
				fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
			}
		}
		for _, chain := range slices.Sorted(maps.Keys(t.chains)) {
			for _, spec := range t.chains[chain] {
				fmt.Fprintf(&b, "-A %s %s\n", chain, spec)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
