package cli_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/denied"
	"quaywall/internal/lock"
	"quaywall/internal/testkit/netns"
)

var noted = []denied.Entry{
	{Time: at(1), Verdict: "deny", Section: "inbound", Packet: "tcp 203.0.113.99:41234 -> 203.0.113.10:8080 in eth0", Proto: "tcp",
		Src: netip.MustParseAddr("203.0.113.99"), SrcPort: 41234, Dst: netip.MustParseAddr("203.0.113.10"), DstPort: 8080, In: "eth0",
		Line: "policy.yaml:12", Container: "web"},
	{Time: at(2), Verdict: "reject", Section: "inbound", Packet: "udp [2001:db8:1::99]:41234 -> [2001:db8:1::10]:123 in eth0", In: "eth0", Line: "default"},
	{Time: at(3), Verdict: "deny", Section: "inbound", Packet: "tcp 203.0.113.99:41234 -> 172.17.0.2:80 in eth0", In: "eth0",
		Why: "a container's own address is dialled from outside", Container: "web"},
	{Time: at(4), Lost: 1234},
	{Time: at(5), Verdict: "deny", Section: "outbound", Packet: "tcp 203.0.113.10:41234 -> 203.0.113.99:25 from host", Out: "eth0", Line: "policy.yaml:20"},
	{Time: at(6), Verdict: "allow", Section: "inbound", Packet: "icmp/8 203.0.113.99 -> 203.0.113.10 in eth0", In: "eth0", Line: "policy.yaml:7"},
}

func at(second int) time.Time { return time.Date(2026, 11, 21, 10, 0, second, 0, time.UTC) }

const shown = `2026-11-21 10:00:01  deny    tcp 203.0.113.99:41234 -> 203.0.113.10:8080 in eth0  policy.yaml:12  container web
2026-11-21 10:00:02  reject  udp [2001:db8:1::99]:41234 -> [2001:db8:1::10]:123 in eth0  default
2026-11-21 10:00:03  deny    tcp 203.0.113.99:41234 -> 172.17.0.2:80 in eth0             -               container web; a container's own address is dialled from outside
2026-11-21 10:00:04  1234 more were logged, faster than they are read
2026-11-21 10:00:05  deny    tcp 203.0.113.10:41234 -> 203.0.113.99:25 from host         policy.yaml:20  out by eth0
2026-11-21 10:00:06  allow   icmp/8 203.0.113.99 -> 203.0.113.10 in eth0                 policy.yaml:7
`

// TestLog: what an agent noted is shown, and what there is to do where none runs.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	utc := func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "TZ=UTC") }
	log := func(args ...string) ran { return runAs(t, dir, utc, append([]string{"log"}, args...)...) }
	log().expect(t, 1, nil, []string{"reading what was denied: no agent runs here", "systemctl start quaywall-agent, or quaywall agent"})
	log("-n", "-1").expect(t, 2, nil, []string{"--lines -1: use 0 or more"})

	only, err := lock.Single(filepath.Join(dir, "run"), "agent")
	must(t, err)
	log().expect(t, 0, nil, []string{"nothing was noted yet", "log: {denied: off}"})
	for _, e := range noted {
		must(t, denied.In(filepath.Join(dir, "run")).Append(e))
	}
	if r := log(); r.stdout != shown || r.stderr != "" {
		t.Errorf("got\n%s%swant\n%s", r.stdout, r.stderr, shown)
	}
	if r := log("-n", "1"); strings.Join(strings.Fields(r.stdout), " ") != "2026-11-21 10:00:06 allow icmp/8 203.0.113.99 -> 203.0.113.10 in eth0 policy.yaml:7" {
		t.Errorf("the last one is\n%s", r.stdout)
	}
	r := log("--json", "--lines", "100")
	for i, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		var e denied.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e != noted[i] {
			t.Errorf("line %d is %+v, %v; want %+v", i+1, e, err, noted[i])
		}
	}
	must(t, only.Close())
	log("-n", "1").expect(t, 0, []string{"icmp/8"}, []string{"note: no agent runs here, these are from before"})
}

// TestNobodyReadsTheLog: following ends when nobody reads it any more.
func TestNobodyReadsTheLog(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	must(t, denied.In(filepath.Join(dir, "run")).Append(noted[0]))
	deaf := func(cmd *exec.Cmd) {
		r, w, err := os.Pipe()
		must(t, err)
		must(t, r.Close())
		t.Cleanup(func() { w.Close() })
		cmd.Stdout = w
	}
	for _, args := range []string{"log", "log -f", "log -f --json"} {
		if r := runAs(t, dir, deaf, strings.Fields(args)...); r.status != 0 {
			t.Errorf("%s: status %d\n%s", args, r.status, r.stderr)
		}
	}
}

// TestLogNotRoot: the packets of others are root's to see.
func TestLogNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		netns.Missing(t, "becoming an ordinary user needs root")
	}
	dir := t.TempDir()
	letIn(t, dir)
	letIn(t, filepath.Dir(program))
	must(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	nobody := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	for _, args := range []string{"log", "log -f"} {
		runAs(t, dir, nobody, strings.Fields(args)...).expect(t, 1, nil, []string{"reading what was denied", "permission denied", "that needs root"})
	}
}
