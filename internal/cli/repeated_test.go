package cli

import "testing"

// What a person is told to type is about the same quaywall, in another shell as well.
func TestProgramRepeatsFolders(t *testing.T) {
	getenv := func(name string) string { return map[string]string{"QUAYWALL_RUN_DIR": "/srv/run"}[name] }
	for _, c := range []struct {
		program, stateDir, runDir, want string
	}{
		{"", defaultStateDir, defaultRunDir, "quaywall"},
		{"bin/quaywall", defaultStateDir, "/srv/run", "bin/quaywall"},
		{"quaywall", "/srv/state", "/srv/other", "quaywall --state-dir /srv/state --run-dir /srv/other"},
	} {
		a := newApp(Env{Program: c.program, Getenv: getenv})
		a.opts.stateDir, a.opts.runDir = c.stateDir, c.runDir
		if got := a.program(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
