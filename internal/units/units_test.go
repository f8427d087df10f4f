package units

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestIsStopped(t *testing.T) {
	for _, c := range []struct {
		jobs       string
		real, fail bool
	}{
		{"77 quaywall.service stop running\n78 quaywall-agent.service stop waiting\n", true, false},
		{"78 quaywall-agent.service stop running\n77 quaywall.service restart running\n", false, false},
		{"77 quaywall.service reload-or-restart running\n", false, false},
		{"78 quaywall-agent.service stop running\n", false, true},
		{"", false, true},
	} {
		real, err := isStopped(c.jobs, "quaywall.service")
		if real != c.real || (err != nil) != c.fail {
			t.Errorf("%q: %v, %v", c.jobs, real, err)
		}
	}
}

// TestInstallIntoAFolder: files and links come and go, and systemd isn't told.
func TestInstallIntoAFolder(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // there is no systemctl to be called by mistake
	o := Options{Program: "/usr/sbin/quaywall", Root: t.TempDir()}
	for range 2 {
		made, err := Install(t.Context(), o)
		if err != nil || len(made) != 4 {
			t.Fatalf("%q, %v", made, err)
		}
		for i, path := range made[:2] {
			text, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(text), "ExecStart=/usr/sbin/quaywall ") || regexp.MustCompile("@[A-Z]+@").Match(text) {
				t.Errorf("%s, %v:\n%s", path, err, text)
			}
			to, err := os.Readlink(made[2+i])
			if err != nil || filepath.Join(o.Root, to) != path || !strings.HasSuffix(filepath.Dir(made[2+i]), []string{"/sysinit.target.wants", "/quaywall.service.wants"}[i]) {
				t.Errorf("%s leads to %s, %v", made[2+i], to, err)
			}
		}
	}
	for _, want := range []int{2, 0} {
		if removed, err := Remove(t.Context(), o); err != nil || len(removed) != want {
			t.Errorf("removed %q, %v; want %d files", removed, err, want)
		}
	}
	if left, err := os.ReadDir(filepath.Join(o.Root, dir)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestInstallRefusesWhatSystemdWouldMisread(t *testing.T) {
	for _, o := range []Options{
		{Program: "/opt/my tools/quaywall"}, {Program: "quaywall"},
		{Program: "/q", Flags: []string{"--policy=/srv/my policy"}}, {Program: "/q", Writes: []string{"/srv/100%"}},
	} {
		o.Root = t.TempDir()
		if made, err := Install(t.Context(), o); err == nil || len(made) > 0 {
			t.Errorf("%+v was taken: %q", o, made)
		}
	}
}

// TestFlags: what the program was told when it installed the units, they tell it.
func TestFlags(t *testing.T) {
	o := Options{Program: "/q", Root: t.TempDir(), Flags: []string{"--backend=nft", "--state-dir=/srv/st"}, Reads: []string{"/srv/p"}, Writes: []string{"/srv/st"}}
	made, err := Install(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for _, path := range made[:2] {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	for _, want := range []string{
		"ExecStart=/q apply --boot --backend=nft --state-dir=/srv/st\n", "ExecReload=/q apply --boot --backend=nft --state-dir=/srv/st\n",
		"ExecStop=/q unit-stop --backend=nft --state-dir=/srv/st quaywall.service\n", "ExecStart=/q agent --backend=nft --state-dir=/srv/st\n",
		"RequiresMountsFor=/etc/quaywall /var/lib/quaywall /srv/p /srv/st\n", "ReadWritePaths=/run -/srv/st\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q:\n%s", want, all)
		}
	}
}

// TestSystemdReads: systemd finds nothing to say of the units, and the agent's well confined.
func TestSystemdReads(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("without systemd-analyze the units are not read by systemd")
		return
	}
	root := t.TempDir()
	written, err := Install(t.Context(), Options{Program: "/bin/true", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range written[:2] {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), filepath.Base(path)) {
			t.Errorf("systemd-analyze verify %s: %v\n%s", path, err, out)
		}
	}
	out, _ := exec.Command("systemd-analyze", "security", "--offline=true", written[1]).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze security says:\n%s", out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 4.5 {
		t.Errorf("the agent's exposure is %s, want 4.5 at most:\n%s", m[1], out)
	}
}
