package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"quaywall/internal/netset"
	"quaywall/internal/nlsock"
	"quaywall/internal/packet"
	"quaywall/internal/rate"
	render "quaywall/internal/render/nft"
	"quaywall/internal/ruleset"
)

// TraceTable is the table of family inet whose rules mark packets to be traced.
const TraceTable = "quaywall_trace"

// The chains of TraceTable that packets come last to, on their way to a socket of this host and out of it. They have no rules.
const (
	TraceInput       = "delivered"
	TracePostrouting = "sent"
)

// TraceWanted is which packets are to be marked. They are marked before any rule of others sees them, those of a filter with a
// state as soon as connection tracking has told it.
type TraceWanted struct {
	Filters []packet.Filter // those of any of them; who comes from a container is told by addresses
	Rate    rate.Rate       // of more than these the others are not marked
	Time    time.Duration   // after it the kernel marks none, whatever becomes of this process
}

// Tracing is packets being marked.
type Tracing struct{ socket *socket }

// ErrTracing is the cause of an error about somebody else who traces here.
var ErrTracing = errors.New("another quaywall trace is running here")

// Trace begins to mark packets. The kernel takes the table out when this process ends, however it does (since Linux 5.12; before
// that it stays where the process is killed, with rules that no longer hold for any packet, until another trace or Remove takes it out).
func Trace(wanted TraceWanted) (*Tracing, error) {
	table, err := traceTable(wanted)
	if err != nil {
		return nil, err
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	if err := s.createTrace(table); err != nil {
		s.close()
		return nil, access(fmt.Errorf("adding table inet %s: %w", TraceTable, err))
	}
	return &Tracing{s}, nil
}

// tableOwner is NFT_TABLE_F_OWNER: the table is the socket's that makes it, and goes with it.
const tableOwner = 2

func (s *socket) createTrace(table *render.Table) error {
	table.Flags = tableOwner
	err := s.transact(0, table.Create())
	if there, _ := s.exists(TraceTable); there && err != nil {
		switch err := s.remove(TraceTable); {
		case errors.Is(err, unix.EPERM): // it is another socket's
			return ErrTracing
		case err != nil:
			return err
		}
		err = s.transact(0, table.Create())
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		table.Flags = 0
		err = s.transact(0, table.Create())
	}
	return err
}

// Stop takes the table out.
func (t *Tracing) Stop() error {
	err := t.socket.remove(TraceTable)
	t.socket.close()
	return err
}

// removeTrace takes a table out that a trace has left, and leaves that of one which is running.
func (s *socket) removeTrace() error {
	if err := s.remove(TraceTable); !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

// Priorities: before all rules that are there (those of raw have -300), behind connection tracking (-200), and behind all.
const (
	beforeAll     = -399
	behindTracked = -199
	behindAll     = 1<<31 - 1
)

// marking is the chain of rules that mark.
const marking = "mark"

func traceTable(wanted TraceWanted) (*render.Table, error) {
	begin := ruleset.Base{Hook: ruleset.Prerouting, Priority: beforeAll}
	if slices.ContainsFunc(wanted.Filters, func(f packet.Filter) bool { return f.State != nil }) {
		begin.Priority = behindTracked
	}
	in := ruleset.Chain{Name: "prerouting", Base: &begin}
	out := ruleset.Chain{Name: "output", Base: &ruleset.Base{Hook: ruleset.Output, Priority: begin.Priority}}
	for i := range wanted.Filters {
		f := &wanted.Filters[i]
		rules := traceRules(f)
		if !f.FromHost {
			in.Rules = append(in.Rules, rules...)
		}
		if f.In == "" && f.Container == "" {
			out.Rules = append(out.Rules, rules...)
		}
	}
	table, err := render.Render(&ruleset.Ruleset{Tables: []ruleset.Table{{Name: TraceTable, Chains: []ruleset.Chain{
		{Name: marking}, in, out,
		{Name: TraceInput, Base: &ruleset.Base{Hook: ruleset.Input, Priority: behindAll}},
		{Name: TracePostrouting, Base: &ruleset.Base{Hook: ruleset.Postrouting, Priority: behindAll}},
	}}}})
	if err != nil {
		return nil, err
	}
	alive := aliveSet(wanted.Time)
	table.Sets = append(table.Sets, alive)
	table.Chains[0].Rules = []render.Rule{markRule(alive.Name, wanted.Rate)}
	return table, nil
}

// traceRules find the packets of a filter, in each family that they may be of.
func traceRules(f *packet.Filter) []ruleset.Rule {
	is4, is6 := f.Families()
	var rules []ruleset.Rule
	for _, x := range []struct {
		family ruleset.Family
		is     bool
	}{{ruleset.IPv4, is4}, {ruleset.IPv6, is6}} {
		if x.is {
			rules = append(rules, ruleset.Rule{Matches: traceMatches(f, x.family), Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: marking}})
		}
	}
	return rules
}

var traceStates = map[packet.State]ruleset.CtState{packet.New: ruleset.StateNew, packet.Established: ruleset.StateEstablished,
	packet.Related: ruleset.StateRelated, packet.Invalid: ruleset.StateInvalid, packet.Untracked: ruleset.StateUntracked}

func traceMatches(f *packet.Filter, family ruleset.Family) []ruleset.Match {
	matches := []ruleset.Match{ruleset.FamilyMatch{Family: family}}
	if f.In != "" {
		matches = append(matches, ruleset.IfaceMatch{Field: ruleset.In, Names: []string{f.In}})
	}
	addr := func(field ruleset.Field, p netip.Prefix) {
		if p.IsValid() {
			matches = append(matches, ruleset.AddrMatch{Field: field, Family: family, Addrs: netset.Of(p)})
		}
	}
	port := func(field ruleset.Field, port uint16) {
		if port != 0 {
			matches = append(matches, ruleset.PortMatch{Field: field, Ports: []netset.Ports{{First: port, Last: port}}})
		}
	}
	addr(ruleset.Src, f.Src)
	addr(ruleset.Dst, f.Dst)
	if f.Proto != nil {
		matches = append(matches, ruleset.ProtoMatch{Proto: *f.Proto})
	}
	port(ruleset.SrcPort, f.SrcPort)
	port(ruleset.DstPort, f.DstPort)
	if f.ICMPType != nil {
		matches = append(matches, ruleset.ICMPTypeMatch{Family: family, Types: []uint8{*f.ICMPType}, Code: f.ICMPCode})
	}
	if f.State != nil {
		matches = append(matches, ruleset.CtStateMatch{States: traceStates[*f.State]})
	}
	return matches
}

// nfprotoKey is nft's type nf_proto: a family, one byte.
var nfprotoKey = render.KeyType{Magic: 2, Len: 1, HostOrder: true}

// aliveSet holds both families for as long as packets are to be marked.
func aliveSet(d time.Duration) render.Set {
	return render.Set{
		Name: "alive", Key: nfprotoKey, Flags: unix.NFT_SET_TIMEOUT, Timeout: d, Count: -1,
		Elements: func(yield func(render.Element) bool) {
			_ = yield(render.Element{Key: []byte{unix.NFPROTO_IPV4}}) && yield(render.Element{Key: []byte{unix.NFPROTO_IPV6}})
		},
	}
}

func markRule(alive string, r rate.Rate) render.Rule {
	return render.Rule{Comment: "quaywall trace", Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: alive},
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(r.Count), Unit: expr.LimitTimeSecond, Burst: r.Burst},
		&expr.Immediate{Register: unix.NFT_REG_1, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: unix.NFT_REG_1},
	}}
}

// RulePlace is where a rule of nf_tables stands.
type RulePlace struct {
	Chain  string
	Number int // in its chain, from 1
}

// RuleKey names a rule of nf_tables. Family is NFPROTO_*.
type RuleKey struct {
	Family byte
	Table  string
	Handle uint64
}

// RulePlaces tells where each rule of nf_tables in this network namespace stands, also those of iptables-nft.
func RulePlaces() (map[RuleKey]RulePlace, error) {
	s, err := open()
	if err != nil {
		return nil, err
	}
	defer s.close()
	type chain struct {
		family      byte
		table, name string
	}
	places, numbers := map[RuleKey]RulePlace{}, map[chain]int{}
	err = s.queryFamily(unix.NFPROTO_UNSPEC, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, nil, func(family byte, body []byte) error {
		c, handle := chain{family: family}, uint64(0)
		for kind, value := range nlsock.Attributes(body) {
			switch {
			case kind == unix.NFTA_RULE_TABLE:
				c.table = unix.ByteSliceToString(value)
			case kind == unix.NFTA_RULE_CHAIN:
				c.name = unix.ByteSliceToString(value)
			case kind == unix.NFTA_RULE_HANDLE && len(value) == 8:
				handle = binary.BigEndian.Uint64(value)
			}
		}
		numbers[c]++
		places[RuleKey{family, c.table, handle}] = RulePlace{c.name, numbers[c]}
		return nil
	})
	if err != nil {
		return nil, access(fmt.Errorf("reading the rules of nf_tables: %w", err))
	}
	return places, nil
}
