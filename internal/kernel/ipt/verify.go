package ipt

import (
	"fmt"
	"slices"
	"strings"

	render "quaywall/internal/render/ipt"
)

// A listing can only be compared with another one from the same programs: what they lose without a word, both have lost.
// (iptables-nft 1.8.9 loses "! --dport 0:65535" and lists a rule for everything.) So once, in the scratch namespace, what
// they list is compared with what they were given. They have words of their own for many a value, and for none of the
// options here.

// tests are the options that test something, or take part in it.
var tests = []string{"!", "-s", "-d", "-p", "-i", "-o", "--sport", "--dport", "--sports", "--dports", "--tcp-flags", "--icmp-type",
	"--icmpv6-type", "--match-set", "--ctstate", "--src-type", "--dst-type", "--limit-iface-in", "--mark", "--limit", "--hashlimit-above"}

// lost finds the first thing that the programs were given and don't list.
func (s *state) lost(rules *render.Rules) error {
	for _, f := range []*render.Family{&rules.IPv4, &rules.IPv6} {
		for _, t := range []*render.Table{&f.Raw, &f.Mangle, &f.Filter, &f.Security} {
			var now render.Present
			if is := s.tables[f.Family][t.Name]; is != nil {
				now = is.present
			}
			if err := lostFrom(t, now); err != nil {
				return fmt.Errorf("%s, table %s: %w", f.Family, t.Name, err)
			}
		}
	}
	return nil
}

func lostFrom(t *render.Table, now render.Present) error {
	for _, j := range t.Jumps {
		there := func(p render.PlacedJump) bool { return p.From == j.From && p.Spec == j.Spec }
		if !slices.ContainsFunc(now.Jumps, there) {
			return fmt.Errorf("the rule %q of chain %s was taken and is not listed", j.Spec, j.From)
		}
	}
	for _, c := range t.Chains {
		i := slices.IndexFunc(now.Chains, func(o render.Chain) bool { return o.Name == c.Name })
		if i < 0 {
			return fmt.Errorf("chain %s was taken and is not listed", c.Name)
		}
		if c.Name == render.RawChain { // a line of a person's may stand for several rules, in any words
			continue
		}
		if err := lostRule(c, now.Chains[i].Rules); err != nil {
			return err
		}
	}
	return nil
}

func lostRule(c render.Chain, now []render.Rule) error {
	for i, r := range c.Rules {
		listed := ""
		if i < len(now) {
			listed = now[i].Spec
		}
		if gist(r.Spec) != gist(listed) {
			return fmt.Errorf("rule %d of chain %s, %q, was taken and is listed as %q", i+1, c.Name, r.Spec, listed)
		}
	}
	if len(now) > len(c.Rules) {
		return fmt.Errorf("chain %s was given %d rules and lists %d", c.Name, len(c.Rules), len(now))
	}
	return nil
}

// gist is what a rule tests, in any order, what it does, and its comment.
func gist(spec string) string {
	words, err := render.Words(spec)
	if err != nil {
		return spec
	}
	var tested, done []string
	for i := 0; i < len(words); i++ {
		switch w := words[i]; {
		case slices.Contains(tests, w):
			tested = append(tested, w)
		case (w == "-j" || w == "-g" || w == "--comment" || w == "--nflog-prefix" || w == "--nflog-group") && i+1 < len(words):
			i++ // a text may look like an option
			done = append(done, w+" "+words[i])
		case w == "-m" && i+1 < len(words) && words[i+1] == "socket":
			tested = append(tested, "socket")
		}
	}
	slices.Sort(tested)
	slices.Sort(done)
	return strings.Join(append(tested, done...), "\n")
}
