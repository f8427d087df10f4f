package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quaywall/internal/testkit/lab"
)

// TestS14 has hand-written rules come and go with the policy. They see what the policy let through.
func TestS14(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "9000/tcp")
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		raw(w, "chain mine { type filter hook prerouting priority -140; ip saddr 203.0.113.3 tcp dport 8080 counter drop; }",
			"-4 -A QUAYWALL-RAW -s 203.0.113.3 -p tcp --dport 8080 -j DROP")
		policy := lines("version: 1", "inbound:", "  - allow: [8080, 9000]", "raw: {nft: raw.nft, iptables: raw.rules}")
		w.apply(policy)
		with := []lab.Row{open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"), denied(w.neighbour, "203.0.113.1:8080", "a rule by hand"),
			open(w.neighbour, "203.0.113.1:9000", "host", "policy.yaml:3"), denied(w.neighbour, "203.0.113.1:22", "default")}
		w.lab.Check(t, with)
		w.apply(policy)
		w.lab.Check(t, with)

		before := w.rules()
		for _, bad := range []string{"} table inet evil { chain x { } ", "-A QUAYWALL-RAW -j NOSUCHTARGET", "chain { what"} {
			raw(w, bad, strings.ReplaceAll(bad, "chain", "-A INPUT"))
			ran, err := w.fw.Apply(t.Context(), policy)
			if err != nil || ran.Code == 0 {
				t.Errorf("hand-written rules %q were taken: %v %+v", bad, err, ran)
			}
			if diff := w.rules().Diff(before); diff != "" {
				t.Errorf("hand-written rules %q were refused (%s), and the rules changed:\n%s", bad, ran.Stderr, diff)
			}
		}
		w.apply(lines("version: 1", "inbound:", "  - allow: [8080, 9000]"))
		w.check(open(w.neighbour, "203.0.113.1:8080", "web", "policy.yaml:3"))
		raw(w, "", "-p tcp --dport 8080 -j DROP")
		w.apply(policy)
		w.stop()
	})
}

// raw writes the files of hand-written rules, in each backend's language.
func raw(w *world, nft, iptables string) {
	w.Helper()
	for name, text := range map[string]string{"raw.nft": nft, "raw.rules": iptables} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(w.fw.Policy), name), []byte(text+"\n"), 0o600); err != nil {
			w.Fatal(err)
		}
	}
}
