package ipt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

// taskVar makes the test program commit a ruleset instead of running tests: "VARIANT RULESET ASKED HOME". It kills itself
// when its context was asked so often; HOME is the namespace of the tests, which is never touched.
const taskVar = "QUAYWALL_TEST_COMMIT"

// home is noted before any test runs: afterwards even the program's first thread may be elsewhere.
var home, _ = os.Readlink("/proc/self/ns/net")

func TestMain(m *testing.M) {
	if text := os.Getenv(taskVar); text != "" {
		if err := runTask(strings.Fields(text)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	netns.Isolate()
	os.Exit(m.Run())
}

func runTask(words []string) error {
	if link, err := os.Readlink("/proc/self/ns/net"); err != nil || len(words) != 4 || link == words[3] {
		return errors.New("this is not a namespace of the test's")
	}
	left, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	ctx := &dying{context.Background(), left}
	return New(Variant(words[0]), Options{}).Commit(ctx, killRules[words[1]]())
}

// dying is a context that kills its process when it was asked so often whether it has ended: before sets are filled it is,
// and before they have their names.
type dying struct {
	context.Context
	left int
}

func (d *dying) Err() error {
	if d.left--; d.left < 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return d.Context.Err()
}

// killRules are the two policies: one that rejects, and so needs the tables filter and security, and one that doesn't.
var killRules = map[string]func() *ruleset.Ruleset{"rejecting": sample, "plain": func() *ruleset.Ruleset { return setPolicy(50) }}

// moment is when a commit is killed: at the sets, or by what stands in for a restore program.
type moment struct {
	asked        int
	base, script string
}

// Traps 17 and 30: kill -9 at each step of a commit leaves the old policy or the new one, and the next one takes away
// what the killed one left.
func TestKilledAtEachStep(t *testing.T) {
	moments := map[string]moment{"before sets are filled": {asked: 0}, "before sets have their names": {asked: 1}}
	for _, base := range []string{"iptables", "ip6tables"} {
		moments["before "+base] = moment{99, base, `kill -9 $PPID; sleep 1`}
		moments["after "+base] = moment{99, base, `"$REAL" "$@"; kill -9 $PPID; sleep 1`}
		moments["after a table of "+base] = moment{99, base, `sed /COMMIT/q | "$REAL" "$@"; kill -9 $PPID; sleep 1`}
	}
	for name, m := range moments {
		for _, v := range []Variant{NFT, Legacy} {
			for _, way := range [][2]string{{"plain", "rejecting"}, {"rejecting", "plain"}} {
				t.Run(fmt.Sprintf("%s/%s/from %s", name, v, way[0]), func(t *testing.T) {
					netns.Tool(t, "iptables-"+string(v)+"-restore")
					if m.script != "" {
						bend(t, New(v, Options{}), m.base, "restore", m.script)
					}
					killAndMend(t, New(v, Options{}), m, way)
				})
			}
		}
	}
}

func killAndMend(t *testing.T, b *Backend, m moment, way [2]string) {
	killed, path := netns.New(t), os.Getenv("PATH")
	if m.script != "" { // what stands in for a program is the killed process's alone
		_, rest, _ := strings.Cut(path, ":")
		t.Setenv("PATH", rest)
	}
	old, next := planned(t, b, killRules[way[0]]()), planned(t, b, killRules[way[1]]())
	killed.Do(t, func() {
		commit(t, b, killRules[way[0]]())
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "PATH="+path, fmt.Sprintf("%s=%s %s %d %s", taskVar, b.variant, way[1], m.asked, home))
		out, err := cmd.CombinedOutput()
		if len(out) > 0 || err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%v: %s", err, out)
		}
		if err == nil {
			t.Error("it survived")
		}
		checkHalfWay(t, read(t, b), old, next)
		commit(t, b, killRules[way[1]]())
		inForce(t, b, next)
		if got := sets(t); len(got) != len(next.Sets) {
			t.Errorf("sets that are left over: %v", got)
		}
	})
}

// checkHalfWay demands that each table is the old or the new one, that nothing is labelled that would not be rejected, and
// that rules only use sets that are complete.
func checkHalfWay(t *testing.T, now, old, next *kernel.Listing) {
	t.Helper()
	for _, f := range families {
		labels := false
		for _, name := range tableNames {
			head := f.String() + " " + name + " "
			is, was, will := linesOf(now, head), linesOf(old, head), linesOf(next, head)
			if !slices.Equal(is, was) && !slices.Equal(is, will) {
				t.Errorf("%s is neither old nor new:\n%s", head, strings.Join(is, "\n"))
			}
			if name == "mangle" {
				labels = strings.Contains(strings.Join(is, "\n"), " --set -j")
			} else if labels && len(is) == 0 {
				t.Errorf("%s is empty, and packets are labelled to be rejected", head)
			}
		}
	}
	for name, s := range now.Sets {
		if s != old.Sets[name] && s != next.Sets[name] {
			t.Errorf("the set %s is in use, and %s", name, cmp.Diff(next.Sets[name], s))
		}
	}
}

func linesOf(l *kernel.Listing, head string) []string {
	return slices.DeleteFunc(slices.Clone(l.Rules), func(line string) bool { return !strings.HasPrefix(line, head) })
}
