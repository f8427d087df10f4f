package cli_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/testkit/netns"
)

// machine is a host in a namespace with a neighbour outside, and a folder that the program works in.
type machine struct {
	*netns.NS
	outside *netns.NS
	dir     string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{netns.New(t), netns.New(t), t.TempDir()}
	netns.Veth(t, m.NS, "eth0", m.outside, "eth0")
	m.Addr(t, "eth0", "192.0.2.1/24", "2001:db8::1/64")
	m.outside.Addr(t, "eth0", "192.0.2.2/24", "2001:db8::2/64")
	return m
}

// quaywall runs the program on the machine.
func (m machine) quaywall(t *testing.T, args string) (r ran) {
	t.Helper()
	m.Do(t, func() { r = run(t, m.dir, strings.Fields(args)...) })
	return r
}

// await runs the program until it says something.
func (m machine) await(t *testing.T, args, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(m.quaywall(t, args).stdout, text); {
		if time.Now().After(deadline) {
			t.Fatalf("%s never says %q, but\n%s", args, text, m.quaywall(t, args).stdout)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// daemon starts a process that listens on TCP ports of the machine.
func (m machine) daemon(t *testing.T, addrs ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{listenVar + "=" + strings.Join(addrs, " ")}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	m.Do(t, func() { must(t, cmd.Start()) })
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
}

// visitor connects the neighbour to a port of the machine, and keeps the connection.
func (m machine) visitor(t *testing.T, at string) {
	t.Helper()
	m.daemon(t, at)
	m.outside.Do(t, func() {
		conn, err := net.DialTimeout("tcp", at, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Read(make([]byte, 1)); err != nil { // until then nobody has accepted it
			t.Fatal(err)
		}
	})
}

// reaches tells whether the neighbour gets a connection.
func (m machine) reaches(t *testing.T, at string) (ok bool) {
	t.Helper()
	m.outside.Do(t, func() {
		conn, err := net.DialTimeout("tcp", at, time.Second)
		if ok = err == nil; ok {
			conn.Close()
		}
	})
	return ok
}

// rules is all that netfilter holds on the machine, without counters.
func (m machine) rules(t *testing.T) string {
	t.Helper()
	netns.Tool(t, "nft")
	counters := regexp.MustCompile(`packets \d+ bytes \d+`)
	return counters.ReplaceAllString(m.Output(t, "nft", "list", "ruleset"), "")
}

const webPolicy = `version: 1
sets: {office: [192.0.2.0/28]}
inbound:
  - allow: http
  - allow: 81/tcp
    from: office
`

// TestFromPlanToStop walks the whole way, with each backend.
func TestFromPlanToStop(t *testing.T) {
	for _, backend := range []string{"nft", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			m := newMachine(t)
			write(t, m.dir, "policy.yaml", webPolicy)
			m.daemon(t, "192.0.2.1:80", "[::]:81", "[::]:82")
			flags := " --policy policy.yaml --backend " + backend
			say := func(args string, status int, stdout ...string) {
				t.Helper()
				m.quaywall(t, args+flags).expect(t, status, stdout, []string{})
			}
			say("status", 0, "none in force")
			say("plan --exit-code", 4, "nothing is in force now", "Would lose access:\n  81/tcp at this host, ipv4, from all but 192.0.2.0/28 by eth0\n"+
				"  81/tcp at this host, ipv6, from anyone by eth0\n  82/tcp at this host, from anyone by eth0\n  and ", "What could be reached then:")
			say("apply --dry-run", 0, "rules added")
			say("status", 0, "none in force")
			say("apply", 0, "in force", "rules added", "192.0.2.1:80/tcp", "anyone", "policy.yaml:4", "81/tcp", "office (IPv4)", "82/tcp", "nobody", "default")
			if !m.reaches(t, "192.0.2.1:80") || !m.reaches(t, "192.0.2.1:81") || m.reaches(t, "192.0.2.1:82") || m.reaches(t, "[2001:db8::1]:81") {
				t.Error("the policy is said to be in force, and packets say it isn't")
			}
			say("restart", 0, "none, it was in force already")
			say("plan --exit-code", 0, "none", "the same for everybody, whatever the packet")
			write(t, m.dir, "policy.yaml", strings.Replace(webPolicy, "/28", "/27", 1))
			say("plan --exit-code", 4, "Would gain access:\n  81/tcp at this host, ipv4, from 192.0.2.16/28 by eth0\n\n")
			say("apply --dry-run --verbose", 0, "for example tcp 192.0.2.16:40000 -> 192.0.2.1:81 in eth0\n      before: Default")
			say("plan --json", 0, `"access": {`, `"witness": "tcp 192.0.2.16:40000 -> 192.0.2.1:81 in eth0"`)
			write(t, m.dir, "policy.yaml", webPolicy)
			say("status --exit-code", 0, "in force since", "drift", "none", "policy.yaml:4", "- allow: http")
			say("status --json", 0, `"in_force": true`, `"line": "policy.yaml:4"`)
			say("stop", 0, "stopped")
			say("stop", 0, "nothing of quaywall's was in the kernel")
			say("status", 0, "none in force")
			if !m.reaches(t, "192.0.2.1:82") {
				t.Error("stopped, and still closed")
			}
		})
	}
}

// TestPlanUnseen: the plan comes where the host's rules can't be read whole, or are too many, and says what can't be said.
func TestPlanUnseen(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	m.daemon(t, "192.0.2.1:81")
	m.quaywall(t, "apply --backend nft policy.yaml").expect(t, 0, nil, []string{})
	write(t, m.dir, "policy.yaml", strings.Replace(webPolicy, "/28", "/27", 1))
	tools := t.TempDir()
	plan := func(broken ...string) (r ran) {
		for _, tool := range broken {
			must(t, os.WriteFile(filepath.Join(tools, tool), []byte("#!/bin/sh\nexit 1\n"), 0o755))
		}
		path := func(cmd *exec.Cmd) { cmd.Env = append(cmd.Environ(), "PATH="+tools+":"+os.Getenv("PATH")) }
		m.Do(t, func() { r = runAs(t, m.dir, path, "plan", "--exit-code", "--backend", "nft", "policy.yaml") })
		return r
	}
	const gained = "Would gain access:\n  81/tcp at this host, ipv4, from 192.0.2.16/28 by eth0\n"
	plan("nft").expect(t, 4, []string{gained + "\n"}, nil)
	plan("iptables-save", "iptables-nft-save", "iptables-legacy-save").expect(t, 4, []string{gained + "  Not compared: which rules iptables has is not known"}, nil)
	var b strings.Builder
	for i := range 100_001 {
		fmt.Fprintln(&b, netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)}))
	}
	write(t, m.dir, "many.txt", b.String())
	write(t, m.dir, "policy.yaml", "version: 1\nsets: {many: {file: many.txt}}\ninbound:\n  - allow: 81\n    from: many\n")
	plan().expect(t, 4, []string{"access   not known\n  Not compared: the sets hold 100001 entries", "What could be reached then:"}, nil)
	m.quaywall(t, "stop").expect(t, 0, nil, []string{})
}

// TestDrift: what somebody else took away is told, and the next apply puts it back.
func TestDrift(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	m.quaywall(t, "apply policy.yaml").expect(t, 0, nil, []string{})
	m.Output(t, "nft", "flush", "ruleset")
	m.quaywall(t, "status --exit-code").expect(t, 4, []string{"not in force", "quaywall apply mends it"}, []string{"somebody took it out"})
	m.quaywall(t, "apply policy.yaml").expect(t, 0, []string{"in force"}, []string{})
	m.quaywall(t, "status --exit-code").expect(t, 0, []string{"in force since"}, nil)
}

// TestLockout: a policy that cuts the way in is refused, and the line that mends it is named.
func TestLockout(t *testing.T) {
	m := newMachine(t)
	m.visitor(t, "192.0.2.1:2222")
	write(t, m.dir, "policy.yaml", webPolicy)
	before := m.rules(t)
	for _, args := range []string{"apply policy.yaml", "apply --confirm 60s policy.yaml", "apply --dry-run policy.yaml"} {
		m.quaywall(t, args).expect(t, 3, nil, []string{"refuse"})
	}
	m.quaywall(t, "apply policy.yaml").expect(t, 3, nil, []string{"2222/tcp", "192.0.2.2", "add to inbound: - ", "--allow-lockout"})
	m.quaywall(t, "apply --json policy.yaml").expect(t, 3, nil, []string{`"exit_status": 3`, `"add": "- `, `"section": "inbound"`})
	if after := m.rules(t); after != before {
		t.Errorf("refused, and something was changed:\n%s", after)
	}
	m.quaywall(t, "plan policy.yaml").expect(t, 0, []string{"Apply would refuse:", "2222/tcp"}, []string{})
	m.quaywall(t, "apply --allow-lockout policy.yaml").expect(t, 0, []string{"in force"}, []string{"--allow-lockout"})
	m.quaywall(t, "stop").expect(t, 0, nil, []string{})
}

// TestNobodyReads: a change comes to its end though nobody reads what is told about it.
func TestNobodyReads(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	deaf := func(cmd *exec.Cmd) {
		r, w, err := os.Pipe()
		must(t, err)
		must(t, r.Close())
		t.Cleanup(func() { w.Close() })
		cmd.Stdout, cmd.Stderr = w, w
	}
	m.Do(t, func() {
		if r := runAs(t, m.dir, deaf, "apply", "-v", "policy.yaml"); r.status != 0 {
			t.Errorf("status %d", r.status)
		}
	})
	m.quaywall(t, "status --exit-code").expect(t, 0, []string{"in force since"}, nil)
	m.quaywall(t, "stop").expect(t, 0, nil, []string{})
}

// TestInit: the first policy keeps the way in open, and apply takes it.
func TestInit(t *testing.T) {
	m := newMachine(t)
	m.visitor(t, "192.0.2.1:2222")
	m.daemon(t, "192.0.2.1:8080")
	m.quaywall(t, "init --minimal policy.yaml").expect(t, 0, []string{"wrote policy.yaml", "- {allow: 2222/tcp, from: 192.0.2.2}"}, nil)
	m.quaywall(t, "init policy.yaml").expect(t, 3, nil, []string{"policy.yaml is there already"})
	m.quaywall(t, "check policy.yaml").expect(t, 0, []string{"valid (3 rules"}, nil)
	m.quaywall(t, "apply policy.yaml").expect(t, 0, []string{"in force"}, []string{})
	m.quaywall(t, "init whole.yaml").expect(t, 0, nil, nil)
	text, err := os.ReadFile(filepath.Join(m.dir, "whole.yaml"))
	if err != nil || !strings.Contains(string(text), `  # - {allow: 8080/tcp, to: "192.0.2.1"}`) {
		t.Errorf("got %v\n%s", err, text)
	}
	opened := strings.Replace(string(text), "  # - {", "  - {", 1)
	write(t, m.dir, "opened.yaml", opened)
	m.quaywall(t, "check opened.yaml").expect(t, 0, []string{"valid (4 rules"}, nil)
	m.quaywall(t, "stop").expect(t, 0, nil, []string{})
}

// TestNoticesWithErrors: what was done before a command failed is told, in JSON too.
func TestNoticesWithErrors(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", "version: 1\ninbound:\n  - allow: ssh\n")
	m.quaywall(t, "apply policy.yaml").expect(t, 0, nil, nil)
	write(t, filepath.Join(m.dir, "state"), "state.json", "x")
	write(t, m.dir, "policy.yaml", "version: 1\ninbound:\n  - allow: htps\n")
	m.quaywall(t, "apply policy.yaml --json").expect(t, 2, nil, []string{`"notices": [`, "is damaged"})
	write(t, filepath.Join(m.dir, "state"), "state.json", "x")
	m.quaywall(t, "apply policy.yaml").expect(t, 2, nil, []string{"note: ", "is damaged", "1 error; nothing was changed"})
}

// TestConfirm: a change stays when it is confirmed, and goes when it isn't.
func TestConfirm(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	m.quaywall(t, "apply --confirm 1ms policy.yaml").expect(t, 2, nil, []string{"use 1s or more"})
	m.quaywall(t, "confirm").expect(t, 1, nil, []string{"no change waits for a confirmation"})
	m.quaywall(t, "apply --confirm 60s policy.yaml").expect(t, 0, []string{"Not confirmed yet.", "everything is taken out again", program + " confirm"}, []string{})
	m.quaywall(t, "status").expect(t, 0, []string{"Not confirmed yet."}, nil)
	m.quaywall(t, "confirm").expect(t, 0, []string{"confirmed: ", "stays in force"}, nil)

	write(t, m.dir, "policy.yaml", strings.Replace(webPolicy, "http", "https", 1))
	m.quaywall(t, "apply --confirm 2s policy.yaml").expect(t, 0, []string{"the policy of before comes back"}, []string{})
	m.await(t, "status", "taken back")
	m.quaywall(t, "status").expect(t, 0, []string{"in force since", "nobody confirmed it in time"}, nil)
	m.quaywall(t, "stop").expect(t, 0, nil, []string{})
}

// TestRollback: the policy before comes back, and the file stays what it is.
func TestRollback(t *testing.T) {
	m := newMachine(t)
	m.quaywall(t, "rollback --list").expect(t, 0, []string{"no other policy is recorded"}, []string{})
	m.quaywall(t, "rollback x").expect(t, 2, nil, []string{"use a number"})
	m.quaywall(t, "rollback").expect(t, 1, nil, []string{"no other policy is recorded", "nothing was changed"})
	for _, text := range []string{webPolicy, strings.Replace(webPolicy, "http", "https", 1)} {
		write(t, m.dir, "policy.yaml", text)
		m.quaywall(t, "apply policy.yaml").expect(t, 0, nil, []string{})
	}
	m.quaywall(t, "rollback --list").expect(t, 0, []string{"policy.yaml"}, []string{})
	m.quaywall(t, "rollback").expect(t, 0, []string{"in force"}, []string{"was left as it is"})
	m.quaywall(t, "plan --exit-code policy.yaml").expect(t, 4, nil, nil)
	m.quaywall(t, "rollback").expect(t, 0, []string{"in force"}, []string{})
	m.quaywall(t, "plan --exit-code policy.yaml").expect(t, 0, []string{"none"}, nil)
}

// TestBadInputChangesNothing: a policy that is in force stays when the next one is invalid.
func TestBadInputChangesNothing(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "good.yaml", webPolicy)
	m.quaywall(t, "apply good.yaml").expect(t, 0, nil, []string{})
	before := m.rules(t)
	for _, bad := range badPolicies() {
		t.Run(bad.name, func(t *testing.T) {
			m := machine{m.NS, m.outside, t.TempDir()}
			bad.put(t, m.dir)
			m.quaywall(t, "apply policy.yaml").expect(t, 2, nil, append(bad.want, "nothing was changed"))
			if after := m.rules(t); after != before {
				t.Errorf("invalid, and something was changed:\n%s", after)
			}
		})
	}
	m.quaywall(t, "stop").expect(t, 0, nil, []string{})
}

// TestAnswersAreJSON: each answer is one JSON value, and nothing else is on standard output.
func TestAnswersAreJSON(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	for _, args := range []string{"check", "services", "plan", "apply --dry-run", "apply --confirm 60s", "status", "confirm", "stop", "version", "completion bash"} {
		r := m.quaywall(t, args+" --json --policy policy.yaml")
		var v map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.status != 0 {
			t.Errorf("%s: status %d, %v\n%s%s", args, r.status, err, r.stdout, r.stderr)
		}
	}
}

// TestNotRoot: an ordinary user is told what is missing, and what needs no root works.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		netns.Missing(t, "becoming an ordinary user needs root")
	}
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	must(t, os.Chmod(m.dir, 0o777))
	letIn(t, m.dir)
	letIn(t, filepath.Dir(program))
	nobody := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr []string
	}{
		{"check policy.yaml", 0, []string{"valid"}, nil},
		{"services", 0, []string{"ssh"}, nil},
		{"apply policy.yaml", 1, nil, []string{"needs root", "nothing was changed"}},
		{"plan policy.yaml", 1, nil, []string{"needs root"}},
		{"status", 1, nil, []string{"needs root"}},
		{"stop", 1, nil, []string{"needs root"}},
		{"confirm", 1, nil, []string{"needs root"}},
	} {
		var r ran
		m.Do(t, func() { r = runAs(t, m.dir, nobody, strings.Fields(test.args)...) })
		r.expect(t, test.status, test.stdout, test.stderr)
	}
}

// letIn lets everybody into a folder of the test's, and into those that lead to it.
func letIn(t *testing.T, dir string) {
	t.Helper()
	for ; dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		must(t, err)
		must(t, os.Chmod(dir, info.Mode().Perm()|0o055))
	}
}

// TestWithoutIptables: the backend that needs it says so, changes nothing, and the other one works.
func TestWithoutIptables(t *testing.T) {
	netns.Tool(t, "unshare")
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", webPolicy)
	// In a mount namespace of its own, the program finds something in their place that can't be run.
	script := "for p in " + hidden(t, "iptables-nft-restore", "iptables-legacy-restore") +
		`; do mount --bind /dev/null "$p" || exit 99; done; exec "$0" "$@"`
	hide := func(cmd *exec.Cmd) {
		unshare, err := exec.LookPath("unshare")
		must(t, err)
		cmd.Path, cmd.Args = unshare, append([]string{"unshare", "--mount", "sh", "-c", script}, cmd.Args...)
	}
	without := func(args string) (r ran) {
		m.Do(t, func() { r = runAs(t, m.dir, hide, strings.Fields(args)...) })
		return r
	}
	before := m.rules(t)
	without("apply --backend iptables policy.yaml").expect(t, 1, nil, []string{"install the package iptables", "nothing was changed"})
	if after := m.rules(t); after != before {
		t.Errorf("refused, and something was changed:\n%s", after)
	}
	without("apply policy.yaml").expect(t, 0, []string{"in force", "nft: "}, []string{})
	without("stop").expect(t, 0, []string{"stopped"}, []string{})
}

// hidden are the files that programs really are.
func hidden(t *testing.T, programs ...string) string {
	t.Helper()
	var files []string
	for _, p := range programs {
		netns.Tool(t, p)
		path, err := exec.LookPath(p)
		must(t, err)
		path, err = filepath.EvalSymlinks(path)
		must(t, err)
		files = append(files, path)
	}
	return strings.Join(files, " ")
}
