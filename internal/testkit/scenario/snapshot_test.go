package scenario

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/collect"
	"quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
	"quaywall/internal/testkit/lab"
)

// TestSnapshot writes a snapshot of a host with Docker's rules and quaywall's, and reads it: nothing is missing, every rule is
// understood, and what is known of the host is what quaywall sees when it looks itself. Nothing in it is a secret.
func TestSnapshot(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{IPv6: true}, "7000/tcp")
		w.network(lab.Network{Name: "inner", Subnets: []string{"10.99.0.0/24"}, Internal: true})
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}, Labels: map[string]string{"token": "hunter2"}})
		w.run(lab.Container{Name: "db", Networks: []string{"inner"}, Serve: []string{"5432/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "sets: {office: [192.168.50.0/24, \"fd00:50::/64\"]}", "inbound:", "  - allow: http", "  - allow: 8080", "    from: office",
			"    limit: 10/second", "  - reject: 9000", "egress:", "  - deny: 25/tcp", "outbound:", "  - reject: 25/tcp"))

		dir := filepath.Join(t.TempDir(), "evidence")
		var answer struct {
			Files   []string
			Missing []struct{ Part, File, Why, Means string }
		}
		if err := json.Unmarshal([]byte(w.quaywall(0, "snapshot", dir, "--json").Stdout), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Missing) > 0 || !slices.Contains(answer.Files, "nft-ruleset.json") {
			t.Errorf("%+v", answer)
		}
		if ran := w.quaywall(1, "snapshot", dir); !strings.Contains(ran.Stderr, "--force") {
			t.Errorf("over a snapshot: %s", ran.Stderr)
		}
		w.withoutSecrets(dir)
		h := w.read(dir)
		if n := notUnderstood(h.Rules); len(n) > 0 || len(h.Problems) > 0 {
			t.Errorf("not understood: %v\n%s", h.Problems, strings.Join(n, "\n"))
		}
		if !slices.ContainsFunc(h.Rules.Tables, isOwn) {
			t.Error("quaywall's own rules aren't in it")
		}
		w.sameInventory(h)
		w.proxies(h, web)

		inside := filepath.Join(t.TempDir(), "web")
		w.quaywall(0, "snapshot", inside, "--netns", "container:web")
		if h := w.read(inside); len(h.Inventory.Interfaces) != 2 || len(h.Containers) != 0 || len(listening(h, 80)) == 0 || len(listening(h, 7000)) != 0 {
			t.Errorf("inside of the container: %+v", h)
		}
		w.stop()
	})
}

func (w *world) read(dir string) *snapshot.Host {
	w.Helper()
	h, err := collect.Read(os.DirFS(dir))
	if err != nil {
		w.Fatal(err)
	}
	return h
}

// withoutSecrets looks for what a container was started with: the words of its command line, its labels and its environment.
func (w *world) withoutSecrets(dir string) {
	w.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			w.Fatal(err)
		}
		for _, secret := range []string{"hunter2", "PATH=", `"Env"`, `"Cmd"`, `"Args"`, `"Path"`, `"Entrypoint"`, w.lab.Dir} {
			if strings.Contains(string(text), secret) {
				w.Errorf("%s has %q in it", e.Name(), secret)
			}
		}
	}
}

// notUnderstood are the rules that have something opaque.
func notUnderstood(rules netfilter.Rules) []string {
	var all []string
	for _, t := range rules.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				opaque := slices.ContainsFunc(r.Matches, func(m netfilter.Match) bool { _, ok := m.(netfilter.Opaque); return ok }) ||
					slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool { _, ok := a.(netfilter.OpaqueAction); return ok })
				if opaque {
					all = append(all, t.Name+" "+c.Name+": "+r.Text)
				}
			}
		}
	}
	return all
}

func isOwn(t *netfilter.Table) bool {
	return t.Name == "quaywall" || slices.ContainsFunc(t.Chains, func(c *netfilter.Chain) bool { return strings.HasPrefix(c.Name, "QUAYWALL") })
}

// sameInventory compares with what quaywall sees of the host by itself.
func (w *world) sameInventory(h *snapshot.Host) {
	w.Helper()
	inv, err := w.fw.Inventory(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if diff := cmp.Diff(*inv, h.Inventory, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
		w.Errorf("the inventory is another one:\n%s", diff)
	}
}

// proxies has each docker-proxy forward to its container.
func (w *world) proxies(h *snapshot.Host, web *lab.Node) {
	w.Helper()
	proxies := slices.DeleteFunc(listening(h, 8080), func(s snapshot.Socket) bool { return s.Process != "docker-proxy" })
	if len(proxies) != 2 {
		w.Errorf("proxies: %+v", proxies)
	}
	for _, s := range proxies {
		to := netip.AddrPortFrom(w.addr(web, s.Addr.Is6()), 80)
		if s.Container != "web" || s.To != to {
			w.Errorf("%+v, want %v", s, to)
		}
	}
}

func listening(h *snapshot.Host, port uint16) []snapshot.Socket {
	var all []snapshot.Socket
	for _, s := range h.Sockets {
		if s.Port == port {
			all = append(all, s)
		}
	}
	return all
}
