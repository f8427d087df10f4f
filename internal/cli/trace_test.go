package cli_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/kernel/nft"
	"quaywall/internal/testkit/netns"
)

const loggerFile = "/proc/sys/net/netfilter/nf_log/2"

// tracing is a trace that runs in a namespace which has rules of all three kinds, and marks packets already.
type tracing struct {
	ns     *netns.NS
	dir    string
	rules  string // as they were before
	logger string // likewise, net.netfilter.nf_log.2
	cmd    *exec.Cmd
	stdout *bytes.Buffer
}

func startTrace(t *testing.T, args ...string) *tracing {
	t.Helper()
	tr := &tracing{ns: netns.New(t), dir: t.TempDir(), stdout: &bytes.Buffer{}}
	rules := "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp -m udp --dport 9 -j DROP\nCOMMIT\n"
	tr.ns.Feed(t, rules, "iptables-nft-restore")
	tr.ns.Feed(t, rules, "iptables-legacy-restore")
	tr.ns.Feed(t, "table inet other { chain c { type filter hook input priority 5; udp dport 8 drop; }; }", "nft", "-f", "-")
	tr.rules, tr.logger = tr.allRules(t), tr.now(t)
	ready, told, err := os.Pipe()
	must(t, err)
	tr.ns.Do(t, func() {
		tr.cmd = command(tr.dir, append([]string{"trace"}, args...)...)
		tr.cmd.Stdout, tr.cmd.Stderr = tr.stdout, told
		err = tr.cmd.Start()
	})
	must(t, err)
	told.Close()
	t.Cleanup(func() { _ = tr.cmd.Process.Kill(); _ = tr.cmd.Wait(); ready.Close() })
	text := make([]byte, 4096)
	n, err := ready.Read(text)
	if err != nil || !strings.HasPrefix(string(text[:n]), "following packets") {
		t.Fatalf("trace says %q, %v", text[:n], err)
	}
	if tr.now(t) != "nfnetlink_log" || !strings.Contains(tr.allRules(t), nft.TraceTable) {
		t.Fatalf("while it traces, the logger is %s and the rules are\n%s", tr.now(t), tr.allRules(t))
	}
	return tr
}

// allRules are the rules without what they have counted.
func (tr *tracing) allRules(t *testing.T) string {
	t.Helper()
	return tr.ns.Output(t, "nft", "-s", "-a", "list", "ruleset") + tr.ns.Output(t, "iptables-legacy", "-S")
}

func (tr *tracing) now(t *testing.T) (logger string) {
	tr.ns.Do(t, func() {
		text, err := os.ReadFile(loggerFile)
		must(t, err)
		logger = strings.TrimSpace(string(text))
	})
	return logger
}

func (tr *tracing) send(t *testing.T, to string) {
	t.Helper()
	tr.ns.Do(t, func() {
		conn, err := net.Dial("udp", to)
		must(t, err)
		_, err = conn.Write([]byte("hello"))
		must(t, err)
		conn.Close()
	})
}

// expectNothing expects that a trace has left nothing. The kernel takes the table out some time after the process.
func (tr *tracing) expectNothing(t *testing.T) {
	t.Helper()
	var rules string
	for range 300 {
		if rules = tr.allRules(t); rules == tr.rules {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if rules != tr.rules {
		t.Errorf("the rules were\n%s\nand are\n%s", tr.rules, rules)
	}
}

// TestTrace: a packet is shown, and a trace that ends leaves nothing.
func TestTrace(t *testing.T) {
	tr := startTrace(t, "udp -> 127.0.0.1", "-n", "1")
	tr.send(t, "127.0.0.1:9")
	must(t, tr.cmd.Wait())
	for _, want := range []string{"udp 127.0.0.1:", "-> 127.0.0.1:9 from host", "Dropped. Rule 1 of ip filter INPUT drops it.", "✓ INPUT 1: -p udp -m udp --dport 9 -j DROP"} {
		if !strings.Contains(tr.stdout.String(), want) {
			t.Errorf("standard output lacks %q:\n%s", want, tr.stdout)
		}
	}
	tr.expectNothing(t)
	tr.expectLogger(t)
}

// TestTraceIsInterrupted: then it leaves nothing either.
func TestTraceIsInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		tr := startTrace(t)
		must(t, tr.cmd.Process.Signal(signal))
		must(t, tr.cmd.Wait())
		tr.expectNothing(t)
		tr.expectLogger(t)
	}
}

// expectLogger expects that the logger is what it was before, and that nothing in the run directory says otherwise.
func (tr *tracing) expectLogger(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(tr.dir, "run", "trace*"))
	if now := tr.now(t); now != tr.logger || len(left) > 0 || err != nil {
		t.Errorf("the logger was %s and is %s; the run directory has %v, %v", tr.logger, now, left, err)
	}
}

// TestTraceIsKilled: what SIGKILL leaves is no rule, and the next command that changes the host puts the logger back.
func TestTraceIsKilled(t *testing.T) {
	for _, next := range []string{"stop", "trace --for 1s"} {
		tr := startTrace(t)
		if second := tr.run(t, "trace", "--run-dir", t.TempDir()); second.status != 1 || !strings.Contains(second.stderr, nft.ErrTracing.Error()) {
			t.Errorf("a second trace ends with %d: %s", second.status, second.stderr)
		}
		if stopped := tr.run(t, "stop"); stopped.status != 0 || tr.now(t) != "nfnetlink_log" || !strings.Contains(tr.allRules(t), nft.TraceTable) {
			t.Errorf("stop, beside a trace that runs, ends with %d: %s, %s, logger %s", stopped.status, stopped.stderr, tr.allRules(t), tr.now(t))
		}
		must(t, tr.cmd.Process.Kill())
		_ = tr.cmd.Wait()
		tr.expectNothing(t)
		if r := tr.run(t, strings.Fields(next)...); r.status != 0 {
			t.Errorf("%s ends with %d: %s", next, r.status, r.stderr)
		}
		tr.expectNothing(t)
		tr.expectLogger(t)
	}
}

func (tr *tracing) run(t *testing.T, args ...string) (r ran) {
	t.Helper()
	tr.ns.Do(t, func() { r = run(t, tr.dir, args...) })
	return r
}

// TestTraceAnswersJSON: each packet is an object on a line of its own. Without "following", there is no telling when it begins.
func TestTraceAnswersJSON(t *testing.T) {
	ns, dir := netns.New(t), t.TempDir()
	ns.Feed(t, "table inet other { chain c { type filter hook input priority 5; udp dport 8 drop; }; }", "nft", "-f", "-")
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		ns.Do(t, func() {
			for {
				if conn, err := net.Dial("udp", "127.0.0.1:8"); err == nil {
					_, _ = conn.Write([]byte("hello"))
					conn.Close()
				}
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}()
	var r ran
	// From elsewhere: the namespace is named.
	netns.Run(t, func() { r = run(t, dir, "trace", "udp -> :8 in lo", "-n", "2", "--json", "--netns", ns.Path()) })
	close(stop)
	<-stopped
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if r.status != 0 || r.stderr != "" || len(lines) != 2 {
		t.Fatalf("status %d, %d lines, standard error %q", r.status, len(lines), r.stderr)
	}
	for _, line := range lines {
		var p struct {
			Packet, Verdict string
			DecidedBy       struct{ Table, Chain string } `json:"decided_by"`
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil || p.Verdict != "drop" || p.DecidedBy.Table != "inet other" || !strings.HasSuffix(p.Packet, "-> 127.0.0.1:8 in lo") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
