package policy

import (
	"slices"
	"strings"
	"testing"

	"quaywall/internal/netset"
)

func TestServices(t *testing.T) {
	all := Services()
	if !slices.IsSortedFunc(all, func(a, b Service) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
	names := slices.CompactFunc(slices.Clone(all), func(a, b Service) bool { return a.Name == b.Name })
	if len(names) != len(all) || len(all) < 50 {
		t.Errorf("%d services, %d names", len(all), len(names))
	}
	for _, s := range all {
		if p := checkName(s.Name); p != nil {
			t.Errorf("%s: %s", s.Name, p.text)
		}
		if _, ok := protocolNumber(s.Name); ok {
			t.Errorf("%s is a protocol's name as well", s.Name)
		}
		for _, tr := range s.Traffic {
			if HasPorts(tr.Proto) != (tr.Ports.First > 0) || tr.Ports.First > tr.Ports.Last || tr.Proto == 0 {
				t.Errorf("%s: %+v", s.Name, tr)
			}
		}
	}
}

// TestWhat reads every form that traffic has.
func TestWhat(t *testing.T) {
	port := func(proto uint8, first, last uint16) Traffic {
		return Traffic{Proto: proto, Ports: netset.Ports{First: first, Last: last}}
	}
	icmp := func(proto, typ uint8) Traffic {
		return Traffic{Proto: proto, ICMP: ICMPMatch{HasType: true, Type: typ}}
	}
	for _, c := range []struct {
		text string
		want []Traffic
	}{
		{"80", []Traffic{port(TCP, 80, 80)}},
		{"80/tcp", []Traffic{port(TCP, 80, 80)}},
		{"65535/udp", []Traffic{port(UDP, 65535, 65535)}},
		{"8000-8100/udp", []Traffic{port(UDP, 8000, 8100)}},
		{"8000-8100", []Traffic{port(TCP, 8000, 8100)}},
		{"443/tcp+udp", []Traffic{port(TCP, 443, 443), port(UDP, 443, 443)}},
		{"443/udp+sctp+tcp", []Traffic{port(UDP, 443, 443), port(SCTP, 443, 443), port(TCP, 443, 443)}},
		{"53/any", []Traffic{port(TCP, 53, 53), port(UDP, 53, 53)}},
		{"132/sctp", []Traffic{port(SCTP, 132, 132)}},
		{"sctp", []Traffic{{Proto: SCTP, Ports: netset.AllPorts}}},
		{"tcp", []Traffic{{Proto: TCP, Ports: netset.AllPorts}}},
		{"9/dccp", []Traffic{port(DCCP, 9, 9)}},
		{"7/udplite", []Traffic{port(UDPLite, 7, 7)}},
		{"esp", []Traffic{{Proto: 50}}},
		{"ah", []Traffic{{Proto: 51}}},
		{"gre", []Traffic{{Proto: 47}}},
		{"any", []Traffic{{}}},
		{"published", []Traffic{{Published: true}}},
		{"icmp", []Traffic{{Proto: ICMP}, {Proto: ICMPv6}}},
		{"icmp6", []Traffic{{Proto: ICMPv6}}},
		{"ping", []Traffic{icmp(ICMP, 8), icmp(ICMPv6, 128)}},
		{"icmp/8", []Traffic{icmp(ICMP, 8)}},
		{"icmp/0", []Traffic{icmp(ICMP, 0)}},
		{"icmp/echo-request", []Traffic{icmp(ICMP, 8)}},
		{"icmp6/echo-request", []Traffic{icmp(ICMPv6, 128)}},
		{"icmp6/135", []Traffic{icmp(ICMPv6, 135)}},
		{"icmp/3/4", []Traffic{{Proto: ICMP, ICMP: ICMPMatch{true, 3, true, 4}}}},
		{"icmp/fragmentation-needed", []Traffic{{Proto: ICMP, ICMP: ICMPMatch{true, 3, true, 4}}}},
		{"swarm", []Traffic{port(TCP, 2377, 2377), port(TCP, 7946, 7946), port(UDP, 7946, 7946), port(UDP, 4789, 4789), {Proto: 50}}},
		{"mosh", []Traffic{port(UDP, 60000, 61000)}},
		{"web", []Traffic{port(TCP, 80, 80), port(TCP, 443, 443), port(TCP, 8080, 8080)}},
		{"[http, 80/tcp, web]", []Traffic{port(TCP, 80, 80), port(TCP, 443, 443), port(TCP, 8080, 8080)}},
	} {
		p, list := Parse("p", []byte("version: 1\nservices: {web: [http, https, 8080]}\ninbound: [{allow: "+c.text+"}]\n"))
		if p == nil {
			t.Errorf("%s: %v", c.text, list)
		} else if got := p.Inbound[0].What; !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.text, got, c.want)
		}
	}
}
