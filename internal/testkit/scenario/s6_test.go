package scenario

import (
	"testing"

	"quaywall/internal/testkit/lab"
)

// TestS6 has different rules for different ports, and different sources for different ports of one container.
func TestS6(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{}, "7000/tcp", "7000/udp")
		w.run(lab.Container{Name: "app", Publish: []string{"80:80", "8080:80", "8443:443", "9000:9000", "53:53/udp"},
			Serve: []string{"80/tcp", "443/tcp", "9000/tcp", "53/udp"}})
		w.mark()
		w.apply(lines(
			"version: 1",
			"sets:",
			`  office: [192.168.50.0/24, "fd00:50::/64"]`, // 3
			"inbound:",
			"  - allow: http", // 5
			"  - allow: [8080/tcp, 8443]",
			"    from: office",
			"  - deny: 9000/tcp", // 8
			"    from: 192.168.50.2",
			"  - reject: [9000/tcp, 53/udp]", // 10
			`    from: ["2001:db8:1::2", 203.0.113.3]`,
			"  - allow: 9000/tcp", // 12
			"    from: [office, 203.0.113.2]",
			"  - allow: 7000/tcp+udp", // 14
			"    from: {not: office}",
			"  - allow: 53/udp", // 16
		))
		w.check(open(w.outside, "203.0.113.1:80", "app", "policy.yaml:5"), open(w.lan, "192.168.50.1:80", "app", "policy.yaml:5"),
			open(w.outside, "[2001:db8:1::1]:80", "app", "policy.yaml:5"),
			open(w.lan, "192.168.50.1:8080", "app", "policy.yaml:6"), open(w.lan, "[fd00:50::1]:8080", "app", "policy.yaml:6"),
			open(w.lan, "192.168.50.1:8443", "app", "policy.yaml:6"),
			denied(w.outside, "203.0.113.1:8080", "default"), denied(w.outside, "[2001:db8:1::1]:8443", "default"),
			denied(w.lan, "192.168.50.1:9000", "policy.yaml:8"), open(w.lan, "[fd00:50::1]:9000", "app", "policy.yaml:12"),
			open(w.outside, "203.0.113.1:9000", "app", "policy.yaml:12"), rejected(w.outside, "[2001:db8:1::1]:9000", "policy.yaml:10"),
			rejected(w.neighbour, "203.0.113.1:9000", "policy.yaml:10"), denied(w.neighbour, "[2001:db8:1::1]:9000", "default"),
			open(w.outside, "203.0.113.1:7000", "host", "policy.yaml:14"), denied(w.lan, "192.168.50.1:7000", "default"),
			open(w.outside, "[2001:db8:1::1]:7000", "host", "policy.yaml:14"), denied(w.lan, "[fd00:50::1]:7000", "default"))
		w.check(by("udp", open(w.outside, "203.0.113.1:7000", "host", "policy.yaml:14"), denied(w.lan, "192.168.50.1:7000", "default"),
			open(w.outside, "203.0.113.1:53", "app", "policy.yaml:16"), open(w.lan, "[fd00:50::1]:53", "app", "policy.yaml:16"),
			rejected(w.neighbour, "203.0.113.1:53", "policy.yaml:10"), rejected(w.outside, "[2001:db8:1::1]:53", "policy.yaml:10"))...)
		w.stop()
	})
}
