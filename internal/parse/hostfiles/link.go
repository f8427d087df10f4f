package hostfiles

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/snapshot"
)

// Link is what is needed of an interface in "ip -j addr" and "ip -d -j link", in their form.
type Link struct {
	Index    int      `json:"ifindex"`
	Name     string   `json:"ifname"`
	Parent   string   `json:"link,omitempty"`       // where it is in the same namespace
	PeerID   int      `json:"link_index,omitempty"` // where it is in another one
	PeerNS   *int     `json:"link_netnsid,omitempty"`
	Flags    []string `json:"flags"`
	Master   string   `json:"master,omitempty"`
	Address  string   `json:"address,omitempty"`
	LinkType string   `json:"link_type,omitempty"`
	Info     LinkInfo `json:"linkinfo,omitzero"`
	Addrs    []Addr   `json:"addr_info,omitempty"`
}

// LinkInfo is the kind of an interface, and what it may have of a mode: a word or a number.
type LinkInfo struct {
	Kind string   `json:"info_kind,omitempty"`
	Data LinkData `json:"info_data,omitzero"`
}

// LinkData is what is needed of an interface's own settings.
type LinkData struct {
	Mode json.RawMessage `json:"mode,omitempty"`
}

// Addr is an address of an interface.
type Addr struct {
	Local string `json:"local"`
	Len   int    `json:"prefixlen"`
}

// Interfaces reads "ip -j addr", and "ip -d -j link" where there is one: either may be "". Interfaces are sorted by name, and
// links are what an inventory leaves out of them, in the same order.
func Interfaces(addrs, addrsName, links, linksName string) ([]inventory.Interface, []snapshot.Link, diag.List) {
	all, problems := List[Link](addrs, addrsName)
	details, more := List[Link](links, linksName)
	problems = append(problems, more...)
	for _, d := range details {
		i := slices.IndexFunc(all, func(l Link) bool { return l.Name == d.Name })
		if i < 0 {
			all = append(all, d)
			continue
		}
		d.Addrs = all[i].Addrs
		all[i] = d
	}
	all = slices.DeleteFunc(all, func(l Link) bool { return l.Name == "" })
	slices.SortStableFunc(all, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	masters := map[string]bool{}
	byName := map[string]int{}
	for _, l := range all {
		masters[l.Master] = true
		byName[l.Name] = l.Index
	}
	var interfaces []inventory.Interface
	var rest []snapshot.Link
	for _, l := range all {
		kind := l.Info.Kind
		if len(details) == 0 {
			kind = l.guess(masters)
		}
		interfaces = append(interfaces, l.typed(kind))
		rest = append(rest, l.rest(kind, byName))
	}
	return interfaces, rest, problems
}

// guess finds the kind of an interface from what it is named, what is on it, and whether its other end is somewhere else.
func (l Link) guess(masters map[string]bool) string {
	switch {
	case masters[l.Name] || inventory.IsDockerBridgeName(l.Name):
		return "bridge"
	case l.PeerNS != nil || strings.HasPrefix(l.Name, "veth"):
		return "veth"
	}
	return ""
}

func (l Link) typed(kind string) inventory.Interface {
	i := inventory.Interface{Name: l.Name, Index: l.Index, Kind: kind, Master: l.Master, Up: slices.Contains(l.Flags, "UP")}
	if kind == "vlan" {
		i.Parent = l.Parent
	}
	for _, a := range l.Addrs {
		if addr, err := netip.ParseAddr(a.Local); err == nil && a.Len >= 0 && a.Len <= addr.BitLen() {
			i.Addrs = append(i.Addrs, netip.PrefixFrom(addr, a.Len))
		}
	}
	slices.SortFunc(i.Addrs, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return i
}

func (l Link) rest(kind string, byName map[string]int) snapshot.Link {
	r := snapshot.Link{Name: l.Name, Modes: strings.Trim(string(l.Info.Data.Mode), `"`)}
	if l.LinkType == "ether" {
		r.MAC = l.Address
	}
	if kind == "veth" {
		r.Peer = cmp.Or(l.PeerID, byName[l.Parent])
	}
	return r
}

// List reads a list of JSON, as far as that is one: what stands before it and behind, and values that aren't what they should
// be, are told. An empty text is an empty list.
func List[T any](text, name string) ([]T, diag.List) {
	var all []T
	var problems diag.List
	if strings.Trim(text, " \t\r\n\x00") == "" {
		return nil, nil
	}
	problem := func(offset int64, format string, args ...any) {
		problems.Warnf(diag.Pos{File: name, Line: 1 + strings.Count(text[:min(int(offset), len(text))], "\n")}, "", format, args...)
	}
	start := strings.IndexByte(text, '[')
	if start < 0 {
		problem(0, "this is no list in JSON")
		return nil, problems
	}
	d := json.NewDecoder(strings.NewReader(text[start:]))
	if _, err := d.Token(); err != nil {
		problem(int64(start), "this is no list in JSON: %v", err)
		return nil, problems
	}
	for d.More() {
		var one T
		err := d.Decode(&one)
		var typ *json.UnmarshalTypeError
		switch {
		case err == nil:
		case errors.As(err, &typ):
			problem(int64(start)+d.InputOffset(), "%s is a %s, which it can't be: what it says is not known", typ.Field, typ.Value)
		default:
			problem(int64(start)+d.InputOffset(), "the rest can't be read: %v", err)
			return all, problems
		}
		all = append(all, one)
	}
	if _, err := d.Token(); err != nil {
		problem(int64(start)+d.InputOffset(), "the list is cut short: what follows is not known")
	}
	return all, problems
}
