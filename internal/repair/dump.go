package repair

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	render "quaywall/internal/render/ipt"
)

// dump is what iptables-save prints: tables by name.
type dump map[string]*table

// table is a table with everybody's rules.
type table struct {
	policies map[string]string   // of built-in chains: "ACCEPT"
	chains   map[string][]string // rules of each chain, in order, as they are printed behind "-A CHAIN "
}

// parse reads a dump. One that was cut short is an error, never "nothing".
func parse(text string) (dump, error) {
	d := dump{}
	var t *table
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '*':
			t = &table{policies: map[string]string{}, chains: map[string][]string{}}
			d[line[1:]] = t
		case t == nil:
			return nil, errors.New("what iptables-save printed is not understood: " + line)
		case line == "COMMIT":
			t = nil
		case line[0] == ':':
			name, rest, _ := strings.Cut(line[1:], " ")
			policy, _, _ := strings.Cut(rest, " ")
			t.chains[name] = nil
			if policy != "-" {
				t.policies[name] = policy
			}
		default:
			chain, spec, _ := strings.Cut(strings.TrimPrefix(line, "-A "), " ")
			t.chains[chain] = append(t.chains[chain], spec)
		}
	}
	if t != nil {
		return nil, errors.New("what iptables-save printed was cut short: what is there is not known")
	}
	return d, nil
}

// rules are a chain's rules; none where table or chain is missing.
func (d dump) rules(table, chain string) []string {
	if t := d[table]; t != nil {
		return t.chains[chain]
	}
	return nil
}

func (d dump) has(table, chain string) bool {
	t := d[table]
	if t == nil {
		return false
	}
	_, ok := t.chains[chain]
	return ok
}

// rule is what can be told of a rule in the forms that Docker writes. Values that are negated begin with "!".
type rule struct {
	in, out, src, dst, proto, dport string
	target, to                      string // -j, --to-destination
	srcType, dstType, state         string
	strange                         bool // it has something that Docker's rules don't
}

func parseRule(spec string) rule {
	var r rule
	words, err := render.Words(spec)
	r.strange = err != nil
	not := ""
	for i := 0; i < len(words); i++ {
		if words[i] == "!" {
			not = "!"
			continue
		}
		to := r.field(words[i])
		if to == nil || i+1 == len(words) {
			r.strange = true
			return r
		}
		i++
		*to = not + words[i]
		not = ""
		if words[i-1] == "--match-set" {
			i++ // and its direction
		}
	}
	return r
}

// field is where the value of an option goes; nil for one that is not known.
func (r *rule) field(option string) *string {
	var unused string
	switch option {
	case "-i":
		return &r.in
	case "-o":
		return &r.out
	case "-s":
		return &r.src
	case "-d":
		return &r.dst
	case "-p":
		return &r.proto
	case "--dport":
		return &r.dport
	case "-j":
		return &r.target
	case "--to-destination":
		return &r.to
	case "--src-type":
		return &r.srcType
	case "--dst-type":
		return &r.dstType
	case "--ctstate":
		return &r.state
	case "-m", "--sport", "--to-source", "--match-set":
		return &unused
	}
	return nil
}

// bridges are the interfaces that a rule names, without negation.
func (r rule) bridges() []string {
	var all []string
	for _, name := range []string{r.in, r.out} {
		if name = strings.TrimPrefix(name, "!"); name != "" {
			all = append(all, name)
		}
	}
	return all
}

// prefixes are the addresses that a rule names as source and destination, without negation. Link-local ones are those of every
// link, and tell nothing.
func (r rule) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{r.src, r.dst} {
		if p, ok := parsePrefix(text); ok && !p.Addr().IsLinkLocalUnicast() {
			all = append(all, p)
		}
	}
	return all
}

// isOfContainer tells whether a rule is about one container: Docker writes and deletes such rules all the time.
func (r rule) isOfContainer() bool {
	return r.to != "" || slices.ContainsFunc(r.prefixes(), netip.Prefix.IsSingleIP)
}

func parsePrefix(text string) (netip.Prefix, bool) {
	text = strings.TrimPrefix(text, "!")
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// chains are Docker's own, whose content is Docker's alone. See design 6-docker-rules, section 1.
var chains = []string{"DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-FORWARD", "DOCKER-CT", "DOCKER-BRIDGE",
	"DOCKER-INTERNAL"}

// userChain is made by Docker and filled by the administrator.
const userChain = "DOCKER-USER"

// isDockers tells whether a chain is one that Docker makes.
func isDockers(chain string) bool {
	return slices.Contains(chains, chain) || chain == userChain
}
