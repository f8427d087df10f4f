package netset

import (
	"cmp"
	"fmt"
	"slices"
)

// Ports is a range of ports, both ends included. The zero value is "no port in particular": a rule without ports.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// AllPorts is every port, 0 included.
var AllPorts = Ports{0, 65535}

// Contains tells whether a port is in the range.
func (p Ports) Contains(port uint16) bool { return p.First <= port && port <= p.Last }

// String is PORT or FIRST-LAST.
func (p Ports) String() string {
	if p.First == p.Last {
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// JoinPorts sorts ranges of ports and joins those that overlap or touch.
func JoinPorts(ports []Ports) []Ports {
	var all []Ports
	for _, p := range slices.SortedFunc(slices.Values(ports), func(a, b Ports) int { return cmp.Compare(a.First, b.First) }) {
		if n := len(all); n > 0 && int(p.First) <= int(all[n-1].Last)+1 {
			all[n-1].Last = max(all[n-1].Last, p.Last)
		} else {
			all = append(all, p)
		}
	}
	return all
}
