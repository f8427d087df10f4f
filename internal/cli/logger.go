package cli

import (
	"context"
	"io"
	"log/slog"
	"sync"
)

// logger is how a command that stays tells what happens: a line each, in JSON where --json was given. The journal keeps
// the time and the level of a line for itself.
func (a *app) logger() *slog.Logger {
	switch {
	case a.opts.json:
		return slog.New(slog.NewJSONHandler(a.env.Stdout, nil))
	case a.env.Getenv("JOURNAL_STREAM") != "":
		return slog.New(journal{lines: newLines(a.env.Stderr), mu: &sync.Mutex{}, to: a.env.Stderr})
	}
	return slog.New(slog.NewTextHandler(a.env.Stderr, nil))
}

func newLines(w io.Writer) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}})
}

// journal writes lines that begin with their priority, as sd-daemon(3) has it.
type journal struct {
	lines slog.Handler
	mu    *sync.Mutex
	to    io.Writer
}

// Enabled is what the lines' handler says.
func (j journal) Enabled(ctx context.Context, l slog.Level) bool { return j.lines.Enabled(ctx, l) }

// Handle writes a line.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := io.WriteString(j.to, priority(r.Level)); err != nil {
		return err
	}
	return j.lines.Handle(ctx, r)
}

func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// WithAttrs adds attributes to every line.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	j.lines = j.lines.WithAttrs(attrs)
	return j
}

// WithGroup puts what follows into a group.
func (j journal) WithGroup(name string) slog.Handler {
	j.lines = j.lines.WithGroup(name)
	return j
}
