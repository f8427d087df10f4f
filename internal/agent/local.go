package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/denied"
	"quaywall/internal/files"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/repair"
	"quaywall/internal/store"
	"quaywall/internal/watch"
	"quaywall/internal/watch/changes"
	"quaywall/internal/watch/docker"
	"quaywall/internal/watch/paths"
)

// Places is where the real host's things are.
type Places struct {
	Host       *apply.Host
	DockerHost string // "" for Docker's own rules
	LockFile   string // of iptables-legacy
	Files      *paths.Watcher
	Repair     *repair.Repairer
}

// lockWait is how long another quaywall is waited for: longer than a person's apply takes.
const lockWait = 30 * time.Second

// Local is the host that the process runs on. The caller sets Notify and Watchdog.
func Local(p Places, log *slog.Logger) *Host {
	return &Host{
		Now:     time.Now,
		InForce: p.inForce,
		Load:    load,
		Watch: func(patterns []string) bool {
			added, err := p.Files.Set(append(patterns, p.Host.Store.StateFile()))
			if err != nil {
				log.Warn("some files can't be watched: they are read every ten minutes", "error", err)
			}
			return added
		},
		List: func(ctx context.Context) (Listing, error) {
			links, answer, err := watch.List(ctx, p.DockerHost)
			return Listing{Links: links, Docker: answer}, err
		},
		Apply: p.apply,
		Mend: func(ctx context.Context, found func()) (*apply.Mended, error) {
			return p.Host.Mend(ctx, lockWait, found)
		},
		CheckDocker: p.Repair.Check,
		MendDocker: func(ctx context.Context, f repair.Facts, dropStale bool) (report repair.Report, err error) {
			err = p.Host.Locked(ctx, lockWait, func() error { report, err = p.Repair.Mend(context.WithoutCancel(ctx), f, dropStale); return err })
			return report, err
		},
		Kept:      kept,
		Know:      func(denied.Facts) {},
		Publish:   func(r Report) error { r.PID = os.Getpid(); return p.Host.Store.Note(reportName, r) },
		Published: p.published,
		Notify:    func(string) {},
		Log:       log,
	}
}

func (p Places) apply(ctx context.Context, t Target, over string, inv *inventory.Inventory) (*apply.Result, error) {
	h := *p.Host
	h.Inventory = func(context.Context) (*inventory.Inventory, error) { return inv, nil }
	h.WaysIn = guard.Logins
	return h.Apply(ctx, apply.Options{Policy: t.File, Given: t.Given, Backend: t.Backend, Wait: lockWait, Follow: true, Over: over, Boot: t.Boot,
		Kept: t.Kept, Observe: t.Observe})
}

func (p Places) inForce() (InForce, error) {
	state, err := p.Host.Store.State()
	if err != nil {
		return InForce{}, err
	}
	// A stop for whose record there is no space makes the store forget.
	f := InForce{Current: state.Current, Stopped: state.Removed || p.Host.Store.Forgotten()}
	if state.Undone != nil {
		f.Undone = state.Undone.Hash
	}
	if state.Pending != nil {
		f.Pending, f.Left = true, max(0, state.Pending.Deadline-p.Host.Uptime())
	}
	if state.Current == "" {
		return f, nil
	}
	record, err := p.Host.Store.Record(state.Current)
	if err != nil {
		return f, err
	}
	f.Record, f.ThisBoot = record, record.Boot == p.Host.Boot
	return f, nil
}

// published is what was published last. What can't be read is lost: it is only told.
func (p Places) published() Report {
	var r Report
	_, _ = p.Host.Store.Kept(reportName, &r)
	return r
}

// load reads a policy and notes which files it looked at.
func load(t Target) Loaded {
	seen := &recorder{}
	if _, err := os.Stat(t.File); !t.Given && errors.Is(err, fs.ErrNotExist) {
		return Loaded{Policy: policy.Default(), Paths: []string{t.File}}
	}
	p, _, list := policy.Load(seen, t.File)
	l := Loaded{Policy: p, Paths: append(seen.paths, t.File)}
	if list.HasErrors() {
		l.Policy, l.Err = nil, list
	}
	return l
}

func kept(r *store.Record) *policy.Policy {
	p, _, list := apply.Kept(r)
	if list.HasErrors() {
		return nil
	}
	return p
}

// recorder is the files of this host, and notes which were asked for.
type recorder struct {
	files.Host
	paths []string
}

func (r *recorder) note(path string) {
	if abs, err := filepath.Abs(path); err == nil {
		r.paths = append(r.paths, abs)
	}
}

// Open notes a file, and opens it.
func (r *recorder) Open(path string, limit int64) (io.ReadCloser, error) {
	r.note(path)
	return r.Host.Open(path, limit)
}

// Glob notes a pattern, and gives what matches it.
func (r *recorder) Glob(pattern string) ([]string, error) {
	r.note(pattern)
	return r.Host.Glob(pattern)
}

// Sources are what tells of changes on the real host.
func Sources(p Places) []Source {
	return []Source{
		{"interfaces", Links, "those that come and go are noticed only every ten minutes",
			func(ctx context.Context, hint func(Hint, string)) error {
				return changes.Links(ctx, func() { hint(Links, "") })
			}},
		{"rules", Own | Tables, "what somebody changes about them is noticed and mended only every ten minutes",
			func(ctx context.Context, hint func(Hint, string)) error {
				return changes.Rules(ctx, func(c changes.Change) { hintAt(c, hint) })
			}},
		{"rules of iptables-legacy", Tables, "what somebody changes about them is noticed and mended only every ten minutes",
			func(ctx context.Context, hint func(Hint, string)) error {
				return changes.Legacy(ctx, p.LockFile, func() { hint(Tables, "") })
			}},
		{"Docker", Docker, "what its networks and containers do is noticed only by their interfaces and rules, and every ten minutes",
			func(ctx context.Context, hint func(Hint, string)) error {
				kind := Docker | Engine
				err := docker.Watch(ctx, p.DockerHost, func() { hint(kind, ""); kind = Docker })
				if errors.Is(err, docker.ErrNoAnswer) {
					return nil // which is normal, and what listing tells
				}
				return err
			}},
		{"files", Files | Record, "a policy that changes, and what another quaywall does, is noticed only every ten minutes",
			func(ctx context.Context, hint func(Hint, string)) error {
				return p.Files.Run(ctx, func() { hint(Files|Record, "") })
			}},
	}
}

// hintAt tells of a change. Whoever adds rules to Docker's tables has not taken Docker's away: mostly it is Docker itself.
func hintAt(c changes.Change, hint func(Hint, string)) {
	if c.Own {
		hint(Own, c.By)
	}
	if !c.Tables {
		return
	}
	if !c.Taken {
		c.By = ""
	}
	hint(Tables, c.By)
}
