package host_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"quaywall/internal/inventory"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/host"
)

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

var comparePrefixes = cmpopts.EquateComparable(netip.Prefix{})

func TestInterfaces(t *testing.T) {
	here, there := netns.New(t), netns.New(t)
	netns.Veth(t, here, "eth0", there, "peer0")
	here.Addr(t, "eth0", "192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64")
	here.Bridge(t, "br-0123456789ab")
	netns.Veth(t, here, "port0", there, "peer1")
	here.Bridge(t, "br-lan", "port0")

	var got []inventory.Interface
	here.Do(t, func() {
		var err error
		if got, err = host.Interfaces(); err != nil {
			t.Fatal(err)
		}
	})
	want := []inventory.Interface{
		{Name: "br-0123456789ab", Kind: "bridge", Up: true},
		{Name: "br-lan", Kind: "bridge", Up: true},
		{Name: "eth0", Kind: "veth", Up: true, Addrs: prefixes("192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64")},
		{Name: "lo", Up: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "port0", Kind: "veth", Master: "br-lan", Up: true},
	}
	for i := range got {
		if got[i].Index == 0 {
			t.Errorf("%s has no index", got[i].Name)
		}
		got[i].Addrs = global(got[i].Addrs)
	}
	ignoreIndex := cmpopts.IgnoreFields(inventory.Interface{}, "Index")
	if diff := cmp.Diff(want, got, ignoreIndex, comparePrefixes, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// global leaves out the link-local addresses that the kernel makes up.
func global(addrs []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		if !a.Addr().IsLinkLocalUnicast() {
			all = append(all, a)
		}
	}
	return all
}

// The kind is the kernel's word for it. VRFs, which a policy is refused for, are listed like any other kind; not every
// kernel makes them.
func TestKinds(t *testing.T) {
	netns.Run(t, func() {
		attrs := func(name string) netlink.LinkAttrs { a := netlink.NewLinkAttrs(); a.Name = name; return a }
		for _, l := range []netlink.Link{
			&netlink.Vxlan{LinkAttrs: attrs("tunnel"), VxlanId: 7, Port: 4789},
			&netlink.Bridge{LinkAttrs: attrs("red")},
			&netlink.Tuntap{LinkAttrs: attrs("vpn"), Mode: netlink.TUNTAP_MODE_TUN},
		} {
			if err := netlink.LinkAdd(l); err != nil {
				t.Fatalf("making a %s: %v", l.Type(), err)
			}
		}
		links, err := host.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"lo": "", "red": "bridge", "tunnel": "vxlan", "vpn": "tun"}
		for _, l := range links {
			if kind, ok := want[l.Name]; ok && kind != l.Kind {
				t.Errorf("%s: kind %q, want %q", l.Name, l.Kind, kind)
			}
			delete(want, l.Name)
		}
		if len(want) != 0 {
			t.Errorf("not listed: %v", want)
		}
	})
}

// Trap 53: an administrator's own br-lan is not Docker's, and a name alone makes no bridge.
func TestNetworksByName(t *testing.T) {
	links := []inventory.Interface{
		{Name: "br-0123456789ab", Kind: "bridge", Addrs: prefixes("172.18.0.1/16", "fe80::1/64", "2001:db8:9::1/64")},
		{Name: "br-0123456789xy", Kind: "bridge"},
		{Name: "br-abcdefabcdef", Kind: "dummy"},
		{Name: "br-lan", Kind: "bridge", Addrs: prefixes("192.168.1.1/24")},
		{Name: "docker0", Kind: "bridge", Addrs: prefixes("172.17.0.1/16")},
		{Name: "docker_gwbridge", Kind: "bridge"},
	}
	want := []inventory.Network{
		{Name: "br-0123456789ab", Bridge: "br-0123456789ab", Subnets: prefixes("172.18.0.0/16", "2001:db8:9::/64")},
		{Name: "docker0", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16")},
		{Name: "docker_gwbridge", Bridge: "docker_gwbridge"},
	}
	if diff := cmp.Diff(want, host.Networks(links), comparePrefixes); diff != "" {
		t.Error(diff)
	}
}
