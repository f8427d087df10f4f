package ipt

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/scratch"
)

// oldest is the oldest iptables that is known to work.
var oldest = [3]int{1, 8, 7}

// Probe checks programs, versions and rights, then tries a rule of each kind in a scratch namespace. Without the right to
// make one (CAP_SYS_ADMIN) that trial is left out.
func (b *Backend) Probe(ctx context.Context) error {
	if err := b.probePrograms(ctx); err != nil {
		return err
	}
	if err := b.probeRights(); err != nil {
		return err
	}
	err := scratch.Run(func() error { return b.trial(ctx) })
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// probePrograms reports all that is missing at once.
func (b *Backend) probePrograms(ctx context.Context) error {
	var errs []error
	for _, f := range families {
		for _, what := range []string{"restore", "save"} {
			path, err := b.path(ctx, program(f, what))
			if err == nil {
				err = b.probeVersion(ctx, path)
			}
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s can't be used here: %w", b.Name(), err)
	}
	return nil
}

func (b *Backend) probeVersion(ctx context.Context, path string) error {
	variant, v, err := version(ctx, path)
	switch {
	case err != nil:
		return err
	case variant != b.variant:
		return fmt.Errorf("%s is the %s variant of iptables", path, variant)
	case slices.Compare(v[:], oldest[:]) < 0:
		return fmt.Errorf("%s is version %d.%d.%d, %d.%d.%d or newer is needed: upgrade iptables, or use --backend nft",
			path, v[0], v[1], v[2], oldest[0], oldest[1], oldest[2])
	}
	return nil
}

// probeRights asks for the capabilities that the programs need of those who start them.
func (b *Backend) probeRights() error {
	needed := map[string]int{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN}
	if b.variant == Legacy {
		needed["CAP_NET_RAW"] = unix.CAP_NET_RAW
	}
	var have [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &have[0]); err != nil {
		return fmt.Errorf("asking for capabilities: %w", err)
	}
	for name, n := range needed {
		if have[n/32].Effective&(1<<(n%32)) == 0 {
			return fmt.Errorf("%s needs %s: run as root, or give the service that capability", b.Name(), name)
		}
	}
	return nil
}

// trial commits a rule of each kind to the namespace of the calling thread.
func (b *Backend) trial(ctx context.Context) error {
	_, err := b.Preflight(ctx, sample())
	switch {
	case errors.Is(err, kernel.ErrLocked): // which says nothing about this kernel
		return err
	case err != nil:
		return fmt.Errorf("this kernel can't do all that %s needs (netfilter matches as the refused line names them, "+
			"and ipset with its types hash:net, hash:net,iface and bitmap:port): load or install its modules, or use --backend nft: %w",
			b.Name(), err)
	}
	return nil
}

// sample is a ruleset with each kind of match and verdict that a compiled policy may have.
func sample() *ruleset.Ruleset {
	some4, some6 := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	limit := rate.Rate{Count: 10, Per: time.Minute, Burst: rate.DefaultBurst}
	tcp := ruleset.ProtoMatch{Proto: 6}
	var gate []ruleset.Rule
	add := func(v ruleset.Kind, matches ...ruleset.Match) {
		gate = append(gate, ruleset.Rule{Matches: matches, Counter: true, Verdict: ruleset.Verdict{Kind: v},
			Origin: ruleset.Origin{Line: "default", Note: "trial"}})
	}
	add(ruleset.Accept, ruleset.IfaceMatch{Field: ruleset.In, Set: "ifaces"})
	add(ruleset.Accept, ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "addrs4"})
	add(ruleset.Accept, ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Set: "addrs6"})
	add(ruleset.Accept, tcp, ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{{First: 1, Last: 2}, {First: 4, Last: 4}}})
	add(ruleset.Accept, ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{8}})
	add(ruleset.Accept, ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{128}})
	add(ruleset.Accept, ruleset.CtStateMatch{States: ruleset.StateEstablished}, ruleset.DNATMatch{Not: true})
	add(ruleset.Accept, ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeLocal | ruleset.TypeMulticast})
	add(ruleset.Accept, tcp, ruleset.TCPFlagsMatch{Mask: 2, Value: 2, Not: true}, ruleset.SocketMatch{})
	add(ruleset.Drop, ruleset.SourceRateMatch{Family: ruleset.IPv4, Name: "trial", Rate: limit})
	add(ruleset.Drop, ruleset.SourceRateMatch{Family: ruleset.IPv6, Name: "trial", Rate: limit})
	add(ruleset.TCPReset, tcp, ruleset.RateMatch{Rate: limit})
	gate = append(gate, ruleset.Rule{Matches: []ruleset.Match{tcp}, Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}},
		ruleset.Rule{Log: &ruleset.Log{Group: 86, Prefix: "trial"}})
	ports := ruleset.Map{Name: "ports", Key: ruleset.Port}
	for p := uint16(1); p < 100; p += 2 {
		ports.Elements = append(ports.Elements, ruleset.Element{Ports: netset.Ports{First: p, Last: p}})
	}
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name:   "quaywall",
		Chains: []ruleset.Chain{{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: gate}},
		Sets: []ruleset.Set{
			{Name: "ifaces", Key: ruleset.Iface, Ifaces: []string{"docker0", "br-*"}},
			{Name: "addrs4", Key: ruleset.Addr4, Addrs: netset.Of(some4)},
			{Name: "addrs6", Key: ruleset.Addr6, Addrs: netset.Of(some6)},
		},
		Maps: []ruleset.Map{ports},
	}}}
}

// Detect tells which variant of iptables this host uses, and why that is thought: the one that holds Docker's chains in
// the network namespace of the calling thread, else the one that the program iptables is, else nft.
func Detect(ctx context.Context) (v Variant, why string) {
	nft, legacy := dockerInNFT(), dockerInLegacy(ctx)
	switch {
	case nft && legacy:
		return NFT, "Docker's chains are in both variants of iptables; those of iptables-nft are taken for the current ones"
	case nft:
		return NFT, "Docker's chains are in iptables-nft"
	case legacy:
		return Legacy, "Docker's chains are in iptables-legacy"
	}
	v, n, err := version(ctx, "iptables")
	if err != nil {
		return NFT, "there is no program iptables to ask: " + err.Error()
	}
	return v, fmt.Sprintf("the program iptables, version %d.%d.%d, is the %s variant", n[0], n[1], n[2], v)
}

// dockerChain is a chain that every version of Docker makes in table nat.
const dockerChain = "DOCKER"

// dockerInNFT looks by netlink. Where nf_tables can't be asked there is nothing of Docker's in it.
func dockerInNFT() bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	return err == nil && slices.ContainsFunc(chains, func(c *nftables.Chain) bool {
		return c.Table.Name == "nat" && c.Name == dockerChain
	})
}

// dockerInLegacy asks the legacy program, and only if the table is there: asking would make it.
func dockerInLegacy(ctx context.Context) bool {
	there, err := legacyTables(ruleset.IPv4)
	if err != nil || !there["nat"] {
		return false
	}
	out, err := New(Legacy, Options{}).run(ctx, call{tool: program(ruleset.IPv4, "save"), args: []string{"--table", "nat"}})
	return err == nil && strings.Contains(string(out), "\n:"+dockerChain+" ")
}
