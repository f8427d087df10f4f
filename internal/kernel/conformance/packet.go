package conformance

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/frame"
)

// self is where the packets of one case come from, so that all cases fit into one ruleset.
type self int

// v4 and v6 are addresses of the case's own.
func (n self) v4(host uint8) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, uint8(n), host}) }

func (n self) v6(subnet uint8, host uint16) netip.Addr {
	a := netip.MustParseAddr("2001:db8:c000::").As16()
	a[5], a[7] = uint8(n), subnet
	binary.BigEndian.PutUint16(a[14:], host)
	return netip.AddrFrom16(a)
}

// probe is one packet. The zero value is UDP over IPv4 from the client to port 0 of the host.
type probe struct {
	v6           bool
	proto        uint8 // 0 is UDP
	sport, dport uint16
	flags        uint8         // of TCP; 0 is SYN
	noFlags      bool          // of TCP, none at all
	kind, code   uint8         // of ICMP
	body         []byte        // of ICMP; nil is an identifier of its own
	src, dst     netip.Addr    // the zero values are the case's own address and the host's
	inside       bool          // it comes from the container
	own          bool          // it comes from the host itself; UDP to dst
	wait         time.Duration // before it is sent
}

// send sends the packet. number makes its flow one of its own.
func (p probe) send(t *testing.T, w *world, me self, number int) {
	t.Helper()
	p = p.complete(w, me, number)
	time.Sleep(p.wait)
	switch {
	case p.own:
		w.host.Do(t, func() { sendDatagram(t, p) })
	case p.inside:
		w.inside.send(t, p.frame(p.way(w.mac["docker0"])))
	default:
		w.outside.send(t, p.frame(p.way(w.mac["eth0"])))
	}
}

// complete fills in what the probe leaves out.
func (p probe) complete(w *world, me self, number int) probe {
	if !p.src.IsValid() {
		p.src = me.v4(1)
		if p.v6 {
			p.src = me.v6(0, 1)
		}
	}
	if !p.dst.IsValid() {
		p.dst = host4
		if p.v6 {
			p.dst = host6
		}
	}
	if p.sport == 0 {
		p.sport = uint16(20000 + number)
	}
	if p.proto == 0 {
		p.proto = unix.IPPROTO_UDP
	}
	if p.body == nil {
		p.body = []byte{byte(number >> 8), byte(number), 0, 1, 'q', 'u', 'a', 'y'}
	}
	return p
}

func (p probe) way(to net.HardwareAddr) frame.Way {
	return frame.Way{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: to,
		Src: netip.AddrPortFrom(p.src, p.sport), Dst: netip.AddrPortFrom(p.dst, p.dport),
	}
}

func (p probe) frame(w frame.Way) []byte {
	switch p.proto {
	case unix.IPPROTO_UDP:
		return w.UDP([]byte("quaywall"))
	case unix.IPPROTO_TCP:
		if p.flags == 0 && !p.noFlags {
			p.flags = frame.SYN
		}
		return w.TCP(p.flags)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return w.ICMP(p.kind, p.code, p.body)
	}
	payload := binary.BigEndian.AppendUint16(nil, p.sport) // where SCTP, DCCP and UDP-Lite have their ports
	payload = binary.BigEndian.AppendUint16(payload, p.dport)
	return w.IP(p.proto, append(payload, make([]byte, 20)...))
}

func sendDatagram(t *testing.T, p probe) {
	t.Helper()
	conn, err := net.Dial("udp", netip.AddrPortFrom(p.dst, p.dport).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Refusing is what rules do; the counters tell which.
	_, _ = conn.Write([]byte("quaywall"))
}

// tcp and the others are short for the probes of which there are many.
func tcp(dport uint16) probe { return probe{proto: unix.IPPROTO_TCP, dport: dport} }
func udp(dport uint16) probe { return probe{dport: dport} }

func flags(f uint8) probe {
	return probe{proto: unix.IPPROTO_TCP, dport: 80, flags: f, noFlags: f == 0}
}

func icmp4(kind, code uint8) probe { return probe{proto: unix.IPPROTO_ICMP, kind: kind, code: code} }
func icmp6(kind, code uint8) probe {
	return probe{proto: unix.IPPROTO_ICMPV6, kind: kind, code: code, v6: true}
}

// in6 is the same over IPv6.
func (p probe) in6() probe {
	p.v6 = true
	return p
}

func (p probe) from(src netip.Addr) probe {
	p.src, p.v6 = src, src.Is6()
	return p
}

func (p probe) to(dst string) probe {
	p.dst = netip.MustParseAddr(dst)
	p.v6 = p.dst.Is6()
	return p
}

func (p probe) fromPort(port uint16) probe {
	p.sport = port
	return p
}

func (p probe) fromInside() probe {
	p.inside = true
	return p
}

func (p probe) after(d time.Duration) probe {
	p.wait = d
	return p
}

// both is probes in both families.
func both(probes ...probe) []probe {
	all := append([]probe(nil), probes...)
	for _, p := range probes {
		all = append(all, p.in6())
	}
	return all
}
