package scenario

import (
	"testing"

	"quaywall/internal/testkit/lab"
)

const oneNetwork = "it stays within one Docker network"

// TestS7 lets containers out as Docker does, and then limits what they may reach.
func TestS7(t *testing.T) {
	onEachProxy(t, func(t *testing.T, v variant, e lab.Engine) {
		w := oneHost(t, v, e, "5353/udp")
		w.network(lab.Network{Name: "back", Subnets: []string{"172.30.0.0/24"}})
		web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp"}})
		mate := w.run(lab.Container{Name: "mate", Serve: []string{"80/tcp"}})
		api := w.run(lab.Container{Name: "api", Networks: []string{"back"}, Publish: []string{"8081:80"}, Serve: []string{"80/tcp"}})
		db := w.run(lab.Container{Name: "db", Networks: []string{"back"}, IP: "172.30.0.9", Serve: []string{"80/tcp"}})
		w.mark()
		w.apply(lines("version: 1", "inbound:", "  - allow: [8080, 8081]"))
		w.check(open(web, lab.OutsideAddr4+":80", "outside", "default"), open(api, lab.LANAddr4+":80", "lan", "default"),
			open(mate, "172.17.0.2:80", "web", oneNetwork), open(api, "172.30.0.9:80", "db", oneNetwork),
			open(web, "172.17.0.1:22", "host", "default"), open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"))
		w.try(denied(api, "172.17.0.2:80", "isolation"), denied(web, "172.30.0.9:80", "isolation"))

		w.apply(lines(
			"version: 1",
			"inbound:",
			"  - allow: [8080, 8081]", // 3
			"egress:",
			"  - allow: 80/tcp", // 5
			"    to: 203.0.113.2",
			"  - deny: any", // 7
			"    network: back",
			"    to: 192.168.50.0/24",
			"  - allow: 80/udp", // 10
			"  - allow: 5353/udp",
			"    to: host",
			"  - reject: 22", // 13
			"    to: host",
			"  - allow: 8081", // 15
			"    to: host",
			"    network: bridge",
			"  - allow: ping", // 18
			"defaults: {egress: deny}"))
		w.check(open(web, lab.OutsideAddr4+":80", "outside", "policy.yaml:5"), open(db, lab.OutsideAddr4+":80", "outside", "policy.yaml:5"),
			denied(web, lab.LANAddr4+":80", "policy.yaml:19"), denied(api, lab.LANAddr4+":80", "policy.yaml:7"),
			open(mate, "172.17.0.2:80", "web", oneNetwork), open(api, "172.30.0.9:80", "db", oneNetwork),
			rejected(web, "172.17.0.1:22", "policy.yaml:13"), rejected(web, "203.0.113.1:22", "policy.yaml:13"),
			denied(api, "203.0.113.1:8080", "policy.yaml:19"),
			open(w.outside, "203.0.113.1:8080", "web", "policy.yaml:3"), open(w.lan, "192.168.50.1:8081", "api", "policy.yaml:3"),
			open(w.host, lab.OutsideAddr4+":80", "outside", "default"))
		w.check(by("udp", open(web, lab.LANAddr4+":80", "lan", "policy.yaml:10"), denied(api, lab.LANAddr4+":80", "policy.yaml:7"),
			open(web, "203.0.113.1:5353", "host", "policy.yaml:11"))...)
		w.check(by("icmp", open(web, lab.LANAddr4, "", "policy.yaml:18"))...)
		if r, err := api.Resolve(t.Context(), "db"); err != nil || len(r.Addrs) != 1 {
			t.Errorf("db in Docker's name service: %v, %v", r, err)
		}
		w.stop()
	})
}
