package agent

import (
	"sync"
	"time"
)

// Hint says what may have changed. Hints are bits: a storm of them takes no more room than one.
type Hint uint8

// The hints.
const (
	Record Hint = 1 << iota // what is recorded as in force
	Own                     // quaywall's own rules
	Tables                  // rules in the tables that iptables and Docker use
	Files                   // files of the policy
	Links                   // interfaces and addresses
	Docker                  // networks and published ports
	Engine                  // Docker answers anew: it may have been started since

	kinds = iota
	All   = 1<<kinds - 1
)

// patience is how long a kind of hint waits for more of its kind: until none came for least, but not longer than most.
func (h Hint) patience() (least, most time.Duration) {
	switch h {
	case Own: // the host is open until it is mended
		return 5 * time.Millisecond, 50 * time.Millisecond
	case Tables:
		return 40 * time.Millisecond, time.Second
	case Files:
		return 200 * time.Millisecond, 2 * time.Second
	}
	return 100 * time.Millisecond, time.Second
}

// coalescer puts hints together. The zero value is ready.
type coalescer struct {
	first, last [kinds]time.Time // of each kind's hints that wait; zero for none
}

func (c *coalescer) add(h Hint, now time.Time) {
	for i := range kinds {
		if h&(1<<i) == 0 {
			continue
		}
		if c.first[i].IsZero() {
			c.first[i] = now
		}
		c.last[i] = now
	}
}

// dueAt is when a kind has waited long enough.
func (c *coalescer) dueAt(i int) (time.Time, bool) {
	if c.first[i].IsZero() {
		return time.Time{}, false
	}
	least, most := (Hint(1) << i).patience()
	return earlier(c.last[i].Add(least), c.first[i].Add(most)), true
}

// waits tells whether hints of one of some kinds wait.
func (c *coalescer) waits(h Hint) bool {
	for i := range kinds {
		if h&(1<<i) != 0 && !c.first[i].IsZero() {
			return true
		}
	}
	return false
}

// take gives the kinds that have waited long enough, and forgets them.
func (c *coalescer) take(now time.Time) Hint {
	var due Hint
	for i := range kinds {
		if at, waits := c.dueAt(i); waits && !now.Before(at) {
			due |= 1 << i
			c.first[i], c.last[i] = time.Time{}, time.Time{}
		}
	}
	return due
}

// next is when something is due; zero for never.
func (c *coalescer) next() time.Time {
	var next time.Time
	for i := range kinds {
		if at, waits := c.dueAt(i); waits {
			next = earlier(next, at)
		}
	}
	return next
}

// earlier gives the earlier of two times; the zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// mailbox takes hints from any goroutine, and never keeps it waiting.
type mailbox struct {
	mu     sync.Mutex
	hints  Hint
	by     map[Hint]string
	deaf   map[string]string // by source why it tells nothing, "" where it does
	signal chan struct{}     // holds one item while there is something to take
}

func newMailbox() *mailbox {
	return &mailbox{signal: make(chan struct{}, 1), by: map[Hint]string{}, deaf: map[string]string{}}
}

// put leaves hints; by is the program that caused them, "" where that is not known.
func (m *mailbox) put(h Hint, by string) {
	m.mu.Lock()
	m.hints |= h
	for _, kind := range []Hint{Own, Tables} { // those that repairs are explained by
		if by != "" && h&kind != 0 {
			m.by[kind] = by
		}
	}
	m.mu.Unlock()
	m.wake()
}

// tell leaves word that a source tells nothing now, and why; nil says that it does.
func (m *mailbox) tell(source string, err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	m.mu.Lock()
	m.deaf[source] = problem
	m.mu.Unlock()
	m.wake()
}

func (m *mailbox) wake() {
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

// take gives what came since it was called last, who caused the last of each kind, and what sources said of themselves.
func (m *mailbox) take() (h Hint, by map[Hint]string, deaf map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, by, deaf = m.hints, m.by, m.deaf
	m.hints, m.by, m.deaf = 0, map[Hint]string{}, map[string]string{}
	return h, by, deaf
}
