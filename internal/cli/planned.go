package cli

import (
	"slices"

	"quaywall/internal/apply"
	"quaywall/internal/compile"
	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
	"quaywall/internal/policy"
	"quaywall/internal/snapshot"
)

// with is a host as it would be with a policy in force, or with nil for none: rules of quaywall's are replaced, all others
// stay.
func with(host *snapshot.Host, p *policy.Policy) (*snapshot.Host, diag.List) {
	after := *host
	after.Rules.Tables = nil
	for _, t := range host.Rules.Tables {
		if others := withoutOwn(t); others != nil {
			after.Rules.Tables = append(after.Rules.Tables, others)
		}
	}
	if p == nil {
		return &after, nil
	}
	rules, problems := compile.Compile(p, &host.Inventory, compile.Options{LogGroup: apply.LogGroup})
	if problems.HasErrors() {
		return nil, problems
	}
	after.Rules.Tables = append(after.Rules.Tables, netfilter.Of(rules)...)
	return &after, problems
}

// withoutOwn is a table without what is quaywall's; nil where it is quaywall's.
func withoutOwn(t *netfilter.Table) *netfilter.Table {
	switch {
	case t.IsOwn():
		return nil
	case t.Dialect == netfilter.NFT, !slices.ContainsFunc(t.Chains, func(c *netfilter.Chain) bool { return netfilter.IsOwnChain(c.Name) }):
		return t
	}
	others := *t
	others.Chains = nil
	for _, c := range t.Chains {
		if netfilter.IsOwnChain(c.Name) {
			continue
		}
		kept := *c
		kept.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r *netfilter.Rule) bool {
			return slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
				v, ok := a.(netfilter.Verdict)
				return ok && netfilter.IsOwnChain(v.Chain)
			})
		})
		others.Chains = append(others.Chains, &kept)
	}
	return &others
}
