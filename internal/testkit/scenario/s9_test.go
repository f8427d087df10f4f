package scenario

import (
	"net/netip"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/lab"
)

// TestS9Default has the policy that is in force where nobody wrote one: SSH and ping come in.
func TestS9Default(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "25/tcp", "53/udp")
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.quaywall(0, "apply", "--allow-lockout")
		w.unchanged("apply")
		for _, a := range []string{"203.0.113.1", "[2001:db8:1::1]"} {
			w.try(open(w.outside, a+":22", "host", "SSH"), denied(w.outside, a+":8080", "published"), denied(w.outside, a+":25", "a daemon"))
			w.try(by("udp", denied(w.outside, a+":53", "a daemon"))...)
		}
		w.try(by("icmp", open(w.outside, "203.0.113.1", "", "ping"), open(w.outside, "2001:db8:1::1", "", "ping"))...)
		w.stop()
	})
}

// TestS9SourcesAndPing limits the sources of SSH and turns ping off.
func TestS9SourcesAndPing(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := bareHost(t, v)
		w.apply(lines("version: 1", "inbound:", "  - allow: ssh", `    from: [203.0.113.2, "fd00:50::/64"]`))
		w.check(open(w.outside, "203.0.113.1:22", "host", "policy.yaml:3"), denied(w.neighbour, "203.0.113.1:22", "default"),
			denied(w.outside, "[2001:db8:1::1]:22", "default"), open(w.lan, "[fd00:50::1]:22", "host", "policy.yaml:3"),
			denied(w.lan, "192.168.50.1:22", "default"))
		w.check(by("icmp", denied(w.outside, "203.0.113.1", "default"), denied(w.outside, "2001:db8:1::1", "default"))...)
		w.stop()
	})
}

// TestS9Limit lets each source in so often and no more.
func TestS9Limit(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := bareHost(t, v)
		w.apply(lines("version: 1", "inbound:", "  - allow: ssh", "    limit: 2/hour burst 3"))
		for _, to := range []string{"203.0.113.1:22", "[2001:db8:1::1]:22"} {
			for range 3 {
				w.check(open(w.outside, to, "host", "policy.yaml:3"))
			}
			w.try(denied(w.outside, to, "over the limit"))
		}
		w.try(open(w.neighbour, "203.0.113.1:22", "host", "counted per source"), denied(w.neighbour, "[2001:db8:1::1]:22", "counted per /64"),
			open(w.lan, "[fd00:50::1]:22", "host", "another /64"))
	})
}

// TestS9Hygiene sends what no honest client sends, to a port that is open.
func TestS9Hygiene(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := bareHost(t, v, "53/udp")
		w.apply(lines("version: 1", "inbound:", "  - allow: [ssh, 53/udp]"))
		client := spoofer(w)
		for src, dst := range map[string]string{lab.OutsideAddr4: lab.HostWAN4, lab.OutsideAddr6: lab.HostWAN6} {
			way := client.way(src, dst, 22)
			if flags := client.answer(t, way.TCP(frame.SYN)); flags&frame.SYN == 0 {
				t.Errorf("%s: an honest SYN was not answered (flags %#x): nothing is proved", src, flags)
			}
			for name, flags := range map[string]uint8{"no flags": 0, "SYN FIN": frame.SYN | frame.FIN, "SYN RST": frame.SYN | frame.RST,
				"FIN alone": frame.FIN, "all": 0x3f, "FIN PSH URG": frame.FIN | frame.PSH | frame.URG,
				"ACK of nothing": frame.ACK, "SYN ACK of nothing": frame.SYN | frame.ACK, "PSH alone": frame.PSH} {
				way.Src = netip.AddrPortFrom(way.Src.Addr(), way.Src.Port()+1)
				if got := client.answer(t, way.TCP(flags)); got != 0 {
					t.Errorf("%s: %s was answered with flags %#x", src, name, got)
				}
			}
		}
		for _, spoofed := range [][2]string{{lab.HostWAN4, lab.HostWAN4}, {lab.HostLAN4, lab.HostWAN4}, {"127.0.0.1", lab.HostWAN4},
			{"224.0.0.5", lab.HostWAN4}, {lab.HostWAN6, lab.HostWAN6}, {lab.HostLAN6, lab.HostWAN6}, {"::1", lab.HostWAN6}} {
			client.unseen(t, client.way(spoofed[0], spoofed[1], 53))
		}
		client.seen(t, client.way("203.0.113.99", lab.HostWAN4, 53))
		client.seen(t, client.way("2001:db8:1::99", lab.HostWAN6, 53))
		w.stop()
	})
}

// crafter sends crafted frames from the outside client to the host.
type crafter struct {
	w *world
}

// spoofer makes a client whose own kernel stays out of its crafted connections.
func spoofer(w *world) crafter {
	w.outside.MustExec(w.T, "nft", "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; };"+
		"add rule inet quiet out tcp flags rst drop")
	return crafter{w}
}

func (c crafter) way(src, dst string, port uint16) frame.Way {
	return frame.Way{SrcMAC: c.w.outside.MAC("eth0"), DstMAC: c.w.host.MAC("eth0"),
		Src: netip.AddrPortFrom(netip.MustParseAddr(src), 40000), Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), port)}
}

// answer is the flags of the TCP segments that come back from the host's port.
func (c crafter) answer(t *testing.T, crafted []byte) uint8 {
	t.Helper()
	sent, _ := frame.Parse(crafted)
	frames, err := c.w.outside.Watch(t.Context(), "eth0", func() error { return c.w.outside.Send(t.Context(), "eth0", crafted) })
	if err != nil {
		t.Fatal(err)
	}
	var flags uint8
	for _, f := range frames {
		if p, ok := frame.Parse(f); ok && p.Proto == sent.Proto && p.Src == sent.Dst && p.Dst == sent.Src {
			flags |= p.Flags
		}
	}
	return flags
}

func (c crafter) datagrams(t *testing.T, frames ...[]byte) int {
	t.Helper()
	if _, err := c.w.host.Seen(t.Context(), agent.Seen{Forget: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.w.outside.Send(t.Context(), "eth0", frames...); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	seen, err := c.w.host.Seen(t.Context(), agent.Seen{})
	if err != nil {
		t.Fatal(err)
	}
	return len(seen)
}

func (c crafter) unseen(t *testing.T, way frame.Way) {
	t.Helper()
	if n := c.datagrams(t, way.UDP([]byte("x"))); n != 0 {
		t.Errorf("a datagram with source %v got through", way.Src)
	}
}

func (c crafter) seen(t *testing.T, way frame.Way) {
	t.Helper()
	if n := c.datagrams(t, way.UDP([]byte("x"))); n != 1 {
		t.Errorf("an honest datagram with source %v did not get through: nothing is proved", way.Src)
	}
}

// TestS9Fragments lets fragments of what is open through and no others.
func TestS9Fragments(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := bareHost(t, v, "53/udp", "54/udp")
		w.apply(lines("version: 1", "inbound:", "  - allow: 53/udp"))
		client := crafter{w}
		for src, dst := range map[string]string{lab.OutsideAddr4: lab.HostWAN4, lab.OutsideAddr6: lab.HostWAN6} {
			for port, want := range map[uint16]int{53: 1, 54: 0} {
				parts := frame.Fragment(client.way(src, dst, port).UDP(make([]byte, 200)), 64)
				if n := client.datagrams(t, parts...); n != want {
					t.Errorf("%s: %d datagrams came to port %d, want %d", src, n, port, want)
				}
				parts[0], parts[1] = parts[1], parts[0]
				if n := client.datagrams(t, parts...); n != want {
					t.Errorf("%s: %d datagrams came to port %d in another order, want %d", src, n, port, want)
				}
			}
		}
	})
}

// TestS9Log sees denied packets leave by NFLOG, a limited number of them.
func TestS9Log(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := bareHost(t, v)
		w.apply(lines("version: 1", "inbound:", "  - allow: ssh", "    log: true", "log: {denied: 2/minute}"))
		job, err := w.host.Start(t.Context(), agent.Request{Nflog: &agent.Nflog{Group: 86}})
		if err != nil {
			t.Fatal(err)
		}
		w.check(open(w.outside, "203.0.113.1:22", "host", "policy.yaml:3"))
		client := crafter{w}
		var flood [][]byte
		for i := range 200 {
			flood = append(flood, client.way(lab.OutsideAddr4, lab.HostWAN4, uint16(1000+i)).TCP(frame.SYN))
		}
		if err := w.outside.Send(t.Context(), "eth0", flood...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		var r agent.NflogResult
		if err := job.Stop(&r); err != nil {
			t.Fatal(err)
		}
		prefixes := map[string]int{}
		for _, l := range r.Logged {
			prefixes[l.Prefix]++
		}
		if n := prefixes["quaywall denied"]; n == 0 || n > 20 {
			t.Errorf("%d of 200 denied packets were logged at 2 a minute: %v", n, prefixes)
		}
		if n := prefixes["quaywall allow policy.yaml:3"]; n != 1 {
			t.Errorf("one connection by a rule with log gave %v", prefixes)
		}
	})
}
