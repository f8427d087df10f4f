package sim

import (
	"net/netip"

	"quaywall/internal/netfilter"
)

// Verdict is what the host's rules and routes make of a packet.
type Verdict string

// The verdicts. Unknown is what hangs on something that isn't understood or isn't known.
const (
	Accept  Verdict = "accept"
	Drop    Verdict = "drop"
	Reject  Verdict = "reject"
	Unknown Verdict = "unknown"
)

// Trace is a packet's way through a host, and what came of it.
type Trace struct {
	Packet      string   `json:"packet"`
	Verdict     Verdict  `json:"verdict"`
	Reachable   *bool    `json:"reachable"` // a connection would be answered; nil where that can't be known
	DeliveredTo Delivery `json:"delivered_to"`
	DecidedBy   *Place   `json:"decided_by"`
	Path        []Step   `json:"path"`
	Hops        []Hop    `json:"-"` // the hooks that it came to, whether anything stands there or not
	Why         string   `json:"why"`
	Hint        string   `json:"hint"`
	Assumptions []string `json:"assumptions,omitempty"`
}

// Delivery is where a packet ended.
type Delivery struct {
	Kind    string `json:"kind"`           // "host", "proxy", "container", "remote", "none"
	Name    string `json:"name,omitempty"` // of the process, the container or the interface
	Address string `json:"address,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	// Source is where the receiver sees it come from: for a container behind docker-proxy, the proxy.
	Source     string `json:"source,omitempty"`
	SourcePort uint16 `json:"source_port,omitempty"`
}

// Place is a rule, a base chain's policy (Rule is 0), or with Table "kernel" a decision that no rule made.
type Place struct {
	Table      string `json:"table"`
	Chain      string `json:"chain"`
	Rule       int    `json:"rule"`
	Text       string `json:"text"`
	PolicyLine string `json:"policy_line,omitempty"`
	note       string // what quaywall says of the rule beside its line
}

// Legs are the parts of a way, in order.
const (
	Request      = "request"
	ProxyRequest = "proxy's request" // what docker-proxy sends to the container
	ProxyAnswer  = "answer to the proxy"
	Answer       = "answer"
)

// Hop is a hook that a packet came to.
type Hop struct{ Leg, Hook string }

// Step is a base chain that a packet met, or something else that happened to it.
type Step struct {
	Leg      string     `json:"leg,omitempty"`  // "" where it isn't known
	Hook     string     `json:"hook,omitempty"` // "prerouting"; "" between the hooks
	Table    string     `json:"table,omitempty"`
	Dialect  string     `json:"dialect,omitempty"` // "nft", "iptables-nft", "iptables-legacy"
	Chain    string     `json:"chain,omitempty"`   // "" for what isn't a chain's doing
	Priority int        `json:"priority,omitempty"`
	Rules    []RuleStep `json:"rules,omitempty"`   // those that matched or nearly did, or all that were looked at
	Verdict  string     `json:"verdict,omitempty"` // the chain's: "accept", "policy drop", …
	Text     string     `json:"text,omitempty"`    // of what isn't a chain's doing
	Before   string     `json:"before,omitempty"`  // the packet before it was rewritten
	After    string     `json:"after,omitempty"`
}

// RuleStep is a rule that was looked at.
type RuleStep struct {
	Chain      string `json:"chain"`
	Depth      int    `json:"depth,omitempty"` // jumps between the base chain and this one
	Rule       int    `json:"rule"`
	Text       string `json:"text"`
	Comment    string `json:"comment,omitempty"`
	PolicyLine string `json:"policy_line,omitempty"`
	Matched    string `json:"matched"`          // "yes", "no", "unknown"
	Failed     string `json:"failed,omitempty"` // the first match that failed, and what the packet has; or what isn't known
	Did        string `json:"did,omitempty"`    // "accept", "jump DOCKER", "dnat to 172.17.0.2:80"
	Before     string `json:"before,omitempty"`
	After      string `json:"after,omitempty"`
}

// StepOf is the beginning of a step: a base chain as it is shown.
func StepOf(t *netfilter.Table, c *netfilter.Chain) Step {
	return Step{Table: tableName(t), Dialect: dialects[t.Dialect], Chain: c.Name, Hook: hookNames[c.Base.Hook], Priority: c.Base.Priority}
}

// PlaceOf is a rule of a chain, or with nil its policy.
func PlaceOf(t *netfilter.Table, c *netfilter.Chain, r *netfilter.Rule) Place {
	p := Place{Table: tableName(t), Chain: c.Name}
	if r != nil {
		p.Rule, p.Text, p.PolicyLine = r.Number, r.Text, PolicyLine(t, c.Name, r.Comment)
	}
	return p
}

// DialectOf is who keeps a table, as steps name it.
func DialectOf(t *netfilter.Table) string { return dialects[t.Dialect] }

// tri is an answer: no, perhaps, yes.
type tri int8

const (
	no tri = iota
	perhaps
	yes
)

func is(b bool) tri {
	if b {
		return yes
	}
	return no
}

func (t tri) not() tri { return yes - t }

// unless turns a sure answer round.
func (t tri) unless(not bool) tri {
	if not {
		return t.not()
	}
	return t
}

func (t tri) String() string { return [...]string{"no", "unknown", "yes"}[t] }

// tableName is a table as nft calls it.
func tableName(t *netfilter.Table) string { return familyNames[t.Family] + " " + t.Name }

var (
	familyNames = [...]string{"inet", "ip", "ip6", "bridge", "arp", "netdev"}
	dialects    = [...]string{"nft", "iptables-nft", "iptables-legacy"}
	hookNames   = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}
)

// end writes an address with its port, if it has one.
func end(a netip.Addr, port uint16) string {
	if port == 0 || !a.IsValid() {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
