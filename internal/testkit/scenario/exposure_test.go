package scenario

import (
	"net/netip"
	"strings"
	"testing"

	"quaywall/internal/testkit/lab"
)

const loopback = "a loopback address is dialled from another interface"

// TestTrap05IPv6Twin: a port is closed or open in both families, also where the container's network has IPv4 alone and
// docker-proxy serves IPv6 through INPUT.
func TestTrap05IPv6Twin(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.try(open(w.outside, "[2001:db8:1::1]:8081", "web", "docker-proxy"))
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
		for _, a := range []string{"203.0.113.1", "[2001:db8:1::1]"} {
			w.check(open(w.outside, a+":8080", "web", "policy.yaml:3"), denied(w.outside, a+":8081", "default"))
		}
	})
}

// TestTrap06NoIPv6Rules: Docker 20.10 has no DOCKER-USER for IPv6, and by default no IPv6 rules at all; with
// ip6tables it has some. Nothing breaks either way.
func TestTrap06NoIPv6Rules(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		for name, e := range map[string]lab.Engine{"no ip6tables": {IPv6: true}, "ip6tables": {IPv6: true, IP6Tables: true}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := oneHost(t, v, e)
				web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
				w.mark()
				if text := w.found.Sections[1].Text + w.found.Sections[3].Text; w.major() == 20 && strings.Contains(text, "DOCKER-USER") {
					t.Errorf("Docker has made a DOCKER-USER for IPv6, so this proves nothing:\n%s", text)
				}
				w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
				w.check(open(w.outside, "[2001:db8:1::1]:8080", "web", "policy.yaml:3"), open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"))
				if e.IP6Tables {
					w.check(open(web, "["+lab.OutsideAddr6+"]:80", "outside", "default"))
				}
				w.stop()
			})
		}
	})
}

// TestTrap07DialledPort: a rule means the port that the client dials, whatever the container's is.
func TestTrap07DialledPort(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e, "9000/tcp")
		w.run(lab.Container{Name: "aa", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		w.run(lab.Container{Name: "bb", Publish: []string{"80:9000"}, Serve: []string{"9000/tcp"}})
		w.mark()
		servers := map[string]string{"80": "bb", "8080": "aa", "9000": "host"}
		for allowed := range servers {
			w.apply(lines("version: 1", "inbound:", "  - allow: "+allowed))
			var rows []lab.Row
			for port, server := range servers {
				for _, addr := range families(e) {
					if port == allowed {
						rows = append(rows, open(w.outside, addr+":"+port, server, "policy.yaml:3"))
					} else {
						rows = append(rows, denied(w.outside, addr+":"+port, "default"))
					}
				}
			}
			w.check(rows...)
		}
	})
}

// families are the host's addresses as a row writes them before a port: without docker-proxy nothing serves IPv6.
func families(e lab.Engine) []string {
	if e.NoProxy {
		return []string{lab.HostWAN4}
	}
	return []string{lab.HostWAN4, "[" + lab.HostWAN6 + "]"}
}

// TestTrap08OneInnerPort: two containers with one inner port, different sources for each.
func TestTrap08OneInnerPort(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e)
		w.run(lab.Container{Name: "aa", Publish: []string{"8001:80"}, Serve: []string{"80/tcp"}})
		w.run(lab.Container{Name: "bb", Publish: []string{"8002:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8001", "    from: 203.0.113.2", "  - allow: 8002", "    from: 203.0.113.3"))
		w.check(open(w.outside, "203.0.113.1:8001", "aa", "policy.yaml:3"), denied(w.outside, "203.0.113.1:8002", "default"),
			denied(w.neighbour, "203.0.113.1:8001", "default"), open(w.neighbour, "203.0.113.1:8002", "bb", "policy.yaml:5"))
	})
}

// TestTrap09InheritedAddress: a container that gets the address of one that ended inherits nothing.
func TestTrap09InheritedAddress(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		a := w.run(lab.Container{Name: "aa", Publish: []string{"8001:80"}, Serve: []string{"80/tcp"}})
		was, err := a.Addr(t.Context(), "", false)
		if err != nil {
			t.Fatal(err)
		}
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8001"))
		w.check(open(w.outside, "203.0.113.1:8001", "aa", "policy.yaml:3"))
		if err := a.RemoveContainer(t.Context()); err != nil {
			t.Fatal(err)
		}
		b := w.run(lab.Container{Name: "bb", Publish: []string{"8002:80"}, Serve: []string{"80/tcp"}})
		if is, err := b.Addr(t.Context(), "", false); err != nil || is != was {
			t.Fatalf("the second container has %v, the first had %v (%v): nothing is proved", is, was, err)
		}
		w.check(denied(w.outside, "203.0.113.1:8002", "default"), denied(w.neighbour, was.String()+":80", direct))
	})
}

// TestTrap10NewInterfaces: interfaces that come or change their name after apply are outside.
func TestTrap10NewInterfaces(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "25/tcp")
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
		for node, addrs := range map[*lab.Node][]string{w.host: {"10.99.0.1/24", "fd99::1/64"}, w.outside: {"10.99.0.2/24", "fd99::2/64"}} {
			if err := node.Plug(lab.NewLink("vpn", "wg0", addrs...)); err != nil {
				t.Fatal(err)
			}
		}
		var rows []lab.Row
		for _, addr := range []string{"10.99.0.1", "[fd99::1]"} {
			rows = append(rows, open(w.outside, addr+":8080", "web", "policy.yaml:3"), denied(w.outside, addr+":8081", "default"),
				denied(w.outside, addr+":25", "default"))
		}
		w.check(rows...)
		w.host.MustExec(t, "ip", "link", "set", "eth1", "down")
		w.host.MustExec(t, "ip", "link", "set", "eth1", "name", "br-lan")
		w.host.MustExec(t, "ip", "link", "set", "br-lan", "up")
		w.lab.Check(t, []lab.Row{open(w.lan, "192.168.50.1:8080", "web", "renamed"), denied(w.lan, "192.168.50.1:8081", "renamed"),
			denied(w.lan, "192.168.50.1:25", "renamed")})
	})
}

// TestTrap11StrangePrefixes: container networks on public, carrier and private prefixes; a private source address from
// outside is not trusted for being private.
func TestTrap11StrangePrefixes(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		for i, subnet := range []string{"198.51.100.0/24", "100.64.7.0/24", "192.168.77.0/24"} {
			name := "net" + string(rune('a'+i))
			w.network(lab.Network{Name: name, Subnets: []string{subnet}})
			w.run(lab.Container{Name: name, Networks: []string{name}, IP: netip.MustParsePrefix(subnet).Addr().Next().Next().String(),
				Publish: []string{"808" + string(rune('0'+i)) + ":80"}, Serve: []string{"80/tcp"}})
		}
		for _, to := range []string{"198.51.100.0/24", "100.64.7.0/24"} {
			w.neighbour.MustExec(t, "ip", "route", "add", to, "via", lab.HostWAN4)
		}
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
		w.neighbour.MustExec(t, "ip", "addr", "add", "10.1.2.3/32", "dev", "eth0")
		w.host.MustExec(t, "ip", "route", "add", "10.1.2.3/32", "via", lab.NeighbourAddr4)
		private := denied(w.neighbour, "203.0.113.1:8081", "default")
		private.Source = "10.1.2.3"
		w.check(open(w.outside, "203.0.113.1:8080", "neta", "policy.yaml:3"), denied(w.outside, "203.0.113.1:8081", "default"),
			denied(w.outside, "203.0.113.1:8082", "default"), denied(w.neighbour, "198.51.100.2:80", direct),
			denied(w.neighbour, "100.64.7.2:80", direct), denied(w.neighbour, "192.168.77.2:80", direct), private)
	})
}

// TestTrap12Neighbour: a machine on the link routes Docker's subnets and 127.0.0.1 through the host. Trap40 is its part
// about 127.0.0.1.
func TestTrap12Neighbour(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e)
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "127.0.0.1:8081:81"}, Serve: []string{"80/tcp", "81/tcp", "82/tcp", "83/udp"}})
		w.mark()
		w.leaks(open(w.neighbour, "172.17.0.2:80", "web", "routed"), open(w.neighbour, "172.17.0.2:81", "web", "routed"))
		w.apply(lines("version: 1", "inbound:", "  - allow: [8080, 80, 81]"))
		w.check(open(w.neighbour, "203.0.113.1:8080", "web", "policy.yaml:3"), denied(w.neighbour, "172.17.0.2:80", direct),
			denied(w.neighbour, "172.17.0.2:81", direct), denied(w.neighbour, "172.17.0.2:82", direct))
		w.check(by("udp", denied(w.neighbour, "172.17.0.2:83", direct))...)
		w.check(by("icmp", denied(w.neighbour, "172.17.0.2", direct))...)
	})
}

// TestTrap40LoopbackFromOutside: ports published on 127.0.0.1 answer a neighbour that routes 127.0.0.1 through the host.
func TestTrap40LoopbackFromOutside(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e)
		w.run(lab.Container{Name: "web", Publish: []string{"127.0.0.1:8081:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.leaks(open(w.neighbour, "127.0.0.1:8081", "web", "DNAT comes before the martian check"))
		w.apply(lines("version: 1", "inbound:", "  - allow: any"))
		w.check(denied(w.neighbour, "127.0.0.1:8081", loopback), open(w.host, "127.0.0.1:8081", "web", within))
	})
}

// TestTrap39LinkLocalSource: Docker's IPv6 DNAT skips fe80::/10, and docker-proxy serves such a neighbour.
func TestTrap39LinkLocalSource(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		at := linkLocal(w, w.host)
		w.try(open(w.neighbour, at+":8081", "web", "docker-proxy"))
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080", `    from: "fe80::/10"`))
		w.lab.Check(t, []lab.Row{open(w.neighbour, at+":8080", "web", "policy.yaml:3"), denied(w.neighbour, at+":8081", "default")})
	})
}

// linkLocal is the link-local address of a node's eth0, as a neighbour writes it before a port.
func linkLocal(w *world, n *lab.Node) string {
	w.Helper()
	for _, field := range strings.Fields(n.MustExec(w.T, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "link")) {
		if prefix, err := netip.ParsePrefix(field); err == nil {
			return "[" + prefix.Addr().String() + "%eth0]"
		}
	}
	w.Fatal("eth0 has no link-local address")
	return ""
}

// TestTrap41WeakHost: a port published on one host address answers on another interface for that address, so `to` and
// `on` are both checked.
func TestTrap41WeakHost(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e)
		w.run(lab.Container{Name: "web", Publish: []string{"192.168.50.1:8080:80", "8081:80", "8082:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.try(open(w.outside, "192.168.50.1:8080", "web", "weak host model"))
		w.apply(lines(
			"version: 1",
			"inbound:",
			"  - allow: 8080", // 3
			"    on: eth1",
			"  - allow: 8081", // 5
			"    to: 192.168.50.1",
			"  - allow: 8082", // 7
			"    to: 192.168.50.1",
			"    on: eth*"))
		w.check(open(w.lan, "192.168.50.1:8080", "web", "policy.yaml:3"), denied(w.outside, "192.168.50.1:8080", "default"),
			open(w.outside, "192.168.50.1:8081", "web", "policy.yaml:5"), denied(w.outside, "203.0.113.1:8081", "default"),
			open(w.outside, "192.168.50.1:8082", "web", "policy.yaml:7"), denied(w.lan, "203.0.113.1:8082", "default"))
	})
}

// TestTrap42LostNAT: after somebody flushed NAT, published ports go on through docker-proxy and INPUT.
func TestTrap42LostNAT(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
		w.host.MustExec(t, "iptables", "-t", "nat", "-F")
		proxied := open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3")
		proxied.SeenAs = "172.17.0.1"
		w.check(proxied, denied(w.outside, "203.0.113.1:8081", "default"))
	})
}

// TestTrap43HostFromContainers: a container reaches every service of the host; egress can close that.
func TestTrap43HostFromContainers(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "53/udp", "9100/tcp")
		w.network(lab.Network{Name: "inner", Subnets: []string{"172.30.0.0/24"}, Internal: true})
		web := w.run(lab.Container{Name: "web"})
		inner := w.run(lab.Container{Name: "inner", Networks: []string{"inner"}, IP: "172.30.0.9"})
		w.mark()
		w.apply(lines("version: 1", "inbound: []"))
		w.check(open(web, "172.17.0.1:9100", "host", "default"), open(web, "203.0.113.1:22", "host", "default"),
			open(inner, "172.30.0.1:9100", "host", "default"))
		w.apply(lines("version: 1", "egress:", "  - allow: 53/udp", "    to: host", "  - deny: any", "    to: host"))
		w.check(denied(web, "172.17.0.1:9100", "policy.yaml:5"), denied(web, "203.0.113.1:22", "policy.yaml:5"),
			denied(inner, "172.30.0.1:9100", "policy.yaml:5"), open(web, lab.OutsideAddr4+":80", "outside", "default"))
		w.check(by("udp", open(web, "172.17.0.1:53", "host", "policy.yaml:3"))...)
	})
}

// TestTrap44NewIPv6Network: without ip6tables every port of every container of an IPv6 network is open by its own
// address, unless somebody else sees to it. A network that is made after apply has a bridge that quaywall can't know.
func TestTrap44NewIPv6Network(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{Args: []string{"--ip6tables=false"}})
		w.host.MustExec(t, "sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
		w.network(lab.Network{Name: "six", Subnets: []string{"172.30.0.0/24", "fd30::/64"}})
		web := w.run(lab.Container{Name: "web", Networks: []string{"six"}, Serve: []string{"80/tcp", "81/udp"}})
		addr, err := web.Addr(t.Context(), "six", true)
		if err != nil || !addr.IsValid() {
			t.Fatal(addr, err)
		}
		w.mark()
		to := "[" + addr.String() + "]:80"
		w.try(open(w.neighbour, to, "web", "no ip6tables"))
		w.apply(lines("version: 1", "inbound:", "  - allow: 80"))
		w.check(denied(w.neighbour, to, direct))
	})
}

// TestTrap45OpenedNetwork: networks that are reached by container address on purpose have to be opened by the policy. From
// Docker 28 on there are modes for them; before, a FORWARD that accepts is what they mean.
func TestTrap45OpenedNetwork(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		modes := map[string]string{"nat-unprotected": "172.30.0", "routed": "172.31.0"}
		if w.major() < 28 {
			w.host.MustExec(t, "iptables", "-P", "FORWARD", "ACCEPT")
		}
		for mode, net := range modes {
			network := lab.Network{Name: mode, Subnets: []string{net + ".0/24"}}
			if w.major() >= 28 {
				network.Options = map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": mode}
			}
			w.network(network)
			w.run(lab.Container{Name: mode, Networks: []string{mode}, IP: net + ".9", Publish: []string{"80"}, Serve: []string{"80/tcp", "81/tcp"}})
		}
		w.run(lab.Container{Name: "other", Serve: []string{"80/tcp"}})
		w.mark()
		for mode, net := range modes {
			w.try(open(w.neighbour, net+".9:80", mode, "on purpose"))
		}
		w.apply(lines("version: 1", "inbound:", "  - allow: 80"))
		w.check(denied(w.neighbour, "172.30.0.9:80", direct), denied(w.neighbour, "172.31.0.9:80", direct), denied(w.neighbour, "172.17.0.2:80", direct))
		for mode, net := range modes {
			w.apply(lines("version: 1", "inbound:", "  - allow: 80", "    to: {network: "+mode+"}", "    from: 203.0.113.3"))
			w.check(open(w.neighbour, net+".9:80", mode, "policy.yaml:3"), denied(w.neighbour, net+".9:81", "default"),
				denied(w.neighbour, "172.17.0.2:80", direct))
		}
	})
}

// TestTrap53BridgeNames: a bridge named by an option is Docker's; an administrator's br-lan is not.
func TestTrap53BridgeNames(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.host.MustExec(t, "iptables", "-P", "FORWARD", "ACCEPT")
		w.network(lab.Network{Name: "named", Subnets: []string{"172.30.0.0/24"}, Options: map[string]string{"com.docker.network.bridge.name": "shop"}})
		web := w.run(lab.Container{Name: "web", Networks: []string{"named"}, IP: "172.30.0.9", Serve: []string{"80/tcp"}})
		w.host.MustExec(t, "ip", "link", "add", "br-lan", "type", "bridge") // eth1 becomes a port of the administrator's bridge
		w.host.MustExec(t, "ip", "addr", "flush", "dev", "eth1")
		w.host.MustExec(t, "ip", "link", "set", "eth1", "master", "br-lan")
		w.host.MustExec(t, "ip", "link", "set", "br-lan", "up")
		w.host.MustExec(t, "ip", "addr", "add", "192.168.50.1/24", "dev", "br-lan")
		w.mark()
		w.apply(lines("version: 1", "inbound: []"))
		w.check(open(web, lab.OutsideAddr4+":80", "outside", "default"), denied(w.neighbour, "172.30.0.9:80", direct))
		w.lab.Check(t, []lab.Row{denied(w.lan, "192.168.50.1:22", "br-lan is outside")})
	})
}
