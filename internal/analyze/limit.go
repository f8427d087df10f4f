package analyze

import (
	"context"
	"errors"

	"quaywall/internal/bdd"
)

// ErrTooLarge is the error of what would take more memory than a host has to spare for it.
var ErrTooLarge = errors.New("its rules are too tangled to be judged for all packets at once")

// How many nodes the diagrams may have: of a host in one family (400 MB), before an audit keeps to what it asks about (100 MB; a
// host of 1,000 containers takes a third of that), and of a table (200 MB).
const (
	mostOfHost  = 16 << 20
	mostAtOnce  = 4 << 20
	mostOfTable = 8 << 20
)

// limit has an analysis end with its context, and before it takes too much.
func limit(ctx context.Context, u *bdd.Universe, most int) {
	u.Watch(func(nodes int) error {
		if nodes > most {
			return ErrTooLarge
		}
		return ctx.Err()
	})
}

// stopped makes an error of an analysis that was not to go on. It is to be deferred.
func stopped(err *error) {
	switch r := recover().(type) {
	case nil:
	case bdd.Stopped:
		*err = r.Err
	default:
		panic(r)
	}
}
