package scenario

import (
	"strings"
	"testing"

	"quaywall/internal/testkit/lab"
)

// TestTrace follows a connection to a published port through quaywall's rules and Docker's, to the container that it is
// forwarded to. Afterwards the rules are what they were.
func TestTrace(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
		p, err := w.fw.Start(w.Context(), "trace", "tcp -> :8080 state new", "-n", "1", "--for", "60s")
		if err != nil {
			t.Fatal(err)
		}
		w.until("packets are followed", func() bool { return strings.Contains(p.Log(), "following packets") })
		w.try(open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"))
		w.until("the packet is told", func() bool { return strings.Contains(p.Log(), "Let through.") })
		for _, want := range []string{"-> 203.0.113.1:8080 in eth0", "(container web)", "DNAT --to-destination 172.17.0.2:80", "policy.yaml:3", "out by docker0"} {
			if !strings.Contains(p.Log(), want) {
				t.Errorf("%q is not told:\n%s", want, p.Log())
			}
		}
		w.stop()
		w.gone("a trace and a stop")
	})
}
