package cli

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"quaywall/internal/exposure"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Reach is who may reach one endpoint of the host.
type Reach struct {
	Proto   string       `json:"proto"`             // "tcp", "udp", "sctp", "icmp" (the host's answer to a ping)
	Address string       `json:"address,omitempty"` // the host address it is dialled at; "" for all of both families
	Port    uint16       `json:"port,omitempty"`
	Owner   ReachOwner   `json:"owner"`
	OpenTo  []ReachOpen  `json:"open_to"`          // empty: closed
	Others  string       `json:"others,omitempty"` // the policy line, or "default", that turns away everybody else
	row     exposure.Row // for the text
}

// ReachOwner is who listens.
type ReachOwner struct {
	Kind string `json:"kind"`           // "container", "process" or "host"
	Name string `json:"name,omitempty"` // "" where not known
}

// ReachOpen is what one line of the policy opens.
type ReachOpen struct {
	From       string   `json:"from"` // as the rule says it: "any", "office", "192.0.2.0/24, cluster", "not office"
	Families   []string `json:"families"`
	Interfaces []string `json:"interfaces,omitempty"` // where it is not all outside interfaces
	Limit      string   `json:"limit,omitempty"`      // new connections of one source
	PolicyLine string   `json:"policy_line"`
}

// reach judges the endpoints by a policy and leaves out those that no outside interface leads to.
func reach(p *policy.Policy, rows []exposure.Row) []Reach {
	all := []Reach{}
	for _, row := range rows {
		if !row.Reachable {
			continue
		}
		r := Reach{Proto: packet.ProtoName(row.Proto), Port: row.Port, Owner: ReachOwner{Kind: "process", Name: row.Owner},
			OpenTo: []ReachOpen{}, Others: row.Others, row: row}
		switch {
		case row.Container:
			r.Owner.Kind = "container"
		case row.Proto == policy.ICMP:
			r.Owner.Kind = "host"
		}
		if row.Addr.IsValid() {
			r.Address = row.Addr.String()
		}
		for _, o := range row.Open {
			r.OpenTo = append(r.OpenTo, reachOpen(p, o))
		}
		all = append(all, r)
	}
	return all
}

func reachOpen(p *policy.Policy, o exposure.Opening) ReachOpen {
	r := ReachOpen{From: "any", Interfaces: o.Ifaces, PolicyLine: o.Origin}
	if o.IPv4 {
		r.Families = append(r.Families, "ipv4")
	}
	if o.IPv6 {
		r.Families = append(r.Families, "ipv6")
	}
	if o.Rule >= 0 {
		rule := p.Inbound[o.Rule]
		r.From = whom(rule.From)
		if o.Limited {
			r.Limit = rule.Limit.String()
		}
	}
	return r
}

// addressesShown is how many addresses of a rule are named before they are counted.
const addressesShown = 3

// whom says a from as the rule does, shortly.
func whom(a policy.Addresses) string {
	if !a.Given {
		return "any"
	}
	words := append([]string(nil), a.Sets...)
	inline := strings.Fields(a.Inline.String())
	if len(inline) > addressesShown {
		inline = []string{count(len(inline), "range")}
	}
	text := strings.Join(append(words, inline...), ", ")
	if a.Not {
		return "not " + text
	}
	return text
}

// writeReach shows the table of what is reachable.
func writeReach(w io.Writer, s style, all []Reach) {
	rows := [][]cell{{{"PORT", s.faint}, {"WHAT", s.faint}, {"OPEN TO", s.faint}, {"BY", s.faint}}}
	for _, r := range all {
		what := r.Owner.Name
		if r.Owner.Kind == "container" {
			what = "container " + what
		}
		if len(r.OpenTo) == 0 {
			rows = append(rows, []cell{{r.port(), nil}, {what, nil}, {"nobody", s.faint}, {r.Others, s.faint}})
		}
		for i, o := range r.OpenTo {
			row := []cell{{r.port(), nil}, {what, nil}, {o.text(r), s.good}, {o.PolicyLine, s.faint}}
			if i > 0 {
				row[0].text, row[1].text = "", ""
			}
			rows = append(rows, row)
		}
	}
	table(w, rows)
}

// port is an endpoint as a policy would write it, with its address where that matters.
func (r Reach) port() string {
	if r.row.Proto == policy.ICMP {
		return "ping"
	}
	if addr := r.row.Addr; addr.IsValid() && !addr.IsUnspecified() {
		return fmt.Sprintf("%s/%s", netip.AddrPortFrom(addr, r.Port), r.Proto)
	}
	return portOf(r.row.Endpoint)
}

// portOf is an endpoint's port as a policy writes it.
func portOf(e exposure.Endpoint) string {
	return fmt.Sprintf("%d/%s", e.Port, packet.ProtoName(e.Proto))
}

// text is an opening in words. A family is named where the endpoint takes both and the opening does not.
func (o ReachOpen) text(r Reach) string {
	text := o.From
	if text == "any" {
		text = "anyone"
	}
	if addr := r.row.Addr; len(o.Families) == 1 && (!addr.IsValid() || addr.IsUnspecified()) {
		text += map[string]string{"ipv4": " (IPv4)", "ipv6": " (IPv6)"}[o.Families[0]]
	}
	if len(o.Interfaces) > 0 {
		text += " on " + strings.Join(o.Interfaces, ", ")
	}
	if o.Limit != "" {
		text += ", " + o.Limit
	}
	return text
}
