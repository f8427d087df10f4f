package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
)

// dockerRules looks whether Docker's rules are there at all, and lead anywhere.
func (x *exam) dockerRules() {
	if !x.runsDocker() || x.speaksNFT() || !x.host.Has(snapshot.PartRules4) || len(x.host.Inventory.Networks) == 0 {
		return
	}
	if x.facts.Settings["iptables"] == "false" {
		x.add(Finding{ID: "docker-iptables-off", Severity: Fault, Title: "Docker is told to write no rules (iptables: false)",
			Means:    "published ports work by docker-proxy alone, which hides who the client is; containers have no way out unless somebody masquerades for them; networks are not kept apart",
			Evidence: []string{`dockerd's setting "iptables" is false`},
			Do:       "take \"iptables\": false out of /etc/docker/daemon.json and restart Docker: quaywall works beside Docker's rules"})
		return
	}
	_, nat := x.chain(netfilter.IPv4, "nat", "DOCKER")
	_, filter := x.chain(netfilter.IPv4, "filter", "DOCKER")
	if nat == nil && filter == nil {
		if !x.host.Has(snapshot.PartNFT) && !x.hasIPTables() {
			return // no rules were read: they may be where nobody could look
		}
		x.add(Finding{ID: "docker-rules-gone", Severity: Fault, Title: "Docker runs, and none of its rules are there",
			Means:    "somebody flushed them, or Docker was told to write none: published ports go on by docker-proxy at most, containers have no way out, and their networks are not kept apart",
			Evidence: []string{"neither nat nor filter of iptables has a chain DOCKER", fmt.Sprintf("Docker has %d networks here", len(x.host.Inventory.Networks))},
			Do:       "restart Docker, or let quaywall's agent put them back from their last snapshot (docker-repair: mend)"})
		return
	}
	if lost := x.lost(nat, filter); len(lost) > 0 {
		x.add(Finding{ID: "docker-rules-incomplete", Severity: Fault, Title: "Docker's rules are there in part",
			Means:    "somebody took the others away: what they were for is dead, or goes another way than Docker meant it to; Docker writes them again only when it is restarted",
			Evidence: some(lost), Do: "restart Docker, or let quaywall's agent put them back (docker-repair: mend)"})
	}
}

// hasIPTables tells whether there is any table of IPv4's iptables.
func (x *exam) hasIPTables() bool {
	return slices.ContainsFunc(x.host.Rules.Tables, func(t *netfilter.Table) bool {
		return t.Family == netfilter.IPv4 && t.Dialect != netfilter.NFT
	})
}

// lost lists what Docker's rules lack of what every version writes.
func (x *exam) lost(nat, filter *netfilter.Chain) []string {
	var lost []string
	jump := func(table, chain, to string) bool {
		return slices.ContainsFunc(x.rules(netfilter.IPv4, table, chain), func(f found) bool { return leadsTo(f.rule, to) })
	}
	if nat == nil {
		lost = append(lost, "iptables -t nat has no chain DOCKER")
	} else {
		if !jump("nat", "PREROUTING", "DOCKER") {
			lost = append(lost, "no rule of iptables -t nat PREROUTING leads to DOCKER")
		}
		for _, p := range x.host.Inventory.Published {
			if p.Addr.Is4() && !x.isForwarded(p.Proto, p.Port) && x.isBridged(p.Networks) {
				lost = append(lost, "iptables -t nat DOCKER has no rule for port "+published(p))
			}
		}
	}
	if filter == nil {
		lost = append(lost, "iptables -t filter has no chain DOCKER")
	}
	_, modern := x.chain(netfilter.IPv4, "filter", "DOCKER-FORWARD")
	for _, chain := range []string{"DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1"} {
		_, c := x.chain(netfilter.IPv4, "filter", chain)
		if c != nil && !jump("filter", "FORWARD", chain) && !(modern != nil && jump("filter", "DOCKER-FORWARD", chain)) {
			lost = append(lost, "no rule of iptables -t filter FORWARD leads to "+chain)
		}
	}
	for _, n := range x.host.Inventory.Networks {
		if !n.Internal && !x.forwards(n.Bridge) {
			lost = append(lost, "no rule of iptables -t filter lets network "+n.Name+" out")
		}
		if !n.Internal && !n.NoMasquerade && (n.Mode4 == "" || strings.HasPrefix(n.Mode4, "nat")) {
			for _, p := range n.Subnets {
				if p.Addr().Is4() && !x.masquerades(p) {
					lost = append(lost, fmt.Sprintf("no rule of iptables -t nat POSTROUTING masquerades network %s (%s)", n.Name, p))
				}
			}
		}
	}
	return lost
}

// isBridged tells whether one of these networks is one of those with rules here.
func (x *exam) isBridged(networks []string) bool {
	return slices.ContainsFunc(networks, func(name string) bool { _, ok := x.host.Inventory.Network(name); return ok })
}

func (x *exam) isForwarded(proto uint8, port uint16) bool {
	return slices.ContainsFunc(x.rules(netfilter.IPv4, "nat", "DOCKER"), func(f found) bool {
		p, d := dialled(f.rule)
		_, _, is := dnats(f.rule)
		return is && p == proto && d == port
	})
}

// forwards tells whether any rule of filter's is about what comes from a bridge.
func (x *exam) forwards(bridge string) bool {
	for _, chain := range []string{"FORWARD", "DOCKER-FORWARD"} {
		for _, f := range x.rules(netfilter.IPv4, "filter", chain) {
			for _, m := range f.rule.Matches {
				if c, ok := m.(netfilter.Compare); ok && c.Field == netfilter.InIface && slices.Contains(c.Names, bridge) {
					return true
				}
			}
		}
	}
	return false
}

func (x *exam) masquerades(subnet netip.Prefix) bool {
	return slices.ContainsFunc(x.rules(netfilter.IPv4, "nat", "POSTROUTING"), func(f found) bool {
		about := slices.ContainsFunc(f.rule.Matches, func(m netfilter.Match) bool {
			c, ok := m.(netfilter.Compare)
			return ok && c.Field == netfilter.Src && !c.Not && c.Addrs.Contains(subnet.Addr())
		})
		return about && slices.ContainsFunc(f.rule.Actions, func(a netfilter.Action) bool {
			t, ok := a.(netfilter.Translate)
			return ok && (t.Kind == netfilter.Masquerade || t.Kind == netfilter.SNAT)
		})
	})
}

// partialTable finds Docker's own table after a flush: Docker makes it anew piece by piece (design trap 52).
func (x *exam) partialTable() {
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		t := x.nft(family, dockerTable)
		if t == nil {
			continue
		}
		var lost []string
		for _, chain := range []string{"filter-FORWARD", "nat-PREROUTING", "nat-POSTROUTING", "raw-PREROUTING"} {
			if c := t.Chain(chain); c == nil || c.Base == nil {
				lost = append(lost, name(t)+" has no chain "+chain)
			}
		}
		if len(lost) > 0 {
			x.add(Finding{ID: "docker-table-incomplete", Severity: Fault, Title: "Docker's table of nf_tables is there in part",
				Means:    "somebody flushed the ruleset, and Docker has made since only what it needed for single changes: published ports are dead or served by docker-proxy, networks are not kept apart",
				Evidence: lost, Do: "restart Docker: it makes the table whole only then"})
		}
	}
}

// stale finds rules that send connections to containers which aren't there.
func (x *exam) stale() {
	for _, part := range []snapshot.Part{snapshot.PartContainers, snapshot.PartNetworks, snapshot.PartAddrs} {
		if !x.host.Has(part) {
			return // they may be among those that nobody read
		}
	}
	if !x.host.Inventory.Docker.Reachable && len(x.host.Containers) == 0 {
		return
	}
	known := map[netip.Addr]bool{}
	for _, c := range x.host.Containers {
		for _, n := range c.Networks {
			for _, a := range n.Addrs {
				known[a] = true
			}
		}
	}
	var stale []string
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		for _, f := range x.rules(family, "nat", "DOCKER") {
			to, port, is := dnats(f.rule)
			proto, dial := dialled(f.rule)
			if is && (!known[to] || !x.publishes(proto, dial, port)) {
				stale = append(stale, f.String())
			}
		}
	}
	if len(stale) > 0 {
		x.add(Finding{ID: "docker-rules-stale", Severity: Fault, Title: "rules of Docker's lead to containers that are gone, or that publish no such port",
			Means:    "somebody loaded an old dump of the rules: whoever dials these ports reaches whatever container has the address now",
			Evidence: some(stale), Do: "restart Docker, or let quaywall's agent take them out (docker-repair: mend); don't load saved rules beside Docker"})
	}
}

func (x *exam) publishes(proto uint8, dial, target uint16) bool {
	for _, p := range x.host.Inventory.Published {
		if p.Proto == proto && p.Port == dial && (target == 0 || p.Target == target) {
			return true
		}
	}
	return false
}

// docker tells that the engine gives no answer.
func (x *exam) docker() {
	problem := x.facts.Problem
	if problem == "" {
		problem = x.host.Inventory.Docker.Problem
	}
	if problem != "" {
		x.add(Finding{ID: "docker-silent", Severity: Warning, Title: "Docker gives no answer",
			Means: "which networks, containers and published ports there are is not known; quaywall keeps its policy in force all the same", Evidence: []string{problem},
			Do: "systemctl status docker; where this user may not ask it, run doctor as root"})
	}
}

// unseen names networks that no rule of this host sees.
func (x *exam) unseen() {
	for _, n := range x.host.Inventory.Unseen {
		x.add(Finding{ID: "unseen-network", Severity: Note, Title: fmt.Sprintf("Docker's network %q is %s on %s: no rule of this host sees its packets", n.Name, n.Driver, n.Parent),
			Means: "whatever its containers listen on is open to the network that " + n.Parent + " is in", Evidence: []string{n.Driver + " on " + n.Parent},
			Do: "filter inside of its containers, or in front of this host"})
	}
}

// loopback finds ports that are published on 127.0.0.1 and that neighbours reach (design trap 40).
func (x *exam) loopback() {
	if x.quaywallThere() || x.speaksNFT() {
		return
	}
	var open []string
	for _, p := range x.host.Inventory.Published {
		if p.Addr.IsLoopback() && p.Addr.Is4() && !x.guarded(p.Addr, p.Port) {
			open = append(open, published(p))
		}
	}
	if len(open) > 0 {
		x.add(Finding{ID: "loopback-published", Severity: Warning, Title: "ports published on 127.0.0.1 answer neighbours on the link",
			Means:    "a machine on the same network that routes 127.0.0.1 to this host reaches them: Docker older than 28 translates before anybody looks",
			Evidence: some(open), Do: "apply a policy of quaywall's, or update Docker to 28 or newer"})
	}
}

// guarded tells whether a rule in raw keeps others out of a port on a loopback address.
func (x *exam) guarded(addr netip.Addr, port uint16) bool {
	return slices.ContainsFunc(x.rules(netfilter.IPv4, "raw", "PREROUTING"), func(f found) bool {
		_, dial := dialled(f.rule)
		return denies(f.rule) && dial == port && slices.ContainsFunc(f.rule.Matches, func(m netfilter.Match) bool {
			c, ok := m.(netfilter.Compare)
			return ok && c.Field == netfilter.Dst && c.Addrs.Contains(addr)
		})
	})
}
