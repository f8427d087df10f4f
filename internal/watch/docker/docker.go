// Package docker asks a Docker engine for its networks and published ports.
//
//	answer := docker.List(ctx, "")            // by Docker's own rules: DOCKER_HOST, contexts, the default socket
//	networks, published := answer.In(links)   // of these, what is in this network namespace
//	err := docker.Watch(ctx, "", func() { … }) // a hint for each event that may change the answer
//
// Be aware: that an engine is absent, closed to us or hung is normal, and no error: Docker.Reachable is false and
// Docker.Problem says why. Nothing is opened before List is called, and nothing stays open after it. Where only systemd
// listens on the socket, for a dockerd that does not run, it isn't asked: that would start it. Bridge and gateway names
// are the engine's; a network of another driver has no bridge here and is left out, or Unseen (macvlan, ipvlan).
package docker

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

// Answer is what an engine said, whichever network namespace it lives in.
type Answer struct {
	Docker    inventory.Docker
	Local     bool // it came through a Unix socket: the engine is one of this host, in whichever namespace
	Networks  []inventory.Network
	Published []inventory.Published
	Unseen    []inventory.Unseen
	Addrs     map[string][]netip.Addr // of each running container by its name, sorted
}

// List asks the engine at host, "" for Docker's own rules, and takes two seconds at most.
func List(ctx context.Context, host string) Answer {
	at, err := FindEndpoint(host)
	if err != nil {
		return Answer{Docker: inventory.Docker{Problem: err.Error()}}
	}
	if sleeping(at) {
		return Answer{Docker: inventory.Docker{Problem: problemSleeping(at)}}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := list(ctx, at)
	if err != nil {
		return Answer{Docker: inventory.Docker{Problem: problem(at, err)}}
	}
	return answer
}

func list(ctx context.Context, at Endpoint) (Answer, error) {
	e, err := connect(ctx, at)
	if err != nil {
		return Answer{}, err
	}
	defer e.close()
	var networks []network
	var containers []container
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { networks, err = get[network](ctx, e, "/networks"); return err })
	group.Go(func() (err error) { containers, err = get[container](ctx, e, "/containers/json"); return err })
	if err := group.Wait(); err != nil {
		return Answer{}, err
	}
	return Answer{
		Docker: inventory.Docker{Reachable: true, Version: e.version}, Local: strings.HasPrefix(at.Host, "unix://"),
		Networks: bridgeNetworks(networks), Published: published(containers), Unseen: unseenNetworks(networks),
		Addrs: addresses(containers),
	}, nil
}

// network is what is needed of GET /networks.
type network struct {
	Name, ID, Driver string // the API writes "Id", which encoding/json takes for ID
	Internal         bool
	ConfigOnly       bool
	IPAM             struct{ Config []struct{ Subnet string } }
	Options          map[string]string
}

// Options of networks. See https://docs.docker.com/engine/network/drivers/.
const (
	optParent = "parent"
	optBridge = "com.docker.network.bridge.name"
	optMode4  = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6  = "com.docker.network.bridge.gateway_mode_ipv6"
	optMasq   = "com.docker.network.bridge.enable_ip_masquerade"
)

func bridgeNetworks(networks []network) []inventory.Network {
	var all []inventory.Network
	for _, n := range networks {
		if n.Driver != "bridge" || n.ConfigOnly {
			continue
		}
		all = append(all, inventory.Network{
			Name: n.Name, ID: n.ID, Bridge: n.bridge(), Subnets: n.subnets(), Internal: n.Internal,
			NoMasquerade: n.Options[optMasq] == "false", Mode4: n.Options[optMode4], Mode6: n.Options[optMode6],
		})
	}
	slices.SortFunc(all, func(a, b inventory.Network) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// unseenNetworks leaves out those without a parent: nothing but their own containers is on them.
func unseenNetworks(networks []network) []inventory.Unseen {
	var all []inventory.Unseen
	for _, n := range networks {
		if (n.Driver == "macvlan" || n.Driver == "ipvlan") && n.Options[optParent] != "" {
			all = append(all, inventory.Unseen{Name: n.Name, Driver: n.Driver, Parent: n.Options[optParent]})
		}
	}
	slices.SortFunc(all, func(a, b inventory.Unseen) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (n network) bridge() string {
	switch name := n.Options[optBridge]; {
	case name != "":
		return name
	case n.Name == "bridge":
		return "docker0"
	}
	return "br-" + n.ID[:min(12, len(n.ID))]
}

func (n network) subnets() []netip.Prefix {
	var all []netip.Prefix
	for _, c := range n.IPAM.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

// container is what is needed of GET /containers/json, which lists the running ones.
type container struct {
	Names           []string
	Ports           []publishedPort
	NetworkSettings struct{ Networks map[string]addrs }
}

type publishedPort struct {
	IP                      string // absent for a port that isn't published
	PrivatePort, PublicPort uint16
	Type                    string
}

type addrs struct{ IPAddress, GlobalIPv6Address string } // "" where there is none

func addresses(containers []container) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	for _, c := range containers {
		for _, n := range c.NetworkSettings.Networks {
			for _, text := range []string{n.IPAddress, n.GlobalIPv6Address} {
				if a, err := netip.ParseAddr(text); err == nil {
					all[c.name()] = append(all[c.name()], a)
				}
			}
		}
		slices.SortFunc(all[c.name()], netip.Addr.Compare)
	}
	return all
}

var protocols = map[string]uint8{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP}

func published(containers []container) []inventory.Published {
	var all []inventory.Published
	for _, c := range containers {
		networks := make([]string, 0, len(c.NetworkSettings.Networks))
		for name := range c.NetworkSettings.Networks {
			networks = append(networks, name)
		}
		slices.Sort(networks)
		for _, p := range c.Ports {
			for _, addr := range hostAddrs(p.IP) {
				if p.PublicPort == 0 || protocols[p.Type] == 0 {
					continue
				}
				all = append(all, inventory.Published{Addr: addr, Proto: protocols[p.Type], Port: p.PublicPort,
					Container: c.name(), Networks: networks, Target: p.PrivatePort})
			}
		}
	}
	slices.SortFunc(all, comparePublished)
	return all
}

// hostAddrs reads the host address of a published port. Without one it is published on all of them.
func hostAddrs(ip string) []netip.Addr {
	if addr, err := netip.ParseAddr(ip); err == nil {
		return []netip.Addr{addr.Unmap().WithZone("")}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

func comparePublished(a, b inventory.Published) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), a.Addr.Compare(b.Addr),
		cmp.Compare(a.Container, b.Container))
}

// name is the container's own; links of other containers add names with two slashes.
func (c container) name() string {
	for _, n := range c.Names {
		if own := strings.TrimPrefix(n, "/"); !strings.Contains(own, "/") {
			return own
		}
	}
	return ""
}

// In gives what of the answer belongs to the network namespace that has these interfaces. The engine may live in
// another one, its socket shared with this: a network counts if its bridge is here and has no foreign addresses, a
// published port if its container is in such a network.
func (a Answer) In(links []inventory.Interface) ([]inventory.Network, []inventory.Published) {
	var networks []inventory.Network
	here := make(map[string]bool)
	for _, n := range a.Networks {
		if slices.ContainsFunc(links, func(l inventory.Interface) bool { return isBridgeOf(l, n) }) {
			networks = append(networks, n)
			here[n.Name] = true
		}
	}
	var published []inventory.Published
	for _, p := range a.Published {
		if slices.ContainsFunc(p.Networks, func(name string) bool { return here[name] }) {
			published = append(published, p)
		}
	}
	return networks, published
}

// UnseenIn is In for networks without a bridge: they count if the interface that they are on is here.
func (a Answer) UnseenIn(links []inventory.Interface) []inventory.Unseen {
	var all []inventory.Unseen
	for _, n := range a.Unseen {
		if slices.ContainsFunc(links, func(l inventory.Interface) bool { return l.Name == n.Parent }) {
			all = append(all, n)
		}
	}
	return all
}

// isBridgeOf tells whether an interface is the bridge of a network. One without addresses may be: isolated networks
// give their bridge none.
func isBridgeOf(l inventory.Interface, n inventory.Network) bool {
	if l.Name != n.Bridge || l.Kind != "bridge" {
		return false
	}
	foreign := false
	for _, a := range l.Addrs {
		if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(a.Addr()) }) {
			return true
		}
		foreign = foreign || !a.Addr().IsLinkLocalUnicast()
	}
	return !foreign
}
