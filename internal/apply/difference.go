package apply

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"quaywall/internal/kernel"
)

// Difference is how two listings differ: what is in the kernel, and what is planned or recorded.
type Difference struct {
	Missing   []string    `json:"missing,omitempty"`   // rules and chains that only the first has, in its order
	Added     []string    `json:"added,omitempty"`     // that only the second has
	Reordered bool        `json:"reordered,omitempty"` // both have the same, in another order
	Sets      []SetChange `json:"sets,omitempty"`      // sorted by name
}

// SetChange is a set that differs. Before or After is nil where it isn't there.
type SetChange struct {
	Name   string             `json:"name"`
	Before *kernel.SetSummary `json:"before,omitempty"`
	After  *kernel.SetSummary `json:"after,omitempty"`
}

// Compare finds the differences.
func Compare(before, after *kernel.Listing) Difference {
	d := Difference{Missing: lacking(before.Rules, after.Rules), Added: lacking(after.Rules, before.Rules)}
	d.Reordered = len(d.Missing) == 0 && len(d.Added) == 0 && !slices.Equal(before.Rules, after.Rules)
	names := maps.Clone(before.Sets)
	if names == nil {
		names = map[string]kernel.SetSummary{}
	}
	maps.Copy(names, after.Sets)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b, inBefore := before.Sets[name]
		a, inAfter := after.Sets[name]
		if inBefore && inAfter && a == b {
			continue
		}
		d.Sets = append(d.Sets, SetChange{Name: name, Before: there(b, inBefore), After: there(a, inAfter)})
	}
	return d
}

func there(s kernel.SetSummary, is bool) *kernel.SetSummary {
	if !is {
		return nil
	}
	return &s
}

// lacking are the lines of a that b lacks, as often as it lacks them.
func lacking(a, b []string) []string {
	count := make(map[string]int, len(b))
	for _, line := range b {
		count[line]++
	}
	var missing []string
	for _, line := range a {
		if count[line]--; count[line] < 0 {
			missing = append(missing, line)
		}
	}
	return missing
}

// None tells whether the listings judge every packet alike.
func (d Difference) None() bool {
	return len(d.Missing) == 0 && len(d.Added) == 0 && !d.Reordered && len(d.Sets) == 0
}

// String is a line for each difference, "- " in front of what goes and "+ " in front of what comes.
func (d Difference) String() string {
	var b strings.Builder
	for _, line := range d.Missing {
		b.WriteString("- " + line + "\n")
	}
	for _, line := range d.Added {
		b.WriteString("+ " + line + "\n")
	}
	if d.Reordered {
		b.WriteString("  the same rules in another order\n")
	}
	for _, s := range d.Sets {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

func (s SetChange) String() string {
	switch {
	case s.Before == nil:
		return fmt.Sprintf("+ set %s: %d elements", s.Name, s.After.Elements)
	case s.After == nil:
		return fmt.Sprintf("- set %s: %d elements", s.Name, s.Before.Elements)
	case s.Before.Elements == s.After.Elements:
		return fmt.Sprintf("~ set %s: %d elements, others than before", s.Name, s.After.Elements)
	}
	return fmt.Sprintf("~ set %s: %d elements, now %d", s.Name, s.Before.Elements, s.After.Elements)
}
