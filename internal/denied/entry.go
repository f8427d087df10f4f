package denied

import (
	"net/netip"
	"strings"
	"time"

	"quaywall/internal/packet"
)

// Entry is a packet that was denied, or logged by a rule with log: true. One with Lost says instead that so many were
// logged and not read.
type Entry struct {
	Time      time.Time  `json:"time"`
	Verdict   string     `json:"verdict,omitempty"` // "deny", "reject" or, by a rule with log: true, "allow"; of an observed policy "would deny", "would reject"
	Section   string     `json:"section,omitempty"` // "inbound", "egress", "outbound": where the connection begins
	Packet    string     `json:"packet,omitempty"`  // as quaywall writes one: "tcp 203.0.113.99:41234 -> 203.0.113.10:8080 in eth0"
	Proto     string     `json:"proto,omitempty"`   // "tcp", "icmp/8"
	Src       netip.Addr `json:"src,omitzero"`
	SrcPort   uint16     `json:"src_port,omitempty"`
	Dst       netip.Addr `json:"dst,omitzero"` // as it was dialled
	DstPort   uint16     `json:"dst_port,omitempty"`
	In        string     `json:"in,omitempty"`        // the interface that it came in by
	Out       string     `json:"out,omitempty"`       // the one that it was to leave by, where that was known already
	Line      string     `json:"policy_line"`         // "policy.yaml:12", "default"; "" for what always holds
	Why       string     `json:"why,omitempty"`       // where the line doesn't say; a sentence without a full stop
	Container string     `json:"container,omitempty"` // in egress the one that it comes from, else the one that it was for
	Lost      uint64     `json:"lost,omitempty"`
}

// fill puts the facts of a packet into an entry.
func (e *Entry) fill(pk packet.Packet) {
	e.Packet = pk.String()
	e.Proto, _, _ = strings.Cut(e.Packet, " ")
	e.Src, e.SrcPort, e.Dst, e.DstPort = pk.Src, pk.SrcPort, pk.Dst, pk.DstPort
	e.In, e.Out = pk.In, pk.Out
}
