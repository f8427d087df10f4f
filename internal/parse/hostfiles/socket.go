package hostfiles

import (
	"net/netip"
	"strconv"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// Sockets reads "ss -tulnp", with its header or without: the sockets that listen, and those of datagrams that are not
// connected.
func Sockets(text, name string) ([]snapshot.Socket, diag.List) {
	f := file{name: name}
	// Before iproute2 4.20 ":::22" was what is "*:22" since, and "*:22" what is "0.0.0.0:22".
	old := strings.Contains(text, " :::")
	var all []snapshot.Socket
	f.lines(text, func(line string, words []string) {
		if words[0] == "Netid" || words[0] == "State" {
			return
		}
		s, ok, wanted := readSocket(line, words, old)
		if !ok {
			f.unread("line of ss", line)
		} else if wanted {
			all = append(all, s)
		}
	})
	if old {
		takeBoth(all)
	}
	return all, f.problems
}

// takeBoth has sockets of all IPv6 addresses take IPv4 too, as they do unless told otherwise, where no other has the port.
func takeBoth(all []snapshot.Socket) {
	type port struct {
		proto uint8
		port  uint16
	}
	v4 := map[port]bool{}
	for _, s := range all {
		v4[port{s.Proto, s.Port}] = v4[port{s.Proto, s.Port}] || s.Addr.Is4()
	}
	for i, s := range all {
		all[i].Both = s.Addr == netip.IPv6Unspecified() && !v4[port{s.Proto, s.Port}]
	}
}

// readSocket reads "tcp LISTEN 0 4096 127.0.0.1:5432 0.0.0.0:* users:((…))". Sockets of other kinds, and such that are
// connected, are not wanted.
func readSocket(line string, words []string, old bool) (s snapshot.Socket, ok, wanted bool) {
	if len(words) < 5 {
		return s, false, false
	}
	proto, err := packet.ParseProto(words[0])
	if err != nil || words[0][0] < 'a' {
		switch words[0] {
		case "raw", "p_raw", "p_dgr", "u_str", "u_dgr", "u_seq", "nl", "mptcp", "v_str", "v_dgr", "xdp", "???":
			return s, true, false
		}
		return s, false, false
	}
	s.Proto = proto
	if words[1] != "LISTEN" && words[1] != "UNCONN" {
		return s, true, false
	}
	if !readLocal(&s, words[4], old) {
		return s, false, false
	}
	readUsers(&s, line)
	return s, true, s.Port != 0
}

// readLocal reads "*:22", "0.0.0.0%eth0:68", "[fe80::1]%eth0:546", of old versions ":::22" and "fe80::1%eth0:546".
func readLocal(s *snapshot.Socket, text string, old bool) bool {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return false
	}
	port, err := strconv.ParseUint(text[colon+1:], 10, 16)
	if err != nil && text[colon+1:] != "*" {
		return false
	}
	s.Port = uint16(port)
	addr, dev, _ := strings.Cut(text[:colon], "%")
	s.Dev = dev
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if addr == "*" {
		s.Addr, s.Both = netip.IPv6Unspecified(), true
		if old {
			s.Addr, s.Both = netip.IPv4Unspecified(), false
		}
		return true
	}
	a, err := netip.ParseAddr(addr)
	s.Addr = a.Unmap()
	return err == nil
}

// readUsers reads who holds a socket: of several the first, which has the others as its children most often.
func readUsers(s *snapshot.Socket, line string) {
	_, users, ok := strings.Cut(line, `users:(("`)
	if !ok {
		return
	}
	name, rest, ok := strings.Cut(users, `",pid=`)
	if !ok {
		return
	}
	s.Process = name
	digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	s.PID, _ = strconv.Atoi(rest[:max(digits, 0)])
}
