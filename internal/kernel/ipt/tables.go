package ipt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
)

// tableNames are the tables that can hold something of quaywall's, in the order of listings.
var tableNames = []string{"raw", "mangle", "filter", "security"}

// table is what quaywall has in a table of the kernel.
type table struct {
	present  render.Present
	counters map[string]kernel.PacketCount
}

// state is what quaywall has in the tables of both families.
type state struct {
	tables  map[ruleset.Family]map[string]*table
	missing map[ruleset.Family]map[string][]string // see render.Present; of iptables-nft alone, for the other one keeps all it has
}

func (s *state) present(f ruleset.Family) map[string]render.Present {
	all := map[string]render.Present{}
	for _, name := range tableNames {
		var p render.Present
		if t := s.tables[f][name]; t != nil {
			p = t.present
		}
		p.Missing = s.missing[f][name]
		all[name] = p
	}
	return all
}

// family is what a family had, as something that can be put back.
func (s *state) family(f ruleset.Family) *render.Family {
	family := render.EmptyFamily(f)
	for _, to := range []*render.Table{&family.Raw, &family.Mangle, &family.Filter, &family.Security} {
		if t := s.tables[f][to.Name]; t != nil {
			to.Chains = t.present.Chains
			for _, j := range t.present.Jumps {
				to.Jumps = append(to.Jumps, j.Jump)
			}
		}
	}
	return &family
}

// same tells whether a family has the same rules in both states.
func (s *state) same(o *state, f ruleset.Family) bool {
	return slices.Equal(s.lines(f), o.lines(f))
}

// lines is a canonical listing of a family: chains by name, jumps with their position.
func (s *state) lines(f ruleset.Family) []string {
	var all []string
	for _, name := range tableNames {
		t := s.tables[f][name]
		if t == nil {
			continue
		}
		head := f.String() + " " + name + " "
		for _, j := range t.present.Jumps {
			all = append(all, fmt.Sprintf("%s-I %s %d %s", head, j.From, j.Position, j.Spec))
		}
		for _, c := range t.present.Chains {
			all = append(all, head+":"+c.Name)
			for _, r := range c.Rules {
				all = append(all, head+"-A "+c.Name+" "+r.Spec)
			}
		}
	}
	return all
}

// tables reads what quaywall has. A table that isn't there is not asked for: the legacy programs would make it.
func (b *Backend) tables(ctx context.Context) (*state, error) {
	s := &state{tables: map[ruleset.Family]map[string]*table{}, missing: map[ruleset.Family]map[string][]string{}}
	var saves []save
	for _, f := range families {
		s.tables[f] = map[string]*table{}
		there, missing, err := b.existing(f)
		if err != nil {
			return nil, fmt.Errorf("finding the %s tables of %s: %w", f, b.Name(), err)
		}
		s.missing[f] = missing
		if len(there) > 0 {
			saves = append(saves, save{f, there})
		}
	}
	return s, b.read(ctx, saves, s)
}

// save is tables of a family, to be read.
type save struct {
	family ruleset.Family
	tables []string
}

// call is the program that prints the tables: all that there are in one, where several are wanted, since most of what it
// takes is its start.
func (s save) call() call {
	args := []string{"--counters"}
	if len(s.tables) == 1 {
		args = append(args, "--table", s.tables[0])
	}
	return call{tool: program(s.family, "save"), args: args}
}

// read reads tables, both families at once. Where a program stumbles over one of a family, it may be one that nobody asked
// for: then each is read by itself.
func (b *Backend) read(ctx context.Context, saves []save, into *state) error {
	calls := make([]call, len(saves))
	for i, s := range saves {
		calls[i] = s.call()
	}
	var apart []save
	for i, result := range b.runAll(ctx, calls) {
		s := saves[i]
		tables, err := b.saved(result, s.tables)
		switch {
		case err == nil:
			maps.Copy(into.tables[s.family], tables)
		case len(s.tables) == 1 || ctx.Err() != nil:
			return fmt.Errorf("reading table %s %s: %w", s.family, s.tables[0], err)
		default:
			for _, name := range s.tables {
				apart = append(apart, save{s.family, []string{name}})
			}
		}
	}
	if len(apart) == 0 {
		return nil
	}
	return b.read(ctx, apart, into)
}

// existing are the tables of a family that are worth reading, and what isn't there.
func (b *Backend) existing(f ruleset.Family) (tables []string, missing map[string][]string, err error) {
	var there map[string]bool
	if b.variant == NFT {
		there, missing, err = nftTables(f)
	} else {
		there, err = legacyTables(f)
	}
	return slices.DeleteFunc(slices.Clone(tableNames), func(name string) bool { return !there[name] }), missing, err
}

// legacyTables asks /proc. The thread's own, for its network namespace may be another one than the process's.
func legacyTables(f ruleset.Family) (map[string]bool, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if f == ruleset.IPv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // without the kernel module there is no file, and are no tables
		return nil, err
	}
	there := map[string]bool{}
	for _, name := range strings.Fields(string(text)) {
		there[name] = true
	}
	return there, nil
}

// builtins are the built-in chains that quaywall may jump from.
var builtins = map[string][]string{
	"raw":      {"PREROUTING", "OUTPUT"},
	"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"filter":   {"INPUT", "FORWARD", "OUTPUT"},
	"security": {"INPUT", "FORWARD", "OUTPUT"},
}

// nftTables asks by netlink which tables hold a chain of quaywall's; mangle is always worth reading where it exists, for
// the position of the jumps.
func nftTables(f ruleset.Family) (there map[string]bool, missing map[string][]string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, nil, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftFamily(f))
	if err != nil {
		return nil, nil, err
	}
	there, missing = map[string]bool{}, map[string][]string{}
	for _, name := range tableNames {
		missing[name] = append([]string{render.MissingTable}, builtins[name]...)
	}
	for _, c := range chains {
		name := c.Table.Name
		if strings.HasPrefix(c.Name, render.Prefix) || name == "mangle" {
			there[name] = true
		}
		missing[name] = slices.DeleteFunc(missing[name], func(m string) bool { return m == c.Name || m == render.MissingTable })
	}
	return there, missing, nil
}

func nftFamily(f ruleset.Family) nftables.TableFamily {
	if f == ruleset.IPv6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// saved are tables as a save program printed them, maybe among others.
func (b *Backend) saved(result sysexec.Result, names []string) (map[string]*table, error) {
	if result.Err != nil {
		return nil, result.Err
	}
	all, err := parseSave(result.Stdout, names...)
	if err != nil && bytes.Contains(result.Stdout, []byte("is incompatible, use 'nft' tool")) {
		return nil, fmt.Errorf("%s can't read it, since somebody put rules into it by nft: delete those, or use --backend nft", b.Name())
	}
	return all, err
}

// parseSave reads what a save program prints about some tables. Nothing less than the whole of them, each from its name to
// COMMIT, is an answer.
func parseSave(text []byte, names ...string) (map[string]*table, error) {
	all := map[string]*table{}
	var r *tableReader // of the table that is being read; nil for one that nobody asked for
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		name, begins := strings.CutPrefix(line, "*")
		switch {
		case line == "" || line[0] == '#':
		case begins && slices.Contains(names, name):
			r = &tableReader{name: name, chains: map[string]*render.Chain{}, position: map[string]int{},
				table: table{counters: map[string]kernel.PacketCount{}}}
		case begins:
			r = nil
		case r == nil:
		case line == "COMMIT":
			all[r.name], r = r.end(), nil
		default:
			if err := r.line(line); err != nil {
				return nil, err
			}
		}
	}
	if len(all) < len(names) {
		return nil, errors.New("the answer was cut short: what is there is not known")
	}
	return all, nil
}

// tableReader reads one table line by line.
type tableReader struct {
	table
	name     string
	chains   map[string]*render.Chain // quaywall's
	position map[string]int           // how many rules of other chains came so far
}

func (r *tableReader) line(line string) error {
	declared, declares := strings.CutPrefix(line, ":")
	if !declares {
		return r.rule(line)
	}
	if chain, _, _ := strings.Cut(declared, " "); strings.HasPrefix(chain, render.Prefix) {
		r.chains[chain] = &render.Chain{Name: chain}
	}
	return nil
}

func (r *tableReader) end() *table {
	for _, chain := range slices.Sorted(maps.Keys(r.chains)) {
		r.present.Chains = append(r.present.Chains, *r.chains[chain])
	}
	return &r.table
}

// rule reads a line such as "[12:3456] -A CHAIN -p tcp -j DROP".
func (r *tableReader) rule(line string) error {
	counts, rest, ok := strings.Cut(line, "] -A ")
	chain, spec, _ := strings.Cut(rest, " ")
	packets, bytes, ok2 := strings.Cut(strings.TrimPrefix(counts, "["), ":")
	if !ok || !ok2 || chain == "" {
		return fmt.Errorf("the line %q is not understood", line)
	}
	if c := r.chains[chain]; c != nil {
		c.Rules = append(c.Rules, render.Rule{Spec: spec})
		if chain != render.RawChain {
			return r.count(packets, bytes, spec)
		}
		return nil
	}
	r.position[chain]++
	if strings.Contains(spec, render.Prefix) && render.LeadsToOwn(spec) {
		jump := render.PlacedJump{Jump: render.Jump{From: chain, Spec: spec}, Position: r.position[chain]}
		r.present.Jumps = append(r.present.Jumps, jump)
	}
	return nil
}

// count adds up what a rule counted, where its comment names a policy line.
func (t *table) count(packets, bytes, spec string) error {
	p, err := strconv.ParseUint(packets, 10, 64)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(bytes, 10, 64)
	if err != nil {
		return err
	}
	if p > 0 {
		addCount(t.counters, render.CommentOf(spec), kernel.PacketCount{Packets: p, Bytes: n})
	}
	return nil
}

func addCount(to map[string]kernel.PacketCount, comment string, count kernel.PacketCount) {
	line := ruleset.ParseOrigin(comment).Line
	if line == "" {
		return
	}
	sum := to[line]
	to[line] = kernel.PacketCount{Packets: sum.Packets + count.Packets, Bytes: sum.Bytes + count.Bytes}
}
