package sim_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"quaywall/internal/inventory"
	nf "quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

// The host of the tables: two cards, docker0 with container c1, which publishes port 80 as 8080.
func host(tables ...*nf.Table) *snapshot.Host {
	h := &snapshot.Host{Rules: nf.Rules{Tables: tables}, Sysctls: map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.bridge.bridge-nf-call-iptables": "1",
		"net.bridge.bridge-nf-call-ip6tables": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.all.route_localnet": "0"}}
	for _, i := range []struct{ name, kind, master, addrs string }{
		{"docker0", "bridge", "", "172.17.0.1/16"}, {"eth0", "", "", "203.0.113.1/24 2001:db8:113::1/64 fe80::1/64"},
		{"eth1", "", "", "192.168.50.1/24"}, {"lo", "", "", "127.0.0.1/8 ::1/128"}, {"veth1", "veth", "docker0", ""},
	} {
		iface := inventory.Interface{Name: i.name, Kind: i.kind, Master: i.master, Up: true}
		for _, f := range strings.Fields(i.addrs) {
			p := netip.MustParsePrefix(f)
			iface.Addrs = append(iface.Addrs, p)
			h.Routes = append(h.Routes, snapshot.Route{Table: "local", Type: 2, Dst: netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), Dev: i.name, Src: p.Addr()})
			if i.name == "lo" {
				h.Routes = append(h.Routes, snapshot.Route{Table: "local", Type: 2, Dst: p.Masked(), Dev: "lo", Src: p.Addr()})
				continue
			}
			h.Routes = append(h.Routes, snapshot.Route{Table: "main", Type: 1, Dst: p.Masked(), Dev: i.name, Src: p.Addr()})
		}
		h.Inventory.Interfaces = append(h.Inventory.Interfaces, iface)
	}
	h.Routes = append(h.Routes,
		snapshot.Route{Table: "main", Type: 1, Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth0", Via: netip.MustParseAddr("203.0.113.2")},
		snapshot.Route{Table: "main", Type: 1, Dst: netip.MustParsePrefix("::/0"), Dev: "eth0", Via: netip.MustParseAddr("2001:db8:113::2")},
		snapshot.Route{Table: "local", Type: 3, Dst: netip.MustParsePrefix("203.0.113.255/32"), Dev: "eth0"})
	h.Inventory.Networks = []inventory.Network{{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}}}
	h.Inventory.Published = []inventory.Published{{Addr: netip.IPv4Unspecified(), Proto: 6, Port: 8080, Container: "c1", Networks: []string{"bridge"}, Target: 80}}
	h.Containers = []snapshot.Container{{Name: "c1", ID: "0123456789abcdef", Mode: "bridge",
		Networks: []snapshot.Endpoint{{Network: "bridge", Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2")}}}},
		{Name: "c2", Mode: "bridge", Networks: []snapshot.Endpoint{{Network: "bridge", Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.3")}}}}}
	h.Sockets = []snapshot.Socket{{Proto: 6, Addr: netip.IPv6Unspecified(), Both: true, Port: 22, Process: "sshd"},
		{Proto: 6, Addr: netip.MustParseAddr("127.0.0.1"), Port: 5432, Process: "postgres"},
		{Proto: 6, Addr: netip.IPv4Unspecified(), Port: 8080, Process: "docker-proxy", To: netip.MustParseAddrPort("172.17.0.2:80")},
		{Proto: 6, Addr: netip.IPv6Unspecified(), Port: 8080, Process: "docker-proxy", To: netip.MustParseAddrPort("172.17.0.2:80")}}
	return h
}

// Rules in short.

func num(f nf.Field, first uint64, last ...uint64) nf.Match {
	r := nf.Range{First: first, Last: first}
	if len(last) > 0 {
		r.Last = last[0]
	}
	return nf.Compare{Field: f, Values: nf.Values{Numbers: []nf.Range{r}}}
}

func addrs(f nf.Field, list string) nf.Match {
	return nf.Compare{Field: f, Values: nf.Values{Addrs: netset.MustParse(list)}}
}

func iface(f nf.Field, names ...string) nf.Match {
	return nf.Compare{Field: f, Values: nf.Values{Names: names}}
}

func not(m nf.Match) nf.Match {
	c := m.(nf.Compare)
	c.Not = true
	return c
}

// do is a rule; its text is made of its place alone.
func do(a nf.Action, matches ...nf.Match) *nf.Rule {
	return &nf.Rule{Matches: matches, Actions: []nf.Action{a}}
}

var (
	accept  = nf.Verdict{Kind: nf.Accept}
	drop    = nf.Verdict{Kind: nf.Drop}
	returns = nf.Verdict{Kind: nf.Return}
)

func jump(chain string) nf.Action { return nf.Verdict{Kind: nf.Jump, Chain: chain} }
func goTo(chain string) nf.Action { return nf.Verdict{Kind: nf.Goto, Chain: chain} }
func mark(value uint64) nf.Action { return nf.Assign{Field: nf.Mark, Mask: 0xffffffff, Value: value} }
func toPort(port uint64) nf.Action {
	return nf.Translate{Kind: nf.Redirect, Ports: []nf.Range{{First: port, Last: port}}}
}

func dnat(addr string, port uint64) nf.Action {
	t := nf.Translate{Kind: nf.DNAT, Addrs: nf.Values{Addrs: netset.MustParse(addr)}}
	if port != 0 {
		t.Ports = []nf.Range{{First: port, Last: port}}
	}
	return t
}

func chain(name string, rules ...*nf.Rule) *nf.Chain {
	for i, r := range rules {
		r.Number, r.Text = i+1, fmt.Sprintf("%s/%d", name, i+1)
	}
	return &nf.Chain{Name: name, Rules: rules}
}

func base(name string, typ nf.Type, hook nf.Hook, priority int, policy nf.VerdictKind, rules ...*nf.Rule) *nf.Chain {
	c := chain(name, rules...)
	c.Base = &nf.Base{Type: typ, Hook: hook, Priority: priority, Policy: policy}
	return c
}

func input(rules ...*nf.Rule) *nf.Chain {
	return base("INPUT", nf.Filter, nf.Input, 0, nf.Accept, rules...)
}

func table(name string, chains ...*nf.Chain) *nf.Table {
	return &nf.Table{Dialect: nf.NFT, Family: nf.Inet, Name: name, Chains: chains}
}

// docker are the rules of Docker 20.10.
func docker() []*nf.Table {
	ct := nf.Compare{Field: nf.CtState, Values: nf.Values{Numbers: []nf.Range{{First: 1, Last: 2}}}}
	filter := table("filter", base("FORWARD", nf.Filter, nf.Forward, 0, nf.Drop,
		do(jump("DOCKER-USER")), do(accept, iface(nf.OutIface, "docker0"), ct), do(jump("DOCKER"), iface(nf.OutIface, "docker0")),
		do(accept, iface(nf.InIface, "docker0"), not(iface(nf.OutIface, "docker0"))), do(accept, iface(nf.InIface, "docker0"), iface(nf.OutIface, "docker0"))),
		chain("DOCKER", do(accept, addrs(nf.Dst, "172.17.0.2"), not(iface(nf.InIface, "docker0")), iface(nf.OutIface, "docker0"), num(nf.Proto, 6), num(nf.DstPort, 80))),
		chain("DOCKER-USER", do(returns)))
	local := num(nf.DstType, 2)
	nat := table("nat", base("PREROUTING", nf.NAT, nf.Prerouting, -100, nf.Accept, do(jump("DOCKER"), local)),
		base("OUTPUT", nf.NAT, nf.Output, -100, nf.Accept, do(jump("DOCKER"), not(addrs(nf.Dst, "127.0.0.0/8")), local)),
		base("POSTROUTING", nf.NAT, nf.Postrouting, 100, nf.Accept,
			do(nf.Translate{Kind: nf.Masquerade}, addrs(nf.Src, "172.17.0.0/16"), not(iface(nf.OutIface, "docker0")))),
		chain("DOCKER", do(returns, iface(nf.InIface, "docker0")), do(dnat("172.17.0.2", 80), not(iface(nf.InIface, "docker0")), num(nf.Proto, 6), num(nf.DstPort, 8080))))
	for _, t := range []*nf.Table{filter, nat} {
		t.Dialect, t.Family = nf.IPTablesNFT, nf.IPv4
	}
	return []*nf.Table{filter, nat}
}

func explain(t *testing.T, h *snapshot.Host, text string) *sim.Trace {
	t.Helper()
	q, err := packet.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	trace, err := sim.New(h).Explain(q, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fast, err := sim.New(h).Explain(q, sim.Options{Fast: true, All: true})
	if err != nil || fast.Verdict != trace.Verdict || fast.DeliveredTo != trace.DeliveredTo {
		t.Errorf("%s: fast %s %v, else %s %v, %v", text, fast.Verdict, fast.DeliveredTo, trace.Verdict, trace.DeliveredTo, err)
	}
	return trace
}

// told is a trace in short: the verdict, who got it, whether it is answered, what decided.
func told(tr *sim.Trace) string {
	words := []string{string(tr.Verdict), tr.DeliveredTo.Kind}
	if tr.DeliveredTo.Name != "" {
		words = append(words, tr.DeliveredTo.Name)
	}
	switch {
	case tr.Reachable == nil:
		words = append(words, "perhaps")
	case *tr.Reachable:
		words = append(words, "answered")
	default:
		words = append(words, "unanswered")
	}
	if tr.DecidedBy != nil {
		words = append(words, "by", tr.DecidedBy.Text)
	}
	return strings.Join(words, " ")
}

func TestWaysOfDocker(t *testing.T) {
	for _, tt := range []struct{ packet, want string }{
		{"tcp 203.0.113.2 -> 203.0.113.1:8080", "accept container c1 answered by DOCKER/1"},
		{"tcp 198.51.100.9 -> 192.168.50.1:8080 in eth0", "accept container c1 answered by DOCKER/1"},
		{"tcp 192.168.50.2 -> 172.17.0.1:8080", "accept container c1 answered by DOCKER/1"},
		{"tcp 2001:db8:113::2 -> [2001:db8:113::1]:8080", "accept proxy c1 answered"},
		{"tcp 203.0.113.2 -> 172.17.0.2:80", "accept container c1 answered by DOCKER/1"},
		{"tcp 203.0.113.2 -> 172.17.0.2:81", "drop none unanswered by policy drop"},
		{"tcp 203.0.113.2 -> 203.0.113.1:22", "accept host sshd answered"},
		{"tcp 203.0.113.2 -> 203.0.113.1:5432", "accept host unanswered"},
		{"icmp 203.0.113.2 -> 203.0.113.1", "accept host kernel answered"},
		{"tcp -> 203.0.113.1:8080 from host", "accept container c1 answered"},
		{"tcp -> 127.0.0.1:8080 from host", "accept proxy c1 answered"},
		{"tcp -> 127.0.0.1:5432 from host", "accept host postgres answered"},
		{"tcp -> 172.17.0.2:81 from host", "accept container c1 perhaps"},
		{"tcp -> 203.0.113.1:8080 from container c1", "accept proxy c1 answered"},
		{"tcp -> 203.0.113.1:22 from container c1", "accept host sshd answered"},
		{"tcp -> 203.0.113.2:9000 from container c1", "accept remote eth0 perhaps by FORWARD/4"},
		{"tcp -> 172.17.0.3:81 from container c1", "accept container c2 perhaps by FORWARD/5"},
		{"tcp -> [2001:db8:113::2]:9000 from container c1", "drop none unanswered by no source address"},
		{"tcp 203.0.113.2 -> 203.0.113.1:8080 state established", "accept container c1 answered by FORWARD/2"},
		{"tcp 203.0.113.2 -> 203.0.113.1:8080 state invalid", "accept host perhaps"},
		{"tcp 10.0.0.1 -> 127.0.0.1:5432 in eth0", "drop none unanswered by martian"},
		{"tcp 172.17.0.1 -> 203.0.113.1:22 in eth0", "drop none unanswered by accept_local = 0"},
	} {
		if got := told(explain(t, host(docker()...), tt.packet)); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.packet, got, tt.want)
		}
	}
}

// TestZone: what the host sends to a group leaves by the interface that the address names.
func TestZone(t *testing.T) {
	h := host(table("a", base("out", nf.Filter, nf.Output, 0, nf.Accept, do(drop, iface(nf.OutIface, "eth1")))))
	for _, dev := range []string{"eth0", "eth1"} {
		h.Routes = append(h.Routes, snapshot.Route{Table: "local", Type: 5, Dst: netip.MustParsePrefix("ff00::/8"), Dev: dev})
	}
	for dev, want := range map[string]sim.Verdict{"eth0": sim.Accept, "eth1": sim.Drop} {
		if tr := explain(t, h, "udp -> [ff02::1%"+dev+"]:9 from host"); tr.Verdict != want {
			t.Errorf("out by %s: %s, %s", dev, tr.Verdict, tr.Why)
		}
	}
}

// TestChains: jumps, gotos and what their return means, verdicts that end one base chain and no other.
func TestChains(t *testing.T) {
	ssh := "tcp 203.0.113.2 -> 203.0.113.1:22"
	for name, tt := range map[string]struct {
		tables []*nf.Table
		want   string
	}{
		"accept ends its base chain alone": {[]*nf.Table{table("a", base("first", nf.Filter, nf.Input, -10, nf.Accept, do(accept))), table("b", input(do(drop)))}, "INPUT/1"},
		"drop ends all":                    {[]*nf.Table{table("a", base("first", nf.Filter, nf.Input, -10, nf.Accept, do(drop))), table("b", input(do(accept)))}, "first/1"},
		"the policy":                       {[]*nf.Table{table("a", base("x", nf.Filter, nf.Input, 0, nf.Drop, do(accept, num(nf.DstPort, 23))))}, "policy drop"},
		"return of a jump goes on":         {[]*nf.Table{table("a", input(do(jump("u")), do(drop)), chain("u", do(returns), do(accept)))}, "INPUT/2"},
		"the end of a jump goes on":        {[]*nf.Table{table("a", input(do(jump("u")), do(drop)), chain("u", do(accept, num(nf.DstPort, 23))))}, "INPUT/2"},
		"goto does not come back":          {[]*nf.Table{table("a", input(do(goTo("u")), do(drop)), chain("u"))}, "-"},
		"goto comes back to the jump": {[]*nf.Table{table("a", input(do(jump("u")), do(drop)), chain("u", do(goTo("v")), do(accept)), chain("v", do(returns)))},
			"INPUT/2"},
		"return of a base chain is its policy": {[]*nf.Table{table("a", base("x", nf.Filter, nf.Input, 0, nf.Drop, do(returns), do(accept)))}, "policy drop"},
		"a dormant table":                      {[]*nf.Table{{Name: "a", Dormant: true, Chains: []*nf.Chain{input(do(drop))}}}, "-"},
		"what comes later of one priority":     {[]*nf.Table{table("a", input(do(drop))), table("b", base("late", nf.Filter, nf.Input, 0, nf.Accept, do(drop)))}, "late/1"},
		"a mark of before": {[]*nf.Table{table("a", base("m", nf.Filter, nf.Prerouting, -150, nf.Accept, do(mark(7)))),
			table("b", input(do(drop, num(nf.Mark, 7))))}, "INPUT/1"},
		"no connection before it is tracked": {[]*nf.Table{table("a", base("m", nf.Filter, nf.Prerouting, -300, nf.Accept, do(drop, num(nf.CtState, 0)),
			do(drop, num(nf.CtState, 3))))}, "m/2"},
		"not tracked": {[]*nf.Table{table("a", base("m", nf.Filter, nf.Prerouting, -300, nf.Accept, do(nf.Untrack{})), input(do(drop, num(nf.CtState, 4))))}, "INPUT/1"},
		"a circle":    {[]*nf.Table{table("a", input(do(jump("u"))), chain("u", do(jump("u"))))}, "INPUT/1"},
	} {
		tr := explain(t, host(tt.tables...), ssh)
		got := "-"
		if tr.Verdict == sim.Drop {
			got = tr.DecidedBy.Text
		}
		if name == "a circle" {
			got = tt.want
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// ladder is chains of which each jumps several times to the next, and the last does something.
func ladder(chains, jumps int, last nf.Action) *nf.Table {
	t := &nf.Table{Family: nf.IPv4, Dialect: nf.IPTablesNFT, Name: "filter", Chains: []*nf.Chain{base("INPUT", nf.Filter, nf.Input, 0, nf.Drop, do(jump("C1")))}}
	for i := 1; i < chains; i++ {
		var rules []*nf.Rule
		for range jumps {
			rules = append(rules, do(jump(fmt.Sprintf("C%d", i+1))))
		}
		t.Chains = append(t.Chains, chain(fmt.Sprintf("C%d", i), rules...))
	}
	t.Chains = append(t.Chains, chain(fmt.Sprintf("C%d", chains), do(last)))
	return t
}

// TestLongWays: a way that never ends is given up, and said to be; what is told of a long one stays short.
func TestLongWays(t *testing.T) {
	for name, tt := range map[string]struct {
		table *nf.Table
		want  sim.Verdict
		why   string
	}{
		"too long":          {ladder(24, 2, returns), sim.Unknown, "A million rules were looked at"},
		"long":              {ladder(14, 2, returns), sim.Drop, "policy of ip filter INPUT"},
		"deep":              {ladder(3000, 1, accept), sim.Accept, "C3000"},
		"deep, and back":    {ladder(3000, 1, returns), sim.Drop, "policy of ip filter INPUT"},
		"a circle decides":  {ladder(3, 1, jump("C1")), sim.Unknown, "circle"},
		"deeper than nft's": {nftables(ladder(17, 1, accept)), sim.Unknown, "deeper than the 16"},
		"as deep as nft's":  {nftables(ladder(16, 1, accept)), sim.Accept, "C16"},
	} {
		tr := explain(t, host(tt.table), "tcp 203.0.113.2 -> 203.0.113.1:22")
		if tr.Verdict != tt.want || !strings.Contains(tr.Why, tt.why) {
			t.Errorf("%s: %s, %s", name, tr.Verdict, tr.Why)
		}
		for _, step := range tr.Path {
			if len(step.Rules) > 4000 {
				t.Errorf("%s: %d rules are told of", name, len(step.Rules))
			}
		}
	}
}

func nftables(t *nf.Table) *nf.Table {
	t.Dialect = nf.NFT
	return t
}

// TestEnded: nobody waits for an answer that isn't wanted any longer.
func TestEnded(t *testing.T) {
	over := errors.New("over")
	q, err := packet.Parse("tcp 203.0.113.2 -> 203.0.113.1:22")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := sim.New(host(ladder(24, 2, returns))).Explain(q, sim.Options{Ended: func() error { return over }})
	if tr != nil || !errors.Is(err, over) {
		t.Errorf("%v, %v", tr, err)
	}
}

// TestDoubts: what isn't understood goes both ways, and matters only where these end differently.
func TestDoubts(t *testing.T) {
	unknown := nf.Opaque{Text: "-m marvel"}
	for name, tt := range map[string]struct {
		rules []*nf.Rule
		want  string
	}{
		"it matters":                      {[]*nf.Rule{do(drop, unknown)}, "unknown INPUT/1"},
		"another match fails anyway":      {[]*nf.Rule{do(drop, unknown, num(nf.DstPort, 23))}, "accept"},
		"both ways end alike":             {[]*nf.Rule{do(drop, unknown), do(drop)}, "drop INPUT/2"},
		"it only counts":                  {[]*nf.Rule{do(nf.Note{}, unknown)}, "accept"},
		"the one that decides is named":   {[]*nf.Rule{do(mark(1), unknown), do(drop, nf.Opaque{Text: "y"})}, "unknown INPUT/2"},
		"a target":                        {[]*nf.Rule{do(nf.OpaqueAction{Text: "-j WONDER"})}, "unknown INPUT/1"},
		"a set that isn't there":          {[]*nf.Rule{do(drop, nf.In{Fields: []nf.Field{nf.Src}, Set: "gone"})}, "unknown INPUT/1"},
		"a set that is read in part":      {[]*nf.Rule{do(drop, nf.In{Fields: []nf.Field{nf.Dst}, Set: "half"})}, "unknown INPUT/1"},
		"what is in it for sure":          {[]*nf.Rule{do(drop, nf.In{Fields: []nf.Field{nf.Src}, Set: "half"})}, "drop INPUT/1"},
		"a length":                        {[]*nf.Rule{do(drop, num(nf.Length, 40))}, "unknown INPUT/1"},
		"a limit is fresh":                {[]*nf.Rule{do(accept, nf.Stateful{Kind: "limit", Text: "limit 1/s", Fresh: true}), do(drop)}, "accept INPUT/1"},
		"a limit that is over comes late": {[]*nf.Rule{do(drop, nf.Stateful{Kind: "limit", Text: "limit over 1/s"})}, "accept"},
		"a program decides":               {[]*nf.Rule{do(nf.Verdict{Kind: nf.Queue})}, "unknown INPUT/1"},
	} {
		rules := table("a", input(tt.rules...))
		rules.Sets = []*nf.Set{{Name: "half", Addrs: netset.MustParse("203.0.113.2"), Unread: "a line"}}
		tr := explain(t, host(rules), "tcp 203.0.113.2 -> 203.0.113.1:22")
		got := string(tr.Verdict)
		if tr.DecidedBy != nil && tr.DecidedBy.Rule > 0 {
			got += " " + tr.DecidedBy.Text
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s (%s)", name, got, tt.want, tr.Why)
		}
		if strings.Contains(name, "limit") && len(tr.Assumptions) == 0 {
			t.Errorf("%s: no assumption is told", name)
		}
	}
}

// TestTranslations: what is rewritten, by whom, and how the packet goes on.
func TestTranslations(t *testing.T) {
	pre := func(name string, priority int, rules ...*nf.Rule) *nf.Chain {
		return base(name, nf.NAT, nf.Prerouting, priority, nf.Accept, rules...)
	}
	out := func(rules ...*nf.Rule) *nf.Chain { return base("out", nf.NAT, nf.Output, -100, nf.Accept, rules...) }
	for name, tt := range map[string]struct {
		tables []*nf.Table
		packet string
		want   string
	}{
		"the first that translates wins": {[]*nf.Table{table("a", pre("p", -100, do(toPort(8080)))), table("b", pre("q", -90, do(toPort(5432))))},
			"tcp 203.0.113.2 -> 203.0.113.1:22", "proxy 172.17.0.2:80"},
		"a chain that doesn't leaves it to the next": {[]*nf.Table{table("a", pre("p", -100, do(accept))), table("b", pre("q", -90, do(toPort(22))))},
			"tcp 203.0.113.2 -> 203.0.113.1:2222", "host 203.0.113.1:22"},
		"redirect leads to the interface's address": {[]*nf.Table{table("a", pre("p", -100, do(toPort(22))))}, "tcp 192.168.50.2 -> 203.0.113.1:9", "host 192.168.50.1:22"},
		"redirect of the host's own":                {[]*nf.Table{table("a", out(do(toPort(5432))))}, "tcp -> 203.0.113.9:1 from host", "host 127.0.0.1:5432"},
		"all translation is at one place": {[]*nf.Table{table("a", pre("p", -90, do(toPort(22)))), table("b", base("f", nf.Filter, nf.Prerouting, -95, nf.Accept,
			do(drop, num(nf.DstPort, 22))))}, "tcp 203.0.113.2 -> 203.0.113.1:9", "none "},
		"output's filter sees the interface of before": {[]*nf.Table{table("a", out(do(dnat("172.17.0.2", 80))), base("f", nf.Filter, nf.Output, 0, nf.Accept,
			do(drop, iface(nf.OutIface, "docker0"))), base("g", nf.Filter, nf.Postrouting, 0, nf.Accept, do(drop, iface(nf.OutIface, "eth0"))))},
			"tcp -> 203.0.113.9:1 from host", "container 172.17.0.2:80"},
		"netmap keeps host bits": {[]*nf.Table{table("a", pre("p", -100, do(nf.Translate{Kind: nf.Netmap, Addrs: nf.Values{Addrs: netset.MustParse("192.168.50.0/24")}})))},
			"tcp 203.0.113.2 -> 10.1.2.77:9", "remote 192.168.50.77:9"},
		"a mark routes anew": {[]*nf.Table{table("a", base("m", nf.Route, nf.Output, -150, nf.Accept, do(mark(1))))}, "tcp -> 192.0.2.9:9 from host", "remote 192.0.2.9:9 by eth1"},
	} {
		h := host(tt.tables...)
		h.Policies = []snapshot.RoutingRule{{Family: nf.IPv4, Table: "local", Action: "lookup", SuppressPrefix: -1},
			{Family: nf.IPv4, Priority: 100, Mark: 1, MarkMask: 1, Table: "other", Action: "lookup", SuppressPrefix: -1},
			{Family: nf.IPv4, Priority: 32766, Table: "main", Action: "lookup", SuppressPrefix: -1}}
		h.Routes = append(h.Routes, snapshot.Route{Table: "other", Type: 1, Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth1"})
		tr := explain(t, h, tt.packet)
		got := tr.DeliveredTo.Kind + " "
		if tr.DeliveredTo.Address != "" {
			got += fmt.Sprintf("%s:%d", tr.DeliveredTo.Address, tr.DeliveredTo.Port)
		}
		if strings.Contains(tt.want, " by ") {
			got += " by " + tr.DeliveredTo.Name
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s (%s)", name, got, tt.want, tr.Why)
		}
	}
}

// TestAnswers: a request that gets through is of no use where its answer doesn't.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		tables []*nf.Table
		want   string
	}{
		"dropped on its way out": {[]*nf.Table{table("a", base("out", nf.Filter, nf.Output, 0, nf.Drop))}, "policy of inet a out"},
		"let out as established": {[]*nf.Table{table("a", base("out", nf.Filter, nf.Output, 0, nf.Drop, do(accept, num(nf.CtState, 1))))}, ""},
		"not tracked": {[]*nf.Table{table("a", base("raw", nf.Filter, nf.Prerouting, -300, nf.Accept, do(nf.Untrack{})),
			base("out", nf.Filter, nf.Output, 0, nf.Drop, do(accept, num(nf.CtState, 1))))}, "policy of inet a out"},
	} {
		tr := explain(t, host(tt.tables...), "tcp 203.0.113.2 -> 203.0.113.1:22")
		if tr.Verdict != sim.Accept || *tr.Reachable != (tt.want == "") || !strings.Contains(tr.Why, tt.want) {
			t.Errorf("%s: %s, %s", name, told(tr), tr.Why)
		}
	}
}
