package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Source tells of changes of some kinds.
type Source struct {
	Name  string
	Kinds Hint
	Means string // what follows from its failing, in the words of a log

	// Watch blocks until ctx ends or the source fails. It hints all its kinds once it is subscribed and after something was
	// lost, and then what may have changed; by is the program that did it, "" where that is not known. Without an error it
	// ended because there is nothing to watch for now. A source of no kind hints once that it is subscribed.
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

// errNotThere is why a source without an error is not followed.
var errNotThere = errors.New("not there")

// follow watches a source, and again whenever it fails. That it failed is a hint: what it told of has to be listed. One
// that can't even be subscribed to is logged, once. tell is told why the source is not followed, and nil when it is again.
func (s Source) follow(ctx context.Context, c clock, log *slog.Logger, hint func(h Hint, by string), tell func(error)) {
	pause, failing := firstPause, false
	for {
		begun, subscribed := c.now(), false
		err := s.Watch(ctx, func(h Hint, by string) {
			if !subscribed {
				tell(nil)
			}
			if failing {
				log.Info(s.Name + " can be followed again")
			}
			subscribed, failing = true, false
			hint(h, by)
		})
		if err == nil && !subscribed {
			tell(errNotThere)
		} else {
			tell(err)
		}
		switch {
		case subscribed:
			hint(s.Kinds, "")
		case err != nil && !failing && ctx.Err() == nil:
			failing = true
			log.Warn(s.Name+" can't be followed: "+s.Means, "error", err)
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
