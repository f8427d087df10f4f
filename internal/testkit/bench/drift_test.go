//go:build bench

package bench

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

var flushes = flag.Int("flushes", 200, "how often rules are flushed on each backend")

// calm is the time from one flush to the next. The agent takes more than eight mends in ten seconds for a fight, and waits: a late
// mend and an early one may be closer to each other than the flushes.
const calm = 1450 * time.Millisecond

// driftVariant is how Docker's and quaywall's rules get into the kernel.
type driftVariant struct {
	name, backend string
	legacy        bool
}

// flush is what another tool does.
type flush struct {
	script string
	takes  taken
}

// taken is what of quaywall's own goes with Docker's rules.
type taken int

const (
	nothing taken = iota
	answers       // what quaywall's iptables backend has in filter, to answer what it rejects
	everything
)

// own tells whether rules of quaywall's go.
func (f flush) own(v driftVariant) bool {
	return f.takes == everything || f.takes == answers && v.backend == "iptables"
}

// flushes are the losses of Docker's rules that it doesn't mend itself, in turn.
func (v driftVariant) flushes() []flush {
	all := "nft flush ruleset"
	if v.legacy {
		all = "for i in iptables ip6tables; do for t in filter nat mangle raw security; do $i -t $t -F; $i -t $t -X; done; done"
	}
	return []flush{
		{"iptables -F; ip6tables -F", answers},
		{"iptables -t nat -F", nothing},
		{"for t in filter nat; do iptables -t $t -F; iptables -t $t -X; done", answers},
		{"iptables -D FORWARD -j DOCKER-USER; iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", nothing},
		{all, everything},
	}
}

// TestDrift has somebody flush rules under traffic, on a host with Docker, the agent and some containers: how long until
// quaywall's rules are what they were, and Docker's. The time begins when the command that flushes has ended.
func TestDrift(t *testing.T) {
	for _, v := range []driftVariant{{"nft", "nft", false}, {"iptables-nft", "iptables", false}, {"iptables-legacy", "iptables", true}} {
		t.Run(v.name, func(t *testing.T) {
			d := newDrift(t, v)
			d.traffic()
			kinds := v.flushes()
			for i := range *flushes {
				begun := time.Now()
				d.flush(kinds[i%len(kinds)])
				time.Sleep(calm - time.Since(begun))
			}
			d.row("quaywall's rules", d.ownTook, 100)
			d.row("Docker's rules", d.dockersTook, 500)
		})
	}
}

// drift is a host that is flushed.
type drift struct {
	*testing.T
	host, outside *lab.Node
	variant       driftVariant
	own           string   // quaywall's rules as they have to be
	dockers       []string // and Docker's

	ownTook, dockersTook []time.Duration
}

func newDrift(t *testing.T, v driftVariant) *drift {
	d := &drift{T: t, variant: v}
	l := lab.Start(t, lab.OneHost(lab.Engine{Legacy: v.legacy}))
	d.host, d.outside = l.Node("host"), l.Node("outside")
	if err := d.host.AddNetwork(t.Context(), lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}}); err != nil {
		t.Fatal(err)
	}
	for i, network := range []string{"bridge", "bridge", "back", "back", "back"} {
		c := lab.Container{Name: fmt.Sprintf("c%d", i), Networks: []string{network}, Publish: []string{fmt.Sprintf("%d:80", 8080+i)}, Serve: []string{"80/tcp"}}
		if _, err := d.host.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	startAgent(t, d.host, v.backend, "version: 1\nlog: {denied: off}\ninbound:\n  - allow: published\n  - {reject: 9999}\n")
	waitUntil(t, "Docker's rules are known", func() bool {
		_, err := os.Stat(filepath.Join(d.host.Dir, "state", "docker-rules.json"))
		return err == nil
	})
	time.Sleep(3 * time.Second) // the agent gives a Docker that it has just found time to write rules itself
	d.own, d.dockers = d.ownRules(), d.dockersRules()
	if d.own == "" || len(d.dockers) < 30 {
		t.Fatalf("quaywall's rules:\n%s\nDocker's:\n%s", d.own, strings.Join(d.dockers, "\n"))
	}
	return d
}

// startAgent starts quaywall's agent on a host of the lab, and waits until a policy is in force.
func startAgent(t *testing.T, host *lab.Node, backend, policy string) *firewall.Agent {
	t.Helper()
	bin := filepath.Join(host.Lab().Dir, "bin")
	if err := os.Symlink(*binary, filepath.Join(bin, "quaywall")); err != nil {
		t.Fatal(err)
	}
	fw, err := firewall.New(t.Context(), host, backend)
	if err == nil {
		err = fw.Write(policy)
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := fw.Agent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(a.Log())
		}
	})
	waitUntil(t, "the policy is in force", func() bool { return strings.Contains(a.Log(), "the policy is in force") })
	return a
}

// waitUntil gives up after a minute.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

var counted = regexp.MustCompile(` ?\[\d+:\d+\]| packets \d+ bytes \d+`)

// ownRules are quaywall's, as a text; "" where there are none.
func (d *drift) ownRules() string {
	command := []string{"nft", "--stateless", "list", "table", "inet", "quaywall"}
	if d.variant.backend == "iptables" {
		command = []string{"sh", "-c", "iptables-save; ip6tables-save"}
	}
	text, err := d.host.Exec(context.Background(), command[0], command[1:]...)
	if err != nil {
		return ""
	}
	var all []string
	for line := range strings.Lines(text) {
		if d.variant.backend == "nft" || strings.HasPrefix(line, "-A") && strings.Contains(line, "QUAYWALL") {
			all = append(all, strings.FieldsFunc(counted.ReplaceAllString(line, ""), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })...)
		}
	}
	slices.Sort(all) // elements of sets come in any order
	return strings.Join(all, " ")
}

func (d *drift) dockersRules() []string {
	all, err := d.host.DockersRules(context.Background())
	if err != nil {
		d.Fatal(err)
	}
	return all
}

// flush flushes, and notes how long it took until all was back.
func (d *drift) flush(f flush) {
	d.Helper()
	if _, err := d.host.Exec(d.Context(), "sh", "-c", f.script); err != nil {
		d.Fatal(err)
	}
	begun := time.Now()
	if f.own(d.variant) {
		waitUntil(d.T, f.script, func() bool { return d.ownRules() == d.own })
		d.ownTook = append(d.ownTook, time.Since(begun))
	}
	for !slices.Equal(d.dockersRules(), d.dockers) {
		if time.Since(begun) > time.Minute {
			d.Fatalf("%s: Docker's rules are not back", f.script)
		}
	}
	d.dockersTook = append(d.dockersTook, time.Since(begun))
}

// traffic has a client connect to a container, and another knock at a port of the host, until the test ends.
func (d *drift) traffic() {
	var stop atomic.Bool
	ended := make(chan error)
	for _, to := range []string{lab.HostWAN4 + ":8080", lab.HostWAN4 + ":22"} {
		go func() {
			ended <- d.outside.Inside(func() error {
				for at := netip.MustParseAddrPort(to); !stop.Load(); time.Sleep(2 * time.Millisecond) {
					_ = dial(at, 20*time.Millisecond) // what becomes of it is told elsewhere: here it is load
				}
				return nil
			})
		}()
	}
	d.Cleanup(func() {
		stop.Store(true)
		for range 2 {
			if err := <-ended; err != nil {
				d.Error(err)
			}
		}
	})
}

func (d *drift) row(what string, took []time.Duration, most float64) {
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[min(len(took)-1, int(share*float64(len(took))))].Microseconds()) / 1000
	}
	report.Add(Row{What: fmt.Sprintf("%s back after a flush, %s: p99 of %d (median %.0f ms, longest %.0f ms)", what, d.variant.name,
		len(took), at(0.5), at(1)), Ours: at(0.99), Unit: "ms", Target: fmt.Sprintf("at most %.0f ms", most), Met: at(0.99) <= most})
}
