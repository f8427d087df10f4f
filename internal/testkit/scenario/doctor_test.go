package scenario

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/doctor"
	"quaywall/internal/testkit/lab"
)

// illness is something that is done to a host, and what doctor calls it.
type illness struct {
	name     string
	hurt     string // commands
	heal     string
	restart  bool // Docker has to be restarted to heal it
	findings string
}

var illnesses = []illness{
	{"forwarding turned off", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1", false, "ip-forward-off"},
	{"rules in the other variant", "iptables-legacy -A INPUT -p tcp --dport 23 -j DROP", "iptables-legacy -F INPUT", false, "two-variants"},
	{"rules appended to DOCKER-USER", "iptables -A DOCKER-USER -s 192.0.2.1 -j DROP", "iptables -D DOCKER-USER -s 192.0.2.1 -j DROP", false, "docker-user-dead"},
	{"DOCKER-USER isn't asked first", "iptables -I DOCKER-USER -s 192.0.2.1 -j DROP; iptables -D FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-USER",
		"iptables -D FORWARD -j DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -D DOCKER-USER -s 192.0.2.1 -j DROP", false, "docker-user-not-first"},
	{"a rule behind Docker's", "iptables -A FORWARD -i eth0 -p tcp --dport 80 -j DROP", "iptables -D FORWARD -i eth0 -p tcp --dport 80 -j DROP", false, "forward-rules-sunken"},
	{"another firewall, and a third", "iptables -N ufw-before-input; iptables -A ufw-before-input -i lo -j ACCEPT; nft add table inet firewalld",
		"iptables -F ufw-before-input; iptables -X ufw-before-input; nft delete table inet firewalld", false, "two-firewalls"},
	{"an old dump", "iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 9999 -j DNAT --to-destination 172.17.0.2:22",
		"iptables -t nat -D DOCKER ! -i docker0 -p tcp --dport 9999 -j DNAT --to-destination 172.17.0.2:22", false, "docker-rules-stale"},
	{"nat flushed", "iptables -t nat -F", "", true, "docker-rules-incomplete"},
	{"filter flushed", "iptables -P FORWARD DROP; iptables -F", "iptables -P FORWARD ACCEPT", true, "docker-rules-incomplete forward-drop"},
	{"everything flushed", "nft flush ruleset", "", true, "docker-rules-gone"},
}

// TestDoctor breaks a host with a real Docker in ten ways: each is named, and nothing else is; healed, nothing is wrong.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := oneHost(t, variants[1], lab.Engine{})
	w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
	w.diagnosed("well", "")
	for _, i := range illnesses {
		w.host.MustExec(t, "sh", "-ec", i.hurt)
		w.diagnosed(i.name, i.findings)
		if i.heal != "" {
			w.host.MustExec(t, "sh", "-ec", i.heal)
		}
		if i.restart {
			w.engine(w.host.StopEngine, w.host.StartEngine)
		}
		w.diagnosed(i.name+", healed", "")
	}
	w.run(lab.Container{Name: "db", Publish: []string{"127.0.0.1:5432:5432"}, Serve: []string{"5432/tcp"}})
	w.diagnosed("published on loopback", "loopback-published")
	w.network(lab.Network{Name: "six", Subnets: []string{"10.66.0.0/24", "fd66::/64"}})
	w.diagnosed("a network with IPv6 and no ip6tables", "ip6tables-off loopback-published")
	w.mark()
	w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
	w.diagnosed("quaywall's policy closes both", "")
	w.host.MustExec(t, "iptables", "-t", "mangle", "-D", "PREROUTING", "-j", "QUAYWALL-gate")
	w.diagnosed("its jump is gone", "quaywall-bypassed")
	w.quaywall(0, "doctor", "--fix", "--exit-code")
	w.diagnosed("mended", "")
	w.stop()
}

// diagnosed demands that doctor finds just that.
func (w *world) diagnosed(what, findings string) {
	w.Helper()
	var answer struct{ Findings []doctor.Finding }
	if err := json.Unmarshal([]byte(w.quaywall(0, "doctor", "--json").Stdout), &answer); err != nil {
		w.Fatal(err)
	}
	var ids []string
	for _, f := range answer.Findings {
		ids = append(ids, f.ID)
	}
	if want := strings.Fields(findings); !slices.Equal(ids, want) {
		w.Errorf("%s: doctor finds %q, want %q\n%+v", what, ids, want, answer.Findings)
	}
}
