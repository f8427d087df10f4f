package watch_test

import (
	"testing"

	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch"
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
