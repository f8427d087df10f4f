package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
)

// found is a rule and where it stands.
type found struct {
	table *netfilter.Table
	chain *netfilter.Chain
	rule  *netfilter.Rule
}

// String is the rule as its program shows it.
func (f found) String() string {
	return fmt.Sprintf("%s -A %s %s", name(f.table), f.chain.Name, f.rule.Text)
}

// name is a table as a person calls it.
func name(t *netfilter.Table) string {
	switch {
	case t.Dialect == netfilter.NFT:
		return "nft " + [...]string{"inet", "ip", "ip6", "bridge", "arp", "netdev"}[t.Family] + " " + t.Name
	case t.Family == netfilter.IPv6:
		return "ip6tables -t " + t.Name
	}
	return "iptables -t " + t.Name
}

// xtables are the tables of iptables of a family with a name, of both variants.
func (x *exam) xtables(family netfilter.Family, table string) []*netfilter.Table {
	return slices.DeleteFunc(slices.Clone(x.host.Rules.Tables), func(t *netfilter.Table) bool {
		return t.Dialect == netfilter.NFT || t.Family != family || t.Name != table
	})
}

// chain finds a chain of iptables; nil where neither variant has it.
func (x *exam) chain(family netfilter.Family, table, chain string) (*netfilter.Table, *netfilter.Chain) {
	for _, t := range x.xtables(family, table) {
		if c := t.Chain(chain); c != nil {
			return t, c
		}
	}
	return nil, nil
}

// rules are the rules of a chain of iptables, with their places.
func (x *exam) rules(family netfilter.Family, table, chain string) []found {
	t, c := x.chain(family, table, chain)
	if c == nil {
		return nil
	}
	all := make([]found, len(c.Rules))
	for i, r := range c.Rules {
		all[i] = found{t, c, r}
	}
	return all
}

// leadsTo tells whether a rule jumps or goes to a chain.
func leadsTo(r *netfilter.Rule, chain string) bool {
	return slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
		v, ok := a.(netfilter.Verdict)
		return ok && v.Chain == chain && (v.Kind == netfilter.Jump || v.Kind == netfilter.Goto)
	})
}

// says tells whether a rule has a verdict.
func says(r *netfilter.Rule, kinds ...netfilter.VerdictKind) bool {
	return slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
		v, ok := a.(netfilter.Verdict)
		return ok && slices.Contains(kinds, v.Kind)
	})
}

// denies tells whether a rule drops or rejects.
func denies(r *netfilter.Rule) bool {
	return says(r, netfilter.Drop) || slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
		_, ok := a.(netfilter.Reject)
		return ok
	})
}

// dnats gives where a rule sends connections to; ok where it does.
func dnats(r *netfilter.Rule) (to netip.Addr, port uint16, ok bool) {
	for _, a := range r.Actions {
		t, is := a.(netfilter.Translate)
		if !is || t.Kind != netfilter.DNAT {
			continue
		}
		for one := range t.Addrs.Addrs.Each() {
			to = one.From()
			break
		}
		if len(t.Ports) > 0 {
			port = uint16(t.Ports[0].First)
		}
		return to, port, to.IsValid()
	}
	return netip.Addr{}, 0, false
}

// dialled gives the protocol and the port that a rule asks for; 0 for none.
func dialled(r *netfilter.Rule) (proto uint8, port uint16) {
	for _, m := range r.Matches {
		c, ok := m.(netfilter.Compare)
		if !ok || c.Not || len(c.Numbers) == 0 {
			continue
		}
		switch c.Field {
		case netfilter.Proto:
			proto = uint8(c.Numbers[0].First)
		case netfilter.DstPort:
			port = uint16(c.Numbers[0].First)
		}
	}
	return proto, port
}

// nft finds a table of nf_tables.
func (x *exam) nft(family netfilter.Family, table string) *netfilter.Table {
	for _, t := range x.host.Rules.Tables {
		if t.Dialect == netfilter.NFT && t.Family == family && t.Name == table {
			return t
		}
	}
	return nil
}

// speaksNFT tells whether Docker keeps its rules in tables of nf_tables of its own (29 with its nftables backend).
func (x *exam) speaksNFT() bool {
	return x.nft(netfilter.IPv4, dockerTable) != nil || x.nft(netfilter.IPv6, dockerTable) != nil
}

// dockerTable is the table of Docker's nftables backend.
const dockerTable = "docker-bridges"

// runsDocker tells whether there is anything of Docker's that needs rules.
func (x *exam) runsDocker() bool {
	return len(x.host.Inventory.Networks) > 0 || x.host.Inventory.Docker.Reachable || x.host.Inventory.Docker.Version != ""
}

// has6 tells whether a network has IPv6.
func has6(n inventory.Network) bool {
	return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// published is a published port for a person.
func published(p inventory.Published) string {
	return fmt.Sprintf("%s of %s", netip.AddrPortFrom(p.Addr, p.Port), p.Container)
}

// some is the first of many lines, and how many more there are.
func some(all []string) []string {
	const shown = 5
	if n := len(all); n > shown {
		return append(slices.Clone(all[:shown]), fmt.Sprintf("and %d more", n-shown))
	}
	return all
}
