package policy

import "testing"

// design is the example of the design without what comes with later versions.
const design = `version: 1

sets:                                    # named groups of addresses; entries of both families may mix
  cluster: [192.168.0.1, 192.168.0.2, 192.168.0.3]
  office:  [203.0.113.0/24, 198.51.100.7-198.51.100.20, "2001:db8:aa::/48"]
  friends: {file: friends.txt}           # one per line, # comments; watched

inbound:                                 # who may come in; the port is the one that the client dials
  - deny: any
    from: friends
  - allow: [http, https]                 # no from: anyone
  - allow: 6379/tcp
    from: cluster
  - allow: ssh
    from: [office, 192.0.2.4]
    limit: 10/minute                     # new connections per source address
  - allow: published                     # every port that container web publishes, whatever the number
    from: office
  - allow: swarm                         # 2377/tcp 7946/tcp 7946/udp 4789/udp esp
    from: cluster
  - allow: ping

egress:                                  # what containers may reach
  - allow: [dns, 443/tcp]
    network: backend
    to: [office, 10.0.0.0/8]
  - deny: any
    network: backend

outbound: []                             # what the host itself may reach

defaults: {inbound: deny, egress: allow, outbound: allow}   # these are the defaults; reject instead of deny answers the client
trusted: [wg0, virbr0]                   # interfaces that are not filtered
log: {denied: 10/second}                 # off | rate; by NFLOG, never to dmesg
established: recheck                     # keep: live connections that a new policy denies go on
docker-repair: mend                      # off | tell | mend
hygiene: on                              # bogus TCP flags, NEW without SYN, invalid state, spoofed sources
`

func TestDesignExample(t *testing.T) {
	files := Memory{"/etc/q/policy.yaml": design, "/etc/q/friends.txt": "# them\n\n198.51.100.200\r\n2001:db8::/64 # v6\n"}
	p, _, list := Load(files, "/etc/q/policy.yaml")
	if list.HasErrors() {
		t.Fatal(list.Format(func(string) []byte { return []byte(design) }))
	}
	if len(p.Inbound) != 7 || len(p.Egress) != 2 || len(p.Outbound) != 0 || len(p.Sets) != 3 {
		t.Fatalf("%d %d %d rules, %d sets", len(p.Inbound), len(p.Egress), len(p.Outbound), len(p.Sets))
	}
	if got := p.Inbound[3].Origin(); got != "policy.yaml:14" {
		t.Errorf("origin %s", got)
	}
	if s, _ := p.Set("friends"); s.File != "/etc/q/friends.txt" || s.Addrs.String() != "198.51.100.200 2001:db8::/64" {
		t.Errorf("friends: %+v", s)
	}
}

func TestDefault(t *testing.T) {
	p, list := Parse("default", []byte(DefaultText))
	if len(list) > 0 {
		t.Fatal(list)
	}
	if len(Default().Inbound) != 2 || Default().Inbound[0].Origin() != "default" || !p.Hygiene || p.Log.Count != 10 {
		t.Errorf("%+v", p)
	}
}
