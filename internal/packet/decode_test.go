package packet_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/packet"
	"quaywall/internal/testkit/frame"
)

const ether = 14 // bytes of the header that a frame has and a packet hasn't

func way(src, dst string) frame.Way {
	mac := make(net.HardwareAddr, 6)
	return frame.Way{SrcMAC: mac, DstMAC: mac, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

var (
	way4 = way("203.0.113.2:40000", "203.0.113.1:8080")
	way6 = way("[2001:db8::2]:40000", "[2001:db8::1]:8080")
)

// extended puts headers in front of a TCP header: hop-by-hop options, a fragment header, authentication, destination options.
func extended(offset byte) []byte {
	tcp := way6.TCP(frame.SYN)[ether+40:]
	var payload []byte
	payload = append(payload, 44, 0, 1, 4, 0, 0, 0, 0)
	payload = append(payload, 51, 0, offset, 0, 0, 0, 0, 1)
	payload = append(payload, 60, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1)
	payload = append(payload, 6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return way6.IP(0, append(payload, tcp...))
}

func TestDecode(t *testing.T) {
	four := packet.Packet{Src: way4.Src.Addr(), Dst: way4.Dst.Addr()}
	six := packet.Packet{Src: way6.Src.Addr(), Dst: way6.Dst.Addr()}
	with := func(p packet.Packet, proto uint8, ports bool, flags, kind, code uint8) packet.Packet {
		p.Proto, p.Flags, p.ICMPType, p.ICMPCode = proto, flags, kind, code
		if ports {
			p.SrcPort, p.DstPort = 40000, 8080
		}
		return p
	}
	options := way4.TCP(frame.SYN)[ether:]
	options = append(append(append([]byte{0x46}, options[1:20]...), 1, 1, 1, 0), options[20:]...)
	for name, test := range map[string]struct {
		bytes []byte
		want  packet.Packet
	}{
		"tcp":                   {way4.TCP(frame.SYN | frame.FIN)[ether:], with(four, 6, true, packet.SYN|packet.FIN, 0, 0)},
		"tcp over IPv6":         {way6.TCP(frame.SYN)[ether:], with(six, 6, true, packet.SYN, 0, 0)},
		"udp":                   {way4.UDP([]byte("x"))[ether:], with(four, 17, true, 0, 0, 0)},
		"sctp over IPv6":        {way6.SCTP()[ether:], with(six, 132, true, 0, 0, 0)},
		"icmp":                  {way4.ICMP(3, 13, make([]byte, 8))[ether:], with(four, 1, false, 0, 3, 13)},
		"icmp6":                 {way6.ICMP(128, 0, make([]byte, 8))[ether:], with(six, 58, false, 0, 128, 0)},
		"a protocol of no name": {way4.IP(99, []byte("12345678"))[ether:], with(four, 99, false, 0, 0, 0)},
		"IPv4 with options":     {options, with(four, 6, true, packet.SYN, 0, 0)},
		"IPv6 with extensions":  {extended(0)[ether:], with(six, 6, true, packet.SYN, 0, 0)},
		"a later fragment":      {frame.Fragment(way4.UDP(make([]byte, 200)), 64)[1][ether:], with(four, 17, false, 0, 0, 0)},
		"a later one of IPv6":   {extended(1)[ether:], with(six, 51, false, 0, 0, 0)},
		"nothing behind IP":     {way4.TCP(frame.SYN)[ether : ether+20], with(four, 6, false, 0, 0, 0)},
		"ports and no flags":    {way4.TCP(frame.SYN)[ether : ether+24], with(four, 6, true, 0, 0, 0)},
	} {
		got, err := packet.Decode(test.bytes)
		if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a header cut short": way4.TCP(0)[ether : ether+19], "one of IPv6": way6.TCP(0)[ether : ether+39],
		"version 5": append([]byte{0x55}, make([]byte, 60)...), "a header length of 4": append([]byte{0x41}, make([]byte, 60)...),
	} {
		if p, err := packet.Decode(b); err == nil {
			t.Errorf("%s gave %v", name, p)
		}
	}
}

// FuzzDecode: whatever comes, it is a packet that can be written, or none.
func FuzzDecode(f *testing.F) {
	for _, b := range [][]byte{way4.TCP(frame.SYN), way6.UDP(nil), way6.ICMP(1, 2, make([]byte, 8)), extended(0), extended(1)} {
		f.Add(b[ether:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := packet.Decode(b)
		if err != nil {
			return
		}
		if !p.Src.IsValid() || p.Src.Is4() != p.Dst.Is4() {
			t.Errorf("%x is from %v to %v", b, p.Src, p.Dst)
		}
		_ = p.String()
	})
}
