package collect

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/parse/hostfiles"
	"quaywall/internal/parse/ipset"
	"quaywall/internal/parse/iptsave"
	"quaywall/internal/parse/nftjson"
	"quaywall/internal/snapshot"
	"quaywall/internal/watch"
	"quaywall/internal/watch/docker"
)

// The files of a snapshot.
const (
	fileRules4     = "iptables-save.txt"
	fileRules6     = "ip6tables-save.txt"
	fileLegacy4    = "iptables-legacy-save.txt"
	fileLegacy6    = "ip6tables-legacy-save.txt"
	fileNFT        = "nft-ruleset.json"
	fileNFTText    = "nft-ruleset.txt"
	fileSets       = "ipset-save.txt"
	fileAddrs      = "ip-addr.json"
	fileLinks      = "ip-link.json"
	fileRoutes     = "ip-route.txt"
	filePolicies   = "ip-rule.txt"
	fileSockets    = "ss-listen.txt"
	fileSysctls    = "sysctl.txt"
	fileNetworks   = "network-inspect.json"
	fileContainers = "container-inspect.json"
	fileVersion    = "docker-version.json"
)

// ErrNoRules is the cause of the error about a folder, or texts, without rules.
var ErrNoRules = errors.New("none of the files that rules are in is there")

// Read reads a snapshot. Any file may be missing but those of the rules, of which one has to be there: what follows is in
// Host.Missing. Only that, and a folder that can't be read at all, is an error.
func Read(dir fs.FS) (*snapshot.Host, error) {
	r := reader{file: func(name string) ([]byte, error) { return fs.ReadFile(dir, name) }}
	return r.read()
}

// reader fills a host from files.
type reader struct {
	file   func(name string) ([]byte, error)
	reason func(file string) string // why a file isn't there; nil where there is nothing to say
	empty  []string                 // files that are there, with nothing in them
	host   *snapshot.Host
}

func (r *reader) read() (*snapshot.Host, error) {
	r.host = &snapshot.Host{}
	if err := r.rules(); err != nil {
		return nil, err
	}
	inspection, names := r.inspection()
	r.routing()
	r.world(inspection, names)
	r.sockets()
	r.host.Sysctls, _ = take(r, fileSysctls, snapshot.PartSysctls,
		"whether the host forwards, and whether bridged packets pass its rules, is not known: the kernel's defaults are taken", hostfiles.Sysctls)
	return r.host, nil
}

// neverEmpty are the files that hold something of any host: an empty one is none.
var neverEmpty = []string{fileNFT, fileAddrs, fileNetworks, fileContainers}

// text is a file's text; false where it isn't there, or is empty and can't be.
func (r *reader) text(name string) (string, bool) {
	text, err := r.file(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.host.Problems.Warnf(diag.Pos{File: name}, "", "it can't be read: %v", err)
	}
	if err == nil && len(bytes.TrimSpace(text)) == 0 && slices.Contains(neverEmpty, name) {
		r.empty = append(r.empty, name)
		return "", false
	}
	return string(text), err == nil
}

func (r *reader) missing(part snapshot.Part, file, why, so string) {
	if slices.Contains(r.empty, file) {
		why = strings.Replace(why, snapshot.NotThere, "it is empty", 1)
	}
	if r.reason != nil && strings.HasPrefix(why, snapshot.NotThere) {
		why = cmp.Or(r.reason(file), why)
	}
	r.host.Missing = append(r.host.Missing, snapshot.Missing{Part: part, File: file, Why: why, So: so})
}

// told keeps the problems of a file; a part of which lines are lost isn't whole.
func (r *reader) told(part snapshot.Part, file, so string, problems diag.List) {
	r.host.Problems = append(r.host.Problems, problems...)
	if len(problems) > 0 {
		why := problems[0].Error()
		if more := len(problems) - 1; more > 0 {
			why += fmt.Sprintf(" (and %d more)", more)
		}
		r.missing(part, file, why, so)
	}
}

// take reads a part that is in one file.
func take[T any](r *reader, file string, part snapshot.Part, so string, parse func(text, name string) (T, diag.List)) (T, bool) {
	text, ok := r.text(file)
	if !ok {
		r.missing(part, file, snapshot.NotThere, so)
	}
	all, problems := parse(text, file)
	r.told(part, file, so, problems)
	return all, ok
}

// rules reads the rules and the sets.
func (r *reader) rules() error {
	text, ok := r.text(fileSets)
	sets, problems := ipset.Parse(text, fileSets)
	r.host.Rules.Sets = sets
	r.toldRules(snapshot.PartSets, fileSets, problems)
	nft, hasNFT := r.nft()
	found := hasNFT
	for _, f := range []struct {
		family       netfilter.Family
		part         snapshot.Part
		file, legacy string
	}{
		{netfilter.IPv4, snapshot.PartRules4, fileRules4, fileLegacy4},
		{netfilter.IPv6, snapshot.PartRules6, fileRules6, fileLegacy6},
	} {
		main, has := r.iptables(f.file, f.part, f.family, variant(nft, hasNFT, f.family))
		legacy, hasLegacy := r.iptables(f.legacy, f.part, f.family, netfilter.IPTablesLegacy)
		if has || hasLegacy {
			found = true
		} else {
			r.missing(f.part, f.file, r.whyNoRules(f.file), "which rules iptables has is not known, but for what nft can show of them")
		}
		nft = r.without(nft, main, f.part, f.file)
		r.host.Rules.Tables = append(r.host.Rules.Tables, append(main, distinct(legacy, main)...)...)
	}
	r.host.Rules.Tables = append(r.host.Rules.Tables, nft...)
	if !found {
		return fmt.Errorf("%w: %s, %s, %s or %s", ErrNoRules, fileRules4, fileRules6, fileLegacy4, fileNFT)
	}
	if !ok && r.asksSets() {
		r.missing(snapshot.PartSets, fileSets, snapshot.NotThere, "what is in the sets that rules ask for is not known")
	}
	return nil
}

// whyNoRules tells why a dump of iptables has no rules.
func (r *reader) whyNoRules(file string) string {
	for _, p := range r.host.Problems {
		if p.Pos.File == file {
			return p.Error()
		}
	}
	return snapshot.NotThere
}

// toldRules keeps the problems of rules. What isn't understood in a rule is in the rule; only what is cut off is missing.
func (r *reader) toldRules(part snapshot.Part, file string, problems diag.List) {
	r.host.Problems = append(r.host.Problems, problems...)
	for _, p := range problems {
		if slices.ContainsFunc(lossy, func(words string) bool { return strings.Contains(p.Message, words) }) {
			r.missing(part, file, p.Error(), "there may be more rules than are known")
			return
		}
	}
}

// lossy are words of problems by which not all of a file was read.
var lossy = []string{"cut short", "no list of nft", "none of nft's"}

// nft reads the tables of nf_tables.
func (r *reader) nft() ([]*netfilter.Table, bool) {
	text, ok := r.text(fileNFT)
	if !ok {
		why := snapshot.NotThere
		if _, has := r.text(fileNFTText); has {
			why += "; " + fileNFTText + " is, but it is written for people: make the other by nft -j list ruleset"
		}
		r.missing(snapshot.PartNFT, fileNFT, why, "rules of nf_tables that are not iptables' own are not known: those of firewalld, or of Docker with its nftables backend")
		return nil, false
	}
	tables, problems := nftjson.Parse(text, fileNFT)
	r.toldRules(snapshot.PartNFT, fileNFT, problems)
	return tables, true
}

// variant is which iptables wrote a dump that doesn't say: that of nf_tables, if nft's list has one of its tables.
func variant(nft []*netfilter.Table, known bool, family netfilter.Family) netfilter.Dialect {
	own := func(t *netfilter.Table) bool { return t.Family == family && t.Dialect == netfilter.IPTablesNFT }
	if known && !slices.ContainsFunc(nft, own) {
		return netfilter.IPTablesLegacy
	}
	return netfilter.IPTablesNFT
}

func (r *reader) iptables(file string, part snapshot.Part, family netfilter.Family, dialect netfilter.Dialect) ([]*netfilter.Table, bool) {
	text, ok := r.text(file)
	if !ok {
		return nil, false
	}
	tables, problems := iptsave.Parse(text, iptsave.Options{File: file, Family: family, Dialect: dialect, Sets: r.host.Rules.Sets})
	r.toldRules(part, file, problems)
	// A text with something in it, and no rules, is none of iptables'.
	return tables, len(tables) > 0 || len(problems) == 0
}

// without leaves those tables of nft's list out that iptables-save has told of, better. Of one that it hasn't, what xtables
// do in it is not known.
func (r *reader) without(nft, iptables []*netfilter.Table, part snapshot.Part, file string) []*netfilter.Table {
	var rest []*netfilter.Table
	for _, t := range nft {
		switch {
		case slices.ContainsFunc(iptables, func(other *netfilter.Table) bool { return same(t, other) }):
			continue
		case t.Dialect == netfilter.IPTablesNFT && partOf(t.Family) == part:
			r.missing(part, file, fmt.Sprintf("table %s of iptables-nft is not in it, which %s has", t.Name, fileNFT),
				"what the matches and targets of xtables in that table do is not known")
		}
		rest = append(rest, t)
	}
	return rest
}

func partOf(f netfilter.Family) snapshot.Part {
	if f == netfilter.IPv6 {
		return snapshot.PartRules6
	}
	return snapshot.PartRules4
}

func same(a, b *netfilter.Table) bool {
	return a.Dialect == b.Dialect && a.Family == b.Family && a.Name == b.Name
}

// distinct are tables that are not among others. On a host with one variant alone both dumps are of it.
func distinct(tables, others []*netfilter.Table) []*netfilter.Table {
	return slices.DeleteFunc(tables, func(t *netfilter.Table) bool {
		return slices.ContainsFunc(others, func(o *netfilter.Table) bool { return same(t, o) })
	})
}

// asksSets tells whether a rule of iptables asks for a set of ipset.
func (r *reader) asksSets() bool {
	for _, t := range r.host.Rules.Tables {
		if t.Dialect == netfilter.NFT {
			continue
		}
		for _, c := range t.Chains {
			for _, rule := range c.Rules {
				if strings.Contains(rule.Text, "-set ") {
					return true
				}
			}
		}
	}
	return false
}

// inspection reads what Docker says.
func (r *reader) inspection() (docker.Inspection, docker.Files) {
	var in docker.Inspection
	text, ok := r.text(fileNetworks)
	in.Networks = []byte(text)
	if !ok {
		r.missing(snapshot.PartNetworks, fileNetworks, snapshot.NotThere, "which bridges are Docker's is guessed from their names")
	}
	text, ok = r.text(fileContainers)
	in.Containers = []byte(text)
	if !ok {
		r.missing(snapshot.PartContainers, fileContainers, snapshot.NotThere, "which containers there are, and which ports are published, is not known")
	}
	text, _ = r.text(fileVersion)
	in.Version = []byte(text)
	return in, docker.Files{Networks: fileNetworks, Containers: fileContainers, Version: fileVersion}
}

// world reads interfaces and addresses, and puts them together with what Docker says.
func (r *reader) world(in docker.Inspection, names docker.Files) {
	addrs, hasAddrs := r.text(fileAddrs)
	links, hasLinks := r.text(fileLinks)
	const noAddrs = "which addresses the host has, and what is local to it, is known from its routes alone"
	if !hasAddrs {
		r.missing(snapshot.PartAddrs, fileAddrs, snapshot.NotThere, noAddrs)
	}
	if !hasLinks {
		r.missing(snapshot.PartLinks, fileLinks, snapshot.NotThere, "the kinds of interfaces are guessed, and where the other ends of veth pairs are is not known")
	}
	interfaces, more, problems := hostfiles.Interfaces(addrs, fileAddrs, links, fileLinks)
	r.told(snapshot.PartAddrs, fileAddrs, noAddrs, problems)
	if !hasAddrs {
		interfaces = guessAddrs(interfaces, r.host.Routes)
	}
	answer, containers, problems := in.Read(names)
	r.told(snapshot.PartContainers, fileContainers, "there may be more networks and containers than are known", problems)
	if len(in.Networks) == 0 {
		answer.Networks = guessNetworks(interfaces, containers)
	}
	if !hasLinks {
		guessBridges(interfaces, answer.Networks)
	}
	r.host.Inventory, r.host.Links = *watch.Join(interfaces, answer), more
	r.host.Containers = here(containers, &r.host.Inventory)
}

// guessBridges has interfaces be bridges that Docker says are.
func guessBridges(interfaces []inventory.Interface, networks []inventory.Network) {
	for i := range interfaces {
		if slices.ContainsFunc(networks, func(n inventory.Network) bool { return n.Bridge == interfaces[i].Name }) {
			interfaces[i].Kind = bridge
		}
	}
}

// here are the containers of networks that are in this network namespace; the engine's others, such as those of the host's
// own network, only where it has one of its networks here.
func here(containers []snapshot.Container, inv *inventory.Inventory) []snapshot.Container {
	if len(inv.Interfaces) > 0 && len(inv.Networks)+len(inv.Shared)+len(inv.Unseen) == 0 {
		return nil
	}
	return containers
}

// routing reads routes and the rules of routing.
func (r *reader) routing() {
	r.host.Routes, _ = take(r, fileRoutes, snapshot.PartRoutes, "where packets go is known from the addresses of interfaces alone", hostfiles.Routes)
	r.host.Policies, _ = take(r, filePolicies, snapshot.PartPolicies, "the kernel's own rules of routing are taken", hostfiles.Rules)
}

// sockets reads sockets, and finds the containers that docker-proxies forward to.
func (r *reader) sockets() {
	r.host.Sockets, _ = take(r, fileSockets, snapshot.PartSockets, "what listens on the host is not known", hostfiles.Sockets)
	published := map[snapshot.Port][]inventory.Published{} // there may be thousands of them, and of sockets
	for _, p := range r.host.Inventory.Published {
		at := snapshot.Port{Proto: p.Proto, Port: p.Port}
		published[at] = append(published[at], p)
	}
	for i := range r.host.Sockets {
		s := &r.host.Sockets[i]
		same := published[snapshot.Port{Proto: s.Proto, Port: s.Port}]
		switch s.Process {
		case dockerProxy:
			proxied(s, same, r.host)
		case dockerd:
			s.Idle = len(same) > 0
		}
	}
}

const (
	dockerProxy = "docker-proxy"
	dockerd     = "dockerd"
)

// proxied finds where a docker-proxy forwards to, of what is published with its port: to the container that does.
func proxied(s *snapshot.Socket, published []inventory.Published, h *snapshot.Host) {
	for _, p := range published {
		if p.Addr != s.Addr && !(s.Both && p.Addr.IsUnspecified()) {
			continue
		}
		s.Container = p.Container
		i := slices.IndexFunc(h.Containers, func(c snapshot.Container) bool { return c.Name == p.Container })
		if i >= 0 {
			if a := proxyTarget(h.Containers[i], &h.Inventory, h.Has(snapshot.PartNetworks), s.Addr.Is6()); a.IsValid() {
				s.To = netip.AddrPortFrom(a, p.Target)
			}
		}
		return
	}
}

// proxyTarget is the address that a proxy of an IPv4 or an IPv6 address forwards to: one of the network that leads out, which
// is the first that isn't internal; for IPv6 the container's IPv6 address if it has one. known tells whether Docker's list of the
// networks is there: else it can't be told of several.
func proxyTarget(c snapshot.Container, inv *inventory.Inventory, known, v6 bool) netip.Addr {
	ordered := slices.Clone(c.Networks)
	leadsOut := func(e snapshot.Endpoint) bool { return e.Gateways == nil || len(e.Gateways) > 0 }
	if slices.ContainsFunc(ordered, leadsOut) {
		ordered = slices.DeleteFunc(ordered, func(e snapshot.Endpoint) bool { return !leadsOut(e) })
	}
	if len(ordered) > 1 && !known { // which of them is internal decides
		return netip.Addr{}
	}
	slices.SortStableFunc(ordered, func(a, b snapshot.Endpoint) int {
		return cmp.Compare(rank(a.Network, inv), rank(b.Network, inv))
	})
	var found netip.Addr
	for _, e := range ordered {
		for _, a := range e.Addrs {
			if a.Is6() == v6 {
				return a
			}
			if !found.IsValid() && a.Is4() {
				found = a
			}
		}
		if found.IsValid() {
			return found
		}
	}
	return found
}

// rank orders networks by how Docker chooses the one that published ports lead to.
func rank(network string, inv *inventory.Inventory) int {
	n, ok := inv.Network(network)
	switch {
	case !ok:
		return 2
	case n.Internal:
		return 1
	}
	return 0
}
