package apply_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/kernel"
	"quaywall/internal/lock"
	"quaywall/internal/testkit/netns"
)

// Trap 17: kill -9 at every step.

// firstSteps are the steps of the first Apply that come after everything was only read, nextSteps those of another one.
var (
	firstSteps = []string{"preflight", "record", "adopt", "commit", "read", "switch", "finish"}
	nextSteps  = []string{"record", "commit", "read", "switch", "finish"}
)

// place is a namespace with a host in it, and two policies.
type place struct {
	t    *testing.T
	ns   *netns.NS
	host *apply.Host
	dir  string
	a, b string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, ns: netns.New(t), dir: t.TempDir()}
	p.host = local(t, p.dir)
	p.a, p.b = filepath.Join(p.dir, "a.yaml"), filepath.Join(p.dir, "b.yaml")
	banned := "  - deny: any\n    from: [198.51.100.0/24, \"2001:db8:bad::/48\"]\n"
	for file, rules := range map[string]string{p.a: "  - allow: [80, 443]\n", p.b: banned + "  - allow: [80, 8080, 9000-9100]\n"} {
		text := "version: 1\nsets:\n  office: [192.0.2.0/24, \"2001:db8:aa::/48\"]\ninbound:\n" + rules + "  - allow: ssh\n    from: office\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *place) apply(backend, policy, dieAt string) task {
	return task{Do: "apply", Dir: p.dir, Backend: backend, Policy: policy, DieAt: dieAt}
}

// held is what each backend holds, as one text.
func (p *place) held() string {
	p.t.Helper()
	var all []string
	p.ns.Do(p.t, func() {
		for _, b := range p.host.Backends {
			l, err := b.Read(context.Background())
			if err != nil {
				p.t.Fatal(err)
			}
			if l.Present {
				all = append(all, b.Name()+":\n"+listingText(l))
			}
		}
	})
	return strings.Join(all, "\n")
}

func listingText(l *kernel.Listing) string {
	return strings.Join(l.Rules, "\n") + apply.Compare(&kernel.Listing{}, &kernel.Listing{Sets: l.Sets}).String()
}

// learn puts a policy in force in a namespace of its own and gives what is held then.
func learn(t *testing.T, backend string, policy func(*place) string) string {
	t.Helper()
	p := newPlace(t)
	p.apply(backend, policy(p), "").must(t, p.ns)
	return p.held()
}

func policyA(p *place) string { return p.a }
func policyB(p *place) string { return p.b }

// diesAtEachStep runs a test for each step: begin brings the place into its first state, last is the task that dies.
// Whatever the kernel holds then must be one of the states that are allowed, and the task run again must end in the last.
func diesAtEachStep(t *testing.T, steps []string, begin func(*place), last func(p *place, dieAt string) task, allowed []string) {
	t.Helper()
	for _, step := range steps {
		t.Run("at "+step, func(t *testing.T) {
			p := newPlace(t)
			begin(p)
			if err := last(p, step).start(t, p.ns).Wait(); !wasKilled(err) {
				t.Fatalf("it did not die: %v", err)
			}
			if held := p.held(); !slices.Contains(allowed, held) {
				t.Errorf("the kernel holds neither the old policy nor the new one:\n%s", held)
			}
			last(p, "").must(t, p.ns)
			if held := p.held(); held != allowed[len(allowed)-1] {
				t.Errorf("the next run did not converge: the kernel holds\n%s", held)
			}
			p.ns.Do(t, func() {
				if s, err := p.host.Status(t.Context()); err != nil || s.HasDrift() || !s.InForce {
					t.Errorf("status after the next run: %+v, %v", s, err)
				}
			})
		})
	}
}

func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		a, b := learn(t, backend, policyA), learn(t, backend, policyB)
		if a == b || a == "" {
			t.Fatal("the two policies don't differ")
		}
		t.Run("first policy", func(t *testing.T) {
			diesAtEachStep(t, firstSteps, func(*place) {}, func(p *place, dieAt string) task { return p.apply(backend, p.a, dieAt) }, []string{"", a})
		})
		t.Run("another policy", func(t *testing.T) {
			diesAtEachStep(t, nextSteps, func(p *place) { p.apply(backend, p.a, "").must(t, p.ns) },
				func(p *place, dieAt string) task { return p.apply(backend, p.b, dieAt) }, []string{a, b})
		})
	})
}

// A change of the backend that dies leaves the old one's rules, both, or the new one's: at no time none.
func TestKilledAtEachStepOfASwitch(t *testing.T) {
	t.Parallel()
	names := realBackends(t)
	for i, from := range names {
		to := names[(i+1)%len(names)]
		t.Run(from+" to "+to, func(t *testing.T) {
			a, b := learn(t, from, policyA), learn(t, to, policyA)
			both := []string{a + "\n" + b, b + "\n" + a}
			diesAtEachStep(t, nextSteps, func(p *place) { p.apply(from, p.a, "").must(t, p.ns) },
				func(p *place, dieAt string) task { return p.apply(to, p.a, dieAt) }, append([]string{a}, append(both, b)...))
		})
	}
}

// Killed at any moment, also in the middle of a commit.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		a, b := learn(t, backend, policyA), learn(t, backend, policyB)
		p := newPlace(t)
		p.apply(backend, p.a, "").must(t, p.ns)
		for i := range 16 {
			want, policy := b, p.b
			if i%2 == 1 {
				want, policy = a, p.a
			}
			cmd := p.apply(backend, policy, "").start(t, p.ns)
			time.Sleep(time.Duration(i*9) * time.Millisecond)
			cmd.Process.Kill()
			cmd.Wait()
			// The families of iptables switch one after the other, and their tables do: one may be old and one new.
			if held := judging(p.held()); held != judging(a) && held != judging(b) && !mixed(held, a, b) {
				t.Fatalf("killed after %d ms: the kernel holds neither policy:\n%s", i*9, held)
			}
			p.apply(backend, policy, "").must(t, p.ns)
			if held := p.held(); held != want {
				t.Fatalf("the run after that did not converge: the kernel holds\n%s", held)
			}
		}
	})
}

// idle is what judges no packet: a set that no rule uses, and a chain that holds nothing.
var idle = regexp.MustCompile(`(?m)^\+ set unused .*\n?|^chain [^ {]*\n`)

// judging is what judges packets of a listing. Nothing else may be left of nft's steps when they are cut short: sets are
// added before the rules are switched, and deleted after.
func judging(listing string) string {
	listing = idle.ReplaceAllStringFunc(listing, func(line string) string {
		if name, ok := strings.CutPrefix(line, "chain "); ok && strings.Contains(listing, "\n"+strings.TrimSpace(name)+": ") {
			return line
		}
		return ""
	})
	return strings.TrimSpace(listing)
}

// mixed tells whether each table in a listing is that of one policy or of the other.
func mixed(held, a, b string) bool {
	for _, table := range []string{"ip raw ", "ip mangle ", "ip6 raw ", "ip6 mangle "} {
		if is := linesOf(held, table); is != linesOf(a, table) && is != linesOf(b, table) {
			return false
		}
	}
	return linesOf(a, "ip mangle ") != ""
}

// linesOf are the lines of a listing that begin with a prefix.
func linesOf(listing, prefix string) string {
	var lines []string
	for line := range strings.Lines(listing) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// Trap 20, with the real process: it takes the change back when its time is over, also when whoever applied is gone.
func TestProcessTakesTheChangeBack(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		a, b := learn(t, backend, policyA), learn(t, backend, policyB)
		p := newPlace(t)
		p.apply(backend, p.a, "").must(t, p.ns)
		change := p.apply(backend, p.b, "")
		change.Confirm = 2 * time.Second
		change.must(t, p.ns)
		if held := p.held(); held != b {
			t.Fatalf("the change is not in force:\n%s", held)
		}
		if !comes(t, p.settled) || p.held() != a {
			log, _ := os.ReadFile(filepath.Join(p.dir, "run", "undo.log"))
			t.Fatalf("the policy of before did not come back; log: %s", log)
		}
		change.Confirm = 3 * time.Second
		change.must(t, p.ns)
		task{Do: "confirm", Dir: p.dir}.must(t, p.ns)
		time.Sleep(4500 * time.Millisecond)
		if held := p.held(); held != b {
			t.Errorf("the confirmed change did not stay:\n%s", held)
		}
		// Killed between arming and commit: the policy of before stays.
		killed := p.apply(backend, p.a, "commit")
		killed.Confirm = time.Second
		if err := killed.start(t, p.ns).Wait(); !wasKilled(err) {
			t.Fatal(err)
		}
		if !comes(t, p.settled) || p.held() != b {
			t.Error("the change that died half-way was not seen to")
		}
	})
}

// A second apply waits for the first one, or says who it is.
func TestSecondApply(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	slow := p.apply(apply.Auto, p.a, "")
	slow.SleepAt = "commit"
	first := slow.start(t, p.ns)
	options := apply.Options{Policy: p.b, Given: true, Backend: apply.Auto}
	var busy *lock.BusyError
	if !comes(t, func() bool {
		p.ns.Do(t, func() {
			_, err := p.host.Stop(t.Context(), 0)
			errors.As(err, &busy)
		})
		return busy != nil
	}) || busy.Holder.PID != first.Process.Pid {
		t.Errorf("the second was not told of process %d: %v", first.Process.Pid, busy)
	}
	options.Wait = time.Minute
	var waited []string
	p.host.OnStep = func(step string) { waited = append(waited, step) }
	p.ns.Do(t, func() {
		if r, err := p.host.Apply(t.Context(), options); err != nil || !r.Changed {
			t.Errorf("the second: %+v, %v", r, err)
		}
	})
	if err := first.Wait(); err != nil {
		t.Error("the first: ", err)
	}
	if len(waited) == 0 || !strings.Contains(waited[0], fmt.Sprint(first.Process.Pid)) {
		t.Errorf("steps of the second: %v", waited)
	}
}

// settled tells whether no change waits for a confirmation.
func (p *place) settled() bool {
	s, err := p.host.Store.State()
	return err == nil && s.Pending == nil
}

// comes waits for something, for a while.
func comes(t *testing.T, what func() bool) bool {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if what() {
			return true
		}
	}
	return false
}
