package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"quaywall/internal/agent"
)

// looksEvery is the time between two looks of status --watch.
const looksEvery = 2 * time.Second

// watchStatus shows the status again and again, until the person or the context ends it, or nobody reads it any more.
// That a look fails is shown like what it would have found, except for the first one.
func (a *app) watchStatus(ctx context.Context, exitCode bool) error {
	st, err := a.status(ctx)
	if err != nil {
		return a.explained(err)
	}
	out, end := a.watcher()
	defer end()
	for {
		var page bytes.Buffer
		a.writeLook(&page, st, err)
		if out.show(page.String()) != nil || !out.wait(ctx) {
			return drifted(st, exitCode)
		}
		next, failed := a.status(ctx)
		if ctx.Err() != nil {
			return drifted(st, exitCode)
		}
		if err = failed; err == nil {
			st = next
		}
	}
}

// writeLook writes one look.
func (a *app) writeLook(w io.Writer, st *StatusAnswer, err error) {
	switch s := a.onStdout(); {
	case err != nil && a.opts.json:
		writeJSON(w, ErrorAnswer{ErrorBody{Status: Failed, Message: err.Error()}})
	case err != nil:
		fmt.Fprintf(w, "%s %v\n", s.bad("quaywall:"), err)
	case a.opts.json:
		writeJSON(w, st)
	default:
		for _, n := range st.Notices {
			fmt.Fprintf(w, "%s %s\n", s.warn("note:"), n)
		}
		a.showStatus(w, s, st)
	}
}

// watcher is where looks are shown.
type watcher interface {
	show(page string) error
	wait(context.Context) bool // until it is time for the next look; false where there is to be none
}

// watcher gives a screen where a person sits, else standard output; end has to be called.
func (a *app) watcher() (out watcher, end func()) {
	if t, restore := a.openTerminal(); t != nil {
		s := &screen{keys: t, size: t.Size, to: a.env.Stdout, watched: a.watched()}
		return s, func() { s.leave(); restore() }
	}
	return &blocks{to: a.env.Stdout}, func() {}
}

// watched are files that are replaced when something was put in force, or mended.
func (a *app) watched() []string {
	kept := a.host().Store
	return []string{kept.StateFile(), agent.ReportFile(kept)}
}

// blocks shows each look below the one before.
type blocks struct {
	to    io.Writer
	shown bool
}

func (b *blocks) show(page string) error {
	if b.shown {
		page = "\n" + page
	}
	b.shown = true
	_, err := io.WriteString(b.to, page)
	return err
}

func (b *blocks) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(looksEvery):
		return true
	}
}

// screen shows each look in the place of the one before. Each is written at once, line over line, so that nothing flickers.
type screen struct {
	keys    keyboard
	size    func() (columns, rows int)
	to      io.Writer
	watched []string
	page    string // the last one
}

// What terminals understand: a screen of one's own without a cursor, on which long lines are cut, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

func (s *screen) show(page string) error {
	_, rows := s.size()
	var b strings.Builder
	if s.page == "" {
		b.WriteString(enterScreen)
	}
	s.page = page
	b.WriteString("\x1b[H")
	lines := strings.Split(strings.TrimRight(page, "\n"), "\n")
	if most := max(rows-2, 1); len(lines) > most {
		lines = append(lines[:most-1:most-1], fmt.Sprintf("  … %s more than fit here", count(len(lines)-most+1, "line")))
	}
	for _, l := range append(lines, "") {
		b.WriteString(l + "\x1b[K\n")
	}
	fmt.Fprintf(&b, "  %s, every %v; q ends\x1b[K\x1b[J", time.Now().Format(time.TimeOnly), looksEvery)
	_, err := io.WriteString(s.to, b.String())
	return err
}

// leave gives the person's screen back, and leaves the last look on it.
func (s *screen) leave() {
	fmt.Fprint(s.to, leaveScreen+s.page)
}

func (s *screen) wait(ctx context.Context) bool {
	columns, rows := s.size()
	before := s.stamp()
	for end := time.Now().Add(looksEvery); time.Now().Before(end); {
		key, err := s.keys.Key(keyWait)
		if err != nil || ctx.Err() != nil || key == "q" || key == "Q" || key == "\x04" {
			return false
		}
		if c, r := s.size(); c != columns || r != rows || s.stamp() != before {
			return true
		}
	}
	return true
}

// stamp changes when one of the watched files is replaced.
func (s *screen) stamp() string {
	var all strings.Builder
	for _, path := range s.watched {
		if info, err := os.Stat(path); err == nil {
			all.WriteString(info.ModTime().String() + " ")
		}
	}
	return all.String()
}
