package agent

import (
	"context"
	"log/slog"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/denied"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/repair"
	"quaywall/internal/store"
	"quaywall/internal/watch/docker"
)

// Host is the host that an agent looks after. Local is the real one; tests put in others.
type Host struct {
	Now     func() time.Time
	InForce func() (InForce, error)                    // what is recorded; with an error, what could be read of it
	Load    func(t Target) Loaded                      // reads the policy
	Watch   func(patterns []string) (added bool)       // says which files hints are wanted of, besides the store's
	List    func(ctx context.Context) (Listing, error) // may take some seconds

	// Apply puts the policy of a target in force, for this inventory, in place of the record over.
	Apply func(ctx context.Context, t Target, over string, inv *inventory.Inventory) (*apply.Result, error)
	// Mend puts quaywall's own rules back, and calls found before it does where they are not what they have to be.
	Mend func(ctx context.Context, found func()) (*apply.Mended, error)

	CheckDocker func(ctx context.Context, f repair.Facts, fresh bool) (repair.Report, error)
	MendDocker  func(ctx context.Context, f repair.Facts, dropStale bool) (repair.Report, error)

	Kept func(r *store.Record) *policy.Policy // the policy of a record, as it was kept; nil where it can't be read
	Know func(f denied.Facts)                 // what denied packets are judged by

	Publish   func(r Report) error // for status; PID is filled in
	Published func() Report        // what was published last, by whichever agent

	Notify   func(state string) // tells the service manager, as sd_notify(3) has it
	Watchdog time.Duration      // how often the service manager wants to hear; 0 for never
	Log      *slog.Logger
}

// Target is a policy and how it gets into the kernel.
type Target struct {
	File    string // absolute
	Given   bool   // without, a file that isn't there means the built-in default
	Backend string // as apply.Options has it
	Boot    bool   // nothing was put in force since the boot: what was in force before it stands in where it has to

	Kept *store.Record // put its policy in force, as it was kept, instead of the file's; nil for the file's

	Observe bool // it is observed; what is recorded counts, where that can be read
}

// Loaded is a policy as its files have it now.
type Loaded struct {
	Policy *policy.Policy // nil with an error
	Err    error          // says what is wrong, with its lines
	Paths  []string       // the files that were read, and the patterns that others were found by
}

// hash tells one content of the files from another; "" with an error.
func (l Loaded) hash() string {
	if l.Policy == nil {
		return ""
	}
	return l.Policy.Hash
}

// InForce is what is recorded as in force.
type InForce struct {
	Current  string        // the ID of the record that counts, whether it can be read or not; "" for none
	Record   *store.Record // nil for nothing
	Damaged  bool          // what is recorded can't be read; Record is what was known of it before
	ThisBoot bool          // Record was put in force since the host was booted
	Stopped  bool          // somebody took quaywall's rules out, and nothing was put in force since
	Undone   string        // the hash of the policy that was taken back last
	Pending  bool          // a change waits for its confirmation
	Left     time.Duration // until that time is over
}

// Listing is what a host has at one moment, in the words of those who know.
type Listing struct {
	Links  []inventory.Interface
	Docker docker.Answer
}
