package packet

import (
	"net/netip"
	"strings"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestParse(t *testing.T) {
	client, host := addr("203.0.113.99"), addr("203.0.113.10")
	tests := []struct {
		in   string
		want Query
	}{
		{"tcp 203.0.113.99 -> 203.0.113.10:8080",
			Query{Packet: Packet{Proto: 6, Src: client, Dst: host, DstPort: 8080, Flags: SYN}}},
		{"tcp 203.0.113.99:40000 -> 203.0.113.10:8080 in eth0 state established",
			Query{Packet: Packet{Proto: 6, Src: client, SrcPort: 40000, Dst: host, DstPort: 8080, Flags: ACK, In: "eth0", State: Established}}},
		{"tcp 203.0.113.99 -> 203.0.113.10:8080 state invalid in eth0",
			Query{Packet: Packet{Proto: 6, Src: client, Dst: host, DstPort: 8080, Flags: ACK, In: "eth0", State: Invalid}}},
		{"udp -> [2001:db8::1]:53 from host",
			Query{Packet: Packet{Proto: 17, Dst: addr("2001:db8::1"), DstPort: 53}, FromHost: true}},
		{"tcp [fe80::1%eth0]:9 -> [fe80::2]:22",
			Query{Packet: Packet{Proto: 6, Src: addr("fe80::1%eth0"), SrcPort: 9, Dst: addr("fe80::2"), DstPort: 22, Flags: SYN}}},
		{"tcp -> ::ffff:203.0.113.10:80 from container web", Query{}}, // not an address with a port
		{"tcp -> [::ffff:203.0.113.10]:80 from container web",
			Query{Packet: Packet{Proto: 6, Dst: host, DstPort: 80, Flags: SYN}, Container: "web"}},
		{"icmp 203.0.113.99 -> 203.0.113.10", Query{Packet: Packet{Proto: 1, Src: client, Dst: host, ICMPType: 8}}},
		{"icmp/3/4 203.0.113.99 -> 203.0.113.10", Query{Packet: Packet{Proto: 1, Src: client, Dst: host, ICMPType: 3, ICMPCode: 4}}},
		{"icmp6 -> 2001:db8::1", Query{Packet: Packet{Proto: 58, Dst: addr("2001:db8::1"), ICMPType: 128}}},
		{"icmp6/0 -> [2001:db8::1]", Query{Packet: Packet{Proto: 58, Dst: addr("2001:db8::1")}}},
		{"esp 203.0.113.99 -> 203.0.113.10", Query{Packet: Packet{Proto: 50, Src: client, Dst: host}}},
		{"255 -> 203.0.113.10", Query{Packet: Packet{Proto: 255, Dst: host}}},
		{"sctp -> 203.0.113.10:9 in in", Query{Packet: Packet{Proto: 132, Dst: host, DstPort: 9, In: "in"}}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		if wantErr := tt.want == (Query{}); (err != nil) != wantErr || got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v\nwant %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "it is empty"},
		{"tpc -> 192.0.2.1:80", `"tpc" is no IP protocol`},
		{"256 -> 192.0.2.1", `"256" is no IP protocol`},
		{"tcp 192.0.2.1:80", "followed by a source (or none), ->, and a destination"},
		{"tcp ->", "followed by a source (or none), ->, and a destination"},
		{"tcp 192.0.2.1 192.0.2.2 -> 192.0.2.3:80", "followed by a source"},
		{"tcp -> 192.0.2.1", "tcp needs the port that is dialled, as in 192.0.2.1:80"},
		{"tcp -> 2001:db8::1", "as in [2001:db8::1]:80"},
		{"tcp -> 192.0.2.1:0", "neither an address nor"},
		{"tcp -> 192.0.2.1:70000", "neither an address nor"},
		{"tcp -> [192.0.2.1]", "neither an address nor"},
		{"tcp -> host:80", "neither an address nor"},
		{"tcp 2001:db8::1 -> 192.0.2.1:80", "not of one family"},
		{"esp -> 192.0.2.1:80", "esp has none"},
		{"tcp/80 -> 192.0.2.1:80", "too many parts"},
		{"icmp/8/0/1 -> 192.0.2.1", "too many parts"},
		{"icmp/256 -> 192.0.2.1", "no ICMP type or code"},
		{"icmp -> 2001:db8::1", "write icmp6"},
		{"icmp6 -> 192.0.2.1", "write icmp"},
		{"ah -> 2001:db8::1", "write the protocol"},
		{"tcp -> 192.0.2.1:80 in eth0 from host", "said twice"},
		{"tcp -> 192.0.2.1:80 state new state new", "said twice"},
		{"tcp -> 192.0.2.1:80 in", `"in" is not understood`},
		{"tcp -> 192.0.2.1:80 from container", `"from container" is not understood`},
		{"tcp -> 192.0.2.1:80 state old", `"old" is no state`},
	}
	for _, tt := range tests {
		_, err := Parse(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), Syntax) {
			t.Errorf("Parse(%q): %v, want %q and the syntax", tt.in, err, tt.want)
		}
	}
}

func TestPacketString(t *testing.T) {
	p := Packet{Proto: 6, Src: addr("203.0.113.99"), SrcPort: 7, Dst: addr("2001:db8::1"), DstPort: 80, State: Established}
	if got, want := p.String(), "tcp 203.0.113.99:7 -> [2001:db8::1]:80 from host state established"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"tcp 203.0.113.99 -> 203.0.113.10:8080", "udp -> [2001:db8::1]:53 from host", "icmp/3/4 192.0.2.1 -> 192.0.2.2 in eth0",
		"icmp6 -> ::1 from container web state invalid", "tcp [fe80::1%eth0]:9 -> [fe80::2]:22 state related", "132 -> 1.2.3.4:5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(q.String())
		if err != nil || again != q {
			t.Errorf("%q reads as %+v, prints as %q, and reads again as %+v, %v", s, q, q.String(), again, err)
		}
	})
}
