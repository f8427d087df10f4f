package apply

import (
	"cmp"
	"time"

	"quaywall/internal/store"
)

// stamp is now.
func (h *Host) stamp() store.Stamp {
	return store.Stamp{When: h.Now().Round(0), Boot: h.Boot, Up: h.Uptime()}
}

// slew is by how much a clock is off without having been set: whoever keeps it right does so by seconds.
const slew = time.Minute

// jumped is by how much the clock was set since a moment of this boot, forward or back. A board without a clock of its own
// begins decades ago, and learns the time when its network is up.
func (h *Host) jumped(s store.Stamp) time.Duration {
	if s.Boot != h.Boot || s.Up == 0 {
		return 0
	}
	d := h.Now().Round(0).Add(s.Up - h.Uptime()).Sub(s.When)
	if d.Abs() < slew {
		return 0
	}
	return d
}

// when is a moment by the clock as it goes now.
func (h *Host) when(s store.Stamp) time.Time { return s.When.Add(h.jumped(s)) }

// ago is how long ago a moment was.
func (h *Host) ago(s store.Stamp) time.Duration { return h.Now().Sub(h.when(s)) }

// until is when the time of a pending change is over, by the clock as it goes now.
func (h *Host) until(p *store.Pending) time.Time {
	if p.Boot != h.Boot {
		return p.Until
	}
	until := h.Now().Round(0).Add(p.Deadline - h.Uptime())
	if until.Sub(p.Until).Abs() < slew {
		return p.Until
	}
	return until.Truncate(time.Second)
}

// since is when the policy of a record came in force, by the clock as it goes now.
func (h *Host) since(r *store.Record) time.Time {
	return cmp.Or(r.Since, r.When).Add(h.jumped(r.Stamp))
}
