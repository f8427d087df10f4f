package scenario

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/testkit/lab"
)

var s3Policy = lines("version: 1", "inbound:", "  - allow: published")

// dockersRules are Docker's rules as its iptables prints them, chain by chain, and the policy of FORWARD.
func dockersRules(w *world) []string {
	w.Helper()
	var all []string
	table := ""
	for _, line := range strings.Split(w.host.MustExec(w.T, "iptables-save"), "\n") {
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":FORWARD"):
			all = append(all, table+" "+strings.Fields(line)[0]+" "+strings.Fields(line)[1])
		case strings.HasPrefix(line, "-A") && !strings.Contains(line, "QUAYWALL") && (table == "filter" || table == "nat"):
			all = append(all, table+" "+line)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int {
		return strings.Compare(strings.Join(strings.Fields(a)[:2], " "), strings.Join(strings.Fields(b)[:2], " "))
	})
	return all
}

// TestS3: another tool flushes the tables, or loads old ones. Quaywall's rules are back, and Docker's too, as they were,
// without restarting Docker or a container.
func TestS3(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{variants[0], variants[2]} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			w := oneHost(t, v, lab.Engine{})
			w.network(lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}})
			web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
			api := w.run(lab.Container{Name: "api", Networks: []string{"back"}, Publish: []string{"9090:80"}, Serve: []string{"80/tcp"}})
			old := w.run(lab.Container{Name: "old", Publish: []string{"7070:80"}, Serve: []string{"80/tcp"}})
			if err := w.fw.Write(s3Policy); err != nil {
				t.Fatal(err)
			}
			w.host.MustExec(t, "iptables", "-I", "DOCKER-USER", "-s", "198.51.100.9", "-j", "DROP") // the administrator's, which nobody puts back
			w.host.MustExec(t, "sh", "-c", "iptables-save > "+w.host.Dir+"/old.rules")
			w.host.MustExec(t, "iptables", "-D", "DOCKER-USER", "-s", "198.51.100.9", "-j", "DROP")
			a := agentOf(w, "the policy is in force")
			snapshot := filepath.Join(w.host.Dir, "state", "docker-rules.json")
			w.until("a snapshot", func() bool { _, err := os.Stat(snapshot); return err == nil })
			if err := old.RemoveContainer(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.until("a snapshot without the container", func() bool {
				text, err := os.ReadFile(snapshot)
				return err == nil && strings.Contains(string(text), `"past"`)
			})
			whole := dockersRules(w)
			works := func() {
				t.Helper()
				w.check(open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"), open(w.lan, "192.168.50.1:9090", "api", "policy.yaml:3"),
					denied(w.outside, "203.0.113.1:22", "default"))
				w.try(open(web, lab.OutsideAddr4+":80", "outside", "egress"), open(api, lab.OutsideAddr4+":80", "outside", "egress"),
					denied(api, "172.17.0.2:80", "Docker's isolation"))
			}
			works()
			mends := func(what string, damage string) {
				t.Helper()
				began := time.Now()
				before := strings.Count(a.Log(), "somebody changed Docker's rules")
				w.host.MustExec(t, "sh", "-c", damage)
				w.until(what, func() bool { return strings.Count(a.Log(), "somebody changed Docker's rules") > before })
				t.Logf("%s: mended after %v", what, time.Since(began).Round(time.Millisecond))
				if is := dockersRules(w); !slices.Equal(is, whole) {
					t.Errorf("%s: Docker's rules are\n%s\nwant\n%s", what, strings.Join(is, "\n"), strings.Join(whole, "\n"))
				}
			}
			mends("a flush of filter", "iptables -F")
			mends("a flush of nat", "iptables -t nat -F")
			works()
			mends("chains deleted", "for t in filter nat; do iptables -t $t -F; iptables -t $t -X; done; iptables -P FORWARD ACCEPT")
			mends("a lost jump", "iptables -D FORWARD -j DOCKER-USER; iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER")
			works()
			if !v.legacy {
				time.Sleep(2 * time.Second) // mending is no fight yet, but soon
				mends("everything flushed", "nft flush ruleset")
				works()
			}
			others := []string{ // which look like Docker's, and are a second engine's or the administrator's
				"POSTROUTING -s 172.40.0.0/16 ! -o br-9876543210ab -j MASQUERADE",
				"POSTROUTING -s 10.0.3.5/32 -d 10.0.3.5/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
				"DOCKER ! -i br-9876543210ab -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.40.0.2:80",
				"DOCKER -p tcp -m tcp --dport 8001 -j DNAT --to-destination 172.17.0.2:8000",
			}
			w.host.MustExec(t, "sh", "-c", "iptables-restore < "+w.host.Dir+"/old.rules")
			for _, rule := range others {
				w.host.MustExec(t, "sh", "-c", "iptables -t nat -A "+rule)
			}
			w.until("old rules loaded", func() bool {
				now := strings.Join(dockersRules(w), "\n")
				for _, rule := range others {
					if !strings.Contains(now, rule) {
						t.Errorf("%s went, too", rule)
					}
				}
				// The administrator's rule came with the old ones.
				return !strings.Contains(now, "7070") && strings.Count(now, "\n") == len(whole)+len(others)
			})
			w.until("what was taken out is told", func() bool { return strings.Contains(a.Log(), "they were taken out") })
			w.until("quaywall's own rules", w.mended)
			works()
		})
	}
}
