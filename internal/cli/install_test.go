package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeSystemctl puts a systemctl into PATH that says what it is told to, and notes how it was called.
func fakeSystemctl(t *testing.T, running, jobs string) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho \"$@\" >>" + calls + "\ncase $1 in\nis-system-running) echo " + running + "; [ " + running +
		" = running ];;\nlist-jobs) echo '" + jobs + "';;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return calls
}

func TestInstallAndUninstall(t *testing.T) {
	calls := fakeSystemctl(t, "running", "")
	dir := t.TempDir()
	root := filepath.Join(dir, "image")
	if r := run(t, dir, "install", "--root", root); r.status != 0 || strings.Count(r.stdout, "installed") != 4 {
		t.Fatalf("install: %+v", r)
	}
	unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/quaywall-agent.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/") || !strings.Contains(string(unit), " agent\n") {
		t.Errorf("%v:\n%s", err, unit)
	}
	if r := run(t, dir, "install", "--root", root, "--policy", "fw.yaml", "--backend", "nft"); r.status != 0 {
		t.Fatalf("install: %+v", r)
	}
	unit, err = os.ReadFile(filepath.Join(root, "etc/systemd/system/quaywall-agent.service"))
	if want := " agent --policy=" + filepath.Join(dir, "fw.yaml") + " --backend=nft\n"; err != nil || !strings.Contains(string(unit), want) {
		t.Errorf("%v: want %q in\n%s", err, want, unit)
	}
	if r := run(t, dir, "uninstall", "--root", root); r.status != 0 || strings.Count(r.stdout, "removed") != 2 {
		t.Errorf("uninstall: %+v", r)
	}
	if text, err := os.ReadFile(calls); err == nil {
		t.Errorf("for an image, systemd was told: %s", text)
	}
}

// TestUnitStopKeepsThePolicy: where the unit is restarted, the host goes down, or systemd doesn't tell.
func TestUnitStopKeepsThePolicy(t *testing.T) {
	for _, c := range []struct{ running, jobs, said string }{
		{"running", "12 quaywall.service restart running", "restarted"},
		{"stopping", "12 quaywall.service stop running", "goes down"},
		{"degraded", "", "no job"},
	} {
		fakeSystemctl(t, c.running, c.jobs)
		r := run(t, t.TempDir(), "unit-stop", "quaywall.service")
		if r.status != 0 || !strings.Contains(r.stderr, c.said) || !strings.Contains(r.stderr, "stays in force") {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

// TestUnitsLife: a restart of the unit keeps the policy in force, a stop takes it out, and uninstall leaves nothing.
func TestUnitsLife(t *testing.T) {
	m := newMachine(t)
	inForce := func() bool {
		t.Helper()
		return strings.Contains(m.quaywall(t, "status --json").stdout, `"in_force": true`)
	}
	if r := m.quaywall(t, "apply --allow-lockout"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	for job, stays := range map[string]bool{"restart": true, "stop": false} {
		fakeSystemctl(t, "running", "12 quaywall.service "+job+" running")
		m.quaywall(t, "apply --allow-lockout")
		if r := m.quaywall(t, "unit-stop quaywall.service"); r.status != 0 || inForce() != stays {
			t.Errorf("after a %s of the unit, in force: %v\n%s", job, inForce(), r.stderr)
		}
	}
	m.quaywall(t, "apply --allow-lockout")
	write(t, filepath.Join(m.dir, "run"), "denied.jsonl", "")
	write(t, filepath.Join(m.dir, "run"), "refused-nft-20261121T000000Z.txt", "")
	write(t, filepath.Join(m.dir, "state"), "refused-nft-20261121T000000Z.txt", "")
	write(t, filepath.Join(m.dir, "state", "records"), "0000000001-12345678.damaged-20261121T000000Z", "")
	write(t, filepath.Join(m.dir, "run"), "denied.1.jsonl", "")
	if r := m.quaywall(t, "uninstall"); r.status != 0 || inForce() {
		t.Errorf("uninstall: %+v", r)
	}
	for _, name := range []string{"state", "run"} {
		if left, err := os.ReadDir(filepath.Join(m.dir, name)); err == nil {
			t.Errorf("uninstall left %v in %s", left, name)
		}
	}
}
