package apply_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/apply"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// fails runs a task that must fail, and gives what it said.
func (k task) fails(t *testing.T, ns *netns.NS) string {
	t.Helper()
	var said strings.Builder
	k.Output = &said
	if err := k.start(t, ns).Wait(); err == nil {
		t.Errorf("%s with %s did not fail: %s", k.Do, k.Backend, said.String())
	}
	return said.String()
}

// Trap 19: another program holds the lock of iptables-legacy: apply waits, then says so, and has changed nothing.
func TestXtablesLock(t *testing.T) {
	t.Parallel()
	netns.Tool(t, "iptables-legacy-restore")
	p := newPlace(t)
	path := filepath.Join(p.dir, "xtables.lock")
	task := func(policy string) task {
		k := p.apply("iptables-legacy", policy, "")
		k.Env = []string{"XTABLES_LOCKFILE=" + path}
		return k
	}
	task(p.a).must(t, p.ns)
	before := p.held()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	said := task(p.b).fails(t, p.ns)
	if !strings.Contains(said, "waited 10s for the lock of another iptables") || strings.Contains(said, "kernel can't") {
		t.Errorf("it said %q", said)
	}
	if took := time.Since(start); took < 10*time.Second || took > 19*time.Second {
		t.Errorf("it took %s", took)
	}
	if held := p.held(); held != before {
		t.Errorf("the kernel holds\n%s", held)
	}
	go func() {
		time.Sleep(time.Second)
		f.Close()
	}()
	task(p.b).must(t, p.ns)
	if p.held() == before {
		t.Error("with the lock free again nothing changed")
	}
}

// Trap 35: a restore program that loses a rule without a word. Nothing is said to be in force, and what was before is.
func TestRuleThatIsLost(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		if backend == apply.NFT { // whose rules go by netlink: TestReadBackThatDiffers
			return
		}
		p := newPlace(t)
		p.apply(backend, p.a, "").must(t, p.ns)
		before := p.held()
		real, err := sysexec.Look(backend + "-restore")
		if err != nil {
			t.Fatal(err)
		}
		namespace := strings.TrimSpace(p.ns.Output(t, "readlink", "/proc/self/ns/net"))
		script := "#!/bin/sh\n[ \"$(readlink /proc/self/ns/net)\" = '" + namespace + "' ] || exec " + real + " \"$@\"\n" +
			"sed '/8080/d' | " + real + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(p.dir, backend+"-restore"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		k := p.apply(backend, p.b, "")
		k.Env = []string{"PATH=" + p.dir + ":" + os.Getenv("PATH")}
		said := k.fails(t, p.ns)
		if !strings.Contains(said, "the policy of before is in force again") || !strings.Contains(said, "8080") {
			t.Errorf("it said %q", said)
		}
		if held := p.held(); held != before {
			t.Errorf("the kernel holds\n%s", held)
		}
		p.ns.Do(t, func() {
			s, err := p.host.Status(t.Context())
			if err != nil || s.HasDrift() || !strings.HasSuffix(s.File, "a.yaml") {
				t.Errorf("status: %+v, %v", s, err)
			}
		})
	})
}

// Trap 25: rules of both variants of iptables are loaded. The one that Docker's are in is chosen, the rules of others stay
// in both, and the alternative that the program iptables is stays what it was.
func TestBothVariantsLoaded(t *testing.T) {
	t.Parallel()
	variants := []string{"iptables-nft", "iptables-legacy"}
	for _, v := range variants {
		netns.Tool(t, v)
	}
	alternative, _ := os.Readlink("/etc/alternatives/iptables")
	p := newPlace(t)
	others := func() (all string) {
		for _, v := range variants {
			all += counted.ReplaceAllString(p.ns.Output(t, v+"-save", "-t", "nat"), "")
		}
		return all
	}
	p.ns.Output(t, "iptables-legacy", "-t", "nat", "-N", "DOCKER")
	p.ns.Do(t, func() {
		if r := applyText(t, p.host, apply.IPTables, "version: 1\ninbound: [{allow: ssh}]\n"); r.Backend != "iptables-legacy" {
			t.Errorf("chose %s: %s", r.Backend, r.Why)
		}
	})
	p.ns.Output(t, "iptables-nft", "-t", "nat", "-N", "DOCKER")
	before := others()
	p.ns.Do(t, func() {
		r := applyText(t, p.host, apply.IPTables, "version: 1\ninbound: [{allow: ssh}]\n")
		if r.Backend != "iptables-nft" || !strings.Contains(r.Why, "both variants") || !slices.Equal(r.Replaced, []string{"iptables-legacy"}) {
			t.Errorf("chose %s: %s, replaced %v", r.Backend, r.Why, r.Replaced)
		}
	})
	if held := p.held(); !strings.Contains(held, "iptables-nft:") || strings.Contains(held, "iptables-legacy:") {
		t.Errorf("the kernel holds\n%s", held)
	}
	if after := others(); after != before {
		t.Errorf("rules of others before:\n%s\nand after:\n%s", before, after)
	}
	if now, _ := os.Readlink("/etc/alternatives/iptables"); now != alternative {
		t.Errorf("the alternative was %s and is %s", alternative, now)
	}
}
