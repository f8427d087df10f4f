package compile

import (
	"quaywall/internal/diag"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// always is the origin of a rule on what is dropped whatever the policy says. Where the policy is observed such packets
// are counted by a line of their own: whoever observes wants to see all that would be denied.
func (c *compiler) always(note string) ruleset.Origin {
	if c.options.Observe {
		return ruleset.Origin{Line: ruleset.Always, Note: note}
	}
	return ruleset.Origin{Note: note}
}

// overLimit is the origin of a rule on packets over the limit of another one, which has counted them as well.
func (c *compiler) overLimit(of ruleset.Origin) ruleset.Origin {
	if c.options.Observe {
		of.Line = ruleset.OverLimit + of.Line
	}
	return of
}

// leftOut warns of hand-written rules that aren't observed.
func leftOut(raw policy.Raw) (list diag.List) {
	for _, f := range []struct {
		key  string
		file policy.RawFile
	}{{"nft", raw.NFT}, {"iptables", raw.IPTables}} {
		if f.file.Text != "" {
			list.Warnf(f.file.Pos, "they come with the policy once it is enforced",
				"the rules of raw.%s are left out while the policy is observed: what they would deny can't be told", f.key)
		}
	}
	return list
}
