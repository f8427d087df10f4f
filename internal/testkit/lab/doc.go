// Package lab makes hosts with a real Docker engine, and clients around them, in network namespaces of one machine.
//
//	func TestWebIsOpen(t *testing.T) {
//		l := lab.Start(t, lab.OneHost(lab.Engine{}))       // skips for a person who isn't root, fails in CI
//		host, outside := l.Node("host"), l.Node("outside")
//		web := lab.Container{Name: "web", Publish: []string{"8080:80/tcp"}, Serve: []string{"80/tcp"}}
//		if _, err := host.Run(t.Context(), web); err != nil {
//			t.Fatal(err)
//		}
//		host.MustExec(t, "nft", "add table inet mine")     // as root on that host, never on the machine
//		l.Check(t, []lab.Row{
//			{From: outside, To: "203.0.113.1:8080", Want: lab.Open, Server: "web", Why: "published"},
//			{From: outside, To: "[2001:db8:1::1]:8080", Want: lab.Open, Server: "web", Why: "docker-proxy"},
//			{From: outside, To: "203.0.113.1:81", Want: lab.Refused, Why: "nothing listens"},
//		})
//	}
//
// A node is a network namespace with process, mount and /run of its own. A node with an Engine is a host. Segments are
// bridges in one more namespace that join nodes. Everything is taken down at the end of the test, after a failure, a
// Ctrl-C, and when the process is killed: a watchdog sees the end of a pipe that the process holds.
//
// Be aware: a dockerd takes a second or two to start, so share a lab among the tests of a package (Up and Down in
// TestMain) where they don't disturb each other. Nothing here ever runs in the namespace that the test was started from;
// what would is refused. The kernel's modules and those sysctls that no namespace has are the machine's.
package lab
