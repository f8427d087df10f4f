package apply

import (
	"context"
	"fmt"
	"time"

	"quaywall/internal/diag"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

// Plan is what Apply would do.
type Plan struct {
	File       string               `json:"file"` // "" for the built-in default policy
	Hash       string               `json:"hash"`
	Backend    string               `json:"backend"`
	Why        string               `json:"why"`                 // why this backend
	Changed    bool                 `json:"changed"`             // something would change in the kernel
	Observed   bool                 `json:"observed,omitempty"`  // it would be judged, counted and logged, and deny nothing
	Observing  bool                 `json:"observing,omitempty"` // what was put into the kernel last denies nothing, and is only observed
	Difference Difference           `json:"difference"`
	Replaces   []string             `json:"replaces,omitempty"` // other backends whose rules would be taken out
	Rules      []string             `json:"rules"`              // all that would be in force, in the backend's words
	Cuts       []guard.Cut          `json:"-"`                  // ways in that Apply would refuse to cut
	Blind      string               `json:"blind,omitempty"`    // why the ways in are not known; Apply would refuse
	Ends       *Ended               `json:"ends,omitempty"`     // live connections that the policy would end; nil where they were not looked at
	PickUp     time.Time            `json:"pick_up,omitzero"`
	Docker     inventory.Docker     `json:"docker"`
	Warnings   diag.List            `json:"warnings,omitempty"`
	Notices    []string             `json:"notices,omitempty"`
	Steps      []Step               `json:"steps"`
	Sources    policy.Sources       `json:"-"`
	Policy     *policy.Policy       `json:"-"`
	Inventory  *inventory.Inventory `json:"-"`
}

// Plan does everything that Apply does before it changes anything, and changes nothing. It takes no lock: what it tells
// may be old a moment later.
func (h *Host) Plan(ctx context.Context, o Options) (*Plan, error) {
	const doing = "finding out what would change"
	if err := checkPrivilege(); err != nil {
		return nil, h.failed(ctx, doing, err)
	}
	c := &change{host: h, opts: o, ns: here()}
	defer c.close()
	err := c.readState(false)
	if err == nil {
		err = c.prepare(ctx)
	}
	if err != nil {
		return nil, h.failed(ctx, doing, err)
	}
	c.noteUnseen(c.inv)
	r := c.result()
	p := &Plan{
		File: r.File, Hash: r.Hash, Backend: r.Backend, Why: r.Why, Changed: r.Changed, Observed: r.Observed,
		Observing: c.record != nil && c.record.Observed, Difference: r.Difference,
		Replaces: r.Replaced, Rules: c.expected.Rules, Cuts: c.cuts, Ends: r.Ended, PickUp: r.PickUp, Docker: r.Docker,
		Warnings: r.Warnings, Notices: r.Notices, Steps: r.Steps, Sources: r.Sources, Policy: r.Policy, Inventory: r.Inventory,
	}
	if c.blind != nil {
		p.Blind = c.blind.Error()
	}
	return p, nil
}

// PolicyName is a policy in a few words.
func PolicyName(file, hash string) string {
	if file == "" {
		file = "the built-in default"
	}
	if hash == "" {
		return file
	}
	return fmt.Sprintf("%s (%.12s)", file, hash)
}
