package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/store"
	"quaywall/internal/testkit/disk"
)

var moment = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func rules(addrs string) *ruleset.Ruleset {
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name:   "quaywall",
		Chains: []ruleset.Chain{{Name: "gate", Rules: []ruleset.Rule{{Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: 6}}}}}},
		Sets:   []ruleset.Set{{Name: "office", Addrs: netset.MustParse(addrs)}},
	}}}
}

func record(hash string) store.Record {
	return store.Record{
		Stamp: store.Stamp{When: moment, Boot: "b", Up: time.Hour}, File: "/etc/quaywall/policy.yaml", Hash: hash, Backend: "nft", PickUp: moment,
		Listing: kernel.Listing{Present: true, Rules: []string{"chain gate"}, Sets: map[string]kernel.SetSummary{"office": {Elements: 1, Digest: "d"}},
			Counters: map[string]kernel.PacketCount{"a:1": {Packets: 1}}},
		Sources: map[string][]byte{"/etc/quaywall/policy.yaml": []byte("version: 1\n")},
	}
}

func save(t *testing.T, s *store.Store, hash string) string {
	t.Helper()
	id, err := s.Save(record(hash), rules("192.0.2.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestRecordsAreKept(t *testing.T) {
	s := store.Open(filepath.Join(t.TempDir(), "deep", "down"))
	if state, err := s.State(); err != nil || !state.IsZero() {
		t.Errorf("a store that isn't there: %+v, %v", state, err)
	}
	id := save(t, s, "h1")
	got, err := s.Record(id)
	if err != nil {
		t.Fatal(err)
	}
	want := record("h1")
	want.ID, want.Listing.Counters = id, nil
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
	rs, err := s.Ruleset(id)
	if err != nil || !rs.Tables[0].Sets[0].Addrs.Equal(netset.MustParse("192.0.2.0/24")) || len(rs.Tables[0].Chains[0].Rules[0].Matches) != 1 {
		t.Errorf("ruleset %+v, %v", rs, err)
	}
	for path, mode := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "records": 0o700 | os.ModeDir, "records/" + id: 0o600} {
		info, err := os.Stat(filepath.Join(s.Dir(), path))
		if err != nil || info.Mode() != mode {
			t.Errorf("%q: mode %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}

func TestStates(t *testing.T) {
	pending := &store.Pending{ID: "p", Base: "a"}
	undone := store.Undone{Why: "nobody confirmed it"}
	rejected := []string{"h"}
	for _, c := range []struct {
		name      string
		got, want store.State
	}{
		{"the first policy", store.State{}.InForce("a"), store.State{Current: "a"}},
		{"after a stop", store.State{Removed: true}.InForce("a"), store.State{Current: "a"}},
		{"one that a person wants", store.State{Current: "a", Undone: &undone, Rejected: rejected}.Wanted().InForce("b"), store.State{Current: "b", Decided: true}},
		{"one that nobody was asked about", store.State{Current: "a", Undone: &undone, Rejected: rejected}.InForce("b"),
			store.State{Current: "b", Undone: &undone, Rejected: rejected}},
		{"another while one waits", store.State{Current: "b", Unconfirmed: []string{"b"}, Pending: pending}.InForce("c"),
			store.State{Current: "c", Unconfirmed: []string{"b", "c"}, Pending: pending}},
		{"the same while it waits", store.State{Current: "b", Unconfirmed: []string{"b"}, Pending: pending}.InForce("b"),
			store.State{Current: "b", Unconfirmed: []string{"b"}, Pending: pending}},
		{"confirmed", store.State{Current: "c", Unconfirmed: []string{"b", "c"}, Pending: pending}.Confirmed(),
			store.State{Current: "c", Unconfirmed: []string{"b"}, Decided: true}},
		{"stopped", store.State{Current: "b", Unconfirmed: []string{"b"}, Rejected: rejected, Undone: &undone, Pending: pending}.Stopped(),
			store.State{Removed: true, Unconfirmed: []string{"b"}, Rejected: rejected, Decided: true}},
		{"taken back", store.State{Current: "c", Unconfirmed: []string{"c"}, Pending: pending}.TakenBack(undone, "h"),
			store.State{Current: "a", Unconfirmed: []string{"c"}, Undone: &undone, Rejected: rejected, Decided: true}},
		{"taken back to nothing", store.State{Current: "a", Pending: &store.Pending{}}.TakenBack(undone, "h"),
			store.State{Removed: true, Undone: &undone, Rejected: rejected, Decided: true}},
		{"taken back, it is not known what", store.State{Pending: pending}.TakenBack(store.Undone{}, ""), store.State{Current: "a", Undone: &store.Undone{}, Decided: true}},
		{"gone back from", store.State{Rejected: []string{"h", "i"}}.Reject("h"), store.State{Rejected: []string{"i", "h"}}},
	} {
		if diff := cmp.Diff(c.want, c.got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if c.got.IsZero() {
			t.Errorf("%s: it counts as no state at all", c.name)
		}
	}
}

// What is remembered of policies that are gone is bounded.
func TestStateStaysSmall(t *testing.T) {
	s := store.Open(t.TempDir())
	var state store.State
	state.Pending = &store.Pending{}
	for i := range 50 {
		state = state.InForce(save(t, s, fmt.Sprint(i))).Reject(fmt.Sprint(i))
		if err := s.Set(state); err != nil {
			t.Fatal(err)
		}
		state, _ = s.State()
	}
	if n, m := len(state.Unconfirmed), len(state.Rejected); n > 13 || m > 10 {
		t.Errorf("%d records and %d policies are remembered", n, m)
	}
}

func TestStateChangesAtOnce(t *testing.T) {
	s := store.Open(t.TempDir())
	if err := s.Set(store.State{Current: "old"}); err != nil {
		t.Fatal(err)
	}
	current := func() string {
		t.Helper()
		state, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		return state.Current
	}
	killed, err := s.Prepare(store.State{Current: "lost"})
	if err != nil || current() != "old" {
		t.Fatalf("a prepared change counts: %q, %v", current(), err)
	}
	change, err := s.Prepare(store.State{Current: "new"})
	if err != nil {
		t.Fatal("after one that was never finished: ", err)
	}
	if err := change.Commit(); err != nil || current() != "new" {
		t.Errorf("committed: %q, %v", current(), err)
	}
	if err := killed.Abort(); err != nil || current() != "new" {
		t.Errorf("aborted: %q, %v", current(), err)
	}
}

func TestDamagedFilesAreNamed(t *testing.T) {
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	flip := func(b []byte) []byte { b[len(b)-20] ^= 1; return b }
	for name, c := range map[string]struct {
		file   string
		change func([]byte) []byte
		want   string
	}{
		"state cut":      {"state.json", cut, "cut short"},
		"state flipped":  {"state.json", flip, "doesn't match its checksum"},
		"state empty":    {"state.json", func([]byte) []byte { return nil }, "cut short"},
		"state garbage":  {"state.json", func([]byte) []byte { return []byte("\n\n\n") }, "too short"},
		"record cut":     {"records", cut, "cut short"},
		"record flipped": {"records", flip, "doesn't match its checksum"},
		"record gone":    {"records", nil, "is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			s := store.Open(t.TempDir())
			id := save(t, s, "h")
			if err := s.Set(store.State{Current: id}); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(s.Dir(), c.file)
			if c.file == "records" {
				path = filepath.Join(path, id)
			}
			spoil(t, path, c.change)
			err := readAll(s, id)
			var damaged *store.DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			aside, err := damaged.PutAside()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(aside); c.change != nil && (err != nil || filepath.Dir(aside) != filepath.Dir(damaged.Path)) {
				t.Errorf("put aside as %s: %v", aside, err)
			}
			if err := s.Set(store.State{Current: save(t, s, "h2")}); err != nil {
				t.Error("afterwards: ", err)
			}
		})
	}
}

func spoil(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	if change == nil {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readAll(s *store.Store, id string) error {
	_, stateErr := s.State()
	_, recordErr := s.Record(id)
	_, rulesErr := s.Ruleset(id)
	return errors.Join(stateErr, recordErr, rulesErr)
}

func TestAStateCannotNameFilesElsewhere(t *testing.T) {
	s := store.Open(t.TempDir())
	for _, id := range []string{"../state.json", "", "x", "/../../../../../../etc/passwd"} {
		var damaged *store.DamagedError
		if _, err := s.Record(id); !errors.As(err, &damaged) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// What is kept by a name is replaced as a whole; damaged, it is as if it were not there.
func TestKept(t *testing.T) {
	s := store.Open(filepath.Join(t.TempDir(), "state"))
	var got int
	if found, err := s.Kept("n", &got); found || err != nil {
		t.Errorf("before anything was kept: %v, %v", found, err)
	}
	for i, keep := range []func(string, any) error{s.Keep, s.Note, s.Note, s.Keep} {
		if err := keep("n", i); err != nil {
			t.Fatal(err)
		}
		if found, err := s.Kept("n", &got); !found || err != nil || got != i {
			t.Errorf("%d was kept, got %d, %v, %v", i, got, found, err)
		}
	}
	if err := os.WriteFile(s.KeptFile("n"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Kept("n", &got); found || err != nil {
		t.Errorf("damaged: %v, %v", found, err)
	}
}

func TestForget(t *testing.T) {
	s := store.Open(t.TempDir())
	for _, known := range []bool{false, true} { // the first time there was no state
		if err := s.Forget(); err != nil {
			t.Error(err)
		}
		if state, err := s.State(); err != nil || !state.IsZero() || s.Forgotten() != known {
			t.Errorf("state %+v, %v; forgotten %v, want %v", state, err, s.Forgotten(), known)
		}
		if err := s.Set(store.State{Current: "a"}); err != nil || s.Forgotten() {
			t.Errorf("%v; forgotten %v", err, s.Forgotten())
		}
	}
	if err := os.Remove(s.StateFile()); err != nil || s.Forgotten() {
		t.Errorf("%v; a state that is lost counts as forgotten", err)
	}
}

func TestOldRecordsGo(t *testing.T) {
	s := store.Open(t.TempDir())
	var ids []string
	state := store.State{}
	for i := range 15 {
		r := record(fmt.Sprint(i))
		r.When = moment.Add(-time.Duration(i) * time.Hour) // the clock goes back, and tells nothing about the order
		id, err := s.Save(r, rules("192.0.2.1"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		if i == 0 {
			state.Pending = &store.Pending{Base: id}
		}
		state = state.InForce(id)
		if err := s.Set(state); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.History()
	if err != nil {
		t.Fatal(err)
	}
	// The base of the pending change, ten of history, and the current one.
	want := append(ids[:1:1], ids[4:]...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A record that is larger than all that history may have is one to go back to.
func TestOneRecordStaysHoweverLarge(t *testing.T) {
	s := store.Open(t.TempDir())
	for range 3 {
		r := record("large")
		r.Sources["large"] = make([]byte, 50<<20) // 67 MB in JSON
		id, err := s.Save(r, rules("192.0.2.1"))
		if err == nil {
			err = s.Set(store.State{Current: id})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.History(); err != nil || len(got) != 2 {
		t.Errorf("%d records, %v: want the current one and the one before", len(got), err)
	}
}

func TestLargeRecordsGoEarlier(t *testing.T) {
	s := store.Open(t.TempDir())
	for range 6 {
		r := record("large")
		r.Sources["large"] = make([]byte, 20<<20) // 27 MB in JSON
		id, err := s.Save(r, rules("192.0.2.1"))
		if err == nil {
			err = s.Set(store.State{Current: id})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.History(); err != nil || len(got) != 3 {
		t.Errorf("%d records, %v: want the current one and two of history", len(got), err)
	}
}

// A full disk is told before the kernel is changed: once a change is prepared it needs no space.
func TestFullDisk(t *testing.T) {
	disk.Run(t, 64<<10, func(dir string) {
		s := store.Open(filepath.Join(dir, "state"))
		id, err := s.Save(record("h"), rules("192.0.2.0/24"))
		if err != nil {
			t.Error("on an empty disk: ", err)
			return
		}
		change, err := s.Prepare(store.State{Current: id})
		if err != nil {
			t.Error("on an empty disk: ", err)
			return
		}
		for i := 0; ; i++ {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("fill", i)), make([]byte, 4096), 0o600); err != nil {
				break
			}
		}
		if _, err := s.Save(record("h2"), rules("192.0.2.0/24")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("saving: %v, want ENOSPC", err)
		}
		if err := change.Commit(); err != nil {
			t.Error("committing what was prepared: ", err)
		}
		if _, err := s.Prepare(store.State{}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("preparing: %v, want ENOSPC", err)
		}
		if state, err := s.State(); err != nil || state.Current != id {
			t.Errorf("state %+v, %v", state, err)
		}
		if ids, err := s.History(); err != nil || len(ids) != 1 {
			t.Errorf("records %v, %v: want the first alone", ids, err)
		}
	})
}
