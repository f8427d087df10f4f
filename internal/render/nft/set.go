package nft

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"quaywall/internal/netset"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
)

const nftSetConcat = nftables.NFT_SET_CONCAT

// The types of keys.
var (
	addr4Key    = keyType(nftables.TypeIPAddr)
	addr6Key    = keyType(nftables.TypeIP6Addr)
	portKey     = keyType(nftables.TypeInetService)
	icmp4Key    = keyType(nftables.TypeICMPType)
	icmp6Key    = keyType(nftables.TypeICMP6Type)
	ifaceKey    = hostOrder(keyType(nftables.TypeIFName))
	addrTypeKey = hostOrder(keyType(nftables.TypeFIBAddr))
	pair4Key    = keyType(nftables.TypeIFName, nftables.TypeIPAddr)
	pair6Key    = keyType(nftables.TypeIFName, nftables.TypeIP6Addr)
	flow4Key    = keyType(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr)
	flow6Key    = keyType(nftables.TypeInetProto, nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr)
)

// keyType is a type of nft's, or the concatenation of several.
func keyType(types ...nftables.SetDatatype) KeyType {
	var k KeyType
	for _, t := range types {
		k.Magic = k.Magic<<nftables.SetConcatTypeBits | t.GetNFTMagic()
		k.Len += (t.Bytes + 3) &^ 3
		k.Fields = append(k.Fields, t.Bytes)
	}
	if len(types) == 1 {
		k.Len, k.Fields = types[0].Bytes, nil
	}
	return k
}

func hostOrder(k KeyType) KeyType {
	k.HostOrder = true
	return k
}

// namedSet renders a set of the ruleset.
func namedSet(s *ruleset.Set) (Set, error) {
	set, err := setOf(s)
	set.Name, set.Comment, set.Count = s.Name, comment(s.Origin), -1
	return set, err
}

func setOf(s *ruleset.Set) (Set, error) {
	switch s.Key {
	case ruleset.Addr4:
		return addrSet(addr4Key, s.Addrs.V4()), nil
	case ruleset.Addr6:
		return addrSet(addr6Key, s.Addrs.V6()), nil
	case ruleset.Iface:
		return ifaceSet(s.Ifaces)
	case ruleset.IfaceAddr4:
		return pairSet(pair4Key, s.Pairs, ruleset.IPv4)
	case ruleset.IfaceAddr6:
		return pairSet(pair6Key, s.Pairs, ruleset.IPv6)
	case ruleset.Flow4, ruleset.Flow6:
		return flowSet(s), nil
	}
	return Set{}, fmt.Errorf("sets of %s are not known", s.Key)
}

func addrSet(key KeyType, addrs netset.Set) Set {
	return Set{Key: key, Flags: unix.NFT_SET_INTERVAL, Count: -1, Elements: func(yield func(Element) bool) {
		var buf addrBuffer
		for r := range addrs.Each() {
			if !buf.interval(r, Element{}, yield) {
				return
			}
		}
	}}
}

// addrBuffer is room for the two keys of a range, so that a million of them don't each take their own.
type addrBuffer struct{ first, end [16]byte }

// interval yields the elements of a range. e is what else the first one has.
func (b *addrBuffer) interval(r netipx.IPRange, e Element, yield func(Element) bool) bool {
	e.Key = putAddr(&b.first, r.From())
	if !yield(e) {
		return false
	}
	next := r.To().Next()
	if !next.IsValid() { // up to the last address: the interval stays open
		return true
	}
	return yield(Element{Key: putAddr(&b.end, next), End: true})
}

func putAddr(buf *[16]byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(buf[:0], b[:]...)
	}
	*buf = a.As16()
	return buf[:]
}

// ifaceSize is the longest name of an interface with the zero behind it (IFNAMSIZ).
const ifaceSize = 16

// ifaceRange gives the first and the last key that a name, or a prefix and "*", stands for.
func ifaceRange(name string) (first, last [ifaceSize]byte, err error) {
	prefix, wild := strings.CutSuffix(name, "*")
	if len(prefix) >= ifaceSize || prefix == "" && !wild || strings.ContainsAny(prefix, "*\x00") {
		return first, last, fmt.Errorf("%q is no name of an interface: 1 to 15 bytes, perhaps a * at the end", name)
	}
	copy(first[:], prefix)
	last = first
	if wild {
		for i := len(prefix); i < ifaceSize; i++ {
			last[i] = 0xff
		}
	}
	return first, last, nil
}

// ifaceSpan is an interval of names.
type ifaceSpan struct{ first, last [ifaceSize]byte }

// ifaceSpans sorts the names and leaves out those that a "*" covers.
func ifaceSpans(names []string) ([]ifaceSpan, error) {
	var all []ifaceSpan
	for _, n := range names {
		first, last, err := ifaceRange(n)
		if err != nil {
			return nil, err
		}
		all = append(all, ifaceSpan{first, last})
	}
	slices.SortFunc(all, func(a, b ifaceSpan) int {
		if c := bytes.Compare(a.first[:], b.first[:]); c != 0 {
			return c
		}
		return bytes.Compare(b.last[:], a.last[:]) // the wider one first
	})
	apart := all[:0]
	for _, x := range all { // prefixes never overlap in part
		if n := len(apart); n == 0 || bytes.Compare(x.last[:], apart[n-1].last[:]) > 0 {
			apart = append(apart, x)
		}
	}
	return apart, nil
}

// ifaceSet is a plain set of names, or one of intervals where there are prefixes among them.
func ifaceSet(names []string) (Set, error) {
	spans, err := ifaceSpans(names)
	if err != nil {
		return Set{}, err
	}
	set := Set{Key: ifaceKey, Count: -1}
	if slices.ContainsFunc(spans, func(s ifaceSpan) bool { return s.first != s.last }) {
		set.Flags = unix.NFT_SET_INTERVAL
	}
	set.Elements = func(yield func(Element) bool) {
		for _, s := range spans {
			if !yield(Element{Key: s.first[:]}) || set.Flags != 0 && !ifaceEnd(s, yield) {
				return
			}
		}
	}
	return set, nil
}

// ifaceEnd yields the key behind an interval. No interval but that of "*" goes up to the last key.
func ifaceEnd(s ifaceSpan, yield func(Element) bool) bool {
	end := s.last
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return yield(Element{Key: end[:], End: true})
		}
	}
	return true
}

// pairSet is a set of interface and address.
func pairSet(key KeyType, pairs []ruleset.IfaceSubnet, family ruleset.Family) (Set, error) {
	byIface := map[string]netset.Set{}
	for _, p := range pairs {
		if strings.Contains(p.Iface, "*") {
			return Set{}, fmt.Errorf("%q: a pair is of one interface", p.Iface)
		}
		if _, _, err := ifaceRange(p.Iface); err != nil {
			return Set{}, err
		}
		byIface[p.Iface] = byIface[p.Iface].Union(ofFamily(p.Subnet, family))
	}
	var elements []Element
	for iface, addrs := range byIface {
		name := [ifaceSize]byte{}
		copy(name[:], iface)
		for r := range addrs.Each() {
			elements = append(elements, Element{
				Key:    append(bytes.Clone(name[:]), r.From().AsSlice()...),
				KeyEnd: append(bytes.Clone(name[:]), r.To().AsSlice()...),
			})
		}
	}
	slices.SortFunc(elements, func(a, b Element) int { return bytes.Compare(a.Key, b.Key) })
	flags := uint32(unix.NFT_SET_INTERVAL | nftSetConcat)
	return Set{Key: key, Flags: flags, Count: -1, Elements: slices.Values(elements)}, nil
}

// portSet is a plain set of ports, or one of intervals where there are ranges among them.
func portSet(list []netset.Ports) (Set, error) {
	if i := slices.IndexFunc(list, func(p netset.Ports) bool { return p.First > p.Last }); i >= 0 {
		return Set{}, fmt.Errorf("%s is no range of ports", list[i])
	}
	ports := netset.JoinPorts(list)
	set := Set{Key: portKey, Flags: portFlags(ports), Count: -1}
	set.Elements = func(yield func(Element) bool) {
		for _, p := range ports {
			if !portElements(p, set.Flags, Element{}, yield) {
				return
			}
		}
	}
	return set, nil
}

// portFlags makes a set of single ports a hash.
func portFlags(ports []netset.Ports) uint32 {
	if slices.ContainsFunc(ports, func(p netset.Ports) bool { return p.First != p.Last }) {
		return unix.NFT_SET_INTERVAL
	}
	return 0
}

// portElements yields a range of ports. e is what else the first element has.
func portElements(p netset.Ports, flags uint32, e Element, yield func(Element) bool) bool {
	e.Key = big16(p.First)
	if !yield(e) {
		return false
	}
	if flags&unix.NFT_SET_INTERVAL == 0 || p.Last == math.MaxUint16 {
		return true
	}
	return yield(Element{Key: big16(p.Last + 1), End: true})
}

// verdictMap renders a map of the ruleset.
func verdictMap(m *ruleset.Map) (Set, error) {
	set := Set{Name: m.Name, Flags: unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL, Counter: true, Count: -1}
	verdicts := make([]*expr.Verdict, len(m.Elements))
	for i, e := range m.Elements {
		v, err := verdict(e.Verdict)
		if err != nil {
			return Set{}, err
		}
		var ok bool
		if verdicts[i], ok = v.(*expr.Verdict); !ok {
			return Set{}, fmt.Errorf("element %d: %s can't stand in a map", i+1, e.Verdict)
		}
	}
	element := func(i int) Element { return Element{Verdict: verdicts[i], Comment: comment(m.Elements[i].Origin)} }
	switch m.Key {
	case ruleset.Addr4, ruleset.Addr6:
		set.Key = map[ruleset.Key]KeyType{ruleset.Addr4: addr4Key, ruleset.Addr6: addr6Key}[m.Key]
		set.Elements = addrElements(m, element)
	case ruleset.Port:
		set.Key = portKey
		ports := make([]netset.Ports, len(m.Elements))
		for i, e := range m.Elements {
			ports[i] = e.Ports
		}
		set.Flags = unix.NFT_SET_MAP | portFlags(ports)
		set.Elements = mapPorts(m, set.Flags, element)
	default:
		return Set{}, fmt.Errorf("maps of %s are not known", m.Key)
	}
	return set, nil
}

func addrElements(m *ruleset.Map, element func(int) Element) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		var buf addrBuffer
		for i := range m.Elements {
			if !buf.interval(m.Elements[i].Addrs, element(i), yield) {
				return
			}
		}
	}
}

func mapPorts(m *ruleset.Map, flags uint32, element func(int) Element) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for i := range m.Elements {
			if !portElements(m.Elements[i].Ports, flags, element(i), yield) {
				return
			}
		}
	}
}

// sourceSize is how many sources a limit keeps.
const sourceSize = 65535

// sourceSet is the set that the kernel fills with the sources of a limit. Its comment tells the rate, so that a set kept
// from before is one of the same rate.
func sourceSet(m ruleset.SourceRateMatch) Set {
	key := addr4Key
	if m.Family == ruleset.IPv6 {
		key = addr6Key
	}
	return Set{
		Name:     "sources/" + m.Name + "-" + m.Family.String(),
		Key:      key,
		Flags:    unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
		Timeout:  sourceTimeout(m.Rate),
		Size:     sourceSize,
		Comment:  m.Rate.String(),
		Count:    -1,
		Elements: slices.Values([]Element(nil)),
	}
}

// sourceTimeout is how long a source that is silent is remembered: until its burst is whole again.
func sourceTimeout(r rate.Rate) time.Duration {
	whole := r.Per * time.Duration(max(r.Burst, rate.DefaultBurst)) / time.Duration(r.Count)
	return max(whole.Round(time.Second)+time.Second, time.Minute)
}

// listType makes the set of a list of values in a rule.
type listType[T any] struct {
	kind string
	set  func([]T) (Set, error)
	name func(T) string
}

// maxListName is how long the name of a list may get before it is shortened to a digest.
const maxListName = 64

// nameOf tells what a list holds, if nft takes that for a name. No name of the ruleset's own has a slash.
func (l listType[T]) nameOf(values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = l.name(v)
	}
	text := strings.Join(words, "_")
	if len(words) == 0 {
		text = "none"
	}
	if len(text) > maxListName || strings.ContainsFunc(text, notInName) {
		digest := sha256.Sum256([]byte(text))
		text = hex.EncodeToString(digest[:8])
	}
	return l.kind + "/" + text
}

func notInName(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/", r)
}

var (
	ifaceList = listType[string]{"ifaces", ifaceSet, func(s string) string { return s }}
	portList  = listType[netset.Ports]{"ports", portSet, netset.Ports.String}
)

// rangeOf is the set of ranges, which are valid.
func rangeOf(ranges ...netipx.IPRange) netset.Set {
	var b netset.Builder
	for _, r := range ranges {
		b.Add(r)
	}
	s, _ := b.Set() // they come from a set
	return s
}

func addrList(f ruleset.Family) listType[netipx.IPRange] {
	kind, key := "addrs", addr4Key
	if f == ruleset.IPv6 {
		kind, key = "addrs6", addr6Key
	}
	set := func(ranges []netipx.IPRange) (Set, error) { return addrSet(key, rangeOf(ranges...)), nil }
	return listType[netipx.IPRange]{kind, set, netset.FormatRange}
}

func icmpList(f ruleset.Family) listType[uint8] {
	kind, key := "icmp", icmp4Key
	if f == ruleset.IPv6 {
		kind, key = "icmpv6", icmp6Key
	}
	set := func(types []uint8) (Set, error) {
		return plainSet(key, types, func(t uint8) []byte { return []byte{t} }), nil
	}
	return listType[uint8]{kind, set, func(t uint8) string { return strconv.Itoa(int(t)) }}
}

var addrTypeList = listType[uint32]{
	"addrtype",
	func(types []uint32) (Set, error) { return plainSet(addrTypeKey, types, host32), nil },
	addrTypeName,
}

func addrTypeName(number uint32) string {
	for _, t := range addrTypes {
		if t.number == number {
			return t.name
		}
	}
	return strconv.Itoa(int(number))
}

// plainSet is a set of single keys.
func plainSet[T any](key KeyType, values []T, bytesOf func(T) []byte) Set {
	var elements []Element
	for _, v := range values {
		elements = append(elements, Element{Key: bytesOf(v)})
	}
	slices.SortFunc(elements, func(a, b Element) int { return bytes.Compare(a.Key, b.Key) })
	elements = slices.CompactFunc(elements, func(a, b Element) bool { return bytes.Equal(a.Key, b.Key) })
	return Set{Key: key, Count: -1, Elements: slices.Values(elements)}
}
