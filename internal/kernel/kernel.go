// Package kernel is how a ruleset gets into the kernel and is read back: one interface, Backend, with an implementation
// for nftables and one for iptables with ipset, and one conformance suite for both.
//
// Be aware: a Backend works on the network namespace of the calling operating system thread, each time it is called.
// It keeps nothing between calls: what is in force is read from the kernel.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"quaywall/internal/ruleset"
)

// Backend puts the compiler's table into the kernel, beside everybody else's. Whole state in: there is no "add".
type Backend interface {
	// Name is "nft", "iptables-nft" or "iptables-legacy".
	Name() string

	// Probe tells whether this host has what the backend needs. The error says what is missing and what to do.
	Probe(ctx context.Context) error

	// Read lists what of quaywall's is in the kernel. Nothing at all is a Listing that is not Present, and no error.
	// An answer that was cut short is an error, never "nothing".
	Read(ctx context.Context) (*Listing, error)

	// Preflight commits the ruleset, with large sets cut to a few elements, to the namespace of the calling thread,
	// which must be a scratch one, and gives the Listing that Read must give after a Commit of the whole.
	Preflight(ctx context.Context, rs *ruleset.Ruleset) (*Listing, error)

	// Commit replaces what is in force with this ruleset, atomically (iptables: for each family), and leaves
	// everybody else's rules alone. When it fails, what was in force still is, unless what failed came last: hand-written
	// rules, or taking away what nobody uses any more.
	Commit(ctx context.Context, rs *ruleset.Ruleset) error

	// Mend reads, and commits what wanted gives where amiss says that what was read is not what it has to be: a commit that
	// needn't find out again what it replaces.
	Mend(ctx context.Context, amiss func(*Listing) bool, wanted func() (*ruleset.Ruleset, error)) error

	// Flows lists what the sets of flows hold that are in force.
	Flows(ctx context.Context) ([]ruleset.Flow, error)

	// AddFlows adds to sets of flows that are in force, found by their names. What they hold already stays.
	AddFlows(ctx context.Context, sets []ruleset.Set) error

	// Remove takes everything of quaywall's out of the kernel, and nothing else. Nothing to remove is no error.
	Remove(ctx context.Context) error
}

// ReadAndCommit is what Backend.Mend does, of a backend of this name.
func ReadAndCommit(name string, read func() (*Listing, error), amiss func(*Listing) bool, wanted func() (*ruleset.Ruleset, error),
	commit func(*ruleset.Ruleset) error) error {
	held, err := read()
	if err != nil {
		return fmt.Errorf("reading what %s holds: %w", name, err)
	}
	if !amiss(held) {
		return nil
	}
	rs, err := wanted()
	if err != nil {
		return err
	}
	return commit(rs)
}

// ErrLocked is the cause of an error about another program that held a lock for too long. Nothing was changed.
var ErrLocked = errors.New("another program holds the lock")

// Listing is what of quaywall's is in the kernel, in the backend's own words. Two listings with the same Rules and Sets
// judge every packet alike.
type Listing struct {
	Present  bool
	Rules    []string               // a line for each chain and rule in order, without counters; the jumps into quaywall's chains included
	Sets     map[string]SetSummary  // by name; sets that change by themselves (limits, flows) are left out
	Counters map[string]PacketCount // by the Line of the rules' and elements' Origin, summed up
}

// SetSummary is what a set or map holds: how many elements, and a digest of them. A backend computes the same summary
// for a set that is planned and one that is read back.
type SetSummary struct {
	Elements int    `json:"elements"`
	Digest   string `json:"digest"`
}

// PacketCount counts packets and bytes.
type PacketCount struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// PayloadError is a payload that a tool or the kernel refused. What it holds is enough for a person to see which line was
// meant, and for a file with the whole of it.
type PayloadError struct {
	Backend string // name of the backend
	Payload string // the text that was refused, without line numbers
	Line    int    // the refused line, counted from 1; 0 where the kernel didn't say
	Err     error  // what the tool or the kernel said
}

func (e *PayloadError) Error() string {
	if text := e.Text(); text != "" {
		return fmt.Sprintf("%s refuses line %d of its payload, %q: %v", e.Backend, e.Line, text, e.Err)
	}
	return fmt.Sprintf("%s refuses its payload: %v", e.Backend, e.Err)
}

func (e *PayloadError) Unwrap() error { return e.Err }

// Text is the refused line, "" where it is not known.
func (e *PayloadError) Text() string {
	lines := strings.Split(e.Payload, "\n")
	if e.Line < 1 || e.Line > len(lines) {
		return ""
	}
	return lines[e.Line-1]
}

// Numbered is the payload with a number in front of each line.
func (e *PayloadError) Numbered() string {
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(e.Payload, "\n"), "\n") {
		fmt.Fprintf(&b, "%5d  %s\n", i+1, line)
	}
	return b.String()
}
