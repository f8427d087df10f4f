package guard

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// server has a card and a Docker bridge.
var server = &inventory.Inventory{
	Interfaces: []inventory.Interface{
		{Name: "docker0", Addrs: []netip.Prefix{prefix("172.17.0.1/16")}},
		{Name: "eth0", Addrs: []netip.Prefix{prefix("203.0.113.10/24"), prefix("2001:db8:1::1/64"), prefix("fe80::a/64")}},
		{Name: "eth1", Addrs: []netip.Prefix{prefix("10.0.0.1/24")}},
		{Name: "lo", Addrs: []netip.Prefix{prefix("127.0.0.1/8"), prefix("::1/128")}},
	},
	Networks: []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{prefix("172.17.0.0/16")}}},
}

// tcp is a rule of policy.yaml about one TCP port.
func tcp(verb policy.Verb, line int, port uint16, from string) policy.Rule {
	r := policy.Rule{Pos: at(line), Verb: verb, What: []policy.Traffic{{Proto: policy.TCP, Ports: netset.Ports{First: port, Last: port}}}}
	if from != "" {
		r.From = policy.Addresses{Given: true, Inline: netset.MustParse(from)}
	}
	return r
}

func at(line int) diag.Pos { return diag.Pos{File: "/etc/quaywall/policy.yaml", Line: line} }

// planned is a policy with these inbound rules, all else being as it is by default.
func planned(rules ...policy.Rule) *policy.Policy {
	return &policy.Policy{Inbound: rules, Hygiene: true,
		Defaults: policy.Defaults{Egress: policy.Verdict{Verb: policy.Allow}, Outbound: policy.Verdict{Verb: policy.Allow}}}
}

// session is an SSH session.
func session(local, peer string, ifaces ...string) Way {
	return Way{Kind: Session, PID: 812, Process: "sshd", Proto: protoTCP, Interfaces: ifaces,
		Local: netip.MustParseAddrPort(local), Peer: netip.MustParseAddrPort(peer)}
}

func TestCheck(t *testing.T) {
	const client, port = "198.51.100.7:50000", "203.0.113.10:22"
	ssh := session(port, client, "eth0")
	odd := session("203.0.113.10:2222", client, "eth0")
	six := session("[2001:db8:1::1]:22", "[2001:db8:9::7]:50000", "eth0")
	live := ssh
	live.Kind, live.PID, live.Process = Live, 0, ""
	container := session("172.17.0.1:22", "172.17.0.2:50000", "docker0")
	agent := Way{Kind: Dialled, PID: 9, Process: "agent", Proto: protoTCP, Interfaces: []string{"eth0"},
		Local: netip.MustParseAddrPort("203.0.113.10:41000"), Peer: netip.MustParseAddrPort("198.51.100.7:4506")}
	mosh := session("203.0.113.10:60001", client, "eth0")
	mosh.Proto, mosh.Process = protoUDP, "mosh-server"
	limited := tcp(policy.Allow, 5, 22, "")
	limited.Limit = rate.Rate{Count: 1, Per: 1}
	onEth1 := tcp(policy.Allow, 5, 22, "")
	onEth1.On = []string{"eth1"}
	closed := planned()
	closed.Defaults.Outbound.Verb, closed.Defaults.Egress.Verb = policy.Reject, policy.Deny
	tests := []struct {
		name string
		p    *policy.Policy
		ways []Way
		want []string
	}{
		{"open", planned(tcp(policy.Allow, 5, 22, "")), []Way{ssh, six, live}, nil},
		{"open within a limit", planned(limited), []Way{ssh}, nil},
		{"open to this client", planned(tcp(policy.Allow, 5, 22, "198.51.100.0/24")), []Way{ssh}, nil},
		{"nothing is open", planned(), []Way{ssh}, []string{
			"sshd (process 812), port 22/tcp, from 198.51.100.7: no rule of inbound matches; the default denies it (default); add to inbound: - {allow: ssh, from: 198.51.100.7}"}},
		{"open to others", planned(tcp(policy.Allow, 5, 22, "10.0.0.0/8")), []Way{ssh, six}, []string{
			`sshd (process 812), port 22/tcp, from 198.51.100.7, 2001:db8:9::7: no rule of inbound matches; the default denies it (default); add to inbound: - {allow: ssh, from: [198.51.100.7, "2001:db8:9::7"]}`}},
		{"another port", planned(tcp(policy.Allow, 5, 22, "")), []Way{odd}, []string{
			"sshd (process 812), port 2222/tcp, from 198.51.100.7: no rule of inbound matches; the default denies it (default); add to inbound: - {allow: 2222/tcp, from: 198.51.100.7}"}},
		{"denied by a rule", planned(tcp(policy.Deny, 4, 22, "198.51.100.0/24"), tcp(policy.Allow, 5, 22, "")), []Way{ssh, six}, []string{
			"sshd (process 812), port 22/tcp, from 198.51.100.7: rule 1 of inbound denies it (policy.yaml:4); add above policy.yaml:4: - {allow: ssh, from: 198.51.100.7}"}},
		{"either interface", planned(onEth1), []Way{session(port, client, "eth1", "eth0")}, []string{
			"sshd (process 812), port 22/tcp, from 198.51.100.7: no rule of inbound matches; the default denies it (default); add to inbound: - {allow: ssh, from: 198.51.100.7}"}},
		{"that interface", planned(onEth1), []Way{session(port, client, "eth1")}, nil},
		{"no interface known", planned(tcp(policy.Allow, 5, 22, "")), []Way{session(port, client)}, nil},
		{"no line helps", planned(tcp(policy.Allow, 5, 22, "")), []Way{session("203.0.113.10:22", "172.17.0.9:50000", "eth0")}, []string{
			"sshd (process 812), port 22/tcp, from 172.17.0.9: hygiene: nobody outside may have this source address"}},
		{"whoever it is", planned(), []Way{live}, []string{
			"a connection, port 22/tcp, from 198.51.100.7: no rule of inbound matches; the default denies it (default); add to inbound: - {allow: ssh, from: 198.51.100.7}"}},
		{"UDP", planned(), []Way{mosh}, []string{
			"mosh-server (process 812), port 60001/udp, from 198.51.100.7: no rule of inbound matches; the default denies it (default); add to inbound: - {allow: 60001/udp, from: 198.51.100.7}"}},
		{"from a container", closed, []Way{container}, []string{
			"sshd (process 812), port 22/tcp, from 172.17.0.2: no rule of egress matches; the default denies it (default); add to egress: - {allow: ssh, from: 172.17.0.2, to: host}"}},
		{"an agent calls", closed, []Way{agent}, []string{
			"agent (process 9), its connection to port 4506/tcp of 198.51.100.7: no rule of outbound matches; the default rejects it (default); add to outbound: - {allow: 4506/tcp, to: 198.51.100.7}"}},
		{"an agent may call", planned(), []Way{agent}, nil},
		{"many", planned(), many(ssh, 12), []string{
			"sshd (process 812), port 22/tcp, from 10.1.0.0, 10.1.0.1, 10.1.0.2, 10.1.0.3, 10.1.0.4, 10.1.0.5, 10.1.0.6, 10.1.0.7 and 4 more: " +
				"no rule of inbound matches; the default denies it (default); add to inbound: - allow: ssh"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, c := range Check(tt.ways, tt.p, server) {
				got = append(got, c.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

// many are n ways that differ by their peer.
func many(w Way, n int) (ws []Way) {
	a := netip.MustParseAddr("10.1.0.0")
	for range n {
		w.Peer = netip.AddrPortFrom(a, 50000)
		ws, a = append(ws, w), a.Next()
	}
	return ws
}

func TestCheckListener(t *testing.T) {
	tests := []struct {
		name, local string
		rules       []policy.Rule
		cut         bool
	}{
		{"open to all", "[::]:9090", []policy.Rule{tcp(policy.Allow, 5, 9090, "")}, false},
		{"narrowed to the office", "0.0.0.0:9090", []policy.Rule{tcp(policy.Allow, 5, 9090, "198.51.100.0/24")}, false},
		{"narrowed to one IPv4 address", "[::]:9090", []policy.Rule{tcp(policy.Allow, 5, 9090, "198.51.100.7")}, false},
		{"IPv6 only, listens on IPv4", "0.0.0.0:9090", []policy.Rule{tcp(policy.Allow, 5, 9090, "2001:db8::/32")}, true},
		{"all but the office", "0.0.0.0:9090", []policy.Rule{tcp(policy.Deny, 4, 9090, "192.0.2.0/24"),
			tcp(policy.Allow, 5, 9090, "192.0.2.0/23")}, false},
		{"closed", "0.0.0.0:9090", []policy.Rule{tcp(policy.Allow, 5, 9091, "")}, true},
		{"denied before it is allowed", "0.0.0.0:9090", []policy.Rule{tcp(policy.Deny, 4, 9090, ""), tcp(policy.Allow, 5, 9090, "")}, true},
		{"on the bridge alone", "172.17.0.1:9090", nil, false},
		{"on an address that is gone", "203.0.113.99:9090", nil, false},
		{"link-local", "[fe80::a]:9090", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := Way{Kind: Listener, PID: 7, Process: "cockpit", Proto: protoTCP, Local: netip.MustParseAddrPort(tt.local)}
			cuts := Check([]Way{w}, planned(tt.rules...), server)
			if len(cuts) > 0 != tt.cut {
				t.Errorf("cuts: %v, want %v", cuts, tt.cut)
			}
			for _, c := range cuts {
				if !strings.Contains(c.String(), "cockpit (process 7), port 9090/tcp, which nobody could reach any more: ") || c.Add != "- allow: 9090/tcp" {
					t.Error(c)
				}
			}
		})
	}
}

// sshd listens once for each family: who narrows it to addresses of one closes it to nobody there.
func TestListenersOfOnePort(t *testing.T) {
	listeners := func(locals ...string) (ways []Way) {
		for _, l := range locals {
			ways = append(ways, Way{Kind: Listener, PID: 7, Process: "sshd", Proto: protoTCP, Local: netip.MustParseAddrPort(l)})
		}
		return ways
	}
	six := planned(tcp(policy.Allow, 5, 22, "2001:db8::/32"))
	if cuts := Check(listeners("0.0.0.0:22", "[::]:22"), six, server); len(cuts) > 0 {
		t.Errorf("open to IPv6 addresses, and still: %v", cuts)
	}
	if cuts := Check(listeners("0.0.0.0:2222", "[::]:22"), six, server); len(cuts) != 1 || cuts[0].Ways[0].Local.Port() != 2222 {
		t.Errorf("another port is closed, and found were %v", cuts)
	}
	dialled := Way{Kind: Dialled, Proto: protoTCP, Local: netip.MustParseAddrPort("203.0.113.10:41000"), Peer: netip.MustParseAddrPort("198.51.100.7:22")}
	if cuts := Check(append(listeners("0.0.0.0:22"), dialled), planned(), server); len(cuts) != 1 {
		t.Errorf("what the host itself dialled keeps no port open: %v", cuts)
	}
}

func TestLines(t *testing.T) {
	web := session("203.0.113.10:8443", "10.0.0.9:1", "eth1")
	web.Process = "cockpit-session"
	listener := Way{Kind: Listener, PID: 7, Process: "agent", Proto: protoTCP, Local: netip.MustParseAddrPort("0.0.0.0:9000")}
	dialled := listener
	dialled.Kind = Dialled
	live := session("[2001:db8:1::1]:443", "[2001:db8::9]:1", "eth0")
	live.Kind, live.PID, live.Process = Live, 0, ""
	ways := []Way{session("203.0.113.10:22", "198.51.100.7:1", "eth0"), session("203.0.113.10:2222", "198.51.100.7:1", "eth0"),
		web, listener, dialled, live}
	want := []string{
		`- allow: ssh  # sshd, now in use by 198.51.100.7`,
		`- allow: 2222/tcp  # sshd, now in use by 198.51.100.7`,
		`- {allow: 8443/tcp, from: 10.0.0.9}  # cockpit-session, now in use by 10.0.0.9`,
		`- allow: 9000/tcp  # agent listens here; narrow it with from`,
		`- {allow: 443/tcp, from: "2001:db8::9"}  # a live connection, now in use by 2001:db8::9`,
	}
	if got := Lines(ways); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// What a cut says to add is a line of the language, and with it alone the way is open.
func TestAdviceHelps(t *testing.T) {
	closed := planned()
	closed.Defaults.Outbound.Verb, closed.Defaults.Egress.Verb = policy.Deny, policy.Deny
	udp := session("203.0.113.10:60001", "198.51.100.7:50000", "eth0")
	udp.Proto = protoUDP
	for _, w := range [][]Way{
		{session("203.0.113.10:22", "198.51.100.7:50000", "eth0")},
		{session("[2001:db8:1::1]:2222", "[2001:db8:9::7]:50000", "eth0")},
		{session("203.0.113.10:22", "198.51.100.7:50000", "eth0"), session("[2001:db8:1::1]:22", "[2001:db8:9::7]:50000", "eth0")},
		{session("172.17.0.1:22", "172.17.0.2:50000", "docker0")},
		{udp},
		many(session("203.0.113.10:22", "198.51.100.7:50000", "eth0"), 12),
		{{Kind: Dialled, Proto: protoTCP, Interfaces: []string{"eth0"}, Local: netip.MustParseAddrPort("203.0.113.10:41000"), Peer: netip.MustParseAddrPort("198.51.100.7:4506")}},
		{{Kind: Listener, Proto: protoTCP, Local: netip.MustParseAddrPort("0.0.0.0:9090")}},
	} {
		cuts := Check(w, closed, server)
		if len(cuts) != 1 {
			t.Errorf("%v: cut %d times, want once", w, len(cuts))
			continue
		}
		text := "version: 1\ndefaults: {egress: deny, outbound: deny}\n" + cuts[0].Section.String() + ":\n  " + cuts[0].Add + "\n"
		p, list := policy.Parse("policy.yaml", []byte(text))
		if list.HasErrors() {
			t.Errorf("%s\n%v", text, list)
			continue
		}
		if again := Check(w, p, server); len(again) > 0 {
			t.Errorf("with %q still %v", cuts[0].Add, again)
		}
	}
}

// The lines for a first policy are lines of the language, comments and all.
func TestLinesAreRules(t *testing.T) {
	w := session("[2001:db8:1::1]:8443", "[2001:db8:9::7]:50000", "eth0")
	w.Process = "odd # name: {"
	text := "version: 1\ninbound:\n  " + strings.Join(Lines([]Way{w, session("203.0.113.10:22", "198.51.100.7:50000", "eth0")}), "\n  ") + "\n"
	p, list := policy.Parse("policy.yaml", []byte(text))
	if list.HasErrors() || len(p.Inbound) != 2 {
		t.Fatalf("%s\n%v", text, list)
	}
	if cuts := Check([]Way{w}, p, server); len(cuts) > 0 {
		t.Error(cuts)
	}
}
