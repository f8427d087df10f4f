package hostfiles

import (
	"net/netip"
	"slices"
	"strconv"

	"quaywall/internal/diag"
	"quaywall/internal/snapshot"
)

// routeTypes are RTN_* by their names.
var routeTypes = map[string]int{"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6,
	"unreachable": 7, "prohibit": 8, "throw": 9, "nat": 10}

const unicast = 1

// Routes reads "ip route show table all" and "ip -6 route show table all", one behind the other.
func Routes(text, name string) ([]snapshot.Route, diag.List) {
	f := file{name: name}
	routes := routes{seen: map[snapshot.Route]bool{}}
	f.lines(text, func(line string, words []string) {
		if !routes.read(words) {
			f.unread("route", line)
		}
	})
	return routes.all, f.problems
}

type routes struct {
	all []snapshot.Route
	// Newer versions of ip tell of IPv6 unasked, and once more where they are asked.
	seen map[snapshot.Route]bool
	last snapshot.Route // that next hops of the lines behind belong to
	v6   bool           // IPv6 routes have been read: default routes that don't tell are of IPv6 too
}

// add adds a route that leads somewhere, or says that there is no way.
func (rs *routes) add(r snapshot.Route) {
	if leads := r.Dev != "" || r.Via.IsValid() || r.Type != unicast; leads && !rs.seen[r] {
		rs.seen[r] = true
		rs.all = append(rs.all, r)
	}
}

// read reads a line. Its next hops may stand on it or on lines of their own.
func (rs *routes) read(words []string) bool {
	hops := slices.Index(words, "nexthop")
	if hops != 0 {
		head := words
		if hops > 0 {
			head = words[:hops]
		}
		r, ok := rs.route(head)
		if rs.last = r; !ok {
			return false
		}
		if hops < 0 {
			rs.add(r)
			return true
		}
	}
	if !rs.last.Dst.IsValid() {
		return false
	}
	for words = words[hops:]; len(words) > 0; {
		hop := rs.last
		rest := words[1:]
		next := slices.Index(rest, "nexthop")
		if next < 0 {
			next = len(rest)
		}
		if !attributes(&hop, rest[:next]) {
			return false
		}
		rs.add(hop)
		words = rest[next:]
	}
	return true
}

// route reads the destination and what follows.
func (rs *routes) route(words []string) (snapshot.Route, bool) {
	r := snapshot.Route{Table: "main", Type: unicast}
	if t := routeTypes[words[0]]; t != 0 {
		r.Type = t
		words = words[1:]
	}
	if len(words) == 0 || !attributes(&r, words[1:]) {
		return snapshot.Route{}, false
	}
	if words[0] != "default" {
		var ok bool
		r.Dst, ok = parsePrefix(words[0])
		rs.v6 = rs.v6 || r.Dst.Addr().Is6()
		return r, ok
	}
	zero := netip.IPv4Unspecified()
	// Only routes of IPv6 have a preference. A next hop of IPv6 an IPv4 route may have as well, with the word inet6 before it.
	if slices.Contains(words, "pref") || rs.v6 || r.Via.Is6() && !slices.Contains(words, "inet6") {
		zero = netip.IPv6Unspecified()
	}
	r.Dst = netip.PrefixFrom(zero, 0)
	return r, true
}

// attributes reads what a route or a next hop says beside its destination. Words that don't matter are passed over.
func attributes(r *snapshot.Route, words []string) bool {
	ok := true
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "linkdown", "dead":
			r.Down = true
			continue
		case "via":
			if value == "inet" || value == "inet6" {
				i++
				value = words[min(i+1, len(words)-1)]
			}
			ok = parseAddr(&r.Via, value) && ok
		case "src":
			ok = parseAddr(&r.Src, value) && ok
		case "dev":
			r.Dev, ok = value, ok && value != ""
		case "table":
			r.Table, ok = value, ok && value != ""
		case "metric":
			n, err := strconv.ParseUint(value, 10, 32)
			r.Metric, ok = int(n), ok && err == nil
		case "proto", "scope", "mtu", "pref", "expires", "error", "weight", "nhid", "realm", "tos":
		default:
			continue
		}
		i++
	}
	return ok
}

func parseAddr(to *netip.Addr, text string) bool {
	a, err := netip.ParseAddr(text)
	*to = a.WithZone("")
	return err == nil
}
