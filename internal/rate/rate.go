// Package rate is a number of events in a unit of time, as policies and rules name it.
//
// Be aware: nothing is measured here.
package rate

import (
	"fmt"
	"time"
)

// Rate is a number of events in a unit of time, and how many may come at once. The zero value is none.
type Rate struct {
	Count uint32        `json:"count"`
	Per   time.Duration `json:"per"`   // time.Second, time.Minute or time.Hour
	Burst uint32        `json:"burst"` // DefaultBurst where none is named
}

// DefaultBurst is the burst of a rate that names none. It is what nft and iptables take too.
const DefaultBurst = 5

// IsZero tells whether no rate was given.
func (r Rate) IsZero() bool { return r.Count == 0 }

// Unit is "second", "minute" or "hour".
func (r Rate) Unit() string {
	switch r.Per {
	case time.Minute:
		return "minute"
	case time.Hour:
		return "hour"
	}
	return "second"
}

// String is as a policy writes it: "10/minute burst 5", "off" for none.
func (r Rate) String() string {
	if r.IsZero() {
		return "off"
	}
	return fmt.Sprintf("%d/%s burst %d", r.Count, r.Unit(), r.Burst)
}
