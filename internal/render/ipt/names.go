package ipt

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// The longest names, in bytes: of a chain in iptables (XT_EXTENSION_MAXNAMELEN less the end), of a set in ipset.
const (
	maxChain = 28
	maxSet   = 31
)

// hashLength is how many characters of a hash stand in a name: 40 bits.
const hashLength = 8

// shortHash is a hash that can stand in a name.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hashName(sum[:])
}

func hashName(sum []byte) string {
	return strings.ToLower(base32.HexEncoding.EncodeToString(sum[:5]))[:hashLength]
}

// chainName is how a chain of the ruleset is called in the kernel. It depends on nothing but the name: a name that is too
// long, has characters that iptables stumbles over, or is one of ours is cut and told apart by a hash.
func chainName(name string) string {
	full := Prefix + clean(name)
	if full == Prefix+name && len(full) <= maxChain && full != rejectChain && full != RawChain {
		return full
	}
	return cut(full, maxChain, shortHash(name))
}

// derivedName is the name of a chain that stands behind another one. No chain of a ruleset gets a name with a "~" in it
// unless a hash follows.
func derivedName(chain, suffix string) string {
	full := chain + "~" + suffix
	if len(full) <= maxChain {
		return full
	}
	return cut(full, maxChain, shortHash(full))
}

// cut shortens a name to make room for a hash.
func cut(name string, longest int, hash string) string {
	return name[:min(len(name), longest-len(hash)-1)] + "~" + hash
}

// clean keeps what every tool takes in a name.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("-_.", r):
			return r
		}
		return '_'
	}, name)
}
