package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/policy/tree"
)

// side is the from or the to of a rule of some section.
type side struct {
	name    string // "from" or "to"
	section Section
}

// addresses reads a from or a to: any, host, names, addresses, {not: …} or {network: …}.
func (f *file) addresses(n *tree.Node, s side) Addresses {
	if n.Kind == tree.Map {
		return f.inverted(n, s)
	}
	if n.Kind == tree.Scalar {
		switch n.Text {
		case "any":
			return Addresses{}
		case "host":
			return f.toHost(n, s)
		}
	}
	return f.addressList(n, s)
}

// inverted reads the forms with braces.
func (f *file) inverted(n *tree.Node, s side) Addresses {
	var a Addresses
	if len(n.Items) == 0 {
		f.errorf(n, "write a set, an address, a list of them or any", "%s is empty", s.name)
	}
	if len(n.Items) > 2 {
		f.errorf(&n.Items[2], "write a rule for each", "%s can't be two things at once", s.name)
		return a
	}
	f.mapping(n, s.name, []field{
		{"not", func(v *tree.Node) { a = f.not(v, s) }},
		{"network", func(v *tree.Node) { a = f.toNetwork(n, v, s) }},
	})
	for k, v := range n.Pairs() {
		if v.IsNull() {
			f.errorf(k, "", "%s: nothing stands behind %q", s.name, short(k.Text))
		}
	}
	return a
}

func (f *file) not(v *tree.Node, s side) Addresses {
	switch {
	case v.Kind == tree.Map:
		f.errorf(v, "", "not can't be inverted again, and can't be put in front of a network")
		return Addresses{}
	case v.Kind == tree.Scalar && v.Text == "any":
		f.errorf(v, "", "not any: no address is left")
		return Addresses{}
	case v.Kind == tree.Scalar && v.Text == "host":
		f.errorf(v, "write a rule for host before this one", "not can't be put in front of host")
		return Addresses{}
	}
	a := f.addressList(v, s)
	a.Not = a.Given
	return a
}

func (f *file) toHost(n *tree.Node, s side) Addresses {
	switch {
	case s.name == "from":
		f.errorf(n, "what the host sends is judged by outbound", "%q can't stand in from", n.Text)
	case s.section == Inbound:
		f.errorf(n, "leave it out: inbound is about this host", "to: host is for egress and outbound")
	default:
		return Addresses{Given: true, Host: true}
	}
	return Addresses{}
}

func (f *file) toNetwork(n, v *tree.Node, s side) Addresses {
	names := f.networks(v, s.name)
	switch {
	case s.name == "from":
		f.errorf(n, "in egress write network: NAME as a key of the rule", "from can't name a network")
	case s.section != Inbound:
		f.errorf(n, "", "to: {network: …} is for inbound, where it opens the containers' own addresses")
	case len(names) > 1:
		f.errorf(v, "write a rule for each", "to can name one network")
	case len(names) == 1:
		return Addresses{Given: true, Network: names[0]}
	}
	return Addresses{}
}

// networks reads names of Docker networks; sorted, each once.
func (f *file) networks(n *tree.Node, what string) []string { return f.names(n, what, checkNetwork) }

// addressList reads a list of sets and addresses, or one of them.
func (f *file) addressList(n *tree.Node, s side) Addresses {
	items := []tree.Node{*n}
	if n.Kind == tree.List {
		items = n.Items
	}
	var a Addresses
	var b netset.Builder
	if len(items) == 0 {
		f.errorf(n, "an empty list matches nothing; leave the key out to mean any", "%s: the list is empty", s.name)
	}
	for i := range items {
		if f.enough() {
			break
		}
		a.Given = f.address(&items[i], s, &a, &b) || a.Given
	}
	slices.Sort(a.Sets)
	a.Sets = slices.Compact(a.Sets)
	a.Inline, _ = b.Set() // every range in it was checked
	return a
}

// address reads one entry of a list.
func (f *file) address(n *tree.Node, s side, a *Addresses, b *netset.Builder) bool {
	if n.Kind == tree.Map && len(n.Items) > 0 && n.Items[0].Text == "not" {
		f.errorf(&n.Items[0], "write {not: [a, b]}, or two rules", "not stands alone, never inside of a list")
		return false
	}
	w, ok := f.word(n, "an entry of "+s.name)
	switch {
	case !ok:
		return false
	case w == "any" || w == "host" || w == "not":
		f.errorf(n, "write a rule of its own for it", "%q can't stand in a list of %s", w, s.name)
		return false
	case isAddress(w):
		r, p := parseRange(w)
		if p != nil {
			f.report(n, p)
			return false
		}
		b.Add(r)
		return true
	}
	set, ok := f.sets[w]
	if !ok {
		f.unknownSet(n)
		return false
	}
	set.used = true
	a.Sets = append(a.Sets, w)
	return true
}

func (f *file) unknownSet(n *tree.Node) {
	known := []string{"any", "host"}
	for name := range f.sets {
		known = append(known, name)
	}
	slices.Sort(known)
	hint := didYouMean(n.Text, known)
	switch {
	case hint != "":
	case strings.HasPrefix(n.Text, "not "):
		hint = fmt.Sprintf("write {not: %s}", strings.TrimSpace(n.Text[4:]))
	case strings.Contains(n.Text, " "):
		hint = "write a list as [a, b]"
	case f.partial:
		return // it may stand in what could not be read
	case strings.Contains(n.Text, "."):
		hint = "names from DNS can't be used yet; write addresses"
	default:
		hint = "define it under sets"
	}
	f.errorf(n, hint, "there is no set %q", short(n.Text))
}

// isAddress tells whether a word is meant as an address, a prefix or a range rather than a name: names have neither
// colons nor slashes and begin with a letter.
func isAddress(s string) bool { return strings.ContainsAny(s, ":/") || s[0] >= '0' && s[0] <= '9' }

// parseRange reads an address, a prefix or FIRST-LAST.
func parseRange(s string) (netipx.IPRange, *problem) {
	if strings.Contains(s, "/") {
		return parsePrefix(s)
	}
	first, last, isRange := strings.Cut(s, "-")
	a, p := parseAddr(first, 0)
	if p != nil || !isRange {
		return netipx.IPRangeFrom(a, a), p
	}
	b, p := parseAddr(last, len(first)+1)
	switch {
	case p != nil:
		return netipx.IPRange{}, p
	case a.Is4() != b.Is4():
		return netipx.IPRange{}, &problem{0, fmt.Sprintf("the range %s mixes IPv4 and IPv6", s), "both ends are of one family"}
	case b.Less(a):
		return netipx.IPRange{}, &problem{0, fmt.Sprintf("the range %s begins behind its end", s), fmt.Sprintf("write %s-%s", b, a)}
	}
	return netipx.IPRangeFrom(a, b), nil
}

func parseAddr(s string, at int) (netip.Addr, *problem) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, &problem{at, fmt.Sprintf("%q is not an address", short(s)), addressHint(s)}
	case a.Zone() != "":
		return a, &problem{at, "an address in a policy has no zone", fmt.Sprintf("write %s, and on: %s as a key of the rule", a.WithZone(""), a.Zone())}
	case a.Is4In6():
		return a, &problem{at, fmt.Sprintf("%s is an IPv4 address in the form of IPv6", short(s)), fmt.Sprintf("write %s", a.Unmap())}
	}
	return a, nil
}

// addressHint guesses what was meant.
func addressHint(s string) string {
	switch {
	case strings.Count(s, ".") == 3 && strings.Count(s, ":") == 1:
		return "an address has no port; the port belongs to allow, deny or reject"
	case strings.ContainsAny(s, " \t,"):
		return "one address an entry"
	case strings.Contains(s, "*"):
		return "write a prefix, as in 192.0.2.0/24"
	case strings.Trim(s, "0123456789.") != "":
		return ""
	case strings.Count(s, ".") != 3:
		return "an IPv4 address has four numbers"
	}
	for number := range strings.SplitSeq(s, ".") {
		if len(number) > 1 && number[0] == '0' {
			return "write its numbers without zeros in front"
		}
	}
	return "its numbers are 0 to 255"
}

func parsePrefix(s string) (netipx.IPRange, *problem) {
	address, length, _ := strings.Cut(s, "/")
	a, p := parseAddr(address, 0)
	if p != nil {
		return netipx.IPRange{}, p
	}
	at := len(address) + 1
	if strings.Contains(length, ".") {
		return netipx.IPRange{}, &problem{at, "a prefix has a length, not a mask", maskHint(a, length)}
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netipx.IPRange{}, &problem{at, fmt.Sprintf("%q is no length of a prefix", short(length)), fmt.Sprintf("write 0 to %d", a.BitLen())}
	}
	if prefix != prefix.Masked() {
		return netipx.IPRange{}, &problem{0, fmt.Sprintf("%s has bits set behind its length", s),
			fmt.Sprintf("write %s, or %s alone", prefix.Masked(), a)}
	}
	return netipx.RangeOfPrefix(prefix), nil
}

// maskHint turns a netmask into a length where it is one.
func maskHint(a netip.Addr, mask string) string {
	m, err := netip.ParseAddr(mask)
	if err != nil || !m.Is4() || !a.Is4() {
		return "write ADDRESS/LENGTH"
	}
	b := m.As4()
	bits, left := 0, uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3])
	for ; left&(1<<31) != 0; left <<= 1 {
		bits++
	}
	if left != 0 {
		return "write ADDRESS/LENGTH"
	}
	return fmt.Sprintf("write %s", netip.PrefixFrom(a, bits).Masked())
}
