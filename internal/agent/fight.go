package agent

import (
	"slices"
	"time"
)

// How often rules are mended before it counts as a fight, and how it goes on then.
const (
	bout      = 10 * time.Second
	boutMends = 8                // in a bout, at once each
	firstRest = time.Second      // between two mends beyond that; it doubles
	longRest  = time.Minute      // at most
	peace     = 10 * time.Minute // without a mend, and the fight is over
)

// fight keeps two programs that undo each other's work from doing it for ever, as fast as they can.
type fight struct {
	mends []time.Time // of the last bout
	last  time.Time
	rest  time.Duration // before the next mend; 0 while it is no fight
}

// mended notes a mend. It tells whether mending waits from now on longer than before.
func (f *fight) mended(now time.Time) bool {
	if now.Sub(f.last) > peace {
		*f = fight{}
	}
	f.last = now
	f.mends = append(slices.DeleteFunc(f.mends, func(t time.Time) bool { return now.Sub(t) > bout }), now)
	before := f.rest
	switch {
	case f.rest > 0:
		f.rest = min(2*f.rest, longRest)
	case len(f.mends) > boutMends:
		f.rest = firstRest
	}
	return f.rest > before
}

// mayMend is the earliest time of the next mend.
func (f *fight) mayMend(now time.Time) time.Time {
	if f.rest == 0 || now.Sub(f.last) > peace {
		return now
	}
	return f.last.Add(f.rest)
}
