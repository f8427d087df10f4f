package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/store"
	"quaywall/internal/terminal"
)

// change is a change that waits, in memory: each look is a second later.
type change struct {
	left   int        // seconds
	fate   apply.Fate // once it doesn't wait any more
	others int        // after so many looks somebody else confirms it; 0 for never
	looks  int
	did    string
	fails  error
}

func (c *change) Look() (apply.Fate, error) {
	if c.looks++; c.looks == c.others {
		c.fate.Kept = true
	}
	if c.fate != (apply.Fate{}) {
		return c.fate, nil
	}
	c.left--
	return apply.Fate{Waits: true, Left: time.Duration(c.left+1) * time.Second}, nil
}

// act is what a key does.
func (c *change) act(what string, fate apply.Fate) func(context.Context) error {
	return func(ctx context.Context) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.did += what
		if c.fails == nil {
			c.fate = fate
		}
		return c.fails
	}
}

// typed are the keys that somebody presses, one a second; "hup" is a terminal that goes, "int" a Ctrl-C.
type typed struct {
	keys      []string
	interrupt context.CancelFunc
}

func (k *typed) Key(time.Duration) (string, error) {
	if len(k.keys) == 0 {
		return "", nil
	}
	key := k.keys[0]
	k.keys = k.keys[1:]
	switch key {
	case "hup":
		return "", terminal.ErrGone
	case "int":
		k.interrupt()
		return "", nil
	}
	return key, nil
}

func TestCountdown(t *testing.T) {
	undone := &store.Undone{}
	broken := errors.New("broken")
	for _, test := range []struct {
		name  string
		start change
		keys  string
		did   string
		fate  apply.Fate
		mine  bool
		err   error
		shows string
	}{
		{"y", change{left: 9}, "- y", "keep", apply.Fate{Kept: true}, true, nil, "9 s left"},
		{"Y", change{left: 9}, "Y", "keep", apply.Fate{Kept: true}, true, nil, ""},
		{"n", change{left: 9}, "n", "back", apply.Fate{Undone: undone}, true, nil, ""},
		{"other keys and what was pasted", change{left: 9}, "x yes \x1b[A - y", "keep", apply.Fate{Kept: true}, true, nil, "5 s left"},
		{"nobody answers", change{left: 3}, "", "back", apply.Fate{Undone: undone}, true, nil, "1 s left"},
		{"Ctrl-C", change{left: 9}, "- int", "", apply.Fate{Waits: true, Left: 8 * time.Second}, false, errLeft, ""},
		{"Ctrl-C and y at once", change{left: 9}, "int y", "", apply.Fate{Waits: true, Left: 9 * time.Second}, false, errLeft, ""},
		{"Ctrl-D", change{left: 9}, "\x04", "", apply.Fate{Waits: true, Left: 9 * time.Second}, false, errLeft, ""},
		{"the terminal goes", change{left: 9}, "- hup", "", apply.Fate{Waits: true, Left: 8 * time.Second}, false, errLeft, ""},
		{"confirmed elsewhere", change{left: 9, others: 3}, "", "", apply.Fate{Kept: true}, false, nil, ""},
		{"confirmed elsewhere just before n", change{left: 9, others: 2, fails: apply.ErrNothingPending}, "n", "back", apply.Fate{Kept: true}, false, nil, ""},
		{"taking back fails", change{left: 9, fails: broken}, "n", "back", apply.Fate{Waits: true, Left: 9 * time.Second}, false, broken, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := test.start
			var screen bytes.Buffer
			c := &countdown{vigil: &w, to: &screen, keep: w.act("keep", apply.Fate{Kept: true}), decline: w.act("back", apply.Fate{Undone: undone}),
				keys: &typed{strings.Fields(strings.ReplaceAll(test.keys, "-", "\x00")), cancel}}
			fate, err := c.run(ctx)
			if w.did != test.did || fate != test.fate || c.mine != test.mine || !errors.Is(err, test.err) {
				t.Errorf("did %q, fate %+v, mine %v, %v", w.did, fate, c.mine, err)
			}
			if text := screen.String(); !strings.Contains(text, test.shows) || !strings.HasSuffix(text, clearLine) {
				t.Errorf("the screen got %q", text)
			}
		})
	}
}
