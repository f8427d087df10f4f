package hostfiles

import (
	"fmt"
	"net/netip"
	"strings"

	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// FormatRoutes writes routes as ip does, as far as Routes reads them.
func FormatRoutes(all []snapshot.Route) string {
	var b strings.Builder
	for _, r := range all {
		if name := routeType(r.Type); name != "unicast" {
			b.WriteString(name + " ")
		}
		if r.Dst.Bits() == 0 {
			b.WriteString("default")
		} else {
			b.WriteString(formatPrefix(r.Dst))
		}
		if r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4() {
			fmt.Fprintf(&b, " via inet6 %s", r.Via)
		} else if r.Via.IsValid() {
			fmt.Fprintf(&b, " via %s", r.Via)
		}
		if r.Dev != "" {
			b.WriteString(" dev " + r.Dev)
		}
		if r.Table != "main" {
			b.WriteString(" table " + r.Table)
		}
		if r.Src.IsValid() {
			fmt.Fprintf(&b, " src %s", r.Src)
		}
		if r.Metric != 0 || r.Dst.Addr().Is6() {
			fmt.Fprintf(&b, " metric %d", r.Metric)
		}
		if r.Dst.Addr().Is6() {
			b.WriteString(" pref medium")
		}
		if r.Down {
			b.WriteString(" linkdown")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func routeType(number int) string {
	for name, n := range routeTypes {
		if n == number {
			return name
		}
	}
	return "unicast"
}

func formatPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// FormatRules writes the rules of routing as ip does, those of IPv4 before those of IPv6.
func FormatRules(all []snapshot.RoutingRule) string {
	var b strings.Builder
	for _, r := range all {
		words := []string{fmt.Sprintf("%d:", r.Priority)}
		if r.Not {
			words = append(words, "not")
		}
		words = append(words, "from", orAny(r.From))
		if r.To.IsValid() {
			words = append(words, "to", formatPrefix(r.To))
		}
		if r.MarkMask != 0 {
			words = append(words, "fwmark", fmt.Sprintf("%#x/%#x", r.Mark, r.MarkMask))
		}
		for _, iface := range [][2]string{{"iif", r.In}, {"oif", r.Out}} {
			if iface[1] != "" {
				words = append(words, iface[:]...)
			}
		}
		if r.Proto != 0 {
			words = append(words, "ipproto", packet.ProtoName(r.Proto))
		}
		for _, ports := range []struct {
			name string
			is   [2]uint16
		}{{"sport", r.SrcPorts}, {"dport", r.DstPorts}} {
			if ports.is != [2]uint16{} {
				words = append(words, ports.name, fmt.Sprintf("%d-%d", ports.is[0], ports.is[1]))
			}
		}
		if r.Unread != "" {
			words = append(words, r.Unread)
		}
		switch r.Action {
		case "lookup":
			words = append(words, "lookup", r.Table)
		case "goto":
			words = append(words, "goto", fmt.Sprint(r.Goto))
		default:
			words = append(words, r.Action)
		}
		if r.SuppressPrefix >= 0 {
			words = append(words, "suppress_prefixlength", fmt.Sprint(r.SuppressPrefix))
		}
		b.WriteString(strings.Join(words, " ") + "\n")
	}
	return b.String()
}

func orAny(p netip.Prefix) string {
	if !p.IsValid() {
		return "all"
	}
	return formatPrefix(p)
}

// FormatSockets writes sockets as "ss -tulnpH" does.
func FormatSockets(all []snapshot.Socket) string {
	var b strings.Builder
	for _, s := range all {
		state := "LISTEN"
		if packet.ProtoName(s.Proto) == "udp" {
			state = "UNCONN"
		}
		addr, dev := s.Addr.String(), ""
		switch {
		case s.Both:
			addr = "*"
		case s.Addr.Is6():
			addr = "[" + addr + "]"
		}
		if s.Dev != "" {
			dev = "%" + s.Dev
		}
		fmt.Fprintf(&b, "%s %s 0 0 %s%s:%d *:*", packet.ProtoName(s.Proto), state, addr, dev, s.Port)
		if s.Process != "" {
			fmt.Fprintf(&b, ` users:(("%s",pid=%d,fd=0))`, s.Process, s.PID)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
