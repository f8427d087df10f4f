//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/sim"
	"quaywall/internal/testkit/dockerhost"
	"quaywall/internal/testkit/netns"
)

// TestAudit audits a snapshot of a host with many containers.
func TestAudit(t *testing.T) {
	ns, h := netns.New(t), dockerhost.Make(1000, 5)
	dir := save(t, h)
	var peak float64
	ms := repeat(5, func() float64 {
		spent := spend(t, ns, nil, *binary, "audit", "--snapshot", dir, "--json")
		peak = max(peak, spent.rss)
		return spent.ms()
	})
	what := fmt.Sprintf("audit, %d rules: 1,000 containers × 5 ports, Docker 28", strings.Count(h.Rules, "\n-A "))
	report.Add(Row{What: what, Ours: ms, Unit: "ms", Target: "at most 1,000 ms", Met: ms <= 1000})
	report.Add(Row{What: what + ", memory", Ours: peak, Unit: "MB", Target: "at most 400 MB", Met: peak <= 400})
}

// TestExplain explains packets on a host of 11,000 rules: one that is read already, and many one after the other.
func TestExplain(t *testing.T) {
	const questions = 200_000
	h := dockerhost.Make(1000, 5)
	h.Host.Rules.Tables, _ = iptsave.Parse(h.Rules, iptsave.Options{Family: netfilter.IPv4})
	i := 0
	one := repeat(20, func() float64 {
		q, err := packet.Parse(dockerhost.Packet(i * 211 % 5000))
		if err != nil {
			t.Fatal(err)
		}
		i++
		begun := time.Now()
		if tr, err := sim.New(&h.Host).Explain(q, sim.Options{}); err != nil || tr.Verdict != sim.Accept {
			t.Fatal(tr, err)
		}
		return float64(time.Since(begun).Microseconds()) / 1000
	})
	report.Add(Row{What: "explain, 11,000 rules, after parsing", Ours: one, Unit: "ms", Target: "at most 5 ms", Met: one <= 5})
	var packets strings.Builder
	for i := range questions {
		packets.WriteString(dockerhost.Packet(i%5000) + "\n")
	}
	ns, dir := netns.New(t), save(t, h)
	none := repeat(3, func() float64 { return spend(t, ns, []byte("\n"), *binary, "explain", "--snapshot", dir, "-").ms() })
	all := repeat(3, func() float64 {
		return spend(t, ns, []byte(packets.String()), *binary, "explain", "--snapshot", dir, "-").ms()
	})
	rate := questions * 1000 / (all - none)
	report.Add(Row{What: "explain -, 11,000 rules: packets a second", Ours: rate, Target: "at least 20,000", Met: rate >= 20_000})
}

// TestParse reads 100,000 rules as iptables-save prints them, by the program: a packet is explained on them.
func TestParse(t *testing.T) {
	ns, h := netns.New(t), dockerhost.Make(9000, 5)
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(h.Rules), 0o600); err != nil {
		t.Fatal(err)
	}
	parse := repeat(5, func() float64 {
		begun := time.Now()
		if _, problems := iptsave.Parse(h.Rules, iptsave.Options{Family: netfilter.IPv4}); len(problems) > 0 {
			t.Fatal(problems)
		}
		return float64(time.Since(begun).Microseconds()) / 1000
	})
	what := fmt.Sprintf("parsing %d rules of iptables-save", strings.Count(h.Rules, "\n-A "))
	report.Add(Row{What: what, Ours: parse, Unit: "ms", Target: "at most 500 ms", Met: parse <= 500})
	whole := repeat(5, func() float64 {
		return spend(t, ns, nil, *binary, "explain", "--rules", file, dockerhost.Packet(1), "--json").ms()
	})
	report.Add(Row{What: what + ", and one packet explained, by the program", Ours: whole, Unit: "ms", Met: true})
}

// save writes a made-up host as a snapshot, and gives its folder.
func save(t *testing.T, h *dockerhost.Host) string {
	t.Helper()
	dir := t.TempDir()
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, content := range map[string]string{
		"iptables-save.txt": h.Rules, "ip-route.txt": hostfiles.FormatRoutes(h.Routes), "ss-listen.txt": hostfiles.FormatSockets(h.Sockets),
		"sysctl.txt": "net.ipv4.ip_forward = 1\n", "ip-addr.json": text(linksOf(h)), "network-inspect.json": text(networksOf(h)),
		"container-inspect.json": text(containersOf(h)), "docker-version.json": `{"Server":{"Version":"28.5.2"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// object is one of JSON.
type object = map[string]any

func linksOf(h *dockerhost.Host) (all []object) {
	for i, link := range h.Inventory.Interfaces {
		all = append(all, object{"ifindex": i + 1, "ifname": link.Name, "flags": []string{"UP"}, "operstate": "UP", "linkinfo": object{"info_kind": link.Kind},
			"addr_info": []object{{"family": "inet", "local": link.Addrs[0].Addr().String(), "prefixlen": link.Addrs[0].Bits()}}})
	}
	return all
}

func networksOf(h *dockerhost.Host) (all []object) {
	for _, n := range h.Inventory.Networks {
		all = append(all, object{"Name": n.Name, "Id": strings.Repeat("a", 64), "Scope": "local", "Driver": "bridge",
			"IPAM": object{"Config": []object{{"Subnet": n.Subnets[0].String()}}}, "Options": object{"com.docker.network.bridge.name": n.Bridge}})
	}
	return all
}

func containersOf(h *dockerhost.Host) (all []object) {
	ports := map[string]object{}
	for _, p := range h.Inventory.Published {
		if ports[p.Container] == nil {
			ports[p.Container] = object{}
		}
		ports[p.Container][fmt.Sprintf("%d/tcp", p.Target)] = []object{{"HostIp": "0.0.0.0", "HostPort": fmt.Sprint(p.Port)}}
	}
	for _, c := range h.Containers {
		all = append(all, object{"Id": fmt.Sprintf("%064s", c.Name), "Name": "/" + c.Name, "HostConfig": object{"NetworkMode": "bridge"},
			"NetworkSettings": object{"Ports": ports[c.Name], "Networks": object{"bridge": object{"IPAddress": c.Networks[0].Addrs[0].String()}}}})
	}
	return all
}
