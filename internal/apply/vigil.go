package apply

import (
	"fmt"
	"time"

	"quaywall/internal/store"
)

// Vigil watches a change that waits for its confirmation: whoever waits with it hears what others made of it.
type Vigil struct {
	host   *Host
	id     string // of the pending change
	hash   string // of the policy
	record string // the last one that is known to be of that policy
}

// Fate is what became of a change that waited for its confirmation.
type Fate struct {
	Waits     bool
	Left      time.Duration // of its time, while it waits; 0 or less where that is over
	Kept      bool          // somebody confirmed it
	Undone    *store.Undone // it was taken back
	Stopped   bool          // everything of quaywall's was taken out
	Overtaken bool          // another policy was put in force, or this one anew
}

// Watch begins to watch the change that an apply made, whose Pending must not be nil.
func (h *Host) Watch(r *Result) *Vigil {
	return &Vigil{host: h, id: r.Pending.ID, hash: r.Hash, record: r.record}
}

// Look tells what became of the change. It takes no lock.
func (v *Vigil) Look() (Fate, error) {
	state, err := v.host.Store.State()
	if err != nil {
		return Fate{}, fmt.Errorf("reading what became of the change: %w", err)
	}
	p := state.Pending
	switch {
	case p != nil && p.ID != v.id:
		return Fate{Overtaken: true}, nil
	case p == nil && state.Undone != nil:
		return Fate{Undone: state.Undone}, nil
	case p == nil && state.Current == "":
		return Fate{Stopped: true}, nil
	}
	if same, err := v.isOfPolicy(state.Current); err != nil || !same {
		return Fate{Overtaken: err == nil}, err
	}
	if p == nil {
		return Fate{Kept: true}, nil
	}
	return Fate{Waits: true, Left: p.Deadline - v.host.Uptime()}, nil
}

// isOfPolicy tells whether a record is of the policy of the change: there is another one of it wherever something on the
// host changed and the policy was put in force anew. A record may be large, and is read once.
func (v *Vigil) isOfPolicy(id string) (bool, error) {
	if id == v.record {
		return true, nil
	}
	r, err := v.host.Store.Record(id)
	if err != nil || r.Hash != v.hash {
		return false, err
	}
	v.record = id
	return true, nil
}
