package apply_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quaywall/internal/apply"
	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/testkit/netns"
)

// realBackends are the backends that this machine has, by the names that --backend takes.
func realBackends(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, b := range local(t, t.TempDir()).Backends {
		names = append(names, b.Name())
	}
	return names
}

// local is this program's own host: real backends, real namespaces. The guard sees nothing, for the test program holds
// all ends of all connections.
func local(t testing.TB, dir string) *apply.Host {
	t.Helper()
	h := apply.Local(apply.Config{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), DockerHost: "unix://" + dir + "/none.sock",
	})
	h.WaysIn = func(*inventory.Inventory) (guard.Found, error) { return guard.Found{}, nil }
	return h
}

// onEachBackend runs a test on each backend that this machine has.
func onEachBackend(t *testing.T, f func(t *testing.T, backend string)) {
	for _, name := range realBackends(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, name)
		})
	}
}

// applyText puts a policy in force in the namespace of the calling thread.
func applyText(t testing.TB, h *apply.Host, backend, text string) *apply.Result {
	t.Helper()
	if err := netns.Guard(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := h.Apply(context.WithoutCancel(t.Context()), apply.Options{Policy: file, Given: true, Backend: backend, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
