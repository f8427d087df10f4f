// Package store keeps what quaywall has to remember between two runs: the policies that were put in force, each with the
// ruleset that it became, which of them is in force, and a change that waits for its confirmation.
//
// A policy that was put in force is a Record, a file of its own that never changes. Their names are numbered in the order in
// which they were made: a clock may go back. One small file, the State, says which record is the current one, and which
// nobody confirmed. It is replaced as a whole, so there is one moment at which everything changes; what may fail for want of
// space comes before it:
//
//	s := store.Open("/var/lib/quaywall")
//	id, err := s.Save(record, rules)
//	change, err := s.Prepare(state.InForce(id))
//	…                                            // the kernel is changed here
//	err = change.Commit()                        // renames, and needs no space
//
// Be aware: a file that isn't whole is told by a *DamagedError and left where it is; PutAside moves it away. Nothing is
// locked here, that is package lock's. Folders are made 0700 and files 0600: a policy names addresses that are nobody
// else's business.
package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"quaywall/internal/inventory"
	"quaywall/internal/kernel"
	"quaywall/internal/ruleset"
)

// Stamp is when something was done. The clock may be set later: CLOCK_BOOTTIME tells, until the next boot, how long ago that was.
type Stamp struct {
	When time.Time     `json:"when"`
	Boot string        `json:"boot,omitempty"` // the boot of the kernel, as of package apply; not in answers
	Up   time.Duration `json:"up,omitempty"`   // CLOCK_BOOTTIME; not in answers
}

// Record is a policy as it was put in force, with the stamp of when that was.
type Record struct {
	ID string `json:"id"`
	Stamp
	Since   time.Time         `json:"since,omitzero"` // when the policy came in force: records before, of the same policy, were for what the host was then
	File    string            `json:"file"`           // the policy file; "" for the built-in default
	Name    string            `json:"name,omitempty"` // the file as it was named, and the folder that relative names of Sources are of
	Dir     string            `json:"dir,omitempty"`
	Hash    string            `json:"hash"`              // of the policy and everything that it names
	Written string            `json:"written,omitempty"` // of the same without the files that fill sets
	Entries map[string]int    `json:"entries,omitempty"` // of each set of the policy, as they were written
	Backend string            `json:"backend"`           // kernel.Backend.Name
	PickUp  time.Time         `json:"pick_up,omitzero"`  // since when untracked flows of containers may go on; zero where they may not
	Cut     string            `json:"cut,omitempty"`     // compile.Cut.ID; "" where it ended no connections
	Listing kernel.Listing    `json:"listing"`           // what reading the kernel gives while it is in force; no counters
	Sources map[string][]byte `json:"sources,omitempty"` // the policy's texts by file name, as far as they were kept
	Verbs   map[string]string `json:"verbs,omitempty"`   // what each line of the policy does, as policy.Verbs has it

	// Networks are those that Docker told of last, as far as their bridges have names of Docker's making: nobody else ever has
	// one of that name.
	Networks []inventory.Network `json:"networks,omitempty"`

	// Observed says that the policy is judged, counted and logged, and denies nothing.
	Observed bool `json:"observed,omitempty"`
}

// State says which records count.
type State struct {
	Current string   `json:"current,omitempty"` // in force; "" for none
	Removed bool     `json:"removed,omitempty"` // what was in force was taken out, by somebody or unconfirmed, and nothing was put in force since
	Decided bool     `json:"decided,omitempty"` // a person did: without, the record was lost, and made anew of what was in force
	Pending *Pending `json:"pending,omitempty"`
	Undone  *Undone  `json:"undone,omitempty"` // the last change that was taken back, until a person puts a policy in force

	// TakenUp says that what is in force was taken up from the policy file by an agent, and that nobody has asked for it yet.
	TakenUp *TakenUp `json:"taken_up,omitempty"`
	// Unconfirmed are records that were put in force to be confirmed, and were not, or not yet.
	Unconfirmed []string `json:"unconfirmed,omitempty"`
	// Observed are records that are observed: so much has to be known also where one of them is damaged.
	Observed []string `json:"observed,omitempty"`
	// Rejected are policies that were taken back, or gone back from, by Record.Written: a policy file may still hold one of
	// them, and only a person puts it in force again.
	Rejected []string `json:"rejected,omitempty"`
}

// Pending is a change that is taken back unless it is confirmed in time.
type Pending struct {
	ID       string        `json:"id"`
	Task     string        `json:"task"`           // what the process knows it by that takes it back: a further change in the time leaves it that
	Base     string        `json:"base,omitempty"` // the record to go back to; "" to take everything out
	Boot     string        `json:"boot"`           // the boot that Deadline belongs to; in any other one the time is over
	Deadline time.Duration `json:"deadline"`       // on CLOCK_BOOTTIME, which no clock change moves and which runs on in suspend
	Until    time.Time     `json:"until"`          // the same for a person
	PID      int           `json:"pid"`            // of that process
}

// TakenUp is a policy that an agent put in force by itself.
type TakenUp struct {
	Stamp
	Base string `json:"base"` // the record of the last policy that a person asked for
}

// Undone is a change that was taken back.
type Undone struct {
	Stamp
	File string `json:"file"`
	Hash string `json:"hash"`
	Why  string `json:"why"` // a sentence without a full stop
}

// IsZero tells whether nothing was ever recorded, or everything was forgotten.
func (s State) IsZero() bool {
	return s.Current == "" && !s.Removed && !s.Decided && s.Pending == nil && s.Undone == nil && s.TakenUp == nil &&
		len(s.Unconfirmed) == 0 && len(s.Observed) == 0 && len(s.Rejected) == 0
}

// InForce is the state once a record was put in force. A pending confirmation goes on waiting, now for this one.
func (s State) InForce(id string) State {
	s.Current, s.Removed = id, false
	if s.Pending != nil && !slices.Contains(s.Unconfirmed, id) {
		s.Unconfirmed = append(slices.Clip(s.Unconfirmed), id)
	}
	return s
}

// Observing is the state once a record is known to be observed.
func (s State) Observing(id string) State {
	if !slices.Contains(s.Observed, id) {
		s.Observed = append(slices.Clip(s.Observed), id)
	}
	return s
}

// Wanted is the state once a person asked for what is in force.
func (s State) Wanted() State {
	s.Undone, s.Rejected, s.TakenUp, s.Decided = nil, nil, nil, true
	return s
}

// Confirmed is the state once a person confirmed what is in force.
func (s State) Confirmed() State {
	s.Pending, s.TakenUp, s.Decided = nil, nil, true
	s.Unconfirmed = without(s.Unconfirmed, s.Current)
	return s
}

// Stopped is the state once everything was taken out.
func (s State) Stopped() State {
	s.Current, s.Removed, s.Decided = "", true, true
	s.Pending, s.Undone, s.TakenUp = nil, nil, nil
	return s
}

// TakenBack is the state once a pending change was taken back, of a policy as Record.Written has it, "" where that is lost.
func (s State) TakenBack(u Undone, written string) State {
	s.Current, s.Removed, s.Decided = s.Pending.Base, s.Pending.Base == "", true
	s.Pending, s.Undone, s.TakenUp = nil, &u, nil
	return s.Reject(written)
}

// Reject is the state once only a person may put a policy in force again; "" for none.
func (s State) Reject(written string) State {
	if written != "" {
		s.Rejected = append(without(s.Rejected, written), written)
		s.Rejected = s.Rejected[max(0, len(s.Rejected)-keepLast):]
	}
	return s
}

// without leaves a word out of a list, and the list as it is.
func without(list []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == word })
}

// Store is a folder of records. Nothing is opened or made before it is needed.
type Store struct{ dir string }

// Open gives the store of a folder, which need not exist.
func Open(dir string) *Store { return &Store{dir: dir} }

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// StateFile is the file that is replaced whenever something else counts.
func (s *Store) StateFile() string { return s.statePath() }

const (
	stateFile  = "state.json"
	recordsDir = "records"
	keepLast   = 10       // records that nothing refers to and that are kept as history
	keepBytes  = 64 << 20 // that these may have together: a set of a million addresses makes a record of 14 MB
)

func (s *Store) statePath() string           { return filepath.Join(s.dir, stateFile) }
func (s *Store) forgottenPath() string       { return s.statePath() + ".forgotten" }
func (s *Store) recordPath(id string) string { return filepath.Join(s.dir, recordsDir, id) }

// State reads which records count. Without a file it is the zero State.
func (s *Store) State() (State, error) {
	var state State
	err := readLines(s.statePath(), &state)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	return state, err
}

// Record reads a record without its ruleset. One that isn't there is damaged: something refers to it.
func (s *Store) Record(id string) (*Record, error) {
	r := &Record{}
	return r, s.readRecord(id, r)
}

// Ruleset reads the ruleset of a record.
func (s *Store) Ruleset(id string) (*ruleset.Ruleset, error) {
	rs := &ruleset.Ruleset{}
	return rs, s.readRecord(id, nil, rs)
}

func (s *Store) readRecord(id string, into ...any) error {
	if !isID(id) {
		return &DamagedError{Path: s.statePath(), Err: fmt.Errorf("it names a record %q", id)}
	}
	err := readLines(s.recordPath(id), into...)
	if errors.Is(err, fs.ErrNotExist) {
		return &DamagedError{Path: s.recordPath(id), Err: errors.New("it is gone")}
	}
	return err
}

// Save writes a record, gives it an ID and makes sure that it is on the disk. Nothing refers to it yet.
func (s *Store) Save(r Record, rs *ruleset.Ruleset) (id string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping a record of the policy: %w", err)
		}
	}()
	if r.ID, err = s.newID(); err != nil {
		return "", err
	}
	r.Listing.Counters = nil
	path := s.recordPath(r.ID)
	err = os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = writeLines(path, r, rs)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return "", errors.Join(err, removed(path))
	}
	return r.ID, nil
}

// Drop removes a record that nothing refers to. One that stays does no harm.
func (s *Store) Drop(id string) { _ = removed(s.recordPath(id)) }

// newID makes a name with the next number. The rest of it tells records of one number apart where all were lost in between.
func (s *Store) newID() (string, error) {
	ids, err := s.History()
	if err != nil {
		return "", err
	}
	last := 0
	if len(ids) > 0 {
		last, _ = strconv.Atoi(ids[len(ids)-1][:idDigits]) // isID has looked at it
	}
	tail := make([]byte, 4)
	_, _ = rand.Read(tail) // never fails: see its documentation
	return fmt.Sprintf("%0*d-%s", idDigits, last+1, hex.EncodeToString(tail)), nil
}

// idDigits are the digits of the number that an ID begins with.
const idDigits = 10

// isID keeps a damaged file from naming paths elsewhere.
func isID(id string) bool {
	if len(id) != idDigits+9 || filepath.Base(id) != id {
		return false
	}
	_, err := strconv.ParseUint(id[:idDigits], 10, 32)
	return err == nil
}

// Change is a State that is on the disk beside the one that counts.
type Change struct {
	store *Store
	temp  string
	state State
}

// Prepare writes a state beside the one that counts.
func (s *Store) Prepare(state State) (*Change, error) {
	state.Unconfirmed, state.Observed = s.there(state.Unconfirmed), s.there(state.Observed)
	c := &Change{store: s, temp: s.statePath() + ".new", state: state}
	err := os.MkdirAll(s.dir, 0o700)
	if err == nil {
		err = removed(c.temp) // of a run that was killed
	}
	if err == nil {
		err = writeLines(c.temp, state)
	}
	if err != nil {
		return nil, fmt.Errorf("preparing the record of what is in force: %w", errors.Join(err, removed(c.temp)))
	}
	return c, nil
}

// there leaves out records that are gone.
func (s *Store) there(ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, err := os.Stat(s.recordPath(id))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// Commit makes the state count, then removes records that are no use any more.
func (c *Change) Commit() error {
	err := os.Rename(c.temp, c.store.statePath())
	if err == nil {
		err = syncDir(c.store.dir)
	}
	if err != nil {
		return fmt.Errorf("recording what is in force: %w", err)
	}
	_ = removed(c.store.forgottenPath()) // a state counts again
	c.store.prune(c.state)
	return nil
}

// Abort forgets the state. After Commit it does nothing.
func (c *Change) Abort() error { return removed(c.temp) }

// Set is Prepare and Commit, for when the kernel isn't touched in between.
func (s *Store) Set(state State) error {
	c, err := s.Prepare(state)
	if err != nil {
		return err
	}
	return c.Commit()
}

// Forget takes the state away, so that nothing counts as in force and nothing waits, and notes that. It needs no space on
// the disk.
func (s *Store) Forget() error {
	err := os.Rename(s.statePath(), s.forgottenPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting what is in force: %w", err)
	}
	return nil
}

// Forgotten tells whether there is no state since Forget took it away: a state that is merely gone was lost.
func (s *Store) Forgotten() bool {
	_, err := os.Stat(s.forgottenPath())
	_, there := os.Stat(s.statePath())
	return err == nil && errors.Is(there, fs.ErrNotExist)
}

// History are the IDs of all records, the oldest first.
func (s *Store) History() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, recordsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if isID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// prune removes the oldest records that a state doesn't need, but never all that one could go back to. One that can't be removed does no harm, and what counts is
// done by then.
func (s *Store) prune(state State) {
	ids, err := s.History()
	if err != nil {
		return
	}
	kept, size := 0, int64(0)
	for _, id := range slices.Backward(ids) {
		if id == state.Current || state.Pending != nil && id == state.Pending.Base || state.TakenUp != nil && id == state.TakenUp.Base {
			continue
		}
		if info, err := os.Stat(s.recordPath(id)); err == nil {
			size += info.Size()
		}
		if kept++; kept > keepLast || size > keepBytes && kept > 1 {
			_ = removed(s.recordPath(id))
		}
	}
}

// removed removes a file that may not be there.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
