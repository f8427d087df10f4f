package lab

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"quaywall/internal/testkit/agent"
)

// image is the only one there is: one file, the lab's own program.
const image = "labhost:latest"

// DockerSocket is the path of the engine's API.
func (n *Node) DockerSocket() string {
	return filepath.Join(n.Dir, "d.sock")
}

// enginePath is the PATH of dockerd: an unpacked release first, then the wanted variant of iptables.
func (n *Node) enginePath(e Engine) (string, error) {
	dirs := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	variant := "nft"
	if e.Legacy {
		variant = "legacy"
	}
	tools := filepath.Join(n.lab.Dir, "iptables-"+variant)
	if err := linkIPTables(tools, variant); err != nil {
		return "", err
	}
	dirs = append([]string{tools}, dirs...)
	if e.Dir != "" {
		dirs = append([]string{e.Dir}, dirs...)
	}
	return strings.Join(dirs, ":"), nil
}

// linkIPTables makes a directory in which iptables is one variant, whatever the machine's alternatives say.
func linkIPTables(dir, variant string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			err := os.Symlink("/usr/sbin/"+family+"-"+variant+suffix, filepath.Join(dir, family+suffix))
			if err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// writeDaemonJSON writes the engine's configuration.
func (n *Node) writeDaemonJSON(e Engine) error {
	c := map[string]any{
		"hosts":          []string{"unix://" + n.DockerSocket()},
		"data-root":      filepath.Join(n.Dir, "data"),
		"exec-root":      filepath.Join(n.Dir, "exec"),
		"pidfile":        filepath.Join(n.Dir, "dockerd.pid"),
		"cgroup-parent":  "/" + n.lab.ID,
		"exec-opts":      []string{"native.cgroupdriver=cgroupfs"}, // no systemd in a node
		"userland-proxy": !e.NoProxy,
		"iptables":       !e.NoIPTables,
		"ip-forward":     !e.NoIPForward,
		"live-restore":   e.LiveRestore,
		"log-driver":     "none",
	}
	if e.IPv6 {
		c["ipv6"], c["fixed-cidr-v6"] = true, "2001:db8:d0c::/64"
	}
	if e.IP6Tables {
		c["ip6tables"], c["experimental"] = true, true
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, "daemon.json"), data, 0o600)
}

// Docker is a client of the host's engine.
func (n *Node) Docker() (*client.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.docker == nil {
		api, err := client.New(client.WithHost("unix://" + n.DockerSocket()))
		if err != nil {
			return nil, err
		}
		n.docker = api
	}
	return n.docker, nil
}

func (n *Node) closeDocker() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.docker != nil {
		_ = n.docker.Close()
	}
}

func (n *Node) importImage(ctx context.Context) error {
	layer, err := tarOf(n.lab.labhost, "labhost")
	if err != nil {
		return err
	}
	api, err := n.Docker()
	if err != nil {
		return err
	}
	answer, err := api.ImageImport(ctx, client.ImageImportSource{Source: layer, SourceName: "-"}, image, client.ImageImportOptions{})
	if err != nil {
		return fmt.Errorf("%s: importing the image: %w", n.Name, err)
	}
	text, err := io.ReadAll(answer)
	if err = errors.Join(err, answer.Close()); err != nil || bytes.Contains(text, []byte(`"error"`)) {
		return fmt.Errorf("%s: importing the image: %w: %s", n.Name, err, text)
	}
	return nil
}

func tarOf(path, name string) (io.Reader, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	return &buf, w.Close()
}

// Container is a container to run. Its only program serves, and does for the test what any node does.
type Container struct {
	Name     string
	Serve    []string // "80/tcp", "53/udp"
	Publish  []string // as with -p: "8080:80", "127.0.0.1:8080:80/udp", "[::1]:8080:80", "80" for any host port
	Networks []string // the first is the one it starts in; none: docker0. "host" and "none" too
	IP       string   // a fixed address in the first network
	Labels   map[string]string
	Sysctls  map[string]string
	Always   bool // starts again by itself with its engine
}

// Run starts a container and gives it back as a node once its servers listen.
func (n *Node) Run(ctx context.Context, c Container) (*Node, error) {
	node := n.lab.newNode(n.Name + "." + c.Name)
	node.host = n
	if err := os.MkdirAll(node.Dir, 0o755); err != nil {
		return nil, err
	}
	options, err := c.options(node)
	if err != nil {
		return nil, err
	}
	api, err := n.Docker()
	if err != nil {
		return nil, err
	}
	created, err := api.ContainerCreate(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("%s: container %s: %w", n.Name, c.Name, err)
	}
	node.id = created.ID
	for _, name := range c.Networks[min(1, len(c.Networks)):] {
		if _, err := api.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: created.ID}); err != nil {
			return nil, fmt.Errorf("%s: container %s: %w", n.Name, c.Name, err)
		}
	}
	return node, node.StartContainer(ctx)
}

func (c Container) options(node *Node) (client.ContainerCreateOptions, error) {
	ports, exposed, err := c.ports()
	if err != nil {
		return client.ContainerCreateOptions{}, err
	}
	options := client.ContainerCreateOptions{
		Name: c.Name,
		Config: &container.Config{Image: image, Labels: c.Labels, ExposedPorts: exposed,
			Entrypoint: append([]string{"/labhost", "serve", c.Name, "/lab/s"}, c.Serve...)},
		HostConfig: &container.HostConfig{Binds: []string{node.Dir + ":/lab"}, PortBindings: ports, Sysctls: c.Sysctls},
	}
	if c.Always {
		options.HostConfig.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
	}
	if len(c.Networks) == 0 {
		return options, nil
	}
	options.HostConfig.NetworkMode = container.NetworkMode(c.Networks[0])
	if c.IP == "" {
		return options, nil
	}
	addr, err := netip.ParseAddr(c.IP)
	if err != nil {
		return options, err
	}
	ipam := &network.EndpointIPAMConfig{IPv4Address: addr}
	if addr.Is6() {
		ipam = &network.EndpointIPAMConfig{IPv6Address: addr}
	}
	options.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		c.Networks[0]: {IPAMConfig: ipam}}}
	return options, nil
}

// ports reads Publish. Ranges are written out by the test.
func (c Container) ports() (network.PortMap, network.PortSet, error) {
	ports, exposed := network.PortMap{}, network.PortSet{}
	for _, text := range c.Publish {
		host, inner := "", text
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			host, inner = text[:i], text[i+1:]
		}
		port, err := network.ParsePort(inner)
		if err != nil {
			return nil, nil, fmt.Errorf("port %q: %w", text, err)
		}
		binding := network.PortBinding{HostPort: host}
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			binding.HostPort = host[i+1:]
			if binding.HostIP, err = netip.ParseAddr(strings.Trim(host[:i], "[]")); err != nil {
				return nil, nil, fmt.Errorf("port %q: %w", text, err)
			}
		}
		ports[port] = append(ports[port], binding)
		exposed[port] = struct{}{}
	}
	return ports, exposed, nil
}

// StartContainer starts a container that was stopped, and waits until its servers listen.
func (n *Node) StartContainer(ctx context.Context) error {
	api, err := n.host.Docker()
	if err != nil {
		return err
	}
	if _, err := api.ContainerStart(ctx, n.id, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("%s: starting: %w", n.Name, err)
	}
	err = waitFor(ctx, startTimeout, func(ctx context.Context) error {
		_, err := n.Seen(ctx, agent.Seen{})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: its servers don't listen: %w", n.Name, err)
	}
	return nil
}

// StopContainer stops a container, as `docker stop` does.
func (n *Node) StopContainer(ctx context.Context) error {
	api, err := n.host.Docker()
	if err != nil {
		return err
	}
	_, err = api.ContainerStop(ctx, n.id, client.ContainerStopOptions{})
	return err
}

// RemoveContainer stops and removes a container, as `docker rm -f` does.
func (n *Node) RemoveContainer(ctx context.Context) error {
	api, err := n.host.Docker()
	if err != nil {
		return err
	}
	_, err = api.ContainerRemove(ctx, n.id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	return err
}

// Addr is a container's own address in a network; "" is the first in the order of names. The zero value: it has none.
func (n *Node) Addr(ctx context.Context, networkName string, v6 bool) (netip.Addr, error) {
	api, err := n.host.Docker()
	if err != nil {
		return netip.Addr{}, err
	}
	info, err := api.ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		return netip.Addr{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(info.Container.NetworkSettings.Networks)) {
		if networkName != "" && name != networkName {
			continue
		}
		if v6 {
			return info.Container.NetworkSettings.Networks[name].GlobalIPv6Address, nil
		}
		return info.Container.NetworkSettings.Networks[name].IPAddress, nil
	}
	return netip.Addr{}, fmt.Errorf("%s is in no network %q", n.Name, networkName)
}

// Network is a Docker network to make.
type Network struct {
	Name     string
	Driver   string   // "": bridge
	Subnets  []string // none: Docker chooses. With an IPv6 one, the network has IPv6
	NoIPv4   bool     // IPv6 alone; engines before 28 take no notice
	Internal bool
	Options  map[string]string // of the driver
}

// AddNetwork makes a Docker network.
func (n *Node) AddNetwork(ctx context.Context, spec Network) error {
	options := client.NetworkCreateOptions{Driver: cmp.Or(spec.Driver, "bridge"), Internal: spec.Internal, Options: spec.Options}
	if spec.NoIPv4 {
		options.EnableIPv4 = new(bool)
	}
	for _, text := range spec.Subnets {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		if options.IPAM == nil {
			options.IPAM = &network.IPAM{}
		}
		options.IPAM.Config = append(options.IPAM.Config, network.IPAMConfig{Subnet: prefix})
		if prefix.Addr().Is6() {
			yes := true
			options.EnableIPv6 = &yes
		}
	}
	api, err := n.Docker()
	if err != nil {
		return err
	}
	_, err = api.NetworkCreate(ctx, spec.Name, options)
	return err
}

// RemoveNetwork removes a Docker network.
func (n *Node) RemoveNetwork(ctx context.Context, name string) error {
	api, err := n.Docker()
	if err != nil {
		return err
	}
	_, err = api.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	return err
}
