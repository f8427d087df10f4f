//go:build bench

package bench

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/testkit/netns"
)

var (
	reportPath = flag.String("report", "", "write the report to PATH.md and PATH.json")
	binary     = flag.String("quaywall", "", "the program to measure; built from the tree where none is named")
	report     = Report{}
)

func TestMain(m *testing.M) {
	if os.Getenv(meterVariable) != "" {
		os.Exit(meter(os.Args[1:]))
	}
	netns.Isolate()
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	report.Machine = describeMachine(time.Now())
	if *binary == "" {
		dir, err := os.MkdirTemp("", "quaywall-bench")
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		*binary = filepath.Join(dir, "quaywall")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", *binary, "quaywall/cmd/quaywall")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: building: %v\n%s", err, out)
			return 1
		}
	}
	code := m.Run()
	fmt.Print(report.Markdown())
	if *reportPath != "" {
		if err := report.Write(*reportPath); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	return code
}

// cost is what a run of a program took.
type cost struct {
	wall time.Duration
	rss  float64 // MB, the peak
}

func (c cost) ms() float64 { return float64(c.wall.Microseconds()) / 1000 }

// meterVariable makes this program a meter: it runs another one.
const meterVariable = "QUAYWALL_BENCH_METER"

// meter runs a program and writes what it took to descriptor 3. What the kernel calls a process's peak begins with the
// size of the process that started it: of this one, before it has grown.
func meter(command []string) int {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	if _, err := fmt.Fprintln(os.NewFile(3, "result"), time.Since(start).Microseconds(), peak); err != nil {
		return 1
	}
	return 0
}

// spend runs a program in a namespace and tells what it took. A failure ends the test.
func spend(t *testing.T, ns *netns.NS, stdin []byte, name string, args ...string) cost {
	t.Helper()
	var c cost
	ns.Do(t, func() {
		result, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer result.Close()
		cmd := exec.Command("/proc/self/exe", append([]string{name}, args...)...)
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &out
		cmd.Env, cmd.ExtraFiles = append(os.Environ(), meterVariable+"=1"), []*os.File{in}
		err = cmd.Run()
		in.Close()
		if err != nil {
			t.Fatalf("%s %s: %v\n%.2000s", name, strings.Join(args, " "), err, out.String())
		}
		var microseconds, kilobytes int64
		if _, err := fmt.Fscan(result, &microseconds, &kilobytes); err != nil {
			t.Fatal(err)
		}
		c = cost{wall: time.Duration(microseconds) * time.Microsecond, rss: float64(kilobytes) / 1024}
	})
	return c
}

// host is a namespace with quaywall's folders of its own.
type host struct {
	*netns.NS
	dir     string
	backend string
}

func newHost(t *testing.T, ns *netns.NS, backend string) *host {
	return &host{NS: ns, dir: t.TempDir(), backend: backend}
}

// quaywall runs the program on the host.
func (h *host) quaywall(t *testing.T, args ...string) cost {
	t.Helper()
	args = append(args, "--state-dir", h.dir+"/state", "--run-dir", h.dir+"/run", "--docker-host", "unix://"+h.dir+"/no-docker.sock")
	return spend(t, h.NS, nil, *binary, args...)
}

// apply puts a policy in force.
func (h *host) apply(t *testing.T, policy string) cost {
	t.Helper()
	return h.quaywall(t, "apply", h.write(t, "policy.yaml", policy), "--backend", h.backend, "--allow-lockout")
}

func (h *host) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (h *host) stop(t *testing.T) { h.quaywall(t, "stop") }

// backends are the ways into the kernel that are measured. The policy and the packets are the same for each.
var backends = []string{"nft", "iptables"}
