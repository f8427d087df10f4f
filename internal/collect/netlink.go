package collect

import (
	"encoding/json"
	"net"

	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/snapshot"
	"quaywall/internal/watch/host"
	"quaywall/internal/watch/sockets"
)

// What follows is what ip and ss would print, for hosts that don't have them.

func addrsByNetlink() ([]byte, error) {
	links, err := host.Links()
	if err != nil {
		return nil, err
	}
	return json.Marshal(links)
}

// linksByNetlink is the same without addresses.
func linksByNetlink() ([]byte, error) {
	links, err := host.Links()
	if err != nil {
		return nil, err
	}
	for i := range links {
		links[i].Addrs = nil
	}
	return json.Marshal(links)
}

func routesByNetlink() ([]byte, error) {
	routes, err := host.AllRoutes()
	return []byte(hostfiles.FormatRoutes(routes)), err
}

func rulesByNetlink() ([]byte, error) {
	rules, err := host.RoutingRules()
	return []byte(hostfiles.FormatRules(rules)), err
}

func socketsByNetlink() ([]byte, error) {
	list, err := sockets.List()
	if err != nil {
		return nil, err
	}
	owners, _ := sockets.Owners() // of processes that can't be looked into ss doesn't tell either
	var all []snapshot.Socket
	for _, s := range list {
		if !s.Listening {
			continue
		}
		one := snapshot.Socket{Proto: s.Proto, Addr: s.Local.Addr(), Port: s.Local.Port(), Process: owners[s.Inode].Name, PID: owners[s.Inode].PID}
		one.Both = one.Addr.Is6() && one.Addr.IsUnspecified() && !s.V6Only
		if i, err := net.InterfaceByIndex(s.Iface); s.Iface != 0 && err == nil {
			one.Dev = i.Name
		}
		all = append(all, one)
	}
	return []byte(hostfiles.FormatSockets(all)), nil
}
