package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/nft"
	"quaywall/internal/ruleset"
)

// state is a table as the kernel holds it.
type state struct {
	table  *render.Table // nil where there is none
	sets   map[string]render.Summary
	counts map[string]kernel.PacketCount
	genID  uint32 // the generation of all rules of the namespace that this is of
}

// listLimit is up to how many elements a set is read element by element. The kernel's dump takes time in the square of
// them (0.02 s for 16,384, 0.35 s for 65,536, 70 s for a million, measured). Of a larger set, the digest that was written
// along with it is taken, if the kernel's own count of the elements agrees or, before Linux 6.17, if it holds any.
const listLimit = 1 << 14

// tries is how often a reading that was overtaken by changes is begun again.
const tries = 20

// readTable reads a table in one piece.
func (s *socket) readTable(ctx context.Context, name string) (*state, error) {
	var err error
	for try := range tries {
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
		var st *state
		if st, err = s.tryTable(name); err == nil {
			return st, nil
		}
		if !errors.Is(err, errChanged) {
			break
		}
	}
	return nil, fmt.Errorf("reading table inet %s: %w", name, err)
}

// pause waits the longer the more tries there were.
func pause(ctx context.Context, try int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(try) * 5 * time.Millisecond):
		return nil
	}
}

func (s *socket) tryTable(name string) (*state, error) {
	before, err := s.generation()
	if err != nil {
		return nil, err
	}
	st := &state{sets: map[string]render.Summary{}, counts: map[string]kernel.PacketCount{}, genID: before}
	if err := s.fill(st, name); err != nil {
		// What was there a moment ago and isn't any more is a change as well.
		if errors.Is(err, unix.ENOENT) {
			err = errChanged
		}
		return nil, err
	}
	after, err := s.generation()
	if err == nil && after != before {
		err = errChanged
	}
	return st, err
}

// generation is the number that every change of any rules of the namespace raises.
func (s *socket) generation() (id uint32, err error) {
	err = s.query(unix.NFT_MSG_GETGEN, 0, nil, func(_ byte, body []byte) error {
		if len(body) < 8 {
			return errCutShort
		}
		id = binary.BigEndian.Uint32(body[unix.SizeofNlAttr:])
		return nil
	})
	if errors.Is(err, unix.EINVAL) { // nobody answers to nf_tables' number
		err = fmt.Errorf("%w: %w", errNoTables, err)
	}
	return id, err
}

func (s *socket) fill(st *state, name string) error {
	err := s.query(unix.NFT_MSG_GETTABLE, 0, render.TableQuery(name), func(_ byte, body []byte) error {
		t, err := render.ParseTable(body)
		st.table = &t
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		st.table = nil
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.readChains(st); err != nil {
		return err
	}
	if err := s.readRules(st); err != nil {
		return err
	}
	return s.readSets(st)
}

func (s *socket) readChains(st *state) error {
	return s.query(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, nil, func(family byte, body []byte) error {
		table, c, err := render.ParseChain(body)
		if table == st.table.Name && family == unix.NFPROTO_INET {
			st.table.Chains = append(st.table.Chains, c)
		}
		return err
	})
}

func (s *socket) readRules(st *state) error {
	chains := map[string]*render.Chain{}
	for i := range st.table.Chains {
		chains[st.table.Chains[i].Name] = &st.table.Chains[i]
	}
	return s.query(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, render.TableQuery(st.table.Name), func(_ byte, body []byte) error {
		table, chain, r, err := render.ParseRule(body)
		if err != nil || table != st.table.Name {
			return err
		}
		c, ok := chains[chain]
		if !ok {
			return errChanged
		}
		c.Rules = append(c.Rules, r)
		for _, e := range r.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				st.count(r.Comment, counter)
			}
		}
		return nil
	})
}

// count adds what a rule or an element has counted to its policy line.
func (st *state) count(comment string, c *expr.Counter) {
	line := ruleset.ParseOrigin(comment).Line
	if line == "" {
		return
	}
	sum := st.counts[line]
	sum.Packets += c.Packets
	sum.Bytes += c.Bytes
	st.counts[line] = sum
}

func (s *socket) readSets(st *state) error {
	err := s.query(unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, render.TableQuery(st.table.Name), func(_ byte, body []byte) error {
		table, set, err := render.ParseSet(body)
		if table == st.table.Name {
			st.table.Sets = append(st.table.Sets, set)
		}
		return err
	})
	for i := range st.table.Sets {
		if err != nil {
			return err
		}
		set := &st.table.Sets[i]
		st.sets[set.Name], err = s.readSet(st, set)
	}
	return err
}

// readSet sums a set up. Sets that the kernel fills itself are what they are whatever they hold.
func (s *socket) readSet(st *state, set *render.Set) (render.Summary, error) {
	if set.Flags&unix.NFT_SET_EVAL != 0 {
		return set.SummarizeUnsorted(nil), nil
	}
	if w := set.Written; w != nil && w.Elements > listLimit {
		if set.Count < 0 {
			return believed(st.table.Name, set)
		}
		if w.CountIs(set.Count) {
			return *w, nil
		}
		return render.Summary{Elements: set.Count}, nil
	}
	var elements []render.Element
	err := s.query(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, render.ElementsQuery(st.table.Name, set.Name), func(_ byte, body []byte) error {
		var err error
		elements, err = render.ParseElements(append([]byte(nil), body...), elements)
		return err
	})
	for i := range elements {
		if set.Counter {
			st.count(elements[i].Comment, &elements[i].Counter)
		}
	}
	return set.SummarizeUnsorted(elements), err
}

// believed is what was written with a set that the kernel doesn't count, unless nothing is left of it.
func believed(table string, set *render.Set) (render.Summary, error) {
	empty, err := isFlushed(table, set.Name)
	if empty || err != nil {
		return render.Summary{}, err
	}
	return *set.Written, nil
}

// errEnough ends a dump of which more isn't wanted.
var errEnough = errors.New("enough")

// isFlushed looks at the first elements of a set, by a socket of its own: the rest of the dump ends with it.
func isFlushed(table, set string) (bool, error) {
	s, err := open()
	if err != nil {
		return false, err
	}
	defer s.close()
	err = s.query(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, render.ElementsQuery(table, set), func(_ byte, body []byte) error {
		elements, err := render.ParseElements(body, nil)
		if len(elements) > 0 {
			return errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return false, nil
	}
	return err == nil, err
}
