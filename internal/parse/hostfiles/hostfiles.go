// Package hostfiles reads what ordinary tools print of a host's network: ip, ss and sysctl.
//
//	interfaces, links, problems := hostfiles.Interfaces(addrs, "ip-addr.json", links, "ip-link.json")
//	routes, problems := hostfiles.Routes(text, "ip-route.txt")
//
// Nothing fails as a whole: what can't be read is told with its line, and the rest is given.
//
// Be aware: without "ip -d -j link" the kinds of interfaces are not known; those of bridges and of veth pairs are guessed from
// what else is said of them. A route with several next hops is several routes.
package hostfiles

import (
	"net/netip"
	"strings"

	"quaywall/internal/diag"
)

// file is a text that is being read, line by line.
type file struct {
	name     string
	line     int
	problems diag.List
}

// lines goes through the words of each line that has any.
func (f *file) lines(text string, yield func(line string, words []string)) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\x00", "")) {
		f.line++
		line = strings.TrimRight(line, "\r\n")
		if words := strings.Fields(line); len(words) > 0 {
			yield(line, words)
		}
	}
}

// unread tells that a line isn't understood.
func (f *file) unread(what, line string) {
	const most = 200
	if len(line) > most {
		line = line[:most] + "…"
	}
	f.problems.Warnf(diag.Pos{File: f.name, Line: f.line}, "", "this is no %s: %q", what, line)
}

// parsePrefix reads an address or a prefix.
func parsePrefix(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// Sysctls reads "sysctl -a", or a part of it. Of a key that is there twice the last counts.
func Sysctls(text, name string) (map[string]string, diag.List) {
	f := file{name: name}
	all := map[string]string{}
	f.lines(text, func(line string, words []string) {
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t:") {
			f.unread("line of sysctl", line)
			return
		}
		all[key] = strings.TrimSpace(value)
	})
	return all, f.problems
}
