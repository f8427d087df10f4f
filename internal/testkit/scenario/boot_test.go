package scenario

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

var bootPolicy = lines(
	"version: 1",
	"inbound:",
	"  - allow: [ssh, 8080]") // 3

// TestS4 plays a reboot (trap 29 too) by the units' own commands in their order: an empty kernel, quaywall, the network, the agent,
// nothing of Docker's for a while, Docker at last. Then Docker is killed, stopped and started again. Clients dial all the time,
// from before the network is up, and know the host's MAC address, so that the first packets are theirs.
func TestS4(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "9000/tcp", "9000/udp")
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "8081:81"}, Serve: []string{"80/tcp", "81/tcp"}, Always: true})
		w.mark()
		w.apply(bootPolicy)
		w.knowsMAC()
		w.powerOff()
		w.intruders(w.host, netip.Addr{})
		clients := w.dialAll(deniedAtBoot(w))

		w.unit("quaywall.service")
		w.networkUp()
		agentUnit, err := w.fw.StartUnit(t.Context(), "quaywall-agent.service")
		if err != nil {
			t.Fatal(err)
		}
		w.until("the agent", func() bool { return strings.Contains(agentUnit.Log(), "Docker gives no answer") })
		w.check(sshAtBoot(w)...) // Docker may never come
		w.try(deniedAtBoot(w)...)
		if err := w.host.StartEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.dockersBack(web)
		w.check(deniedAtBoot(w)...)
		w.engine(w.host.KillEngine, w.host.StartEngine)
		w.dockersBack(web)
		restartDocker(w)
		w.dockersBack(web)

		in, dialled := w.hangUp(clients)
		seen := append(w.intruders(w.host, netip.Addr{}, 9000), w.intruders(web, netip.MustParseAddr(lab.NeighbourAddr4), 81)...)
		if in > 0 || len(seen) > 0 || dialled < 100 {
			t.Errorf("of %d who dialled what the policy denies %d got in; servers saw %+v\n%s", dialled, in, seen, agentUnit.Log())
		}
		w.quaywall(0, "status", "--exit-code")
		w.noticesOpenness(web)
	})
}

// dockersBack sees that what Docker publishes is reached where the policy allows it, and that containers have their way out.
func (w *world) dockersBack(web *lab.Node) {
	w.Helper()
	w.until("the container", func() bool { _, err := web.Seen(w.Context(), agent.Seen{}); return err == nil })
	w.check(append(sshAtBoot(w), open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"),
		open(w.outside, "[2001:db8:1::1]:8080", "web", "policy.yaml:3"))...)
	w.try(open(web, lab.OutsideAddr4+":80", "outside", "egress"))
}

// noticesOpenness takes the policy out and sees that those who dial get in then, and that the servers tell: the test would
// have noticed.
func (w *world) noticesOpenness(web *lab.Node) {
	w.Helper()
	w.quaywall(0, "stop")
	clients := w.dialAll(deniedAtBoot(w))
	w.until("without a policy servers see somebody", func() bool {
		return len(w.intruders(w.host, netip.Addr{}, 9000)) > 0 && len(w.intruders(web, netip.Addr{}, 81)) > 0
	})
	if in, _ := w.hangUp(clients); in == 0 {
		w.Error("without a policy nobody got in")
	}
}

func sshAtBoot(w *world) []lab.Row {
	return []lab.Row{open(w.outside, "203.0.113.1:22", "host", "policy.yaml:3"), open(w.outside, "[2001:db8:1::1]:22", "host", "policy.yaml:3")}
}

func deniedAtBoot(w *world) []lab.Row {
	return append([]lab.Row{
		denied(w.outside, "203.0.113.1:9000", "default"), denied(w.outside, "[2001:db8:1::1]:9000", "default"),
		denied(w.outside, "203.0.113.1:8081", "default"), denied(w.outside, "[2001:db8:1::1]:8081", "default"),
		denied(w.lan, "192.168.50.1:9000", "default"), denied(w.neighbour, "172.17.0.2:80", direct),
	}, by("udp", denied(w.outside, "203.0.113.1:9000", "default"))...)
}

// knowsMAC has the clients know the host's addresses for good, so that no packet of theirs waits for an answer to ARP.
func (w *world) knowsMAC() {
	w.Helper()
	for _, k := range []struct {
		node *lab.Node
		dev  string
		addr []string
	}{
		{w.outside, "eth0", []string{lab.HostWAN4, lab.HostWAN6}}, {w.neighbour, "eth0", []string{lab.HostWAN4}},
		{w.lan, "eth1", []string{lab.HostLAN4}},
	} {
		for _, addr := range k.addr {
			k.node.MustExec(w.T, "ip", "neigh", "replace", addr, "lladdr", w.host.MAC(k.dev).String(), "dev", "eth0", "nud", "permanent")
		}
	}
}

// powerOff leaves what a host has before it boots: disks, and interfaces that are down. It is another boot for all that asks.
func (w *world) powerOff() {
	w.Helper()
	w.engine(w.host.StopEngine)
	script := []string{
		"for dev in eth0 eth1; do ip link set $dev down; ip addr flush dev $dev; done", "ip link del docker0",
		"nft flush ruleset",
		"for tool in iptables-legacy ip6tables-legacy; do for table in filter nat mangle raw security; do",
		"$tool -t $table -F; $tool -t $table -X; done; for chain in INPUT FORWARD OUTPUT; do $tool -P $chain ACCEPT; done; done",
		"ipset destroy", "conntrack -F", "echo 0 > /proc/sys/net/ipv4/ip_forward",
		"cat /proc/sys/kernel/random/uuid > $0/boot_id", "mount --bind $0/boot_id /proc/sys/kernel/random/boot_id",
	}
	w.host.MustExec(w.T, "sh", "-ec", strings.Join(script, "\n"), w.host.Dir)
	if err := os.RemoveAll(filepath.Join(w.host.Dir, "run")); err != nil {
		w.Fatal(err)
	}
	for _, s := range w.rules().WithoutEmpty().Sections {
		if strings.TrimSpace(s.Text) != "" {
			w.Fatalf("the kernel is not empty: %s\n%s", s.Tool, s.Text)
		}
	}
}

// networkUp gives the host's interfaces their addresses, and routes.
func (w *world) networkUp() {
	w.Helper()
	script := []string{
		"ip link set eth0 up", "ip addr replace " + lab.HostWAN4 + "/24 dev eth0", "ip addr replace " + lab.HostWAN6 + "/64 dev eth0 nodad",
		"ip link set eth1 up", "ip addr replace " + lab.HostLAN4 + "/24 dev eth1", "ip addr replace " + lab.HostLAN6 + "/64 dev eth1 nodad",
		"ip route replace default via " + lab.OutsideAddr4, "ip route replace default via " + lab.OutsideAddr6,
	}
	if dockerByNft() {
		script = append(script, "echo 1 > /proc/sys/net/ipv4/ip_forward") // by sysctl.d: Docker doesn't, and doesn't start without
	}
	w.host.MustExec(w.T, "sh", "-ec", strings.Join(script, "\n"))
}

// unit starts a unit that ends by itself.
func (w *world) unit(name string) {
	w.Helper()
	p, err := w.fw.StartUnit(w.Context(), name)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		w.Fatalf("%s: %v\n%s", name, err, p.Log())
	}
}
