package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
)

// TestInForce: what is recorded, and what of it is known when files are damaged.
func TestInForce(t *testing.T) {
	s := store.Open(t.TempDir())
	p := Places{Host: &apply.Host{Store: s, Boot: "boot-1"}}
	id, err := s.Save(store.Record{Stamp: store.Stamp{When: time.Now(), Boot: "boot-1"}, Hash: "one"}, &ruleset.Ruleset{})
	if err == nil {
		err = s.Set(store.State{}.InForce(id))
	}
	if err != nil {
		t.Fatal(err)
	}
	if f, err := p.inForce(); err != nil || f.Record == nil || f.Current != id || !f.ThisBoot || f.Stopped {
		t.Errorf("in force: %+v, %v", f, err)
	}
	var damaged *store.DamagedError
	spoil(t, filepath.Join(s.Dir(), "records", id))
	if f, err := p.inForce(); !errors.As(err, &damaged) || f.Record != nil || f.Current != id || f.Stopped {
		t.Errorf("a damaged record: %+v, %v", f, err)
	}
	if err := s.Set(store.State{}.InForce(id).Stopped()); err != nil {
		t.Fatal(err)
	}
	if f, err := p.inForce(); err != nil || !f.Stopped {
		t.Errorf("stopped: %+v, %v", f, err)
	}
	if err := s.Forget(); err != nil {
		t.Fatal(err)
	}
	if f, err := p.inForce(); err != nil || !f.Stopped {
		t.Errorf("stopped on a full disk: %+v, %v", f, err)
	}
	spoil(t, s.StateFile())
	if f, err := p.inForce(); !errors.As(err, &damaged) || f.Current != "" || f.Stopped {
		t.Errorf("a damaged state: %+v, %v", f, err)
	}
	if err := errors.Join(s.Set(store.State{}.InForce(id)), os.Remove(s.StateFile())); err != nil {
		t.Fatal(err)
	}
	if f, err := p.inForce(); err != nil || f.Stopped || f.Current != "" {
		t.Errorf("a state that is gone: %+v, %v", f, err)
	}
}

func spoil(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
}
