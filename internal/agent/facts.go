package agent

import (
	"quaywall/internal/denied"
	"quaywall/internal/policy"
)

// known is the policy that is in force, and its hash.
type known struct {
	hash   string
	policy *policy.Policy // nil where it can't be read
}

// tellFacts tells what denied packets are judged by: what is in force, and not what a file may hold by now.
func (a *Agent) tellFacts() {
	if a.inv == nil {
		return
	}
	f := denied.Facts{Policy: a.policyInForce(), Inventory: a.applied, Addrs: a.answer.Addrs}
	if f.Inventory == nil {
		f.Inventory = a.inv
	}
	a.host.Know(f)
}

// policyInForce is nil where none is, or where it can't be read.
func (a *Agent) policyInForce() *policy.Policy {
	r := a.inForce.Record
	switch {
	case r == nil:
		return nil
	case a.known.hash == r.Hash:
	case a.policy.hash() == r.Hash:
		a.known = known{r.Hash, a.policy.Policy}
	default:
		a.known = known{r.Hash, a.host.Kept(r)}
	}
	return a.known.policy
}
