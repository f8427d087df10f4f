package apply_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	"quaywall/internal/inventory"
)

// After a boot the policy is there before Docker, and knows the networks that come back: which bridge is whose, and whose
// containers may reach this host. A bridge with a name of its own may be somebody else's by then.
func TestNetworksAreRemembered(t *testing.T) {
	inNamespace(t, func(w *world) {
		text := "version: 1\negress: [{allow: dns, network: shop}, {deny: any, network: shop}]\n"
		if err := os.WriteFile(w.policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		prefix := []netip.Prefix{netip.MustParsePrefix("172.18.0.0/16")}
		answer := inventory.Docker{Reachable: true}
		here := []inventory.Network{{Name: "shop", Bridge: "br-0123456789ab", Subnets: prefix}, {Name: "own", Bridge: "br0"}}
		w.Inventory = func(context.Context) (*inventory.Inventory, error) {
			inv := hostInventory()
			inv.Docker, inv.Networks = answer, here
			return inv, nil
		}
		w.mustApply(t, w.options())
		answer, here = inventory.Docker{}, nil
		for range 2 { // what is remembered is not forgotten at the second boot
			w.reboot()
			r := w.mustApply(t, w.options())
			if n, ok := r.Inventory.Network("shop"); !ok || n.Bridge != "br-0123456789ab" || len(n.Subnets) != 1 {
				t.Errorf("the network shop is %+v", n)
			}
			if _, ok := r.Inventory.Network("own"); ok {
				t.Error("a bridge with a name of its own is taken for Docker's before Docker says so")
			}
			for _, warning := range r.Warnings {
				if strings.Contains(warning.Message, "is not known") {
					t.Error(warning)
				}
			}
		}
		here = []inventory.Network{{Name: "br-0123456789ab", Bridge: "br-0123456789ab"}, {Name: "docker0", Bridge: "docker0"}}
		if r := w.mustApply(t, w.options()); len(r.Inventory.Networks) != 2 || r.Inventory.Networks[1].Name != "shop" {
			t.Errorf("with the bridges there: %+v", r.Inventory.Networks)
		}
		answer, here = inventory.Docker{Reachable: true}, nil
		if r := w.mustApply(t, w.options()); len(r.Inventory.Networks) != 0 {
			t.Errorf("Docker has no networks any more: %+v", r.Inventory.Networks)
		}
		answer = inventory.Docker{}
		if r := w.mustApply(t, w.options()); len(r.Inventory.Networks) != 0 {
			t.Errorf("a network that Docker had no more comes back: %+v", r.Inventory.Networks)
		}
	})
}
