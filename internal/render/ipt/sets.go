package ipt

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// Kind is a type of set.
type Kind uint8

// The kinds.
const (
	Nets      Kind = iota // hash:net
	IfaceNets             // hash:net,iface
	PortBits              // bitmap:port, of TCP and UDP, for both families
	Flows                 // hash:ip,port,ip: the server's address and port, the client's address
)

func (k Kind) String() string {
	return [...]string{"hash:net", "hash:net,iface", "bitmap:port", "hash:ip,port,ip"}[k]
}

// Set is an ipset. Its name holds a hash of all that it is: two sets of one name are the same set.
type Set struct {
	Name     string
	Kind     Kind
	Family   ruleset.Family // of Nets and IfaceNets
	Counters bool           // its entries count packets and have comments
	Entries  iter.Seq[Entry]
	Elements int    // what the kernel will count
	Digest   string // of the entries

	// Of Flows: what it holds at first, instead of entries, and after how many seconds each goes.
	Flows   []ruleset.Flow
	Timeout uint32
}

// SetPrefix begins the names of quaywall's sets. A digit or a letter for the family follows, then a dash.
const SetPrefix = "quaywall"

// TempPrefix begins the names of sets that are being filled. They are in nobody's use.
const TempPrefix = SetPrefix + "+"

// OwnSet tells whether a set is quaywall's by its name.
func OwnSet(name string) bool {
	if strings.HasPrefix(name, TempPrefix) {
		return true
	}
	rest, ok := strings.CutPrefix(name, SetPrefix)
	if !ok || len(rest) < hashLength+3 || !strings.Contains("46pf", rest[:1]) || rest[1] != '-' {
		return false
	}
	return rest[len(rest)-hashLength-1] == '-'
}

// flowsPrefix begins the names of sets of flows.
const flowsPrefix = SetPrefix + "f-"

// IsFlows tells by its name whether a set of quaywall's holds flows: it is never compared by what it holds.
func IsFlows(name string) bool { return strings.HasPrefix(name, flowsPrefix) }

// NewFlows is the ipset for a set of flows. What it is called depends on the name alone.
func NewFlows(s *ruleset.Set) Set {
	family := ruleset.IPv4
	if s.Key == ruleset.Flow6 {
		family = ruleset.IPv6
	}
	return Set{
		Name: fmt.Sprintf("%s%s-%s", flowsPrefix, map[ruleset.Family]string{ruleset.IPv4: "4", ruleset.IPv6: "6"}[family], shortHash(s.Name)),
		Kind: Flows, Family: family, Flows: s.Flows, Elements: len(s.Flows), Timeout: uint32(s.Timeout / time.Second),
		Entries: func(func(Entry) bool) {},
	}
}

// moreFlows is how many flows may be added to a set, at least.
const moreFlows = 1 << 17

// newSet makes a set and its name. What the entries are is asked for as often as needed, and must be the same each time.
func newSet(word string, s Set) Set {
	var d Digest
	for e := range s.Entries {
		d.Add(e, s.Kind)
	}
	s.Elements, s.Digest = d.Elements(), d.String()
	mark := map[ruleset.Family]string{ruleset.IPv4: "4", ruleset.IPv6: "6", ruleset.Inet: "p"}[s.Family]
	hash := shortHash(fmt.Sprint(s.Kind, s.Counters, s.Elements, s.Digest))
	word = clean(strings.TrimSuffix(strings.TrimSuffix(word, "-4"), "-6"))
	head := SetPrefix + mark + "-"
	s.Name = head + word[:min(len(word), maxSet-len(head)-hashLength-1)] + "-" + hash
	return s
}

// Create is how ipset would be asked for the set, without its entries.
func (s *Set) Create() string {
	extra := ""
	if s.Counters {
		extra = " counters comment"
	}
	if s.Kind == PortBits {
		return "create " + s.Name + " bitmap:port range 0-65535" + extra
	}
	family := "inet"
	if s.Family == ruleset.IPv6 {
		family = "inet6"
	}
	if s.Kind == Flows {
		extra += fmt.Sprintf(" timeout %d", s.Timeout)
	}
	return fmt.Sprintf("create %s %s family %s hashsize %d maxelem %d%s", s.Name, s.Kind, family, s.HashSize(), s.MaxElem(), extra)
}

// HashSize is how many buckets the set begins with. One made too small grows while it is filled, which costs more than
// filling it; half as many buckets as entries is where it would end up.
func (s *Set) HashSize() int { return 1 << bits.Len(uint(max(s.Elements/2, 64)-1)) }

// MaxElem is how many entries the set may ever hold.
func (s *Set) MaxElem() int {
	if s.Kind == Flows {
		return s.Elements + moreFlows
	}
	return max(s.Elements, 1)
}

// Cut is the set with only a few of its entries, under the same name: enough to see whether the kernel takes it.
func (s Set) Cut(n int) Set {
	s.Flows = s.Flows[:min(len(s.Flows), n)]
	all := s.Entries
	s.Entries = func(yield func(Entry) bool) {
		left := n
		for e := range all {
			if left--; left < 0 || !yield(e) {
				return
			}
		}
	}
	return s
}

// setList collects sets.
type setList struct {
	sets  map[string]Set    // by name
	known map[string]string // names of sets that come from the ruleset, by what they come from
}

// add takes a set in and gives its name.
func (l setList) add(word string, s Set) string {
	s = newSet(word, s)
	l.sets[s.Name] = s
	return s.Name
}

// once is add for a set that comes from the ruleset, where it has a name, and may be asked for more often: making a set
// means going over all of its entries.
func (l setList) once(source, word string, s Set) string {
	name, ok := l.known[source]
	if !ok || source == "" {
		name = l.add(word, s)
		l.known[source] = name
	}
	return name
}

func (l setList) sorted() []Set {
	var all []Set
	for _, name := range slices.Sorted(maps.Keys(l.sets)) {
		all = append(all, l.sets[name])
	}
	return all
}

// prefixEntries are the entries of addresses of one family. hash:net takes no /0: that is two halves.
func prefixEntries(addrs netset.Set, family ruleset.Family) iter.Seq[Entry] {
	own := addrs.V4()
	if family == ruleset.IPv6 {
		own = addrs.V6()
	}
	return func(yield func(Entry) bool) {
		var room []netip.Prefix // one for all ranges: there may be a million of them
		for r := range own.Each() {
			room = appendPrefixes(room[:0], r)
			for _, p := range room {
				if !yield(Entry{Net: p}) {
					return
				}
			}
		}
	}
}

// ifaceEntries are the entries for interface names, whatever the address; hash:net,iface does take a /0.
func ifaceEntries(names []string, family ruleset.Family) iter.Seq[Entry] {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == ruleset.IPv6 {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return slices.Values(onNet(all, names))
}

// onNet are the entries for one network. To the kernel an interface and the beginning of its name are the same entry: of
// such only the beginning is kept.
func onNet(net netip.Prefix, names []string) []Entry {
	var entries []Entry
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		covered := slices.ContainsFunc(names, func(o string) bool {
			prefix, glob := strings.CutSuffix(o, "*")
			return glob && o != name && strings.HasPrefix(name, prefix)
		})
		if !covered {
			prefix, glob := strings.CutSuffix(name, "*")
			entries = append(entries, Entry{Net: net, Iface: prefix, Wildcard: glob})
		}
	}
	return entries
}

// pairEntries are the entries for interfaces and the addresses behind them.
func pairEntries(pairs []ruleset.IfaceSubnet, family ruleset.Family) iter.Seq[Entry] {
	names := map[netip.Prefix][]string{}
	for _, pair := range pairs {
		for _, p := range pair.Subnet.Prefixes() {
			if p.Addr().Is4() == (family == ruleset.IPv4) {
				names[p] = append(names[p], pair.Iface)
			}
		}
	}
	var entries []Entry
	for _, p := range slices.SortedFunc(maps.Keys(names), comparePrefixes) {
		entries = append(entries, onNet(p, names[p])...)
	}
	return slices.Values(entries)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// portEntries are the entries for ports.
func portEntries(ports []netset.Ports) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, p := range ports {
			if !yield(Entry{Ports: p}) {
				return
			}
		}
	}
}

// appendPrefixes appends the fewest prefixes that make up a range, none of them a /0.
func appendPrefixes(to []netip.Prefix, r netipx.IPRange) []netip.Prefix {
	if r.From() == r.To() {
		return append(to, netip.PrefixFrom(r.From(), r.From().BitLen()))
	}
	if p, whole := r.Prefix(); whole && p.Bits() == 0 {
		half := netip.PrefixFrom(p.Addr(), 1)
		return append(to, half, netip.PrefixFrom(netipx.RangeOfPrefix(half).To().Next(), 1))
	}
	return r.AppendPrefixes(to)
}
