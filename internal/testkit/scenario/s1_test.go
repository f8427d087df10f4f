package scenario

import (
	"fmt"
	"testing"

	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

// s1Policy is the policy of scenario S1: it says 80 and 443, never 7901.
var s1Policy = lines(
	"version: 1", // 1
	"sets:",
	`  cluster: [192.168.0.1, 192.168.0.2, 192.168.0.3, "fd00::1-fd00::3"]`,
	"inbound:",
	"  - allow: ssh",
	"  - allow: [http, https]", // 6
	"  - allow: 6379/tcp",
	"    from: cluster",
	"  - allow: ping", // 9
)

// TestS1 is three servers with a web service whose inner port 7901 is published as 80 and 443. The first also has a
// Redis for the three alone.
func TestS1(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		topology := lab.Cluster(chosen(v, lab.Engine{}))
		for i := range topology.Nodes {
			if topology.Nodes[i].Engine != nil {
				topology.Nodes[i].Forward = dockerByNft()
				topology.Nodes[i].Serve = []string{"22/tcp", "8000/tcp", "8001/udp"} // 8000 and 8001 are nobody else's business
			}
		}
		l := lab.Start(t, topology)
		worlds := make([]*world, 3)
		for i := range worlds {
			worlds[i] = s1Server(t, v, l, fmt.Sprintf("s%d", i+1))
		}
		redis := worlds[0].run(lab.Container{Name: "redis", Publish: []string{"6379:6379"}, Serve: []string{"6379/tcp"}})
		worlds[0].mark()
		worlds[0].try(s1Before(l)...)
		worlds[0].leaks(open(l.Node("neighbour"), "172.17.0.2:7901", "web-s1", "routed to the container"))
		for _, w := range worlds {
			w.apply(s1Policy)
		}
		var rows []lab.Row
		for _, w := range worlds {
			rows = append(rows, w.reasons(s1Web(l, w)...)...)
		}
		rows = append(rows, worlds[0].reasons(s1Redis(l, redis)...)...)
		l.Check(t, rows)
		for _, w := range worlds {
			w.stop()
		}
		worlds[0].try(s1Before(l)...)
	})
}

func s1Server(t *testing.T, v variant, l *lab.Lab, name string) *world {
	t.Helper()
	fw, err := firewall.New(t.Context(), l.Node(name), v.backend)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, variant: v, lab: l, host: l.Node(name), outside: l.Node("outside"), neighbour: l.Node("neighbour"), fw: fw}
	w.run(lab.Container{Name: "web-" + name, Publish: []string{"80:7901", "443:7901"}, Serve: []string{"7901/tcp"}})
	w.run(lab.Container{Name: "admin-" + name, Publish: []string{"7901:9000", "9001:7901/udp"}, Serve: []string{"9000/tcp", "7901/udp"}})
	w.mark()
	return w
}

// s1Before shows that the scenario begins open: otherwise it would prove nothing.
func s1Before(l *lab.Lab) []lab.Row {
	outside, neighbour := l.Node("outside"), l.Node("neighbour")
	return []lab.Row{
		open(outside, "192.168.0.1:6379", "redis", "published"), open(outside, "[fd00::1]:6379", "redis", "docker-proxy"),
		open(neighbour, "192.168.0.1:7901", "admin-s1", "published"), open(outside, "192.168.0.1:8000", "s1", "a daemon"),
	}
}

// s1Addrs are the addresses of a server, as the rows write them before a port, and alone.
func s1Addrs(w *world) (with, alone [2]string) {
	n := w.host.Name[1:]
	return [2]string{"192.168.0." + n, "[fd00::" + n + "]"}, [2]string{"192.168.0." + n, "fd00::" + n}
}

// s1Web is what each of the servers has to look like from everywhere.
func s1Web(l *lab.Lab, w *world) []lab.Row {
	var rows []lab.Row
	with, alone := s1Addrs(w)
	web := "web-" + w.host.Name
	for _, from := range []*lab.Node{l.Node("outside"), l.Node("neighbour"), otherServer(l, w)} {
		for i, addr := range with {
			rows = append(rows, open(from, addr+":80", web, "policy.yaml:6"), open(from, addr+":443", web, "policy.yaml:6"),
				open(from, addr+":22", w.host.Name, "policy.yaml:5"),
				denied(from, addr+":7901", "default"), denied(from, addr+":8000", "default"), denied(from, addr+":25", "default"))
			rows = append(rows, by("udp", denied(from, addr+":9001", "default"), denied(from, addr+":8001", "default"))...)
			rows = append(rows, by("icmp", open(from, alone[i], "", "policy.yaml:9"))...)
		}
	}
	return append(rows, s1Out(w)...)
}

func otherServer(l *lab.Lab, w *world) *lab.Node {
	if w.host.Name == "s2" {
		return l.Node("s3")
	}
	return l.Node("s2")
}

// s1Out is all that goes out, and what goes on within.
func s1Out(w *world) []lab.Row {
	with, _ := s1Addrs(w)
	return []lab.Row{
		open(w.host, lab.OutsideAddr4+":80", "outside", "default"), open(w.host, "["+lab.OutsideAddr6+"]:80", "outside", "default"),
		open(w.host, with[0]+":7901", "admin-"+w.host.Name, within), open(w.host, "127.0.0.1:80", "web-"+w.host.Name, within),
	}
}

// s1Redis is who reaches 6379 on the first server.
func s1Redis(l *lab.Lab, redis *lab.Node) []lab.Row {
	var rows []lab.Row
	for _, to := range []string{"192.168.0.1:6379", "[fd00::1]:6379"} {
		rows = append(rows, open(l.Node("s2"), to, "redis", "policy.yaml:7"), open(l.Node("s3"), to, "redis", "policy.yaml:7"),
			denied(l.Node("outside"), to, "default"), denied(l.Node("neighbour"), to, "default"))
	}
	return append(rows, denied(l.Node("neighbour"), "172.17.0.2:7901", direct), denied(l.Node("neighbour"), "172.17.0.4:6379", direct),
		open(redis, lab.OutsideAddr4+":80", "outside", "default"))
}
