package agent

import (
	"context"
	"time"
)

// Source tells of changes of some kinds.
type Source struct {
	Name  string
	Kinds Hint

	// Watch blocks until ctx ends or the source fails. It hints all its kinds once it is subscribed and after something was
	// lost, and then what may have changed; by is the program that did it, "" where that is not known.
	Watch func(ctx context.Context, hint func(h Hint, by string)) error
}

// How long a source that failed is left alone. It doubles.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 10 * time.Second
)

// clock is the time, for tests to put in another one. sleep is false where ctx ended first.
type clock struct {
	now   func() time.Time
	sleep func(ctx context.Context, d time.Duration) bool
}

// follow watches a source, and again whenever it fails. That it failed is a hint: what it told of has to be listed.
func (s Source) follow(ctx context.Context, c clock, hint func(h Hint, by string)) {
	pause := firstPause
	for {
		begun, subscribed := c.now(), false
		_ = s.Watch(ctx, func(h Hint, by string) { subscribed = true; hint(h, by) })
		if subscribed {
			hint(s.Kinds, "")
		}
		if c.now().Sub(begun) > longPause {
			pause = firstPause
		}
		if !c.sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, longPause)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
