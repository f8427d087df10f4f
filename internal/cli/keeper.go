package cli

import (
	"regexp"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
)

// keeper is the program that looks after a rule, "" where a person does.
func keeper(inv *inventory.Inventory, t *netfilter.Table, c *netfilter.Chain, r *netfilter.Rule) string {
	switch {
	case t.IsOwn() || netfilter.IsOwnChain(c.Name):
		return "quaywall"
	case t.Dialect == netfilter.NFT && netfilter.KeeperOfTable(t.Name).Name != "":
		return netfilter.KeeperOfTable(t.Name).Name
	case t.Dialect != netfilter.NFT && netfilter.KeeperOfChain(c.Name).Name != "":
		return netfilter.KeeperOfChain(c.Name).Name
	case c.Name == "DOCKER-USER" && r.Text == "-j RETURN" && r == c.Rules[len(c.Rules)-1]:
		return "Docker"
	case t.Dialect != netfilter.NFT && c.Base != nil && dockerWrote(inv, r.Text):
		return "Docker"
	}
	return keeperOfTarget(r)
}

// keeperOfTarget is who looks after a chain that a rule leads to.
func keeperOfTarget(r *netfilter.Rule) string {
	for _, a := range r.Actions {
		if v, ok := a.(netfilter.Verdict); ok && v.Chain != "" {
			switch {
			case netfilter.IsOwnChain(v.Chain):
				return "quaywall"
			case v.Chain == "DOCKER-USER":
				return "Docker"
			}
			return netfilter.KeeperOfChain(v.Chain).Name
		}
	}
	return ""
}

// dockerRules are the forms of Docker's rules in chains that it shares with others (design 6-docker-rules), with what must be
// Docker's bridges in them.
var dockerRules = []*regexp.Regexp{
	regexp.MustCompile(`^-o (\S+) -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT$`),
	regexp.MustCompile(`^-i (\S+) (?:! )?-o (\S+) -j (?:ACCEPT|DROP)$`),
	regexp.MustCompile(`^-s \S+ ! -o (\S+) -j MASQUERADE$`),
	regexp.MustCompile(`^-o (\S+) -m addrtype --src-type LOCAL -j MASQUERADE$`),
	regexp.MustCompile(`^-d \S+ ! -i (\S+) -j DROP$`),
	regexp.MustCompile(`^-s (?:\S+) -d (?:\S+) -p \S+ -m \S+ --dport \d+ -j MASQUERADE$`),
}

func dockerWrote(inv *inventory.Inventory, text string) bool {
	for _, form := range dockerRules {
		if found := form.FindStringSubmatch(text); found != nil {
			return !slices.ContainsFunc(found[1:], func(name string) bool { return !inv.IsDockerBridge(name) })
		}
	}
	return false
}
