// Package doctor names what is wrong with the packet filtering of a host that runs Docker, what it means, and what to do.
//
//	for _, f := range doctor.Examine(host, doctor.Facts{}) { … f.Title, f.Means, f.Evidence, f.Do }
//
// It knows the states that Docker 20.10 to 29 and the tools beside it get a host into (measured; docs/audit.md lists them).
// On a host that is well it says nothing.
//
// Be aware: it judges a snapshot: what is missing from that can't be judged, and no finding is made of it. Whether the
// policy is a good one is not its matter: see audit.
package doctor

import (
	"cmp"
	"slices"

	"quaywall/internal/snapshot"
)

// Severity is how bad a finding is.
type Severity string

// The severities, the worst first: something is open or dead that shouldn't be; something is so sooner or later; somebody
// should know.
const (
	Fault   Severity = "fault"
	Warning Severity = "warning"
	Note    Severity = "note"
)

// Finding is one thing that is wrong.
type Finding struct {
	ID       string   `json:"id"` // "docker-rules-gone": stable, for monitoring
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`    // a sentence without a full stop
	Means    string   `json:"means"`    // what comes of it
	Evidence []string `json:"evidence"` // what it was seen by
	Do       string   `json:"do"`
	Fix      Fix      `json:"fix,omitempty"`
}

// Fix is what can be done about a finding without doing any harm.
type Fix string

// The fixes.
const (
	NoFix    Fix = ""
	Forward4 Fix = "ip_forward" // turn forwarding of IPv4 on
	Forward6 Fix = "forwarding" // and of IPv6
	Apply    Fix = "apply"      // put quaywall's policy in force again
)

// Facts are what a snapshot doesn't tell, from the host itself. The zero value is for a snapshot of another host.
type Facts struct {
	Settings map[string]string // of dockerd: its configuration file and flags, by name: "iptables": "false"
	Problem  string            // why Docker's API gave no answer; "" where it did, or nobody asked
	Applied  bool              // a policy of quaywall's was put in force and not taken out
	Drift    bool              // the kernel doesn't hold what was put into it
}

// exam is an examination under way.
type exam struct {
	host  *snapshot.Host
	facts Facts
	found []Finding
}

// Examine finds what is wrong, the worst first.
func Examine(h *snapshot.Host, f Facts) []Finding {
	x := &exam{host: h, facts: f}
	for _, check := range []func(){
		x.dockerRules, x.partialTable, x.forwardPolicy, x.forwarding, x.variants, x.bridgeNetfilter, x.dockerUser, x.sunken, x.ipv6, x.firewalls,
		x.stale, x.loopback, x.unseen, x.quaywall, x.docker, x.unread,
	} {
		check()
	}
	rank := []Severity{Fault, Warning, Note}
	slices.SortStableFunc(x.found, func(a, b Finding) int {
		return cmp.Compare(slices.Index(rank, a.Severity), slices.Index(rank, b.Severity))
	})
	return x.found
}

func (x *exam) add(f Finding) { x.found = append(x.found, f) }
