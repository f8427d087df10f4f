package trace

import (
	"net/netip"
	"strings"
	"testing"

	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// TestContainer: a container is told by its addresses, of the families that are meant.
func TestContainer(t *testing.T) {
	host := &snapshot.Host{Containers: []snapshot.Container{{Name: "web", Networks: []snapshot.Endpoint{
		{Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("fd00::2")}}, {Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.2")}}}},
		{Name: "none"}}}
	for _, test := range []struct{ filter, want string }{
		{"tcp from container web", "172.17.0.2/32 fd00::2/128 172.18.0.2/32"},
		{"icmp from container web", "172.17.0.2/32 172.18.0.2/32"},
		{"172.18.0.0/16 -> from container web", "172.18.0.2/32"},
		{"tcp from container gone", "there is no running container gone"},
		{"tcp from container none", "container none has no address of its own"},
	} {
		f, err := packet.ParseFilter(test.filter)
		if err != nil {
			t.Fatal(err)
		}
		all, err := resolved(f, host)
		var got []string
		for _, one := range all {
			got = append(got, one.Src.String())
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if !strings.HasPrefix(strings.Join(got, " "), test.want) {
			t.Errorf("%q: %v, want %s", test.filter, got, test.want)
		}
	}
}
