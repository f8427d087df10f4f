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
	Number  int       `json:"number"` // what Options.Back takes
	When    time.Time `json:"when"`   // when it was put in force, the last time
	File    string    `json:"file"`   // "" for the built-in default policy
	Hash    string    `json:"hash"`
	Backend string    `json:"backend"`

	record *store.Record
}

// History are the policies that were in force other than the one that is, the latest first, each once. Records that can't be
// read are left out.
func (h *Host) History() ([]Past, error) {
	state, err := h.Store.State()
	var damaged *store.DamagedError
	if err != nil && !errors.As(err, &damaged) {
		return nil, err
	}
	ids, err := h.Store.History()
	if err != nil {
		return nil, err
	}
	told := map[string]bool{}
	if current, err := h.Store.Record(state.Current); err == nil {
		told[current.Hash] = true
	}
	var all []Past
	for _, id := range slices.Backward(ids) {
		r, err := h.Store.Record(id)
		if err != nil || told[r.Hash] {
			continue
		}
		told[r.Hash] = true
		all = append(all, Past{Number: len(all) + 1, When: r.When, File: r.File, Hash: r.Hash, Backend: r.Backend, record: r})
	}
	return all, nil
}

// past finds the policy to go back to. While a change waits for its confirmation the one before is what that goes back to.
func (c *change) past(number int) (*store.Record, error) {
	if p := c.state.Pending; p != nil && number == 1 {
		if p.Base == "" {
			return nil, errors.New("nothing was in force before the change that waits for its confirmation: quaywall stop takes it out")
		}
		return c.host.Store.Record(p.Base)
	}
	all, err := c.host.History()
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, errors.New("no other policy is recorded to go back to")
	case number > len(all):
		return nil, fmt.Errorf("there is no policy %d to go back to: the oldest that is recorded is %d", number, len(all))
	}
	return all[number-1].record, nil
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
	return c.loadKept(r)
}

// loadConfirmed takes the place of a policy that a boot took back: whoever applies it at boot, a unit most often, has not
// seen whether it lets anybody in.
func (c *change) loadConfirmed() error {
	why := fmt.Errorf("%s was not confirmed before the host was booted", policyName(c.policy.File, c.policy.Hash))
	left, next := "nothing is in force, as before it", "apply it once more to have it in force"
	if c.record == nil {
		return &FailedError{Doing: "putting the policy in force", Err: why, Left: left, Next: next}
	}
	c.note("%v: the policy before is in force; %s", why, next)
	if c.record.File != "" && c.record.Name == "" {
		return &FailedError{Doing: "putting the policy in force", Err: why, Left: "the policy before is", Next: next}
	}
	return c.loadKept(c.record)
}

// loadKept reads the policy of a record.
func (c *change) loadKept(r *store.Record) error {
	c.back = r
	if r.File == "" {
		c.policy = policy.Default()
		return nil
	}
	if r.Name == "" {
		return fmt.Errorf("%s was put in force by an earlier quaywall, which did not keep enough of it", policyName(r.File, r.Hash))
	}
	c.opts.Policy = r.Name
	c.policy, c.sources, c.loaded = Kept(r)
	c.warnings = c.loaded
	if err := c.invalid(c.loaded); err != nil {
		return err
	}
	if c.policy.Hash != r.Hash {
		c.note("files that %s fills its sets from were changed since: what they hold now is used", policyName(r.File, r.Hash))
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
