//go:build bench

package bench

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/testkit/lab"
)

// TestAgent has the agent look after a host while 100 containers start, and then nothing happens.
func TestAgent(t *testing.T) {
	const containers = 100
	l := lab.Start(t, lab.OneHost(lab.Engine{}))
	host := l.Node("host")
	a := startAgent(t, host, "nft", "version: 1\ninbound:\n  - allow: published\n")
	applies := func() int { return strings.Count(a.Log(), "the policy is in force") }
	before, begun := applies(), time.Now()
	var group errgroup.Group
	for i := range containers {
		group.Go(func() error {
			_, err := host.Run(t.Context(), lab.Container{Name: fmt.Sprintf("c%d", i), Publish: []string{fmt.Sprintf("%d:80", 10_000+i)}})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun).Seconds()
	time.Sleep(30 * time.Second) // what the agent and Docker still have to do
	pid, err := a.PID()
	if err != nil {
		t.Fatal(err)
	}
	n := float64(applies() - before)
	report.Add(Row{What: fmt.Sprintf("agent: transactions while %d containers with a port each start at once, within %.0f s", containers, took),
		Ours: n, Target: "at most one a second", Met: n <= took+1})
	busy := processor(t, host, pid)
	time.Sleep(time.Minute)
	ms := float64((processor(t, host, pid) - busy).Microseconds()) / 1000
	report.Add(Row{What: "agent: processor time in a minute without events", Ours: ms, Unit: "ms", Target: "at most 10 ms", Met: ms <= 10})
	for field, what := range map[string]string{"VmRSS:": "resident", "VmHWM:": "resident, the peak"} {
		mb := number(t, host, fmt.Sprintf("/proc/%d/status", pid), field) / 1024
		report.Add(Row{What: fmt.Sprintf("agent: %s, with %d containers", what, containers), Ours: mb, Unit: "MB", Target: "at most 25 MB", Met: mb <= 25})
	}
}

// processor is the time that a process of a host has used, by its threads that are there.
func processor(t *testing.T, host *lab.Node, pid int) time.Duration {
	t.Helper()
	var sum time.Duration
	for line := range strings.Lines(host.MustExec(t, "sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/schedstat", pid))) {
		var used time.Duration
		if _, err := fmt.Sscan(line, &used); err != nil {
			t.Fatal(err)
		}
		sum += used
	}
	return sum
}

// number is the one behind a word of a host's file.
func number(t *testing.T, host *lab.Node, path, word string) float64 {
	t.Helper()
	_, text, _ := strings.Cut(host.MustExec(t, "cat", path), word)
	n, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
