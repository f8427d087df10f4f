package watch_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/inventory"
	"quaywall/internal/testkit/lab"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch"
)

// inventoryOf takes the inventory of a machine of a lab, as the program does when it runs there.
func inventoryOf(t *testing.T, host *lab.Node) *inventory.Inventory {
	t.Helper()
	var inv *inventory.Inventory
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		ns, err := os.Open(host.Netns())
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = netns.Guard()
		}
		if err == nil {
			inv, err = watch.Inventory(context.Background(), "unix://"+host.DockerSocket())
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return inv
}

// Trap 27, with the engine that this machine has: version negotiation, the daemon gone and back.
func TestInventoryOfARealEngine(t *testing.T) {
	l := lab.Start(t, lab.OneHost(lab.Engine{}))
	host := l.Node("host")
	for _, n := range []lab.Network{
		{Name: "back", Subnets: []string{"10.77.0.0/24", "2001:db8:77::/64"}, Options: map[string]string{"com.docker.network.bridge.name": "qwback"}},
		{Name: "inner", Subnets: []string{"10.78.0.0/24"}, Internal: true},
	} {
		if err := host.AddNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []lab.Container{
		{Name: "web", Serve: []string{"80/tcp"}, Publish: []string{"8080:80", "127.0.0.1:5300:53/udp"}},
		{Name: "api", Networks: []string{"back"}, Serve: []string{"80/tcp"}, Publish: []string{"9000:80"}},
		{Name: "onhost", Networks: []string{"host"}, Serve: []string{"7000/tcp"}},
	} {
		if _, err := host.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	inv := inventoryOf(t, host)
	if !inv.Docker.Reachable || inv.Docker.Version == "" || inv.Docker.Problem != "" {
		t.Errorf("Docker: %+v", inv.Docker)
	}
	var ports []string
	for _, p := range inv.Published {
		ports = append(ports, fmt.Sprintf("%s %s>%d", p.Container, netip.AddrPortFrom(p.Addr, p.Port), p.Target))
	}
	want := []string{"web 0.0.0.0:8080>80", "web [::]:8080>80", "api 0.0.0.0:9000>80", "api [::]:9000>80", "web 127.0.0.1:5300>53"}
	if !slices.Equal(ports, want) {
		t.Errorf("published %q, want %q", ports, want)
	}
	checkNetworks(t, inv, "back bridge inner", true)

	if err := host.StopEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := inventoryOf(t, host)
	if gone.Docker.Reachable || gone.Docker.Problem == "" || len(gone.Published) != 0 {
		t.Errorf("without its daemon: %+v, published %v", gone.Docker, gone.Published)
	}
	inner, _ := inv.Network("inner")
	checkNetworks(t, gone, inner.Bridge+" docker0", false) // qwback's name doesn't tell

	if err := host.StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkNetworks(t, inventoryOf(t, host), "back bridge inner", true)
}

// checkNetworks checks names, and what is known of the networks where Docker answers.
func checkNetworks(t *testing.T, inv *inventory.Inventory, names string, answers bool) {
	t.Helper()
	var got []string
	for _, n := range inv.Networks {
		got = append(got, n.Name)
		if !slices.ContainsFunc(inv.Interfaces, func(i inventory.Interface) bool { return i.Name == n.Bridge && i.Kind == "bridge" }) {
			t.Errorf("network %s: no bridge %s", n.Name, n.Bridge)
		}
		if len(n.Subnets) == 0 {
			t.Errorf("network %s has no subnets", n.Name)
		}
	}
	if strings.Join(got, " ") != names {
		t.Errorf("networks %q, want %q", got, names)
	}
	if back, ok := inv.Network("back"); answers && (!ok || back.Bridge != "qwback" || len(back.Subnets) != 2) {
		t.Errorf("network back: %+v", back)
	}
	if inner, _ := inv.Network("inner"); answers && !inner.Internal {
		t.Error("network inner is not internal")
	}
}
