package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/terminal"
)

// keyboard gives the next key, "" where none was pressed in time.
type keyboard interface {
	Key(wait time.Duration) (string, error)
}

// countdown waits with a person for the confirmation of a change, on one line that is written over and over. It only
// watches: the process that takes the change back was there before the change, and works without it.
type countdown struct {
	vigil   interface{ Look() (apply.Fate, error) }
	keep    func(context.Context) error // what y does
	decline func(context.Context) error // what n does, and the end of the time
	keys    keyboard
	to      io.Writer
	mine    bool // this countdown has made the change what it is
	shown   int  // the seconds on the screen
}

// keyWait is how long a key is waited for before somebody looks again what others made of the change.
const keyWait = 200 * time.Millisecond

// errLeft ends a countdown whose change goes on waiting.
var errLeft = errors.New("left")

// run ends when the change no longer waits, and tells what became of it. What was begun with a key goes on to its end also
// when ctx ends; else it is left waiting, by errLeft.
func (c *countdown) run(ctx context.Context) (apply.Fate, error) {
	defer fmt.Fprint(c.to, clearLine)
	for {
		fate, err := c.vigil.Look()
		if err != nil || !fate.Waits {
			return fate, err
		}
		var act func(context.Context) error
		if fate.Left <= 0 {
			act = c.decline
		} else if act, err = c.ask(fate.Left); err != nil || ctx.Err() != nil {
			return fate, errLeft
		}
		if act == nil {
			continue
		}
		switch err := act(context.WithoutCancel(ctx)); {
		case errors.Is(err, apply.ErrNothingPending): // somebody was faster: look again
		case err != nil:
			return fate, err
		default:
			c.mine = true
		}
	}
}

// clearLine takes the line away that the cursor is in.
const clearLine = "\r\x1b[K"

// ask shows the time that is left, and waits a moment for an answer; nil for none.
func (c *countdown) ask(left time.Duration) (func(context.Context) error, error) {
	if n := seconds(left); n != c.shown {
		fmt.Fprintf(c.to, "%sKeep it? y/n, %d s left ", clearLine, n)
		c.shown = n
	}
	key, err := c.keys.Key(keyWait)
	switch key {
	case "y", "Y":
		return c.keep, err
	case "n", "N":
		return c.decline, err
	case "\x04": // Ctrl-D
		return nil, errLeft
	}
	return nil, err
}

// seconds rounds up: nobody is told that no time is left before that is so.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// openTerminal gives the terminal of a person who can answer, and what gives it back; nil where nobody can: there is none,
// the process is in its background, it can't rewrite what it shows, or an answer in JSON was asked for.
func (a *app) openTerminal() (*terminal.Terminal, func()) {
	t := a.env.Terminal
	if t == nil || a.opts.json || a.env.Getenv("TERM") == "dumb" {
		return nil, nil
	}
	restore, err := t.Open()
	if err != nil {
		return nil, nil
	}
	return t, restore
}

// waitWith waits for the confirmation of what apply did, where a person is there who can give it; it tells whether one is.
func (a *app) waitWith(ctx context.Context, r *apply.Result, f applyFlags) (bool, error) {
	if f.confirm == 0 || r.Pending == nil {
		return false, nil
	}
	keys, restore := a.openTerminal()
	if keys == nil {
		return false, nil
	}
	defer restore()
	w, s := a.env.Stdout, a.onStdout()
	a.showQuestion(w, s, r.Pending)
	h := a.host()
	h.OnStep = nil
	c := &countdown{
		vigil: h.Watch(r), keys: keys, to: w,
		keep:    func(ctx context.Context) error { _, err := h.Confirm(ctx, r.Pending.ID, f.wait); return err },
		decline: func(ctx context.Context) error { return h.Decline(ctx, r.Pending.ID, f.wait) },
	}
	fate, err := c.run(ctx)
	if errors.Is(err, errLeft) {
		fmt.Fprintf(w, "%s At %s %s, unless before that\n\n    %s confirm\n\n", s.strong("Not confirmed."),
			r.Pending.Until.Format(time.TimeOnly), goesBack(r.Pending), a.program())
		return true, nil
	}
	if err != nil {
		return true, a.explained(err)
	}
	return true, a.showFate(w, s, r, fate, c.mine)
}

// showQuestion says what may be answered, and what happens without an answer.
func (a *app) showQuestion(w io.Writer, s style, p *apply.PendingStatus) {
	fmt.Fprintf(w, "\n%s Open another connection to this host to see that you can. Should this one hang, wait:\nat %s %s, whatever becomes of this terminal.\n\n",
		s.strong("Not confirmed yet."), p.Until.Format(time.TimeOnly), goesBack(p))
	table(w, [][]cell{
		{{"y", s.strong}, {"keeps the policy", nil}},
		{{"n", s.strong}, {"goes back now", nil}},
		{{"Ctrl-C", s.strong}, {"goes back at " + p.Until.Format(time.TimeOnly) + ", unless you run " + a.program() + " confirm by then", nil}},
	})
	fmt.Fprintln(w)
}

// goesBack is what happens to a change that nobody confirms.
func goesBack(p *apply.PendingStatus) string {
	if p.Removes {
		return "everything is taken out again"
	}
	return "the policy of before comes back"
}

// showFate tells what became of a change. Where it did not stay, the command has failed.
func (a *app) showFate(w io.Writer, s style, r *apply.Result, fate apply.Fate, mine bool) error {
	elsewhere := ", in another shell"
	if mine {
		elsewhere = ""
	}
	name := apply.PolicyName(r.File, r.Hash)
	switch {
	case fate.Kept:
		fmt.Fprintf(w, "%s%s: %s stays in force\n", s.good("confirmed"), elsewhere, name)
		return nil
	case fate.Undone != nil && r.Pending.Removes:
		fmt.Fprintf(w, "%s, since %s: nothing of quaywall's is in force\n", s.warn("taken back"), fate.Undone.Why)
	case fate.Undone != nil:
		fmt.Fprintf(w, "%s, since %s: the policy of before is in force again\n", s.warn("taken back"), fate.Undone.Why)
	case fate.Stopped:
		fmt.Fprintf(w, "%s%s: nothing of quaywall's is in force\n", s.warn("stopped"), elsewhere)
	default:
		fmt.Fprintf(w, "%s%s: another change was made, see quaywall status\n", s.warn("overtaken"), elsewhere)
	}
	return &failure{status: Failed}
}
