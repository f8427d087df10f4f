// Package nft is the backend for nftables: it puts the compiler's table into the kernel by netlink, as one transaction,
// and reads it back. The program nft is needed for hand-written rules alone.
//
//	backend := nft.New()
//	err := backend.Commit(ctx, rs)
//
// The table is `inet quaywall`; hand-written rules have `inet quaywall_raw` for themselves. No other table is touched.
//
// Be aware: a set of more than 16,384 elements is not read element by element (the kernel takes time in the square of
// their number): what was written with it is believed, and from Linux 6.17 on the kernel's count of its elements is
// compared; before, only that there are any. The counters of such maps are left out.
package nft

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	render "quaywall/internal/render/nft"
	"quaywall/internal/ruleset"
)

// tableName is the table of the compiler's rules, rawTable the one of hand-written ones.
const (
	tableName = "quaywall"
	rawTable  = "quaywall_raw"
)

// Backend implements kernel.Backend. It has no state.
type Backend struct{}

// New gives the backend. Whether the host has what it needs is for Probe to say.
func New() *Backend { return &Backend{} }

// Name is "nft".
func (*Backend) Name() string { return "nft" }

// Read lists what of quaywall's is in the kernel. A kernel without nf_tables holds nothing.
func (*Backend) Read(ctx context.Context) (*kernel.Listing, error) {
	s, err := open()
	if err == nil {
		defer s.close()
		var l *kernel.Listing
		if l, err = s.listing(ctx); err == nil {
			return l, nil
		}
	}
	if errors.Is(err, errNoTables) {
		return &kernel.Listing{}, nil
	}
	return nil, access(err)
}

func (s *socket) listing(ctx context.Context) (*kernel.Listing, error) {
	l := &kernel.Listing{Sets: map[string]kernel.SetSummary{}, Counters: map[string]kernel.PacketCount{}}
	for _, name := range []string{tableName, rawTable} {
		st, err := s.readTable(ctx, name)
		if err != nil {
			return nil, err
		}
		if st.table != nil {
			l.Present = true
			st.addTo(l)
		}
	}
	return l, nil
}

// addTo adds a table to a listing. What belongs to hand-written rules carries their table's name.
func (st *state) addTo(l *kernel.Listing) {
	prefix := ""
	if st.table.Name != tableName {
		prefix = st.table.Name + " "
	}
	plain := st.table.Plain()
	for _, line := range plain.Lines() {
		l.Rules = append(l.Rules, prefix+line)
	}
	for i := range st.table.Sets {
		if set := &st.table.Sets[i]; set.Flags&unix.NFT_SET_EVAL == 0 {
			l.Sets[prefix+plain.Sets[i].Name] = summary(st.sets[set.Name])
		}
	}
	if prefix == "" {
		l.Counters = st.counts
	}
}

func summary(s render.Summary) kernel.SetSummary {
	return kernel.SetSummary{Elements: s.Elements, Digest: s.Text()}
}

// Mend reads, and commits where that is amiss.
func (b *Backend) Mend(ctx context.Context, amiss func(*kernel.Listing) bool, wanted func() (*ruleset.Ruleset, error)) error {
	return kernel.ReadAndCommit(b.Name(), func() (*kernel.Listing, error) { return b.Read(ctx) }, amiss, wanted,
		func(rs *ruleset.Ruleset) error { return b.Commit(ctx, rs) })
}

// Commit replaces what is in force with this ruleset: one transaction adds the sets, the next one switches the rules, the
// last one deletes what no packet meets any more. Hand-written rules follow in a transaction of their own, after they have
// been checked.
func (b *Backend) Commit(ctx context.Context, rs *ruleset.Ruleset) error {
	table, err := render.Render(rs)
	if err != nil {
		return err
	}
	raw, err := newRaw(rs.Raw.NFT)
	if err != nil {
		return err
	}
	if err := raw.check(ctx); err != nil {
		return err
	}
	s, err := open()
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.commit(ctx, table, raw); err != nil {
		return err
	}
	return raw.load(ctx)
}

// commit puts a table in force. When somebody else changes rules after the table has been read, it is read again.
func (s *socket) commit(ctx context.Context, table *render.Table, raw raw) error {
	var err error
	for try := range tries {
		if err := pause(ctx, try); err != nil {
			return err
		}
		var st *state
		if st, err = s.readTable(ctx, table.Name); err != nil {
			return err
		}
		var leftover bool
		if leftover, err = s.exists(rawTable); err != nil {
			return err
		}
		change := render.NewChange(table, render.Live{Table: st.table, Sets: st.sets})
		messages := change.Replace()
		if leftover && raw.text == "" {
			messages = followedBy(messages, render.DeleteTable(rawTable))
		}
		if err = s.replace(st.genID, change, messages); !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return fmt.Errorf("putting table inet %s in force: others keep changing rules: %w", table.Name, err)
}

// replace takes the steps of a change: nothing else may have changed any rules since genID.
func (s *socket) replace(genID uint32, change *render.Change, messages iter.Seq2[render.Message, error]) error {
	if !isEmpty(change.Prepare()) {
		if err := s.transact(genID, change.Prepare()); err != nil {
			return explain(err, nil, change.Prepare())
		}
		if genID++; genID == 0 { // 0 is no condition, and no generation
			genID++
		}
	}
	if err := s.transact(genID, messages); err != nil {
		s.tidy(change.Withdraw())
		return explain(err, change.Prepare(), messages)
	}
	if !isEmpty(change.CleanUp()) {
		awaitPackets()
		s.tidy(change.CleanUp())
	}
	return nil
}

// tidy deletes what judges no packet. Should it fail, a reading shows what is left, and the next commit tries again.
func (s *socket) tidy(messages iter.Seq2[render.Message, error]) {
	if !isEmpty(messages) {
		_ = s.transact(0, messages)
	}
}

func isEmpty(messages iter.Seq2[render.Message, error]) bool {
	for range messages {
		return false
	}
	return true
}

// awaitPackets waits until each packet that was being judged has been: they are judged within read-side critical sections
// of RCU, the end of which is what membarrier(2) waits for.
func awaitPackets() {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(unknownGrace)
	}
}

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL, which x/sys/unix lacks

// unknownGrace is much longer than a packet takes, for kernels without membarrier(2) or that refuse it.
const unknownGrace = 50 * time.Millisecond

func followedBy(messages iter.Seq2[render.Message, error], last render.Message) iter.Seq2[render.Message, error] {
	return func(yield func(render.Message, error) bool) {
		for m, err := range messages {
			if !yield(m, err) {
				return
			}
		}
		yield(last, nil)
	}
}

// explain tells which message was refused, by the text of all of them; those of before were taken.
func explain(err error, before, messages iter.Seq2[render.Message, error]) error {
	var refused *refusedError
	if !errors.As(err, &refused) {
		return err
	}
	taken, count := texts(before)
	rest, _ := texts(messages)
	line := refused.message
	if line > 0 {
		line += count
	}
	return &kernel.PayloadError{Backend: "nft", Payload: taken + rest, Line: line, Err: refused.refusal}
}

// texts is the text of messages, a line for each, and how many there are.
func texts(messages iter.Seq2[render.Message, error]) (string, int) {
	var all strings.Builder
	count := 0
	if messages == nil {
		return "", 0
	}
	for m, err := range messages {
		if err != nil {
			break
		}
		all.WriteString(m.Text() + "\n")
		count++
	}
	return all.String(), count
}

// Remove takes both tables out of the kernel, and that which a trace has left. One without nf_tables holds none.
func (*Backend) Remove(context.Context) error {
	s, err := open()
	if err == nil {
		defer s.close()
		_, err = s.generation()
	}
	if errors.Is(err, errNoTables) {
		return nil
	}
	if err != nil {
		return access(err)
	}
	for _, name := range []string{tableName, rawTable} {
		if err := s.remove(name); err != nil {
			return fmt.Errorf("nft: removing table inet %s: %w", name, err)
		}
	}
	if err := s.removeTrace(); err != nil {
		return fmt.Errorf("nft: removing table inet %s: %w", TraceTable, err)
	}
	return nil
}

// remove deletes a table, if it is there: its rules first, and what these use once no packet meets it any more.
func (s *socket) remove(name string) error {
	there, err := s.exists(name)
	if err != nil || !there {
		return err
	}
	if err = s.tell(render.FlushRules(name)); err == nil {
		awaitPackets()
		err = s.tell(render.DeleteTable(name))
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// tell is a transaction of one message.
func (s *socket) tell(m render.Message) error {
	return s.transact(0, func(yield func(render.Message, error) bool) { yield(m, nil) })
}

// exists tells whether there is a table of a name.
func (s *socket) exists(name string) (bool, error) {
	err := s.query(unix.NFT_MSG_GETTABLE, 0, render.TableQuery(name), func(byte, []byte) error { return nil })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}
