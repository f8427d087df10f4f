package compile_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/compile"
	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares what a person is shown. Few and small: that the rules do the right thing is the property test's to say.
func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		policy *policy.Policy
		inv    *inventory.Inventory
	}{
		"default":    {defaultPolicy(), &inventory.Inventory{}},
		"s1":         {s1(), testHost()},
		"restricted": {restricted(), testHost()},
	} {
		t.Run(name, func(t *testing.T) {
			rs, list := compile.Compile(c.policy, c.inv, compile.Options{LogGroup: 86})
			if len(list) > 0 {
				t.Error(list)
			}
			path := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(rs.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), rs.String()); diff != "" {
				t.Errorf("go test -update writes it anew:\n%s", diff)
			}
		})
	}
}

func at(line int) diag.Pos { return diag.Pos{File: "/etc/quaywall/policy.yaml", Line: line} }

func port(proto uint8, n uint16) policy.Traffic {
	return policy.Traffic{Proto: proto, Ports: netset.Ports{First: n, Last: n}}
}

func echo(proto, icmpType uint8) policy.Traffic {
	return policy.Traffic{Proto: proto, ICMP: policy.ICMPMatch{HasType: true, Type: icmpType}}
}

var ping = []policy.Traffic{echo(policy.ICMP, 8), echo(policy.ICMPv6, 128)}

// defaultPolicy is the built-in one.
func defaultPolicy() *policy.Policy {
	return &policy.Policy{
		Inbound: []policy.Rule{
			{Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 22)}},
			{Verb: policy.Allow, What: ping},
		},
		Defaults: policy.Defaults{Inbound: policy.Verdict{Verb: policy.Deny}, Egress: policy.Verdict{Verb: policy.Allow},
			Outbound: policy.Verdict{Verb: policy.Allow}},
		Log: rate.Rate{Count: 10, Per: time.Second, Burst: 5}, Hygiene: true,
	}
}

// s1 is scenario S1.
func s1() *policy.Policy {
	p := defaultPolicy()
	p.Sets = []policy.Set{{Name: "cluster", Pos: at(3), Addrs: netset.MustParse("192.168.0.1 192.168.0.2 192.168.0.3")}}
	p.Inbound = []policy.Rule{
		{Pos: at(5), Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 22)}},
		{Pos: at(6), Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 80), port(policy.TCP, 443)}},
		{Pos: at(7), Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 6379)},
			From: policy.Addresses{Given: true, Sets: []string{"cluster"}}, Note: "Redis"},
		{Pos: at(8), Verb: policy.Allow, What: ping},
	}
	return p
}

// restricted has rules in all three sections, a limit, a log and an opened network.
func restricted() *policy.Policy {
	p := s1()
	p.Inbound = append(p.Inbound,
		policy.Rule{Pos: at(9), Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 25)}, Log: true,
			Limit: rate.Rate{Count: 10, Per: time.Minute, Burst: 5}},
		policy.Rule{Pos: at(10), Verb: policy.Allow, What: []policy.Traffic{port(policy.TCP, 5432)},
			To: policy.Addresses{Given: true, Network: "shop"}},
		policy.Rule{Pos: at(11), Verb: policy.Reject, What: []policy.Traffic{{}}, From: policy.Addresses{Given: true, Not: true, Sets: []string{"cluster"}}})
	p.Egress = []policy.Rule{
		{Pos: at(13), Verb: policy.Deny, What: []policy.Traffic{port(policy.TCP, 22)}, To: policy.Addresses{Given: true, Host: true}},
		{Pos: at(14), Verb: policy.Deny, What: []policy.Traffic{{}}, Networks: []string{"shop"}},
	}
	p.Outbound = []policy.Rule{{Pos: at(16), Verb: policy.Deny, What: []policy.Traffic{port(policy.TCP, 25)}, On: []string{"eth0"}}}
	p.Trusted = []string{"wg0"}
	return p
}
