package host

import (
	"encoding/json"
	"net"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"quaywall/internal/netfilter"
	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/snapshot"
)

// Links are the interfaces with their addresses, in the form of ip.
func Links() ([]hostfiles.Link, error) {
	links, addrs, err := linksAndAddrs()
	if err != nil {
		return nil, err
	}
	names := namesOf(links)
	byIndex := map[int][]hostfiles.Addr{}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], hostfiles.Addr{Local: p.Addr().String(), Len: p.Bits()})
		}
	}
	all := make([]hostfiles.Link, 0, len(links))
	for _, l := range links {
		one := oneLink(l, names)
		one.Addrs = byIndex[l.Attrs().Index]
		all = append(all, one)
	}
	return all, nil
}

func namesOf(links []netlink.Link) map[int]string {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names
}

func oneLink(l netlink.Link, names map[int]string) hostfiles.Link {
	a := l.Attrs()
	one := hostfiles.Link{Index: a.Index, Name: a.Name, Master: names[a.MasterIndex], Address: a.HardwareAddr.String(),
		LinkType: a.EncapType, Info: hostfiles.LinkInfo{Kind: kind(l)}}
	if a.Flags&net.FlagUp != 0 {
		one.Flags = []string{"UP"}
	}
	switch {
	case a.ParentIndex == 0:
	case a.NetNsID >= 0:
		ns := a.NetNsID
		one.PeerID, one.PeerNS = a.ParentIndex, &ns
	default:
		one.Parent = names[a.ParentIndex]
	}
	if m, ok := l.(*netlink.Macvlan); ok {
		one.Info.Data.Mode, _ = json.Marshal(macvlanModes[m.Mode]) // a string
	}
	return one
}

var macvlanModes = map[netlink.MacvlanMode]string{netlink.MACVLAN_MODE_PRIVATE: "private", netlink.MACVLAN_MODE_VEPA: "vepa",
	netlink.MACVLAN_MODE_BRIDGE: "bridge", netlink.MACVLAN_MODE_PASSTHRU: "passthru", netlink.MACVLAN_MODE_SOURCE: "source"}

// AllRoutes are the routes of all tables and types. One with several next hops is several.
func AllRoutes() ([]snapshot.Route, error) {
	links, err := whole("interfaces", netlink.LinkList)
	if err != nil {
		return nil, err
	}
	names := namesOf(links)
	all, err := whole("routes", listRoutes)
	if err != nil {
		return nil, err
	}
	var routes []snapshot.Route
	for _, r := range all {
		one := snapshot.Route{Table: tableName(r.Table), Type: r.Type, Dst: routePrefix(r), Metric: r.Priority, Src: addr(r.Src)}
		hops := r.MultiPath
		if len(hops) == 0 {
			hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Flags: r.Flags}}
		}
		for _, hop := range hops {
			one.Dev, one.Via = names[hop.LinkIndex], addr(hop.Gw)
			if via, ok := hop.Via.(*netlink.Via); ok {
				one.Via = addr(via.Addr)
			}
			one.Down = hop.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0
			routes = append(routes, one)
		}
	}
	return routes, nil
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// tableName is the name that ip has for a table of routes.
func tableName(n int) string {
	switch n {
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return strconv.Itoa(n)
}

// RoutingRules are the rules of the routing policy, those of IPv4 first.
func RoutingRules() ([]snapshot.RoutingRule, error) {
	var all []snapshot.RoutingRule
	for _, f := range []struct {
		number int
		family netfilter.Family
	}{{netlink.FAMILY_V4, netfilter.IPv4}, {netlink.FAMILY_V6, netfilter.IPv6}} {
		rules, err := whole("rules of routing", func() ([]netlink.Rule, error) { return listRules(f.number) })
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			all = append(all, routingRule(r, f.family))
		}
	}
	return all, nil
}

// listRules are the rules of a family with their actions, which the library leaves out.
func listRules(family int) ([]netlink.Rule, error) {
	rules, err := netlink.RuleList(family)
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP|unix.NLM_F_REQUEST)
	req.AddData(nl.NewIfInfomsg(family))
	messages, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	if len(messages) != len(rules) {
		return nil, netlink.ErrDumpInterrupted // somebody changed them between the two
	}
	const action = 7 // of struct fib_rule_hdr
	for i, m := range messages {
		if len(m) > action {
			rules[i].Type = m[action]
		}
	}
	return rules, nil
}

func routingRule(r netlink.Rule, f netfilter.Family) snapshot.RoutingRule {
	one := snapshot.RoutingRule{Family: f, Priority: max(r.Priority, 0), Not: r.Invert, In: r.IifName, Out: r.OifName,
		Mark: r.Mark, SuppressPrefix: r.SuppressPrefixlen, Proto: uint8(max(r.IPProto, 0))}
	one.From, _ = prefix(r.Src)
	one.To, _ = prefix(r.Dst)
	if r.Mask != nil {
		one.MarkMask = *r.Mask
	}
	if r.Sport != nil {
		one.SrcPorts = [2]uint16{r.Sport.Start, r.Sport.End}
	}
	if r.Dport != nil {
		one.DstPorts = [2]uint16{r.Dport.Start, r.Dport.End}
	}
	if r.UIDRange != nil {
		one.Unread = "uidrange " + strconv.Itoa(int(r.UIDRange.Start)) + "-" + strconv.Itoa(int(r.UIDRange.End))
	}
	if r.Tos != 0 {
		one.Unread += " tos " + strconv.Itoa(int(r.Tos))
	}
	switch r.Type {
	case unix.FR_ACT_GOTO:
		one.Action, one.Goto = "goto", r.Goto
	case unix.FR_ACT_BLACKHOLE:
		one.Action = "blackhole"
	case unix.FR_ACT_UNREACHABLE:
		one.Action = "unreachable"
	case unix.FR_ACT_PROHIBIT:
		one.Action = "prohibit"
	default:
		one.Action, one.Table = "lookup", tableName(r.Table)
	}
	return one
}
