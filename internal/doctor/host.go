package doctor

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
)

// forwardPolicy finds a FORWARD that drops what Docker's rules would have let through, were they there.
func (x *exam) forwardPolicy() {
	if !x.runsDocker() {
		return
	}
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		for _, t := range x.xtables(family, "filter") {
			c := t.Chain("FORWARD")
			if c == nil || c.Base == nil || c.Base.Policy != netfilter.Drop || x.letsThrough(t, c) || family == netfilter.IPv6 && !x.any6() {
				continue
			}
			x.add(Finding{ID: "forward-drop", Severity: Fault, Title: fmt.Sprintf("%s FORWARD drops everything, and no rule of Docker's is in it", name(t)),
				Means:    "published ports are dead, but for what docker-proxy serves, and containers have no way out; an engine that ran with its iptables backend before leaves it so, and so does a flush",
				Evidence: []string{":FORWARD DROP, with " + fmt.Sprint(len(c.Rules)) + " rules in it"},
				Do:       "restart Docker where it uses iptables; where it uses its nftables backend: iptables -P FORWARD ACCEPT (and ip6tables)"})
		}
	}
}

// letsThrough tells whether a FORWARD leads to Docker's chains, or lets all through before it ends.
func (x *exam) letsThrough(t *netfilter.Table, c *netfilter.Chain) bool {
	return slices.ContainsFunc(c.Rules, func(r *netfilter.Rule) bool {
		if says(r, netfilter.Accept) {
			return true
		}
		return slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
			v, ok := a.(netfilter.Verdict)
			return ok && strings.HasPrefix(v.Chain, "DOCKER") && v.Chain != "DOCKER-USER"
		})
	})
}

func (x *exam) any6() bool {
	return slices.ContainsFunc(x.host.Inventory.Networks, has6)
}

// forwarding looks whether the host forwards packets at all.
func (x *exam) forwarding() {
	if !x.host.Has(snapshot.PartSysctls) || len(x.host.Inventory.Networks) == 0 {
		return
	}
	off := func(key string, fix Fix, what string) {
		if x.host.Sysctls[key] == "0" {
			x.add(Finding{ID: strings.ReplaceAll(string(fix), "_", "-") + "-off", Severity: Fault, Title: "this host doesn't forward " + what,
				Means: "containers have no way out over " + what + ", and published ports work by docker-proxy at most", Evidence: []string{key + " = 0"},
				Do: fmt.Sprintf("sysctl -w %s=1, and find out what turned it off: a file in /etc/sysctl.d most often", key), Fix: fix})
		}
	}
	off("net.ipv4.ip_forward", Forward4, "IPv4")
	if x.any6() {
		off("net.ipv6.conf.all.forwarding", Forward6, "IPv6")
	}
}

// variants finds rules in both variants of iptables: whoever looks at one doesn't see the other.
func (x *exam) variants() {
	var nft, legacy []string
	for _, t := range x.host.Rules.Tables {
		switch {
		case ruleCount(t) == 0:
		case t.Dialect == netfilter.IPTablesNFT:
			nft = append(nft, fmt.Sprintf("%s (nf_tables): %d rules", name(t), ruleCount(t)))
		case t.Dialect == netfilter.IPTablesLegacy:
			legacy = append(legacy, fmt.Sprintf("%s (legacy): %d rules", name(t), ruleCount(t)))
		}
	}
	if len(nft) > 0 && len(legacy) > 0 {
		x.add(Finding{ID: "two-variants", Severity: Warning, Title: "both variants of iptables hold rules",
			Means:    "a packet has to pass both, and iptables shows one of them only: rules that nobody sees decide; Docker writes into the variant that it finds first when it starts",
			Evidence: append(legacy, nft...),
			Do:       "find out who writes into which (iptables-legacy-save, iptables-nft-save), keep one, and flush the other one's rules with its own program"})
	}
}

func ruleCount(t *netfilter.Table) (n int) {
	for _, c := range t.Chains {
		n += len(c.Rules)
	}
	return n
}

// bridgeNetfilter looks whether rules see what goes between containers of one network.
func (x *exam) bridgeNetfilter() {
	if !x.runsDocker() || !x.host.Has(snapshot.PartSysctls) || x.speaksNFT() {
		return
	}
	if x.host.Sysctls["net.bridge.bridge-nf-call-iptables"] == "0" && x.closesWithin() {
		x.add(Finding{ID: "bridge-netfilter-off", Severity: Fault, Title: "rules between containers of one network are not asked",
			Means:    "a network keeps its containers apart (icc=false), and what goes over its bridge isn't shown to iptables: they reach each other all the same",
			Evidence: []string{"net.bridge.bridge-nf-call-iptables = 0"}, Do: "sysctl -w net.bridge.bridge-nf-call-iptables=1, and find out what turned it off"})
	}
}

// closesWithin tells whether a rule drops what comes in and leaves by one bridge.
func (x *exam) closesWithin() bool {
	for _, chain := range []string{"FORWARD", "DOCKER-FORWARD"} {
		for _, f := range x.rules(netfilter.IPv4, "filter", chain) {
			in, out := "", ""
			for _, m := range f.rule.Matches {
				c, ok := m.(netfilter.Compare)
				if !ok || c.Not || len(c.Names) != 1 {
					continue
				}
				switch c.Field {
				case netfilter.InIface:
					in = c.Names[0]
				case netfilter.OutIface:
					out = c.Names[0]
				}
			}
			if in != "" && in == out && denies(f.rule) {
				return true
			}
		}
	}
	return false
}

// dockerUser looks whether the administrator's rules in DOCKER-USER are asked, and asked first.
func (x *exam) dockerUser() {
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		t, user := x.chain(family, "filter", "DOCKER-USER")
		_, own := x.chain(family, "filter", "DOCKER")
		if user == nil {
			if own != nil && family == netfilter.IPv4 {
				x.add(Finding{ID: "docker-user-missing", Severity: Fault, Title: "the chain DOCKER-USER is missing",
					Means:    "rules that somebody put there are gone; Docker makes the chain again when it is restarted",
					Evidence: []string{"iptables -t filter has DOCKER and no DOCKER-USER"}, Do: "restart Docker, then put your rules back; or have them in quaywall's policy, where nothing takes them out"})
			}
			continue
		}
		x.userRules(t, user)
		x.userJump(t)
	}
}

func (x *exam) userRules(t *netfilter.Table, user *netfilter.Chain) {
	for i, r := range user.Rules {
		if len(r.Matches) == 0 && says(r, netfilter.Return, netfilter.Accept, netfilter.Drop) && i+1 < len(user.Rules) {
			var dead []string
			for _, later := range user.Rules[i+1:] {
				dead = append(dead, found{t, user, later}.String())
			}
			x.add(Finding{ID: "docker-user-dead", Severity: Fault, Title: "rules in DOCKER-USER are never asked",
				Means:    fmt.Sprintf("rule %d ends the chain for every packet (Docker appends RETURN itself), and they stand behind it: iptables -A puts them there", r.Number),
				Evidence: some(dead), Do: "insert them with iptables -I DOCKER-USER, or have them in quaywall's policy"})
			return
		}
	}
}

// userJump looks where FORWARD leads to DOCKER-USER.
func (x *exam) userJump(t *netfilter.Table) {
	forward := t.Chain("FORWARD")
	if forward == nil || len(t.Chain("DOCKER-USER").Rules) == 0 {
		return
	}
	at := slices.IndexFunc(forward.Rules, func(r *netfilter.Rule) bool { return leadsTo(r, "DOCKER-USER") })
	title, means := "", ""
	switch first := slices.IndexFunc(forward.Rules, lets); {
	case at < 0:
		title, means = "no rule of FORWARD leads to DOCKER-USER", "the rules in it are asked by no packet"
	case first >= 0 && first < at:
		title, means = "DOCKER-USER is not the first that FORWARD asks", fmt.Sprintf("rule %d lets packets through before", first+1)
	default:
		return
	}
	x.add(Finding{ID: "docker-user-not-first", Severity: Fault, Title: title + " (" + name(t) + ")", Means: means,
		Evidence: rulesOf(t, forward), Do: "restart Docker: it puts the jump in front again; or have the rules in quaywall's policy, which is asked before all of these"})
}

// lets tells whether a rule may let packets through: it accepts, or leads to a chain of somebody's that may.
func lets(r *netfilter.Rule) bool {
	return says(r, netfilter.Accept) || slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
		v, ok := a.(netfilter.Verdict)
		return ok && (v.Kind == netfilter.Jump || v.Kind == netfilter.Goto) && v.Chain != "DOCKER-USER" && v.Chain != "DOCKER-ISOLATION-STAGE-1" && !netfilter.IsOwnChain(v.Chain)
	})
}

func rulesOf(t *netfilter.Table, c *netfilter.Chain) []string {
	var all []string
	for _, r := range c.Rules {
		all = append(all, found{t, c, r}.String())
	}
	return some(all)
}

// sunken finds rules of the administrator's in FORWARD that stand behind Docker's and deny nothing to containers any more
// (design trap 51).
func (x *exam) sunken() {
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		docker := false
		var late []string
		for _, f := range x.rules(family, "filter", "FORWARD") {
			dockers := slices.ContainsFunc([]string{"DOCKER", "DOCKER-FORWARD"}, func(c string) bool { return leadsTo(f.rule, c) })
			docker = docker || dockers
			if docker && denies(f.rule) && !x.aboutBridges(f.rule) {
				late = append(late, f.String())
			}
		}
		if len(late) > 0 {
			x.add(Finding{ID: "forward-rules-sunken", Severity: Warning, Title: "rules of FORWARD that deny stand behind Docker's",
				Means:    "what Docker's rules let through never gets to them: Docker puts its own in front at each start, or with each new network",
				Evidence: some(late), Do: "have them in DOCKER-USER, or better in quaywall's policy"})
		}
	}
}

// aboutBridges tells whether a rule names one of Docker's bridges: those of Docker's own that deny do.
func (x *exam) aboutBridges(r *netfilter.Rule) bool {
	return slices.ContainsFunc(r.Matches, func(m netfilter.Match) bool {
		c, ok := m.(netfilter.Compare)
		return ok && slices.ContainsFunc(c.Names, x.host.Inventory.IsDockerBridge)
	})
}

// ipv6 finds networks with IPv6 that no rule of Docker's is about (design trap 44).
func (x *exam) ipv6() {
	if x.speaksNFT() || x.quaywallThere() || !x.host.Has(snapshot.PartRules6) {
		return
	}
	if _, c := x.chain(netfilter.IPv6, "filter", "DOCKER"); c != nil {
		return
	}
	var bare []string
	for _, n := range x.host.Inventory.Networks {
		if has6(n) {
			bare = append(bare, fmt.Sprintf("network %s on %s", n.Name, n.Bridge))
		}
	}
	if len(bare) > 0 {
		x.add(Finding{ID: "ip6tables-off", Severity: Fault, Title: "networks with IPv6, and Docker writes no ip6tables rules",
			Means:    "each port of their containers is open by the container's own IPv6 address, published or not, and networks are not kept apart",
			Evidence: bare, Do: "apply a policy of quaywall's; or turn \"ip6tables\" on (before Docker 27 with \"experimental\") and restart Docker"})
	}
}

// firewalls finds more than one program that keeps a firewall here.
func (x *exam) firewalls() {
	seen := map[string]string{}
	note := func(who, evidence string) {
		if seen[who] == "" {
			seen[who] = evidence
		}
	}
	for _, t := range x.host.Rules.Tables {
		if k := netfilter.KeeperOfTable(t.Name); t.Dialect == netfilter.NFT && k.Firewall {
			note(k.Name, name(t))
		}
		for _, c := range t.Chains {
			if k := netfilter.KeeperOfChain(c.Name); t.Dialect != netfilter.NFT && k.Firewall && len(c.Rules) > 0 {
				note(k.Name, name(t)+" chain "+c.Name)
			}
			if t.Dialect == netfilter.NFT && c.Base != nil && c.Base.Policy == netfilter.Drop && !t.IsOwn() &&
				netfilter.KeeperOfTable(t.Name).Name == "" && t.Family <= netfilter.IPv6 {
				note("rules of nftables by hand", name(t)+" chain "+c.Name+", policy drop")
			}
		}
	}
	if x.quaywallThere() {
		seen["quaywall"] = "its own rules"
	}
	if len(seen) < 2 {
		return
	}
	var evidence []string
	for who, by := range seen {
		evidence = append(evidence, who+": "+by)
	}
	slices.Sort(evidence)
	x.add(Finding{ID: "two-firewalls", Severity: Warning, Title: "more than one firewall is at work",
		Means:    "a packet has to pass all of them, and when one is reloaded it may take rules of another away, Docker's too",
		Evidence: evidence, Do: "keep one, and take the other out with its own program (ufw disable, systemctl disable --now firewalld, …)"})
}

// unread tells that there are rules which nobody understood.
func (x *exam) unread() {
	var missing []string
	for _, m := range x.host.Missing {
		if m.Part == snapshot.PartRules4 || m.Part == snapshot.PartRules6 || m.Part == snapshot.PartNFT || m.Part == snapshot.PartSets {
			missing = append(missing, fmt.Sprintf("%s: %s", m.Part, m.Why))
		}
	}
	if len(missing) > 0 {
		x.add(Finding{ID: "rules-unread", Severity: Note, Title: "not all rules could be read",
			Means: "what they do is not judged here", Evidence: some(missing), Do: "install the program that reads them, and look again"})
	}
}
