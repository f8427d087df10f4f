package compile

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

// checker finds what the policy says and the host doesn't have.
type checker struct {
	policy *policy.Policy
	inv    *inventory.Inventory
	list   diag.List
}

func check(p *policy.Policy, inv *inventory.Inventory) diag.List {
	c := &checker{policy: p, inv: inv}
	c.vrfs()
	c.foreignBridges()
	c.sharedBridges()
	c.unseenNetworks()
	for _, s := range []policy.Section{policy.Inbound, policy.Egress, policy.Outbound} {
		for _, r := range p.Rules(s) {
			c.networks(s, r)
			c.published(r)
			for _, pattern := range r.On {
				c.on(r, pattern)
			}
		}
	}
	return c.list
}

// file is the place of what no line of the policy says.
func (c *checker) file() diag.Pos { return diag.Pos{File: c.policy.File} }

func (c *checker) vrfs() {
	for _, i := range c.inv.Interfaces {
		if i.Kind == "vrf" {
			c.list.Errorf(c.file(), "take the VRF away, or leave this host to another firewall",
				"interface %s is a VRF, and quaywall has not been tried with VRFs", i.Name)
		}
	}
}

// foreign are the names of bridges of container and machine managers that do their own filtering.
var foreign = []struct{ prefix, owner string }{
	{"podman", "Podman"}, {"cni", "Podman or another user of CNI"}, {"lxdbr", "LXD"}, {"lxcbr", "LXC"}, {"virbr", "libvirt"},
}

func (c *checker) foreignBridges() {
	for _, i := range c.inv.Interfaces {
		if i.Kind != "bridge" || slices.Contains(c.inv.Bridges(), i.Name) {
			continue
		}
		for _, f := range foreign {
			if strings.HasPrefix(i.Name, f.prefix) && !c.trusts(i.Name) {
				c.list.Warnf(c.file(), fmt.Sprintf("add %s to trusted to leave it unfiltered", i.Name),
					"%s is a bridge of %s: what it sends to this host is judged by the inbound rules", i.Name, f.owner)
			}
		}
	}
}

// sharedBridges tells of Docker networks that others are on than containers.
func (c *checker) sharedBridges() {
	for _, s := range c.inv.Shared {
		c.list.Warnf(c.file(), fmt.Sprintf("give the network a bridge of its own, or take %s out of %s", s.Port, s.Bridge),
			"Docker's network %s is on bridge %s, and so is %s: what comes in by %s may come from anywhere, so its containers are judged by the "+
				"inbound rules, as strangers are, and egress doesn't judge them", s.Name, s.Bridge, s.Port, s.Bridge)
	}
}

func (c *checker) trusts(name string) bool {
	return len(c.policy.Trusted) > 0 && policy.MatchesInterface(c.policy.Trusted, name)
}

// unseenNetworks tells that egress rules judge by names that were guessed.
func (c *checker) unseenNetworks() {
	if c.inv.Docker.Reachable || !restricts(c.policy, policy.Egress) || c.inv.Docker.Problem == "" && len(c.inv.Networks) == 0 {
		return
	}
	pos := c.policy.Default(policy.Egress).Pos
	if len(c.policy.Egress) > 0 {
		pos = c.policy.Egress[0].Pos
	}
	c.list.Warnf(pos, "let quaywall reach Docker's API, and apply again",
		"Docker doesn't answer%s: egress takes interfaces named like its bridges for its networks", because(c.inv.Docker.Problem))
}

func because(problem string) string {
	if problem == "" {
		return ""
	}
	return " (" + problem + ")"
}

// networks tells of Docker networks that don't exist here.
func (c *checker) networks(s policy.Section, r policy.Rule) {
	consequence := nothing(r)
	if s == policy.Egress && r.Verb != policy.Allow && !c.inv.Docker.Reachable {
		consequence = "until it does, the rule holds for every network"
	}
	for _, name := range r.Networks {
		c.network(r, name, consequence)
	}
	if r.To.Network == "" {
		return
	}
	if n, ok := c.network(r, r.To.Network, nothing(r)); ok && c.inv.Docker.Reachable {
		c.closedByDocker(r, n)
	}
}

// network finds a network that a rule names. Where there is none, consequence is what becomes of the rule.
func (c *checker) network(r policy.Rule, name, consequence string) (inventory.Network, bool) {
	n, ok := c.inv.Network(name)
	if ok {
		return n, true
	}
	if !c.inv.Docker.Reachable {
		c.list.Warnf(r.Pos, "apply again when Docker answers", "network %s is not known, since Docker doesn't answer%s: %s", name,
			because(c.inv.Docker.Problem), consequence)
		return n, false
	}
	if i := slices.IndexFunc(c.inv.Shared, func(s inventory.Shared) bool { return s.Name == name }); i >= 0 {
		s := c.inv.Shared[i]
		c.list.Warnf(r.Pos, fmt.Sprintf("take %s out of %s", s.Port, s.Bridge), "others than containers are on network %s: %s", name, consequence)
		return n, false
	}
	names := make([]string, len(c.inv.Networks))
	for i, n := range c.inv.Networks {
		names[i] = n.Name
	}
	hint := "`docker network ls` lists the networks"
	if near := diag.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("%s is meant?", near)
	}
	c.list.Warnf(r.Pos, hint, "Docker has no network %s with a bridge on this host: %s", name, consequence)
	return n, false
}

// nothing says what becomes of a rule one of whose networks isn't there.
func nothing(r policy.Rule) string {
	if len(r.Networks) > 1 {
		return "the rule matches nothing there"
	}
	return "the rule matches nothing"
}

// closedByDocker tells that a rule opens a network that Docker itself keeps closed.
func (c *checker) closedByDocker(r policy.Rule, n inventory.Network) {
	open := func(mode string) bool { return mode == "routed" || mode == "nat-unprotected" }
	if !open(n.Mode4) && !open(n.Mode6) {
		c.list.Warnf(r.Pos, "make the network with gateway mode routed or nat-unprotected",
			"network %s is not in gateway mode routed or nat-unprotected: Docker 28 and newer drop what is dialled to its containers' own addresses",
			n.Name)
	}
}

// published tells of rules on published ports that no port is published for.
func (c *checker) published(r policy.Rule) {
	if !slices.ContainsFunc(r.What, isPublished) || slices.ContainsFunc(c.inv.Published, func(p inventory.Published) bool { return selects(r, p) }) {
		return
	}
	if !c.inv.Docker.Reachable {
		c.list.Warnf(r.Pos, "apply again when Docker answers",
			"published ports are not known, since Docker doesn't answer%s: the rule opens none", because(c.inv.Docker.Problem))
		return
	}
	of := ""
	if len(r.Networks) > 0 {
		of = " on " + strings.Join(r.Networks, ", ")
	}
	c.list.Warnf(r.Pos, "apply again when a container publishes one", "no port is published now%s: the rule matches nothing", of)
}

// on tells of interfaces that aren't there, or that IP doesn't see.
func (c *checker) on(r policy.Rule, pattern string) {
	if len(c.inv.Interfaces) == 0 {
		return
	}
	var found []inventory.Interface
	names := make([]string, len(c.inv.Interfaces))
	for i, iface := range c.inv.Interfaces {
		names[i] = iface.Name
		if policy.MatchesInterface([]string{pattern}, iface.Name) {
			found = append(found, iface)
		}
	}
	if len(found) == 0 {
		hint := "`ip link` lists the interfaces"
		if near := diag.Nearest(pattern, names); near != "" {
			hint = fmt.Sprintf("%s is meant?", near)
		}
		c.list.Warnf(r.Pos, hint, "no interface is named %s: the rule matches nothing until there is one", pattern)
		return
	}
	for _, iface := range found {
		why, instead := c.hidden(iface)
		if why == "" {
			return
		}
		if iface.Name == pattern || iface.Name == found[len(found)-1].Name {
			c.list.Warnf(r.Pos, "name "+instead, "IP doesn't see %s, %s: the rule matches nothing on it", iface.Name, why)
		}
	}
}

// hidden tells why IP packets don't come in by an interface, and which one they come in by instead.
func (c *checker) hidden(i inventory.Interface) (why, instead string) {
	for _, o := range c.inv.Interfaces {
		if o.Name == i.Master && o.Kind != "vrf" {
			return fmt.Sprintf("it is a port of the %s %s", o.Kind, o.Name), o.Name
		}
		if o.Parent == i.Name && o.Kind == "vlan" && len(i.Addrs) == 0 {
			return fmt.Sprintf("it has no address and carries the VLAN %s", o.Name), o.Name
		}
	}
	return "", ""
}
