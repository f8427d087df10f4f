package apply

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quaywall/internal/diag"
	"quaywall/internal/files"
	"quaywall/internal/policy"
	"quaywall/internal/store"
)

// Past is a policy that was in force.
type Past struct {
	Number      int       `json:"number,omitempty"` // what Options.Back takes; 0 where nobody confirmed it
	When        time.Time `json:"when"`             // when it was put in force, the last time
	File        string    `json:"file"`             // "" for the built-in default policy
	Hash        string    `json:"hash"`
	Backend     string    `json:"backend"`
	Observed    bool      `json:"observed,omitempty"`    // it was observed, and going back to it observes it again
	Unconfirmed bool      `json:"unconfirmed,omitempty"` // it was put in force to be confirmed, and was not: one doesn't go back to it

	record *store.Record
}

// History are the policies that were in force other than the one that is, the latest first, each once. While a change waits
// for its confirmation, the policy that it is taken back to is the first. Records that can't be read are left out.
func (h *Host) History() ([]Past, error) {
	state, err := h.Store.State()
	var damaged *store.DamagedError
	if err != nil && !errors.As(err, &damaged) {
		return nil, err
	}
	return h.history(state)
}

func (h *Host) history(state store.State) ([]Past, error) {
	base := ""
	if state.Pending != nil {
		base = state.Pending.Base
	}
	records, err := h.candidates(base, state.Unconfirmed)
	if err != nil {
		return nil, err
	}
	told := map[kind]bool{}
	if current, err := h.Store.Record(state.Current); err == nil {
		told[kindOf(current)] = true
	}
	if len(records) > 0 && records[0].ID == base {
		told[kindOf(records[0])] = false
	}
	var all []Past
	for _, r := range records {
		if told[kindOf(r)] {
			continue
		}
		told[kindOf(r)] = true
		p := Past{Number: len(all) + 1, When: h.when(r.Stamp), File: r.File, Hash: r.Hash, Backend: r.Backend, Observed: r.Observed, record: r}
		if slices.Contains(state.Unconfirmed, r.ID) {
			p.Number, p.Unconfirmed = 0, true
		}
		all = append(all, p)
	}
	return all, nil
}

// kind is what makes a record another than one before: a policy that was observed first is another once it is enforced.
type kind struct {
	hash     string
	observed bool
}

func kindOf(r *store.Record) kind { return kind{r.Hash, r.Observed} }

// candidates are all records that can be read, the base first, then those that somebody confirmed, then the others; each
// kind the latest first.
func (h *Host) candidates(base string, unconfirmed []string) ([]*store.Record, error) {
	ids, err := h.Store.History()
	if err != nil {
		return nil, err
	}
	var all []*store.Record
	for _, id := range slices.Backward(ids) {
		if r, err := h.Store.Record(id); err == nil {
			all = append(all, r)
		}
	}
	rank := func(r *store.Record) int {
		switch {
		case r.ID == base:
			return 0
		case slices.Contains(unconfirmed, r.ID):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b *store.Record) int { return rank(a) - rank(b) })
	return all, nil
}

// past finds the policy to go back to.
func (c *change) past(number int) (*store.Record, error) {
	all, err := c.host.history(c.state)
	if err != nil {
		return nil, err
	}
	last := 0
	for _, p := range all {
		if p.Number == number {
			return p.record, nil
		}
		last = max(last, p.Number)
	}
	switch {
	case last > 0:
		return nil, fmt.Errorf("there is no policy %d to go back to: the oldest that is recorded is %d", number, last)
	case c.state.Pending != nil && c.state.Pending.Base == "":
		return nil, errors.New("nothing was in force before the change that waits for its confirmation: quaywall stop takes it out")
	case len(all) > 0:
		return nil, errors.New("no other policy is recorded that somebody confirmed: apply the one that you want")
	}
	return nil, errors.New("no other policy is recorded to go back to")
}

// loadPast reads a policy as it was: its texts are those that were kept with it, and only what fills sets is read anew.
func (c *change) loadPast() error {
	r, err := c.past(c.opts.Back)
	if err != nil {
		return err
	}
	if r.File != "" {
		c.note("%s was left as it is: quaywall apply puts in force what it holds", r.File)
	}
	c.back = r
	return c.loadKept(r)
}

// loadKept reads the policy of a record. It is observed, or enforced, as it was.
func (c *change) loadKept(r *store.Record) error {
	c.opts.Observe = r.Observed
	if r.File == "" {
		c.policy = policy.Default()
		return nil
	}
	c.opts.Policy = r.Name
	c.policy, c.sources, c.loaded = Kept(r)
	c.warnings = c.loaded
	if err := c.invalid(c.loaded); err != nil {
		return err
	}
	if c.policy.Hash != r.Hash {
		c.note("files that %s fills its sets from were changed since: what they hold now is used", PolicyName(r.File, r.Hash))
	}
	return nil
}

// Kept reads the policy of a record. Files that fill sets are read as they are now.
func Kept(r *store.Record) (*policy.Policy, policy.Sources, diag.List) {
	if r.File == "" {
		return policy.Default(), nil, nil
	}
	return policy.Load(kept{r}, r.Name)
}

// kept is the files of a policy as a record keeps them. Those that fill sets are not kept: they may be large, and are read
// where they were.
type kept struct{ record *store.Record }

func (k kept) Open(name string, limit int64) (io.ReadCloser, error) {
	if text, ok := k.record.Sources[name]; ok && limit <= policy.MaxPolicySize {
		return io.NopCloser(strings.NewReader(string(text))), nil
	}
	return files.Host{}.Open(k.at(name), limit)
}

func (k kept) Glob(pattern string) ([]string, error) {
	var found []string
	for name := range k.record.Sources {
		if ok, err := path.Match(pattern, name); err != nil {
			return nil, err
		} else if ok {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}

func (k kept) Abs(name string) (string, error) { return filepath.Clean(k.at(name)), nil }

// at is where a file is: names are relative to the folder that quaywall was started in.
func (k kept) at(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(k.record.Dir, name)
}

// workingDir is the folder that relative names are of, "" where it is gone.
func workingDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	return dir
}

// Policy is the policy as it was; what fills its sets is read as it is now.
func (p Past) Policy() (*policy.Policy, error) {
	read, _, list := Kept(p.record)
	if list.HasErrors() {
		return nil, list
	}
	return read, nil
}
