package compile

import (
	"fmt"
	"hash/fnv"
	"strings"

	"quaywall/internal/ruleset"
)

// names are the names of chains, sets and maps that are taken. Names of the policy's sets end in -4 or -6 and no other
// name does, so a set of the user's never changes how something of ours is called.
type names map[string]bool

// claim takes a name, made fit: a character that netfilter's tools could stumble over becomes "_", what is too long is
// cut and told apart by a hash, and what is taken gets a number.
func (n names) claim(want string) string {
	name := fit(want)
	for i := 2; n[name]; i++ {
		name = fit(fmt.Sprintf("%s.%d", want, i))
	}
	n[name] = true
	return name
}

func fit(want string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("-_.", r):
			return r
		}
		return '_'
	}, want)
	if clean == want && len(want) <= ruleset.MaxName {
		return want
	}
	h := fnv.New32a()
	h.Write([]byte(want))
	tail := fmt.Sprintf(".%06x%s", h.Sum32()&0xffffff, familySuffix(want))
	return clean[:min(len(clean), ruleset.MaxName-len(tail))] + tail
}

// familySuffix keeps the family of a set readable where its name is cut.
func familySuffix(name string) string {
	if strings.HasSuffix(name, "-4") || strings.HasSuffix(name, "-6") {
		return name[len(name)-2:]
	}
	return ""
}
