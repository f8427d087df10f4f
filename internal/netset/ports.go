package netset

import "fmt"

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
