package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"quaywall/internal/policy/tree"
	"quaywall/internal/rate"
)

const maxRate = 1_000_000

// parseRate reads "10/minute" or "10/minute burst 20".
func parseRate(s string) (rate.Rate, *problem) {
	const hint = "write N/second, N/minute or N/hour, and burst M behind it if need be"
	words := strings.Fields(s)
	if len(words) != 1 && (len(words) != 3 || words[1] != "burst") {
		return rate.Rate{}, &problem{0, fmt.Sprintf("%q is not a rate", short(s)), hint}
	}
	count, unit, ok := strings.Cut(words[0], "/")
	if !ok {
		return rate.Rate{}, &problem{0, fmt.Sprintf("%q is not a rate", short(s)), hint}
	}
	n, p := parseCount(count, 0)
	if p != nil {
		return rate.Rate{}, p
	}
	units := []string{"second", "minute", "hour"}
	i := slices.Index(units, unit)
	if i < 0 {
		return rate.Rate{}, &problem{len(count) + 1, fmt.Sprintf("%q is not a unit of time", short(unit)), oneOf(unit, units)}
	}
	r := rate.Rate{Count: n, Per: []time.Duration{time.Second, time.Minute, time.Hour}[i], Burst: rate.DefaultBurst}
	if len(words) == 3 {
		r.Burst, p = parseCount(words[2], strings.LastIndex(s, words[2]))
	}
	return r, p
}

func parseCount(s string, at int) (uint32, *problem) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n > maxRate {
		return 0, &problem{at, fmt.Sprintf("%q is not a number from 1 to %d", short(s), maxRate), ""}
	}
	return uint32(n), nil
}

// names reads one name or a list of them, each checked; sorted, each once.
func (f *file) names(n *tree.Node, what string, check func(string) *problem) []string {
	var names []string
	for _, item := range f.words(n, what) {
		if p := check(item.Text); p != nil {
			f.report(item, p)
			continue
		}
		names = append(names, item.Text)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// interfaces reads interface names, or prefixes of them with "*".
func (f *file) interfaces(n *tree.Node, what string) []string {
	return f.names(n, what, checkInterface)
}

// checkInterface refuses what the kernel takes for no interface's name, and what a backend would read as a pattern.
func checkInterface(name string) *problem {
	bare := strings.TrimSuffix(name, "*")
	switch i := strings.IndexFunc(bare, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:\"'`\\*+", r) }); {
	case name == "*":
		return &problem{0, "\"*\" is every interface", "leave the key out to mean every interface"}
	case i >= 0 && bare[i] == '*':
		return &problem{i, "a glob ends in *; it can't stand inside of a name", ""}
	case i >= 0 && bare[i] == '+':
		return &problem{i, "an interface can't have a + in its name here", "write * behind a prefix, as in eth*"}
	case i >= 0:
		return &problem{i, fmt.Sprintf("an interface can't have %q in its name", firstRune(bare[i:])), ""}
	case len(bare) > 15:
		return &problem{0, fmt.Sprintf("%q is longer than the 15 characters of an interface's name", short(bare)), ""}
	case bare == "." || bare == "..":
		return &problem{0, fmt.Sprintf("%q is not an interface's name", bare), ""}
	}
	return nil
}

// checkNetwork refuses what Docker takes for no network's name.
func checkNetwork(name string) *problem {
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
		case i > 0 && strings.ContainsRune("_.-", r):
		case r == '*':
			return &problem{i, "networks are named one by one, without globs", ""}
		default:
			return &problem{i, fmt.Sprintf("a Docker network can't have %q in its name", string(r)), ""}
		}
	}
	return nil
}

func firstRune(s string) string {
	_, size := utf8.DecodeRuneInString(s)
	return s[:size]
}

const maxName = 64

// reserved words mean something of their own where a set or a service could stand.
var reserved = []string{"any", "host", "not", "network", "published", "none", "all", "null"}

// checkName refuses names of sets and services that could be taken for something else.
func checkName(name string) *problem {
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
		case i > 0 && (r >= '0' && r <= '9' || strings.ContainsRune("_.-", r)):
		default:
			return &problem{i, fmt.Sprintf("a name can't have %q there", string(r)), "begin with a letter; letters, digits and - _ . follow"}
		}
	}
	switch {
	case name == "":
		return &problem{0, "a name is missing", ""}
	case len(name) > maxName:
		return &problem{0, fmt.Sprintf("a name longer than %d characters", maxName), ""}
	case slices.Contains(reserved, strings.ToLower(name)):
		return &problem{0, fmt.Sprintf("%q means something else in a policy", name), "choose another name"}
	}
	return nil
}
