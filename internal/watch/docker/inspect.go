package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/snapshot"
)

// Inspection is what "docker network inspect", "docker inspect" and "docker version" print, in JSON: of the running
// containers, and of all that they say what concerns packets. Environments, command lines and labels are left out.
type Inspection struct {
	Networks, Containers, Version []byte
}

// Inspect asks the engine at host, as List does. It wrote nothing where the answer is not reachable.
func Inspect(ctx context.Context, host string) (Inspection, inventory.Docker) {
	at, err := FindEndpoint(host)
	if err != nil {
		return Inspection{}, inventory.Docker{Problem: err.Error()}
	}
	if sleeping(at) {
		return Inspection{}, inventory.Docker{Problem: problemSleeping(at)}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	in, version, err := inspect(ctx, at)
	if err != nil {
		return Inspection{}, inventory.Docker{Problem: problem(at, err)}
	}
	return in, inventory.Docker{Reachable: true, Version: version}
}

func inspect(ctx context.Context, at Endpoint) (Inspection, string, error) {
	e, err := connect(ctx, at)
	if err != nil {
		return Inspection{}, "", err
	}
	defer e.close()
	var networks []inspectedNetwork
	var containers []listed
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { networks, err = get[inspectedNetwork](ctx, e, "/networks"); return err })
	group.Go(func() (err error) { containers, err = get[listed](ctx, e, "/containers/json"); return err })
	if err := group.Wait(); err != nil {
		return Inspection{}, "", err
	}
	inspected := make([]inspected, len(containers))
	for i, c := range containers {
		inspected[i] = c.inspected()
	}
	return Inspection{Networks: indented(networks), Containers: indented(inspected), Version: indented(versions{Server: server{e.version}})}, e.version, nil
}

func indented(v any) []byte {
	text, _ := json.MarshalIndent(v, "", " ") // maps, lists, numbers and strings alone
	return append(text, '\n')
}

// inspectedNetwork is what is told of a network; network is what of that counts.
type inspectedNetwork struct {
	Name       string
	ID         string `json:"Id"`
	Scope      string
	Driver     string
	EnableIPv6 bool
	Internal   bool
	ConfigOnly bool
	IPAM       struct {
		Driver string
		Config []struct{ Subnet, IPRange, Gateway string }
	}
	Options map[string]string
}

type versions struct{ Server server }
type server struct{ Version string }

// inspected is what is needed of "docker inspect".
type inspected struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Running *bool `json:",omitempty"`
	}
	HostConfig struct{ NetworkMode string }
	Config     struct {
		ExposedPorts map[string]struct{}
	}
	NetworkSettings struct {
		Ports    map[string][]binding // by "80/tcp"
		Networks map[string]place
	}
}

type binding struct{ HostIp, HostPort string } //nolint:revive // the API's names

type place struct {
	IPAddress, GlobalIPv6Address, MacAddress string
	Gateway, IPv6Gateway                     *string `json:",omitempty"` // nil where they aren't told
}

// listed is what is needed of GET /containers/json for an inspected container.
type listed struct {
	container
	ID         string
	HostConfig struct{ NetworkMode string }
	// The same as in container, with more in it.
	NetworkSettings struct{ Networks map[string]place }
}

func (l listed) inspected() inspected {
	var c inspected
	running := true
	c.ID, c.Name, c.State.Running, c.HostConfig.NetworkMode = l.ID, "/"+l.name(), &running, l.HostConfig.NetworkMode
	c.NetworkSettings.Networks = l.NetworkSettings.Networks
	c.Config.ExposedPorts = map[string]struct{}{}
	c.NetworkSettings.Ports = map[string][]binding{}
	for _, p := range l.Ports {
		port := strconv.Itoa(int(p.PrivatePort)) + "/" + p.Type
		c.Config.ExposedPorts[port] = struct{}{}
		if p.PublicPort != 0 {
			c.NetworkSettings.Ports[port] = append(c.NetworkSettings.Ports[port], binding{p.IP, strconv.Itoa(int(p.PublicPort))})
		}
	}
	return c
}

// Files are the names of the texts of an Inspection, for the positions of problems.
type Files struct{ Networks, Containers, Version string }

// Read is what an Inspection says. Parts that are empty say nothing: without networks the engine counts as not reachable.
func (in Inspection) Read(names Files) (Answer, []snapshot.Container, diag.List) {
	networks, problems := hostfiles.List[network](string(in.Networks), names.Networks)
	all, more := hostfiles.List[inspected](string(in.Containers), names.Containers)
	problems = append(problems, more...)
	var version versions
	if len(in.Version) > 0 {
		if err := json.Unmarshal(in.Version, &version); err != nil {
			problems.Warnf(diag.Pos{File: names.Version}, "", "the version of Docker can't be read: %v", err)
		}
	}
	var running []container
	var typed []snapshot.Container
	for _, c := range all {
		if c.State.Running != nil && !*c.State.Running {
			continue
		}
		running = append(running, c.container())
		typed = append(typed, c.typed())
	}
	slices.SortStableFunc(typed, func(a, b snapshot.Container) int { return cmp.Compare(a.Name, b.Name) })
	return Answer{
		Docker: inventory.Docker{Reachable: len(networks) > 0, Version: version.Server.Version}, Local: true,
		Networks: bridgeNetworks(networks), Published: published(running), Unseen: unseenNetworks(networks), Addrs: addresses(running),
	}, typed, problems
}

// container is the same in the form of GET /containers/json.
func (c inspected) container() container {
	l := container{Names: []string{c.Name}}
	l.NetworkSettings.Networks = map[string]addrs{}
	for name, p := range c.NetworkSettings.Networks {
		l.NetworkSettings.Networks[name] = addrs{p.IPAddress, p.GlobalIPv6Address}
	}
	for port, bindings := range c.NetworkSettings.Ports {
		proto, number, ok := parsePort(port)
		for _, b := range bindings {
			public, err := strconv.ParseUint(b.HostPort, 10, 16)
			if ok && err == nil {
				l.Ports = append(l.Ports, publishedPort{IP: b.HostIp, PrivatePort: number, PublicPort: uint16(public), Type: proto})
			}
		}
	}
	return l
}

// parsePort reads "80/tcp".
func parsePort(text string) (proto string, port uint16, ok bool) {
	number, proto, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	return proto, uint16(n), err == nil && protocols[proto] != 0
}

func (c inspected) typed() snapshot.Container {
	typed := snapshot.Container{Name: strings.TrimPrefix(c.Name, "/"), ID: c.ID, Mode: c.HostConfig.NetworkMode}
	for name, p := range c.NetworkSettings.Networks {
		e := snapshot.Endpoint{Network: name, MAC: p.MacAddress}
		for _, text := range []string{p.IPAddress, p.GlobalIPv6Address} {
			if a, err := netip.ParseAddr(text); err == nil {
				e.Addrs = append(e.Addrs, a)
			}
		}
		if p.Gateway != nil {
			e.Gateways = []netip.Addr{}
		}
		for _, text := range []*string{p.Gateway, p.IPv6Gateway} {
			if text == nil {
				continue
			}
			if a, err := netip.ParseAddr(*text); err == nil {
				e.Gateways = append(e.Gateways, a)
			}
		}
		typed.Networks = append(typed.Networks, e)
	}
	slices.SortFunc(typed.Networks, func(a, b snapshot.Endpoint) int { return cmp.Compare(a.Network, b.Network) })
	for text := range c.Config.ExposedPorts {
		if proto, port, ok := parsePort(text); ok {
			typed.Exposed = append(typed.Exposed, snapshot.Port{Proto: protocols[proto], Port: port})
		}
	}
	slices.SortFunc(typed.Exposed, func(a, b snapshot.Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
	return typed
}

// PID is the process of a running container, by its name or id: its namespaces are those of the container.
func PID(ctx context.Context, host, container string) (int, error) {
	at, err := FindEndpoint(host)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e, err := connect(ctx, at)
	if err != nil {
		return 0, err
	}
	defer e.close()
	return e.pid(ctx, container)
}
