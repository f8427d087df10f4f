package scenario

import (
	"path/filepath"
	"testing"

	"quaywall/internal/testkit/lab"
)

// leak is a way in that a firewall beside Docker easily leaves open.
type leak struct {
	number int
	what   string
	row    lab.Row
	open   bool // with this engine, where nothing is in force
}

// leakFact is a leak as it was measured.
type leakFact struct {
	Leak   int    `json:"leak"`
	What   string `json:"what"`
	Engine string `json:"engine"` // its configuration
	Before bool   `json:"before"` // open with nothing in force
	After  bool   `json:"after"`  // open with a policy in force that denies it
}

// leakPolicy allows one port. A macvlan container is what it can't close.
var leakPolicy = lines("version: 1", "inbound:", "  - allow: 9090", "egress:", "  - deny: any", "    to: host")

// TestLeaks: what Docker and a hasty firewall leave open, measured with nothing in force, and closed by a policy that
// denies it. The numbers are those of the leaks in docs/matrix.md.
func TestLeaks(t *testing.T) {
	onEachConfig(t, configs(), func(t *testing.T, v variant, e lab.Engine) {
		topology := lab.OneHost(chosen(v, e))
		topology.Nodes[0].Forward = true // before dockerd, so that FORWARD's policy stays as it is: the worse case
		topology.Nodes[0].Serve = []string{"22/tcp"}
		w := newWorld(t, v, topology)
		if e.NoIPTables {
			w.leaksWithoutRules(e)
			return
		}
		l := newLeaks(w, e)
		before := w.probe(l.standing, false)
		natLost := l.probeWithoutNAT(false)
		stale := l.probeStale()
		w.mark()
		w.apply(leakPolicy)
		w.works(e)
		w.compare(e, l.standing, before, w.probe(l.standing, true))
		w.compare(e, l.stale, stale, w.probe(l.stale, true))
		w.compare(e, l.natLost, natLost, l.probeWithoutNAT(true))
		l.flushed()
	})
}

// leaksWithoutRules is leak 9: with "iptables": false Docker closes nothing.
func (w *world) leaksWithoutRules(e lab.Engine) {
	w.Helper()
	w.run(lab.Container{Name: "web", Publish: []string{"8080:80"}, Serve: []string{"80/tcp", "81/tcp"}})
	w.run(lab.Container{Name: "ok", Publish: []string{"9090:80"}, Serve: []string{"80/tcp"}})
	w.mark()
	leaks := []leak{
		{9, "any port of a container, by its own address", open(w.neighbour, "172.17.0.2:81", "web", "iptables: false"), true},
		{9, "a published port, by docker-proxy", open(w.outside, "203.0.113.1:8080", "web", "iptables: false"), !e.NoProxy},
	}
	before := w.probe(leaks, false)
	w.apply(leakPolicy)
	if !e.NoProxy {
		w.try(open(w.outside, "203.0.113.1:9090", "ok", "allowed"))
	}
	w.compare(e, leaks, before, w.probe(leaks, true))
	w.stop()
}

// leakLab is a host with something behind each leak.
type leakLab struct {
	*world
	engine         lab.Engine
	standing       []leak // which are there all the time
	natLost, stale []leak
}

func newLeaks(w *world, e lab.Engine) *leakLab {
	w.Helper()
	web := w.run(lab.Container{Name: "web", Publish: []string{"8080:80", "127.0.0.1:8081:82", "192.168.50.1:8082:83"},
		Serve: []string{"80/tcp", "81/tcp", "82/tcp", "83/tcp"}})
	w.run(lab.Container{Name: "ok", Publish: []string{"9090:80"}, Serve: []string{"80/tcp"}})
	w.network(lab.Network{Name: "inner", Subnets: []string{"172.30.0.0/24"}, Internal: true})
	inner := w.run(lab.Container{Name: "inner", Networks: []string{"inner"}})
	w.network(lab.Network{Name: "street", Driver: "macvlan", Subnets: []string{"203.0.113.0/24"}, Options: map[string]string{"parent": "eth0"}})
	w.run(lab.Container{Name: "mac", Networks: []string{"street"}, IP: "203.0.113.77", Serve: []string{"80/tcp"}})
	old := w.major() < 28
	l := &leakLab{world: w, engine: e, standing: []leak{
		{1, "a published port over IPv6, by docker-proxy", open(w.outside, "[2001:db8:1::1]:8080", "web", "docker-proxy"), !e.NoProxy},
		{2, "the same, from a link-local address", open(w.neighbour, linkLocal(w, w.host)+":8080", "web", "docker-proxy"), !e.NoProxy},
		{3, "a published port, where only INPUT is filtered", open(w.outside, "203.0.113.1:8080", "web", "DNAT"), true},
		{5, "a port published on 127.0.0.1, from a neighbour", open(w.neighbour, "127.0.0.1:8081", "web", "DNAT"), old},
		{6, "a published port, by the container's own address", open(w.neighbour, "172.17.0.2:80", "web", "routed"), old},
		{7, "any other port of a container, by its own address", open(w.neighbour, "172.17.0.2:81", "web", "routed"), old},
		{10, "a port published on one address, from another network", open(w.outside, "192.168.50.1:8082", "web", "weak host model"), true},
		{12, "the host's services, from a container", open(web, "172.17.0.1:22", "host", "INPUT"), true},
		{12, "the host's services, from an internal network", open(inner, "172.30.0.1:22", "host", "INPUT"), true},
		{13, "a container on a macvlan network", open(w.outside, "203.0.113.77:80", "mac", "no hook sees it"), true},
	}}
	if e.IPv6 {
		l.addSix(web)
	}
	if !old {
		l.addUnprotected()
	}
	if !dockerByNft() { // these are about rules of iptables
		l.natLost = []leak{{4, "a published port, after NAT rules were lost", open(w.outside, "203.0.113.1:8080", "web", "docker-proxy"), !e.NoProxy}}
		l.stale = []leak{{14, "somebody else's port, after a stale save was restored", open(w.outside, "203.0.113.1:8090", "heir", "stale DNAT"), true}}
	}
	return l
}

func (l *leakLab) addSix(web *lab.Node) {
	l.Helper()
	addr, err := web.Addr(l.Context(), "", true)
	if err != nil {
		l.Fatal(err)
	}
	l.standing = append(l.standing, leak{8, "any port of a container with IPv6, without ip6tables", open(l.neighbour, "["+addr.String()+"]:81", "web", "routed"), true})
}

func (l *leakLab) addUnprotected() {
	l.Helper()
	l.network(lab.Network{Name: "bare", Subnets: []string{"172.31.0.0/24"},
		Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected"}})
	l.run(lab.Container{Name: "bare", Networks: []string{"bare"}, IP: "172.31.0.9", Serve: []string{"81/tcp"}})
	l.standing = append(l.standing, leak{11, "any port of a container in mode nat-unprotected", open(l.neighbour, "172.31.0.9:81", "bare", "on purpose"), true})
}

// probe tries leaks, with or without the policy in force, and tells which are open.
func (w *world) probe(leaks []leak, inForce bool) []bool {
	w.Helper()
	rows := make([]lab.Row, len(leaks))
	for i, l := range leaks {
		rows[i] = l.row
		if !l.openNow(inForce) {
			rows[i].Want = lab.Denied // which is believed sooner
		}
	}
	is := make([]bool, len(leaks))
	for i, r := range w.lab.Probe(w.Context(), rows) {
		if r.Err != nil {
			w.Fatal(r.Err)
		}
		is[i] = r.Got.Outcome == lab.Open
	}
	return is
}

// openNow is what a leak has to be.
func (l leak) openNow(inForce bool) bool {
	return l.open && (!inForce || l.number == unseen)
}

// unseen is the number of the leak that no rule closes.
const unseen = 13

// compare sees that leaks were open with nothing in force as they are known to be, and are closed with the policy.
func (w *world) compare(e lab.Engine, leaks []leak, before, after []bool) {
	w.Helper()
	for i, l := range leaks {
		w.measured(leakFact{Leak: l.number, What: l.what, Engine: configName(e), Before: before[i], After: after[i]})
		if before[i] != l.openNow(false) {
			w.Errorf("leak %d (%s): with nothing in force it is open: %v; with this engine it should be: %v", l.number, l.what, before[i], l.open)
		}
		if after[i] != l.openNow(true) {
			w.Errorf("leak %d (%s): with a policy in force it is open: %v", l.number, l.what, after[i])
		}
	}
}

// works sees that what the policy allows, and what is none of its business, goes on.
func (w *world) works(e lab.Engine) {
	w.Helper()
	rows := []lab.Row{open(w.outside, "203.0.113.1:9090", "ok", "allowed"), open(w.host, "127.0.0.1:8081", "web", "the host itself")}
	if !e.NoProxy {
		rows = append(rows, open(w.outside, "[2001:db8:1::1]:9090", "ok", "allowed"))
	}
	w.try(rows...)
}

// probeWithoutNAT is leak 4. The rules come back afterwards.
func (l *leakLab) probeWithoutNAT(inForce bool) []bool {
	l.Helper()
	save := filepath.Join(l.host.Dir, "nat")
	l.host.MustExec(l.T, "sh", "-ec", "iptables-save -t nat >"+save+"; iptables -t nat -F")
	is := l.probe(l.natLost, inForce)
	l.host.MustExec(l.T, "iptables-restore", save)
	return is
}

// probeStale is leak 14: rules that were saved lead to a container that is gone, and somebody else has its address.
func (l *leakLab) probeStale() []bool {
	l.Helper()
	save := filepath.Join(l.host.Dir, "stale")
	l.network(lab.Network{Name: "old", Subnets: []string{"172.29.0.0/24"}})
	gone := l.run(lab.Container{Name: "gone", Networks: []string{"old"}, IP: "172.29.0.50", Publish: []string{"8090:80"}, Serve: []string{"80/tcp"}})
	l.host.MustExec(l.T, "sh", "-ec", "iptables-save >"+save)
	if err := gone.RemoveContainer(l.Context()); err != nil {
		l.Fatal(err)
	}
	l.run(lab.Container{Name: "heir", Networks: []string{"old"}, IP: "172.29.0.50", Serve: []string{"80/tcp"}})
	l.host.MustExec(l.T, "iptables-restore", save)
	return l.probe(l.stale, false)
}

// flushed is leak 15, and what there is of S3 without an agent: everybody's rules are gone, status tells, and apply puts
// back quaywall's, which need none of Docker's.
func (l *leakLab) flushed() {
	l.Helper()
	leaks := []leak{{15, "any port of a container, after everything was flushed", open(l.neighbour, "172.17.0.2:81", "web", "nothing is left"), true}}
	l.flushAll()
	l.quaywall(4, "status", "--exit-code")
	l.mark()
	l.found = l.found.Foreign() // quaywall's ipsets are there still
	l.apply(leakPolicy)
	after := l.probe(leaks, true)
	l.quaywall(0, "stop")
	if diff := l.rules().WithoutEmpty().Diff(l.found); diff != "" {
		l.Errorf("after stop something is left:\n%s", diff)
	}
	l.compare(l.engine, leaks, l.probe(leaks, false), after)
}
