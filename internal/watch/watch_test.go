package watch_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/inventory"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch"
	"quaywall/internal/watch/docker"
)

// Without Docker its networks come from the names of bridges; with a socket that another network namespace shares, too.
func TestInventoryWithoutDocker(t *testing.T) {
	ns := netns.New(t)
	ns.Bridge(t, "docker0")
	ns.Addr(t, "docker0", "172.17.0.1/16")
	ns.Bridge(t, "br-lan")
	ns.Do(t, func() {
		inv, err := watch.Inventory(t.Context(), "unix://"+t.TempDir()+"/none.sock")
		if err != nil {
			t.Fatal(err)
		}
		if inv.Docker.Reachable || inv.Docker.Problem == "" {
			t.Errorf("Docker: %+v, want a problem", inv.Docker)
		}
		if got := inv.Bridges(); len(got) != 1 || got[0] != "docker0" {
			t.Errorf("bridges %v, want docker0", got)
		}
		if len(inv.Interfaces) != 3 {
			t.Errorf("interfaces %+v, want br-lan, docker0 and lo", inv.Interfaces)
		}
	})
}

// A bridge that a network card is a port of leads to the whole network there: who comes in by it is no container for that.
func TestSharedBridges(t *testing.T) {
	links := []inventory.Interface{
		{Name: "br-0123456789ab", Kind: "bridge"}, {Name: "br0", Kind: "bridge"}, {Name: "docker0", Kind: "bridge"},
		{Name: "eth0", Master: "br0"}, {Name: "veth1", Kind: "veth", Master: "docker0"}, {Name: "veth2", Kind: "veth", Master: "br0"},
		{Name: "vlan5", Kind: "vlan", Master: "br-0123456789ab"},
	}
	answer := docker.Answer{Docker: inventory.Docker{Reachable: true}, Networks: []inventory.Network{
		{Name: "bridge", Bridge: "docker0"}, {Name: "lan", Bridge: "br0"}, {Name: "shop", Bridge: "br-0123456789ab"}}}
	inv := watch.Join(links, answer)
	want := []inventory.Shared{{Name: "lan", Bridge: "br0", Port: "eth0"}, {Name: "shop", Bridge: "br-0123456789ab", Port: "vlan5"}}
	if diff := cmp.Diff(want, inv.Shared); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]inventory.Network{{Name: "bridge", Bridge: "docker0"}}, inv.Networks); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]bool{"docker0": true, "br0": false, "br-0123456789ab": false, "br-ba9876543210": true, "eth0": false} {
		if got := inv.IsDockerBridge(name); got != want {
			t.Errorf("%s is a bridge of containers: %v, want %v", name, got, want)
		}
	}
}
