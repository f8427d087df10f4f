package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
	"quaywall/internal/testkit/labstate"
)

// twoNodes is the smallest lab, without Docker.
func twoNodes() lab.Topology {
	t := lab.OneHost(lab.Engine{})
	t.Nodes = t.Nodes[:2]
	t.Nodes[0].Engine = nil
	t.Nodes[0].Serve = []string{"22/tcp", "53/udp", "ip:47"}
	return t
}

// TestDockerWithoutFirewall proves the lab: with no firewall, everything is as Docker's documentation and
// measurements say, leaks included, which 28 closed.
func TestDockerWithoutFirewall(t *testing.T) {
	for _, proxy := range []bool{true, false} {
		t.Run(fmt.Sprintf("proxy=%v", proxy), func(t *testing.T) {
			t.Parallel()
			l := lab.Start(t, lab.OneHost(lab.Engine{NoProxy: !proxy, Dir: os.Getenv("QUAYWALL_ENGINE")}))
			l.Check(t, openWorld(t, l, proxy))
		})
	}
}

func openWorld(t *testing.T, l *lab.Lab, proxy bool) []lab.Row {
	host, outside, neighbour, lan := l.Node("host"), l.Node("outside"), l.Node("neighbour"), l.Node("lan")
	if err := host.AddNetwork(t.Context(), lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}}); err != nil {
		t.Fatal(err)
	}
	web := run(t, host, lab.Container{Name: "web", Publish: []string{"8080:80", "127.0.0.1:8081:80", "53:53/udp"},
		Serve: []string{"80/tcp", "81/tcp", "53/udp"}})
	mate := run(t, host, lab.Container{Name: "mate", Serve: []string{"80/tcp"}})
	back := run(t, host, lab.Container{Name: "back", Networks: []string{"back"}, IP: "172.30.0.9", Serve: []string{"80/tcp"}})
	run(t, host, lab.Container{Name: "net", Networks: []string{"host"}, Serve: []string{"9000/tcp"}})
	proxied := map[bool]string{true: lab.HostWAN6, false: ""}[proxy]
	v6 := map[bool]agent.Outcome{true: lab.Open, false: lab.Rejected}[proxy]
	major, err := host.EngineMajor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leak, leaker := lab.Open, "web"
	if major >= 28 {
		leak, leaker = lab.Denied, ""
	}
	rows := []lab.Row{
		{From: outside, To: "203.0.113.1:8080", Want: lab.Open, Server: "web", SeenAs: lab.OutsideAddr4, Why: "DNAT"},
		{From: outside, To: "203.0.113.1:53", Proto: "udp", Want: lab.Open, Server: "web", Why: "DNAT"},
		{From: lan, To: "192.168.50.1:8080", Want: lab.Open, Server: "web", Why: "published on every address"},
		{From: outside, To: "203.0.113.1:9000", Want: lab.Open, Server: "net", Why: "host networking"},
		{From: outside, To: "[2001:db8:1::1]:9000", Want: lab.Open, Server: "net", Why: "host networking"},
		{From: outside, To: "203.0.113.1:81", Want: lab.Rejected, Why: "nothing listens"},
		{From: outside, To: "203.0.113.1:8081", Want: lab.Rejected, Why: "published on loopback alone"},
		{From: outside, Proto: "icmp", To: "203.0.113.1", Want: lab.Open, Why: "no firewall"},
		{From: outside, Proto: "icmp", To: "2001:db8:1::1", Want: lab.Open, Why: "no firewall"},
		{From: neighbour, To: "172.17.0.2:80", Want: leak, Server: leaker, Why: "published ports can be routed to"},
		{From: neighbour, To: "172.17.0.2:81", Want: lab.Denied, Why: "FORWARD's policy is DROP"},
		{From: neighbour, To: "127.0.0.1:8081", Want: leak, Server: leaker, Why: "DNAT comes before the martian check"},
		{From: mate, To: "172.17.0.2:81", Want: lab.Open, Server: "web", Why: "one bridge"},
		{From: mate, To: "203.0.113.1:8080", Want: lab.Open, Server: "web", Why: "a sibling's port by the host's address"},
		{From: web, To: "203.0.113.1:8080", Want: lab.Open, Server: "web", Why: "hairpin"},
		{From: back, To: "172.17.0.2:80", Want: lab.Denied, Why: "isolation of networks"},
		{From: web, To: "203.0.113.2:80", Want: lab.Open, Server: "outside", SeenAs: lab.HostWAN4, Why: "MASQUERADE"},
		{From: web, To: "203.0.113.2:80", Proto: "udp", Want: lab.Open, Server: "outside", Why: "MASQUERADE"},
		{From: host, To: "127.0.0.1:8080", Want: lab.Open, Server: "web", Why: "proxy or nat OUTPUT"},
		{From: host, To: "172.17.0.2:80", Want: lab.Open, Server: "web", Why: "the host's own bridge"},
		{From: outside, To: "[2001:db8:1::1]:8080", Want: v6, Server: map[bool]string{true: "web"}[proxy], Why: "docker-proxy"},
	}
	if proxied != "" {
		rows = append(rows, lab.Row{From: neighbour, To: linkLocal(t, host) + ":8080", Want: lab.Open, Server: "web",
			Why: "docker-proxy listens on link-local addresses too"})
	}
	return rows
}

func run(t *testing.T, host *lab.Node, c lab.Container) *lab.Node {
	t.Helper()
	node, err := host.Run(t.Context(), c)
	if err != nil {
		t.Fatalf("%v\n%s", err, host.EngineLog(20))
	}
	return node
}

func linkLocal(t *testing.T, host *lab.Node) string {
	t.Helper()
	for _, field := range strings.Fields(host.MustExec(t, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "link")) {
		if prefix, err := netip.ParsePrefix(field); err == nil {
			return "[" + prefix.Addr().String() + "%eth0]"
		}
	}
	t.Fatal("the host's eth0 has no link-local address")
	return ""
}

func TestNamesInAContainerNetworkResolve(t *testing.T) {
	l := lab.Start(t, lab.OneHost(lab.Engine{}))
	host := l.Node("host")
	if err := host.AddNetwork(t.Context(), lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24", "fd30::/64"}}); err != nil {
		t.Fatal(err)
	}
	run(t, host, lab.Container{Name: "db", Networks: []string{"back"}, IP: "172.30.0.9"})
	web := run(t, host, lab.Container{Name: "web", Networks: []string{"back"}})
	r, err := web.Resolve(t.Context(), "db")
	if err != nil || len(r.Addrs) == 0 || r.Addrs[0] != netip.MustParseAddr("172.30.0.9") {
		t.Errorf("db is %v, %v; want 172.30.0.9 first", r.Addrs, err)
	}
}

// TestAddressesAreReady: a machine has its link-local addresses when the lab has started, and need not wait for the
// kernel to look for duplicates. Until then it dials link-local neighbours from another address.
func TestAddressesAreReady(t *testing.T) {
	l := lab.Start(t, twoNodes())
	for _, name := range []string{"host", "outside"} {
		all := l.Node(name).MustExec(t, "ip", "-6", "-oneline", "addr", "show", "dev", "eth0", "scope", "link")
		if !strings.Contains(all, "fe80::") || strings.Contains(all, "tentative") {
			t.Errorf("%s has %q", name, all)
		}
	}
}

func TestEngineRestarts(t *testing.T) {
	l := lab.Start(t, lab.OneHost(lab.Engine{LiveRestore: true}))
	host, outside := l.Node("host"), l.Node("outside")
	run(t, host, lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
	rows := []lab.Row{{From: outside, To: "203.0.113.1:8080", Want: lab.Open, Server: "web", Why: "live-restore"}}
	for _, end := range []func() error{
		func() error { return host.StopEngine(t.Context()) }, func() error { return host.KillEngine(t.Context()) },
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := host.StartEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.Check(t, rows)
	}
}

func TestLegacyHostHasLegacyRules(t *testing.T) {
	l := lab.Start(t, lab.OneHost(lab.Engine{Legacy: true}))
	rules, err := l.Node("host").Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range rules.Sections {
		if got, want := strings.Contains(s.Text, "DOCKER"), s.Tool == "iptables-legacy-save"; got != want {
			t.Errorf("%s shows Docker's rules: %v, want %v:\n%s", s.Tool, got, want, s.Text)
		}
	}
}

func TestRulesDifference(t *testing.T) {
	l := lab.Start(t, twoNodes())
	host := l.Node("host")
	snapshot := func() lab.Rules {
		t.Helper()
		r, err := host.Rules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	host.MustExec(t, "iptables-nft", "-A", "FORWARD", "-j", "ACCEPT")
	host.MustExec(t, "nft", "add table inet other; add chain inet other c; add rule inet other c tcp dport 22 counter")
	before := snapshot()
	for _, rule := range []string{"-N QUAYWALL-GATE", "-A QUAYWALL-GATE -j DROP", "-I PREROUTING -p udp --dport 9 -j QUAYWALL-GATE"} {
		host.MustExec(t, "iptables-nft", append([]string{"-t", "mangle"}, strings.Fields(rule)...)...)
	}
	host.MustExec(t, "nft", "add table inet quaywall; add chain inet quaywall gate { type filter hook input priority 0; }")
	host.MustExec(t, "ipset", "create", "quaywall-office", "hash:net")
	if diff := snapshot().Diff(before); !strings.Contains(diff, "QUAYWALL-GATE") || !strings.Contains(diff, "table inet quaywall") {
		t.Errorf("the difference does not show what was added:\n%s", diff)
	}
	if diff := snapshot().Foreign().Diff(before.Foreign()); diff != "" {
		t.Errorf("the foreign rules differ:\n%s", diff)
	}
	host.MustExec(t, "nft", "add rule inet other c tcp dport 23 drop")
	host.MustExec(t, "iptables-nft", "-P", "FORWARD", "DROP")
	diff := snapshot().Foreign().Diff(before.Foreign())
	if !strings.Contains(diff, "dport 23") || !strings.Contains(diff, "FORWARD DROP") {
		t.Errorf("the difference does not show what changed:\n%s", diff)
	}
}

// TestFlows has the continual jobs see a firewall come and go.
func TestFlows(t *testing.T) {
	l := lab.Start(t, twoNodes())
	host, outside := l.Node("host"), l.Node("outside")
	ssh := agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort("203.0.113.1:22"), Timeout: 10 * time.Second}
	start := func(r agent.Request) *agent.Job {
		t.Helper()
		job, err := outside.Start(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	good := start(agent.Request{Stream: &agent.Stream{Dial: ssh}})
	idle := start(agent.Request{Hold: &agent.Hold{Dial: ssh, Count: 3}})
	fine := start(agent.Request{Load: &agent.Load{Dial: ssh, Interval: time.Millisecond}})
	time.Sleep(200 * time.Millisecond)
	var s agent.StreamResult
	if err := good.Stop(&s); err != nil || !s.Alive || s.Blocks == 0 || s.Last.IsZero() {
		t.Errorf("a stream without a firewall: %+v, %v", s, err)
	}
	var load agent.LoadResult
	if err := fine.Stop(&load); err != nil || load.Failed > 0 || load.OK == 0 {
		t.Errorf("a load without a firewall: %+v, %v", load, err)
	}
	broken := start(agent.Request{Stream: &agent.Stream{Dial: ssh, PingPong: true}})
	hasty := ssh
	hasty.Timeout = 300 * time.Millisecond
	lost := start(agent.Request{Load: &agent.Load{Dial: hasty}})
	time.Sleep(200 * time.Millisecond) // time to begin well
	host.MustExec(t, "nft", "add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }")
	time.Sleep(500 * time.Millisecond)
	meanwhile := time.Now()
	time.Sleep(500 * time.Millisecond)
	if err := broken.Stop(&s); err != nil || s.Blocks == 0 || s.Last.After(meanwhile) {
		t.Errorf("a stream that was cut before %v: %+v, %v; want numbers before the cut, and none after it", meanwhile, s, err)
	}
	if end := s.Since.Add(s.Stall); s.Since.After(meanwhile) || end.Before(meanwhile) {
		t.Errorf("a stream that was cut before %v: %+v; want its longest silence then", meanwhile, s)
	}
	if err := lost.Stop(&load); err != nil || load.Failed == 0 || load.Failures[load.Failed-1].Outcome != agent.Timeout {
		t.Errorf("a load that was cut: %+v, %v; want timeouts", load, err)
	}
	host.MustExec(t, "nft", "delete table inet t")
	var held agent.HoldResult
	if err := idle.Stop(&held); err != nil || held.Alive != 3 {
		t.Errorf("idle connections after the firewall went: %+v, %v; want 3 alive", held, err)
	}
}

func TestNflog(t *testing.T) {
	l := lab.Start(t, twoNodes())
	host, outside := l.Node("host"), l.Node("outside")
	host.MustExec(t, "nft", `add table inet t; add chain inet t c { type filter hook input priority 0; };`+
		`add rule inet t c tcp dport 25 log group 86 prefix "seen"`)
	job, err := host.Start(t.Context(), agent.Request{Nflog: &agent.Nflog{Group: 86}})
	if err != nil {
		t.Fatal(err)
	}
	l.Check(t, []lab.Row{{From: outside, To: "203.0.113.1:25", Want: lab.Rejected, Why: "nothing listens"}})
	var r agent.NflogResult
	if err := job.Stop(&r); err != nil || len(r.Logged) != 1 || r.Logged[0].Prefix != "seen" || len(r.Logged[0].Packet) < 40 {
		t.Errorf("logged: %+v, %v; want one packet", r, err)
	}
}

// TestShell has a program run by a process that holds the connection, and lose it.
func TestShell(t *testing.T) {
	l := lab.Start(t, twoNodes())
	host, outside := l.Node("host"), l.Node("outside")
	if err := host.ServeShells(t.Context(), ":2222"); err != nil {
		t.Fatal(err)
	}
	to := agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort("203.0.113.1:2222")}
	script := "ls -l /proc/$PPID/fd; ss -Htn; exit 7"
	r, err := outside.Shell(t.Context(), agent.Shell{Dial: to, Args: []string{"sh", "-c", script}})
	if err != nil || r.Code != 7 || !strings.Contains(r.Output, "socket:[") || !strings.Contains(r.Output, "203.0.113.2") {
		t.Errorf("the session gave %+v, %v", r, err)
	}
	mark := filepath.Join(host.Dir, "mark")
	script = "trap 'echo hup >" + mark + "; exit' HUP; touch " + mark + "; while :; do sleep 0.05; done"
	// A shell can't trap a signal that was ignored when it started, as under nohup.
	args := []string{"env", "--default-signal=HUP", "sh", "-c", script}
	job, err := outside.Start(t.Context(), agent.Request{Shell: &agent.Shell{Dial: to, Args: args}})
	if err != nil {
		t.Fatal(err)
	}
	waitForText(t, mark, "")
	if err := job.Stop(&r); err != nil || r.Code != -1 {
		t.Errorf("the session that was cut gave %+v, %v", r, err)
	}
	waitForText(t, mark, "hup\n")
}

func waitForText(t *testing.T, path, want string) {
	t.Helper()
	for range 3000 {
		if text, err := os.ReadFile(path); err == nil && string(text) == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s never became %q", path, want)
}

func TestServersAnswer(t *testing.T) {
	l := lab.Start(t, twoNodes())
	host, outside := l.Node("host"), l.Node("outside")
	l.Check(t, []lab.Row{
		{From: outside, To: "203.0.113.1:22", Want: lab.Open, Server: "host"},
		{From: outside, To: "[2001:db8:1::1]:22", Want: lab.Open, Server: "host"},
		{From: outside, Proto: "udp", To: "192.168.50.1:53", Want: lab.Open, Server: "host", Why: "weak host model"},
		{From: outside, Proto: "udp", To: "203.0.113.1:53", Want: lab.Open, Server: "host"},
		{From: outside, Proto: "udp", To: "[2001:db8:1::1]:53", Want: lab.Open, Server: "host"},
		{From: outside, Proto: "udp", To: "203.0.113.1:54", Want: lab.Rejected, Why: "nothing listens"},
		{From: outside, Proto: "ip:47", To: "203.0.113.1", Want: lab.Open, Server: "host"},
		{From: outside, Proto: "ip:47", To: "2001:db8:1::1", Want: lab.Open, Server: "host"},
		{From: outside, Source: "203.0.113.2:1234", To: "203.0.113.1:22", Want: lab.Open, SeenAs: "203.0.113.2"},
	})
	seen, err := host.Seen(t.Context(), agent.Seen{})
	if err != nil || len(seen) != 8 {
		t.Errorf("the host saw %+v, %v", seen, err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	l, err := lab.Up(t.Context(), lab.OneHost(lab.Engine{}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, l.Node("host"), lab.Container{Name: "web"})
	if err := l.Down(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, l.ID)
}

func nothingLeft(t *testing.T, id string) {
	t.Helper()
	for _, pattern := range []string{os.TempDir(), labstate.NetnsDir, "/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		if left, err := filepath.Glob(pattern + "/" + id + "*"); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), id) {
		t.Errorf("mounts are left behind: %v\n%s", err, mounts)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), id) {
			t.Errorf("a process is left behind: %q", line)
		}
	}
}

// TestKilledOwner has another process make a lab, and kills it.
func TestKilledOwner(t *testing.T) {
	lab.Require(t, lab.OneHost(lab.Engine{}))
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		owner := exec.Command(os.Args[0])
		owner.Env = append(os.Environ(), "QUAYWALL_LAB_OWNER=1")
		out, err := owner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		id, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = owner.Wait() // ended by the signal
		id, problem, _ := strings.Cut(strings.TrimSpace(id), " ")
		if problem != "<nil>" {
			t.Fatal(problem)
		}
		for range 500 {
			if _, err := os.Stat(filepath.Join(os.TempDir(), id)); err != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // the watchdog's own end
		if err := os.Remove(filepath.Join(os.TempDir(), id+".log")); err != nil {
			t.Error(err)
		}
		nothingLeft(t, id)
	}
}

// TestMain makes this program the process that TestKilledOwner kills, where that asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("QUAYWALL_LAB_OWNER") == "" {
		os.Exit(lab.Main(m))
	}
	l, err := lab.Up(context.Background(), lab.OneHost(lab.Engine{}))
	if err == nil {
		_, err = l.Node("host").Run(context.Background(), lab.Container{Name: "web"})
	}
	fmt.Println(l.ID, err)
	time.Sleep(time.Hour)
}

// TestRootIsRefused is the safety rule, in both programs that enter namespaces.
func TestRootIsRefused(t *testing.T) {
	l := lab.Start(t, twoNodes())
	root, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	labhost := filepath.Join(l.Dir, "bin", "labhost")
	for name, args := range map[string][]string{
		"exec": {"exec", root, "true"}, "exec, can't tell": {"exec", "", "true"},
		"node": {"node", `{"name":"x","rootNetns":"` + root + `"}`}, "node, can't tell": {"node", `{"name":"x"}`},
	} {
		out, err := exec.Command(labhost, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "machine's own network namespace") {
			t.Errorf("%s: %v, %s; want a refusal", name, err, out)
		}
	}
	if out := l.Node("host").MustExec(t, "readlink", "/proc/self/ns/net"); strings.TrimSpace(out) == root {
		t.Errorf("a command of a node ran in %s", root)
	}
}
