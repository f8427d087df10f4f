// Package watch takes the inventory of a host: what package watch/host and package watch/docker see, put together.
//
//	inv, err := watch.Inventory(ctx, "")
//
// Be aware: the interfaces are those of the network namespace of the calling operating system thread. Docker not
// answering is no error: its networks then come from the names of bridges. Bridges with names of Docker's that the
// engine doesn't know, those of a second engine, count as Docker's as well.
package watch

import (
	"cmp"
	"context"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/watch/docker"
	"quaywall/internal/watch/host"
)

// Inventory asks the kernel and the engine at dockerHost ("" for Docker's own rules), both at a time.
func Inventory(ctx context.Context, dockerHost string) (*inventory.Inventory, error) {
	links, answer, err := List(ctx, dockerHost)
	if err != nil {
		return nil, err
	}
	return Join(links, answer), nil
}

// List is Inventory in its two parts: what the kernel says, and what the engine does.
func List(ctx context.Context, dockerHost string) ([]inventory.Interface, docker.Answer, error) {
	answer := make(chan docker.Answer, 1)
	go func() { answer <- docker.List(ctx, dockerHost) }()
	links, err := host.Interfaces()
	if err != nil {
		return nil, docker.Answer{}, err
	}
	return links, <-answer, nil
}

// Join puts the two parts together. They need not be of one moment.
func Join(links []inventory.Interface, answer docker.Answer) *inventory.Inventory {
	networks, published := answer.In(links)
	for _, guess := range host.Networks(links) {
		if !slices.ContainsFunc(networks, func(n inventory.Network) bool { return n.Bridge == guess.Bridge }) {
			networks = append(networks, guess)
		}
	}
	slices.SortStableFunc(networks, func(a, b inventory.Network) int { return cmp.Compare(a.Name, b.Name) })
	inv := &inventory.Inventory{Docker: answer.Docker, Interfaces: links, Published: published, Unseen: answer.UnseenIn(links)}
	for _, n := range networks {
		if port := strangePort(links, n.Bridge); port != "" {
			inv.Shared = append(inv.Shared, inventory.Shared{Name: n.Name, Bridge: n.Bridge, Port: port})
			continue
		}
		inv.Networks = append(inv.Networks, n)
	}
	return inv
}

// strangePort is a port of a bridge that leads to no container, "" where there is none. Docker joins containers by veth
// pairs.
func strangePort(links []inventory.Interface, bridge string) string {
	for _, l := range links {
		if l.Master == bridge && l.Kind != "veth" {
			return l.Name
		}
	}
	return ""
}
