package sockets

import (
	"fmt"
	"os"
)

// PortRange is ports from First to Last.
type PortRange struct{ First, Last uint16 }

// Contains tells whether a port is one of them.
func (r PortRange) Contains(p uint16) bool { return r.First <= p && p <= r.Last }

// EphemeralPorts are the ports that the kernel chooses from for sockets that don't name one; its default where that can't
// be read.
func EphemeralPorts() PortRange {
	r := PortRange{32768, 60999}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		var got PortRange
		if _, err := fmt.Sscan(string(text), &got.First, &got.Last); err == nil {
			r = got
		}
	}
	return r
}
