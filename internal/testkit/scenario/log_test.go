package scenario

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/lab"
)

// TestDeniedPacketsAreTold: each packet that the policy denies is a line of the agent's log and of `quaywall log -f`, with
// interface, what was dialled, policy line and container; two follow at a time, and go on when the agent is another one.
func TestDeniedPacketsAreTold(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{IPv6: true, IP6Tables: true})
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		db := w.run(lab.Container{Name: "db", Publish: []string{"203.0.113.1:5432:5432"}, Serve: []string{"5432/tcp"}})
		if err := w.fw.Write(lines("version: 1", "sets: {banned: [203.0.113.66]}", "inbound:", "  - deny: any", "    from: banned",
			"  - deny: 8080", "  - reject: 9090", "  - allow: [ssh, 80]", "  - allow: 81/udp", "    log: true", "  - deny: 7/udp", "    log: true",
			"egress:", "  - deny: 53/udp", "outbound:", "  - reject: 25/tcp", "log: {denied: 1000/second burst 1000}")); err != nil {
			t.Fatal(err)
		}
		a := agentOf(w, "the policy is in force")
		follow := []*firewall.Process{w.follow(), w.follow()}

		w.denies(web, db)
		want := w.deniedLines(web, db)
		told := func(p *firewall.Process) func() bool {
			return func() bool { return len(toldLines(p.Log())) >= len(want) }
		}
		for _, f := range follow {
			w.until("all packets are told", told(f))
			if got := toldLines(f.Log()); !slices.Equal(got, want) {
				t.Errorf("log -f tells\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		if got := toldLines(w.quaywall(0, "log", "-n", "1000").Stdout); !slices.Equal(got, want) {
			t.Errorf("log tells\n%s", strings.Join(got, "\n"))
		}
		for _, line := range []string{
			"msg=denied in=eth0 proto=tcp src=203.0.113.2 sport=40000 dst=203.0.113.1 dport=8080 section=inbound line=policy.yaml:6 container=web\n",
			"msg=rejected out=eth0 proto=tcp src=203.0.113.1 sport=40000 dst=203.0.113.2 dport=25 section=outbound line=policy.yaml:16\n",
		} {
			if !strings.Contains(a.Log(), line) {
				t.Errorf("the agent's log lacks %s%s", line, a.Log())
			}
		}

		if err := a.End(t.Context(), "KILL"); err != nil {
			t.Fatal(err)
		}
		a = agentOf(w, "Docker answers")
		w.flood(a)
		for _, f := range follow {
			w.until("the flood is told", func() bool { return strings.Contains(f.Log(), "-> 203.0.113.1:7 in eth0") })
		}
	})
}

// follow starts `quaywall log -f`.
func (w *world) follow() *firewall.Process {
	w.Helper()
	p, err := w.fw.Start(w.Context(), "log", "-f")
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// denies sends the packets that deniedLines tells of, and others that are told by nobody.
func (w *world) denies(web, db *lab.Node) {
	w.Helper()
	client := crafter{w}
	var frames [][]byte
	for src, dst := range map[string]string{lab.OutsideAddr4: lab.HostWAN4, lab.OutsideAddr6: lab.HostWAN6} {
		for _, port := range []uint16{8080, 9090, 99, 22} {
			frames = append(frames, client.way(src, dst, port).TCP(frame.SYN))
		}
		kind := uint8(8)
		if client.way(src, dst, 0).Dst.Addr().Is6() {
			kind = 128
		}
		frames = append(frames, client.way(src, dst, 53).UDP([]byte("x")), client.way(src, dst, 81).UDP([]byte("x")),
			client.way(src, dst, 0).ICMP(kind, 0, make([]byte, 8)), client.way(src, dst, 80).TCP(frame.SYN|frame.FIN))
	}
	frames = append(frames, client.way(lab.OutsideAddr4, lab.HostWAN4, 5432).TCP(frame.SYN),
		client.way("203.0.113.66", lab.HostWAN4, 22).TCP(frame.SYN),
		client.way(lab.OutsideAddr4, w.addr(web, false).String(), 80).TCP(frame.SYN),
		client.way(lab.OutsideAddr6, w.addr(web, true).String(), 80).TCP(frame.SYN))
	if err := w.outside.Send(w.Context(), "eth0", frames...); err != nil {
		w.Fatal(err)
	}
	for _, row := range []lab.Row{
		{From: db, Source: w.end(db, false), To: "203.0.113.2:53", Proto: "udp"}, {From: db, Source: w.end(db, true), To: "[2001:db8:1::2]:53", Proto: "udp"},
		{From: w.host, Source: "203.0.113.1:40000", To: "203.0.113.2:25"}, {From: w.host, Source: "[2001:db8:1::1]:40000", To: "[2001:db8:1::2]:25"},
	} {
		d, err := row.Dial()
		if err == nil {
			_, err = row.From.Dial(w.Context(), d)
		}
		if err != nil {
			w.Fatal(err)
		}
	}
}

// addr is a container's address on docker0.
func (w *world) addr(n *lab.Node, v6 bool) netip.Addr {
	w.Helper()
	a, err := n.Addr(w.Context(), "", v6)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// end is the port 40000 of a container.
func (w *world) end(n *lab.Node, v6 bool) string {
	w.Helper()
	return netip.AddrPortFrom(w.addr(n, v6), 40000).String()
}

// deniedLines is what is told of these packets, sorted, without the time.
func (w *world) deniedLines(web, db *lab.Node) []string {
	var all []string
	for _, way := range []string{"203.0.113.2%s -> 203.0.113.1%s in eth0 ", "[2001:db8:1::2]%s -> [2001:db8:1::1]%s in eth0 "} {
		for _, end := range []struct{ verdict, port, rest string }{
			{"deny tcp", ":8080", "policy.yaml:6 container web"}, {"reject tcp", ":9090", "policy.yaml:7"}, {"deny tcp", ":99", "default"},
			{"deny udp", ":53", "default"}, {"allow udp", ":81", "policy.yaml:9"},
			{"deny tcp", ":80", "- hygiene: no TCP sends these flags together"},
		} {
			all = append(all, end.verdict+" "+fmt.Sprintf(way, ":40000", end.port)+end.rest)
		}
	}
	all = append(all, "deny icmp/8 203.0.113.2 -> 203.0.113.1 in eth0 default", "deny icmp6/128 2001:db8:1::2 -> 2001:db8:1::1 in eth0 default",
		"deny tcp 203.0.113.66:40000 -> 203.0.113.1:22 in eth0 policy.yaml:4",
		"deny tcp 203.0.113.2:40000 -> 203.0.113.1:5432 in eth0 default container db",
		"deny tcp 203.0.113.2:40000 -> "+w.addr(web, false).String()+":80 in eth0 - container web; a container's own address is dialled from outside",
		"deny tcp [2001:db8:1::2]:40000 -> ["+w.addr(web, true).String()+"]:80 in eth0 - container web; a container's own address is dialled from outside",
		"deny udp "+w.end(db, false)+" -> 203.0.113.2:53 in docker0 policy.yaml:14 container db",
		"deny udp "+w.end(db, true)+" -> [2001:db8:1::2]:53 in docker0 policy.yaml:14 container db",
		"reject tcp 203.0.113.1:40000 -> 203.0.113.2:25 from host policy.yaml:16 out by eth0",
		"reject tcp [2001:db8:1::1]:40000 -> [2001:db8:1::2]:25 from host policy.yaml:16 out by eth0")
	slices.Sort(all)
	return all
}

// toldLines are the lines of `quaywall log`, sorted, each once, without the time and with single spaces. What the lab's own
// machines try by themselves is left out: they send from no port 40000.
func toldLines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) > 3 && (strings.Contains(words[4], ":40000") || strings.HasPrefix(words[3], "icmp")) {
			all = append(all, strings.Join(words[2:], " "))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// flood sends far more than the agent reads. What isn't told is counted, to the packet, and the agent doesn't grow.
func (w *world) flood(a *firewall.Agent) {
	w.Helper()
	const sent = 3000
	before := w.resident(a)
	client := crafter{w}
	var frames [][]byte
	for range sent {
		frames = append(frames, client.way(lab.OutsideAddr4, lab.HostWAN4, 7).UDP(nil))
	}
	if err := w.outside.Send(w.Context(), "eth0", frames...); err != nil {
		w.Fatal(err)
	}
	var told, lost uint64
	w.until("the flood is over", func() bool {
		told, lost = 0, 0
		for line := range strings.Lines(w.quaywall(0, "log", "-n", "10000", "--json").Stdout) {
			var e struct {
				Port uint16 `json:"dst_port"`
				Lost uint64 `json:"lost"`
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				w.Fatal(err)
			}
			lost += e.Lost
			if e.Port == 7 {
				told++
			}
		}
		return told+lost >= sent
	})
	if told+lost != sent || told < 100 || lost < sent/2 {
		w.Errorf("of %d packets %d were told and %d counted", sent, told, lost)
	}
	if grown := w.resident(a) - before; grown > 8<<10 {
		w.Errorf("the agent grew by %d KiB", grown)
	}
	if n := strings.Count(a.Log(), "more packets were logged than are read"); n < 1 || n > 30 {
		w.Errorf("that packets were lost is said %d times", n)
	}
}

// resident is the agent's memory, in KiB.
func (w *world) resident(a *firewall.Agent) int {
	w.Helper()
	pid, err := a.PID()
	if err != nil {
		w.Fatal(err)
	}
	_, text, _ := strings.Cut(w.host.MustExec(w.T, "cat", fmt.Sprintf("/proc/%d/status", pid)), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(text)[0])
	if err != nil {
		w.Fatal(err)
	}
	return n
}
