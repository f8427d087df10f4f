package host

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// A veth keeps its peer's index where a VLAN keeps its carrier's.
func TestOnlyVLANsHaveAParent(t *testing.T) {
	links := []netlink.Link{
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "trunk"}},
		&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Index: 2, Name: "trunk.5", ParentIndex: 1}},
		&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: 3, Name: "veth0", ParentIndex: 1}},
	}
	for _, i := range interfaces(links, nil) {
		if want := map[string]string{"trunk.5": "trunk"}[i.Name]; i.Parent != want {
			t.Errorf("%s: parent %q, want %q", i.Name, i.Parent, want)
		}
	}
}
