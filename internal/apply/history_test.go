package apply_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
)

// held is all that the kernel holds: ports stand in maps, and not in rules.
func (w *world) held() string { return fmt.Sprint(w.nft.held) }

// back goes back and expects that to work.
func (w *world) back(t *testing.T, n int) *apply.Result {
	t.Helper()
	return w.mustApply(t, apply.Options{Backend: apply.Auto, Back: n})
}

func TestRollback(t *testing.T) {
	w := newWorld(t)
	var rules []string
	for port := range 3 {
		w.put(t, 8000+port)
		rules = append(rules, w.held())
		w.pass(time.Minute)
	}
	check := func(when, want string) {
		t.Helper()
		if w.held() != want {
			t.Errorf("%s something else is in force: %s", when, w.held())
		}
	}
	r := w.back(t, 1)
	check("after going back", rules[1])
	if r.File != w.policy || !strings.Contains(strings.Join(r.Notices, " "), "was left as it is") {
		t.Errorf("%+v", r)
	}
	w.pass(time.Minute)
	w.back(t, 1)
	check("after going back from there", rules[2])
	w.pass(time.Minute)
	w.back(t, 2)
	check("after going back by two", rules[0])
	w.pass(time.Minute)
	all, err := w.History()
	if err != nil || len(all) != 2 || all[0].Number != 1 || all[1].Number != 2 || all[0].Hash == all[1].Hash {
		t.Errorf("history: %+v, %v", all, err)
	}
	if _, err := w.Apply(t.Context(), apply.Options{Backend: apply.Auto, Back: 3}); err == nil || !strings.Contains(err.Error(), "the oldest that is recorded is 2") {
		t.Errorf("by three: %v", err)
	}
	w.mustApply(t, w.options())
	check("after an apply of the file", rules[2])
}

func TestRollbackOfNothing(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	var failed *apply.FailedError
	if _, err := w.Apply(t.Context(), apply.Options{Backend: apply.Auto, Back: 1}); !errors.As(err, &failed) || !strings.Contains(err.Error(), "no other policy is recorded") {
		t.Error(err)
	}
}

func TestRollbackIsGuarded(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	w.pass(time.Minute)
	w.put(t, 80, 2222)
	before := w.held()
	w.ways = []guard.Way{{Kind: guard.Session, Proto: 6, PID: 7, Process: "sshd",
		Local: netip.MustParseAddrPort("203.0.113.1:2222"), Peer: netip.MustParseAddrPort("198.51.100.9:40000"), Interfaces: []string{"eth0"}}}
	var refused *apply.RefusedError
	if _, err := w.Apply(t.Context(), apply.Options{Backend: apply.Auto, Back: 1}); !errors.As(err, &refused) || before != w.held() {
		t.Errorf("going back cuts the way in: %v", err)
	}
	w.mustApply(t, apply.Options{Backend: apply.Auto, Back: 1, AllowLockout: true})
}

// While a change waits for its confirmation, going back means taking it back, and nothing waits any more.
func TestRollbackOfAnUnconfirmedChange(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	first := w.held()
	w.pass(time.Minute)
	for _, port := range []int{81, 82} { // the second one waits along with the first
		w.write(t, port)
		o := w.options()
		o.Confirm = time.Minute
		w.mustApply(t, o)
		w.pass(time.Second)
	}
	if r := w.back(t, 1); r.Pending != nil || first != w.held() || w.state(t).Pending != nil {
		t.Errorf("%+v; %s", r.Pending, w.held())
	}
	w.pass(time.Hour)
	w.mustApply(t, w.options())
	if first == w.held() {
		t.Error("the file's policy is not in force after an apply")
	}
}

func TestRollbackOfTheFirstUnconfirmedChange(t *testing.T) {
	w := newWorld(t)
	w.write(t, 80)
	o := w.options()
	o.Confirm = time.Minute
	w.mustApply(t, o)
	if _, err := w.Apply(t.Context(), apply.Options{Backend: apply.Auto, Back: 1}); err == nil || !strings.Contains(err.Error(), "quaywall stop") {
		t.Error(err)
	}
}

// The texts of a policy with fragments are those of then, wherever it is asked for; what fills sets is read anew.
func TestRollbackOfFragments(t *testing.T) {
	w := newWorld(t)
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(w.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("policy.yaml", "version: 1\ninclude: [policy.d/*.yaml]\nsets: {friends: {file: friends.txt}}\ninbound: [{allow: ssh, from: friends}]\n")
	write("policy.d/a.yaml", "inbound: [{allow: 80}]\n")
	write("friends.txt", "192.0.2.1\n")
	t.Chdir(w.dir)
	w.policy = "policy.yaml"
	w.mustApply(t, w.options())
	first := w.held()
	w.pass(time.Minute)
	write("policy.d/a.yaml", "inbound: [{allow: 81}]\n")
	write("policy.d/b.yaml", "inbound: [{allow: 82}]\n")
	w.mustApply(t, w.options())
	w.pass(time.Minute)
	t.Chdir("/")
	if r := w.back(t, 1); first != w.held() || len(r.Notices) != 1 {
		t.Errorf("%s: %q", w.held(), r.Notices)
	}
	w.pass(time.Minute)
	write("friends.txt", "192.0.2.7\n")
	w.back(t, 1)
	w.pass(time.Minute)
	if r := w.back(t, 1); !strings.Contains(strings.Join(r.Notices, " "), "changed since") {
		t.Errorf("nothing tells of the changed set: %q", r.Notices)
	}
}

// What somebody sees in the list is what a number stands for, and what was not confirmed is nothing to go back to.
func TestRollbackAfterAChangeWasTakenBack(t *testing.T) {
	w := newWorld(t)
	first := w.put(t, 80).Hash
	w.pass(time.Minute)
	second := w.put(t, 81).Hash
	w.pass(time.Minute)
	task := w.confirm(t, 82)
	w.pass(time.Minute)
	w.watchdog(t, task)
	all, err := w.History()
	if err != nil || len(all) != 2 || all[0].Hash != first || all[0].Number != 1 || !all[1].Unconfirmed || all[1].Number != 0 {
		t.Errorf("history: %+v, %v", all, err)
	}
	if r := w.back(t, 1); r.Hash != first {
		t.Errorf("%s is in force", r.Hash)
	}
	if r := w.back(t, 1); r.Hash != second {
		t.Errorf("once more, %s is in force", r.Hash)
	}
}

func TestRollbackToNothingButAnUnconfirmedPolicy(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	task := w.confirm(t, 81)
	w.pass(time.Minute)
	w.watchdog(t, task)
	if _, err := w.Apply(t.Context(), apply.Options{Backend: apply.Auto, Back: 1}); err == nil || !strings.Contains(err.Error(), "that somebody confirmed") {
		t.Error(err)
	}
	confirmed := w.put(t, 81).Hash // a person's apply
	w.put(t, 82)
	if r := w.back(t, 1); r.Hash != confirmed {
		t.Errorf("%s is in force", r.Hash)
	}
}

// While changes wait for their confirmation the first in the list is what they are taken back to.
func TestHistoryWhileAChangeWaits(t *testing.T) {
	w := newWorld(t)
	oldest := w.put(t, 79).Hash
	base := w.put(t, 80).Hash
	w.confirm(t, 81)
	between := w.state(t).Current
	w.confirm(t, 82)
	all, err := w.History()
	if err != nil || len(all) != 3 || all[0].Hash != base || all[0].Number != 1 || all[1].Hash != oldest || all[1].Number != 2 || !all[2].Unconfirmed {
		t.Fatalf("history: %+v, %v", all, err)
	}
	if r, err := w.Store.Record(between); err != nil || r.Hash != all[2].Hash {
		t.Errorf("%+v, %v", r, err)
	}
	if r := w.back(t, 2); r.Hash != oldest || r.Pending != nil {
		t.Errorf("%s is in force, %+v", r.Hash, r.Pending)
	}
}

func TestRollbackOfAConfirmedChange(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	w.confirm(t, 81)
	confirmed := w.mustApply(t, w.options()).Hash
	if _, err := w.Confirm(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	w.put(t, 82)
	if r := w.back(t, 1); r.Hash != confirmed {
		t.Errorf("%s is in force", r.Hash)
	}
}

// A board without a clock begins anew with each boot.
func TestRollbackWhenTheClockWentBack(t *testing.T) {
	w := newWorld(t)
	w.put(t, 80)
	w.now = w.now.Add(-24 * time.Hour)
	before := w.put(t, 81).Hash
	w.pass(time.Minute)
	w.put(t, 82)
	if r := w.back(t, 1); r.Hash != before {
		t.Errorf("%s is in force", r.Hash)
	}
}
