package ipset

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
)

func addrs(list string) netfilter.Values { return netfilter.Values{Addrs: netset.MustParse(list)} }

func named(list ...string) netfilter.Values { return netfilter.Values{Names: list} }

func n(first, last uint64) netfilter.Values { return numbers(first, last) }

// element is an element with nothing but its key.
func element(key ...netfilter.Values) netfilter.Element { return netfilter.Element{Key: key} }

func except(key ...netfilter.Values) netfilter.Element { return netfilter.Element{Key: key, Not: true} }

func count(packets, bytes uint64) *netfilter.Count {
	return &netfilter.Count{Packets: packets, Bytes: bytes}
}

// TestSets: of every type, with everything that an element may have.
func TestSets(t *testing.T) {
	for _, c := range []struct {
		text string
		want netfilter.Set // without its Name, Type and Parts
	}{
		{"hash:ip family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0xcd14f139\nadd x 10.0.0.1\nadd x 10.0.0.3-10.0.0.4",
			netfilter.Set{Addrs: netset.MustParse("10.0.0.1 10.0.0.3-10.0.0.4")}},
		{"hash:ip family inet netmask 24\nadd x 10.1.2.0", netfilter.Set{Addrs: netset.MustParse("10.1.2.0/24")}},
		{"hash:ip family inet6 netmask 64\nadd x fd00::", netfilter.Set{Family: netfilter.IPv6, Addrs: netset.MustParse("fd00::/64")}},
		{"hash:ip family inet bitmask 255.255.0.0\nadd x 10.1.0.0", netfilter.Set{Addrs: netset.MustParse("10.1.0.0/16")}},
		{"hash:ip family inet counters comment timeout 600\nadd x 10.0.0.1 timeout 5 packets 1 bytes 60 comment \"policy.yaml:3\"\nadd x 10.0.0.2",
			netfilter.Set{Dynamic: true, Addrs: netset.MustParse("10.0.0.2"), Elements: []netfilter.Element{
				{Key: []netfilter.Values{addrs("10.0.0.1")}, Count: count(1, 60), Comment: "policy.yaml:3"}}}},
		{"hash:net family inet comment skbinfo\nadd x 10.0.0.0/8 comment \"two\nlines\" skbmark 0x1/0xff skbprio 1:2 skbqueue 3\nadd x 192.0.2.1",
			netfilter.Set{Addrs: netset.MustParse("192.0.2.1"), Elements: []netfilter.Element{{Key: []netfilter.Values{addrs("10.0.0.0/8")}, Comment: "two\nlines"}}}},
		{"hash:net family inet\nadd x 10.0.0.0/8\nadd x 10.1.0.0/16 nomatch\nadd x 10.1.1.1\nadd x 10.1.2.0/24",
			netfilter.Set{Elements: []netfilter.Element{element(addrs("10.1.1.1")), element(addrs("10.1.2.0/24")),
				except(addrs("10.1.0.0/16")), element(addrs("10.0.0.0/8"))}}},
		{"bitmap:ip range 10.0.0.0-10.0.255.255 netmask 24 timeout 30\nadd x 10.0.3.0 timeout 29",
			netfilter.Set{Dynamic: true, Elements: []netfilter.Element{element(addrs("10.0.3.0/24"))}}},
		{"bitmap:ip,mac range 10.0.0.0-10.0.0.255\nadd x 10.0.0.3\nadd x 10.0.0.4,02:00:00:00:00:0A",
			netfilter.Set{Elements: []netfilter.Element{element(addrs("10.0.0.3"), n(0, 1<<48-1)), element(addrs("10.0.0.4"), n(0x02000000000a, 0x02000000000a))}}},
		{"bitmap:port range 0-1000\nadd x 80", netfilter.Set{Family: netfilter.Inet, Elements: []netfilter.Element{
			element(netfilter.Values{Numbers: []netfilter.Range{{First: 6, Last: 6}, {First: 17, Last: 17}}}, n(80, 80))}}},
		{"hash:ip,port family inet\nadd x 10.0.0.2,icmp:echo-request\nadd x 10.0.0.2,icmp:3/200\nadd x 10.0.0.2,gre:0\nadd x 10.0.0.3,udplite:6\nadd x 10.0.0.3,80-90",
			netfilter.Set{Elements: []netfilter.Element{element(addrs("10.0.0.2"), n(1, 1), n(8<<8, 8<<8)),
				element(addrs("10.0.0.2"), n(1, 1), n(3<<8|200, 3<<8|200)), element(addrs("10.0.0.2"), n(47, 47), n(0, 0)),
				element(addrs("10.0.0.3"), n(136, 136), n(6, 6)), element(addrs("10.0.0.3"), n(6, 6), n(80, 90))}}},
		{"hash:ip,port family inet6\nadd x fd00::1,ipv6-icmp:neighbour-solicitation\nadd x fd00::1,tcp:80", netfilter.Set{Family: netfilter.IPv6,
			Elements: []netfilter.Element{element(addrs("fd00::1"), n(58, 58), n(135<<8, 135<<8)), element(addrs("fd00::1"), n(6, 6), n(80, 80))}}},
		{"hash:ip,port,ip family inet\nadd x 10.0.0.1,udp:53,10.0.0.2", netfilter.Set{Elements: []netfilter.Element{
			element(addrs("10.0.0.1"), n(17, 17), n(53, 53), addrs("10.0.0.2"))}}},
		{"hash:ip,port,net family inet\nadd x 10.0.0.1,udp:53,10.2.0.0/16", netfilter.Set{Elements: []netfilter.Element{
			element(addrs("10.0.0.1"), n(17, 17), n(53, 53), addrs("10.2.0.0/16"))}}},
		{"hash:net,port family inet\nadd x 10.0.0.0/8,sctp:5-9", netfilter.Set{Elements: []netfilter.Element{
			element(addrs("10.0.0.0/8"), n(132, 132), n(5, 9))}}},
		{"hash:net,net family inet\nadd x 10.0.0.0/8,10.1.0.0/16\nadd x 10.0.0.0/24,0.0.0.0/0 nomatch\nadd x 10.0.0.0/24,10.9.0.0/16", netfilter.Set{Elements: []netfilter.Element{
			element(addrs("10.0.0.0/24"), addrs("10.9.0.0/16")), except(addrs("10.0.0.0/24"), addrs("0.0.0.0/0")), element(addrs("10.0.0.0/8"), addrs("10.1.0.0/16"))}}},
		{"hash:net,port,net family inet\nadd x 10.0.0.0/8,tcp:80,192.0.2.0/24", netfilter.Set{Elements: []netfilter.Element{
			element(addrs("10.0.0.0/8"), n(6, 6), n(80, 80), addrs("192.0.2.0/24"))}}},
		{"hash:net,iface family inet\nadd x 0.0.0.0/0,eth0\nadd x 10.0.0.0/8,veth wildcard\nadd x 10.0.0.0/8,physdev:eth1", netfilter.Set{Elements: []netfilter.Element{
			element(addrs("0.0.0.0/0"), named("eth0")), element(addrs("10.0.0.0/8"), named("veth*")), element(addrs("10.0.0.0/8"), named("physdev:eth1"))}}},
		{"hash:ip,mark family inet markmask 0xffffffff\nadd x 10.0.0.1,0x0000003f", netfilter.Set{Elements: []netfilter.Element{element(addrs("10.0.0.1"), n(0x3f, 0x3f))}}},
		{"hash:ip,mac family inet\nadd x 10.0.0.1,02:00:00:00:00:0a", netfilter.Set{Elements: []netfilter.Element{element(addrs("10.0.0.1"), n(0x02000000000a, 0x02000000000a))}}},
		{"hash:mac\nadd x 02:00:00:00:00:0A", netfilter.Set{Family: netfilter.Inet, Elements: []netfilter.Element{element(n(0x02000000000a, 0x02000000000a))}}},
		{"list:set size 8\nadd x a\nadd x b", netfilter.Set{Family: netfilter.Inet, Members: []string{"a", "b"}}},
		// What isn't understood leaves the rest.
		{"hash:ip family inet\nadd x 10.0.0.1\nadd x nonsense", netfilter.Set{Addrs: netset.MustParse("10.0.0.1"), Unread: "add x nonsense"}},
		{"hash:ip family inet\nadd x fd00::1", netfilter.Set{Unread: "add x fd00::1"}},
		{"hash:ip family inet bitmask 255.0.255.0\nadd x 10.0.1.0", netfilter.Set{Unread: "add x 10.0.1.0"}},
		{"hash:ip,mark family inet markmask 0xff\nadd x 10.0.0.1,0x3f", netfilter.Set{Unread: "markmask 0xff", Elements: []netfilter.Element{element(addrs("10.0.0.1"), n(0x3f, 0x3f))}}},
		{"hash:ip,moon family inet\nadd x 10.0.0.1,1", netfilter.Set{Unread: "the type hash:ip,moon"}},
		{"iphash --hashsize 1024 --probes 8 --resize 50\n-A x 10.0.0.1", netfilter.Set{Addrs: netset.MustParse("10.0.0.1")}},
	} {
		sets, problems := Parse("create x "+c.text+"\n", "sets")
		if len(sets) != 1 {
			t.Fatalf("%s: %d sets, %v", c.text, len(sets), problems)
		}
		got := *sets[0]
		if (got.Unread != "") != (len(problems) > 0) {
			t.Errorf("%s: %q, %v", c.text, got.Unread, problems)
		}
		if c.want.Family == netfilter.Inet && got.Family == netfilter.IPv4 {
			c.want.Family = netfilter.IPv4 // what is meant where nothing is said
		}
		got.Name, got.Type, got.Parts = "", "", nil
		if len(got.Elements) == 0 {
			got.Elements = nil
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n  got  %+v\n  want %+v", c.text, got, c.want)
		}
	}
}

// TestParts: the fields of a rule that asks for a set have its parts' kinds.
func TestParts(t *testing.T) {
	const a, n, s = netfilter.Address, netfilter.Number, netfilter.Name
	for kind, want := range map[string][]netfilter.Kind{"hash:ip,port,net": {a, n, n, a}, "hash:net,iface": {a, s}, "bitmap:port": {n, n},
		"hash:mac": {n}, "hash:ip,mark": {a, n}, "list:set": nil} {
		sets, _ := Parse("create x "+kind, "")
		if !reflect.DeepEqual(sets[0].Parts, want) {
			t.Errorf("%s has %v", kind, sets[0].Parts)
		}
	}
}

func TestDirty(t *testing.T) {
	for _, c := range []struct {
		name, text string
		sets       int
		problems   []string // parts of them, in order
	}{
		{"nothing", "", 0, nil},
		{"prose", "My sets:\n\ncreate a hash:ip\nadd a 10.0.0.1\nThat's it.\n", 1, []string{"not part of any sets", "2 lines"}},
		{"CRLF and NUL", "create a hash:ip\r\nadd a 10.0.0.1\x00\r\n", 1, nil},
		{"no such set", "add b 10.0.0.1\n", 0, []string{`"b"`}},
		{"no type", "create a\n", 0, []string{"type"}},
		{"name with spaces", "create we ird hash:ip\nadd we ird 1.2.3.4\n", 1, nil},
		{"comment cut short", "create a hash:ip comment\nadd a 10.0.0.1 comment \"never\nadd a 10.0.0.2\n", 1, nil},
		{"twice", "create a hash:ip\ncreate a hash:net\n", 1, []string{"second time"}},
		{"cut short", "create a hash:ip\nadd a", 1, []string{"not known whole"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sets, problems := Parse(c.text, "sets")
			if len(sets) != c.sets || len(problems) != len(c.problems) {
				t.Fatalf("%d sets, %v", len(sets), problems)
			}
			for i, want := range c.problems {
				if !strings.Contains(problems[i].Message, want) {
					t.Errorf("problem %v, want one with %q", problems[i], want)
				}
			}
		})
	}
}

// FuzzParse: nothing panics, and every element has as many parts as its set.
func FuzzParse(f *testing.F) {
	f.Add("create a hash:ip,port family inet counters comment\nadd a 10.0.0.1,tcp:80 packets 1 bytes 2 comment \"x\ny\"\n")
	f.Add("create b hash:net\nadd b 10.0.0.0/8 nomatch\nadd b 10.0.0.1-10.0.0.9\ncreate l list:set\nadd l b\n")
	f.Add("create m bitmap:ip,mac range 10.0.0.0/24\nadd m 10.0.0.1\ncreate i hash:net,iface\nadd i 10.0.0.0/8,eth wildcard")
	f.Fuzz(func(t *testing.T, text string) {
		sets, _ := Parse(text, "")
		for _, s := range sets {
			for _, e := range s.Elements {
				if len(e.Key) != len(s.Parts) {
					t.Fatalf("%s: %v of %v", s.Name, e.Key, s.Parts)
				}
			}
		}
	})
}

// dump is a set of so many addresses.
func dump(size int, behind string) string {
	var b strings.Builder
	b.WriteString("create big hash:ip family inet hashsize 1024 maxelem 1048576 counters comment\n")
	for i := range size {
		fmt.Fprintf(&b, "add big %d.%d.%d.%d%s\n", 1+i%200, i>>16&255, i>>8&255, i&255, behind)
	}
	return b.String()
}

func BenchmarkParseAMillion(b *testing.B) {
	text := dump(1_000_000, "")
	for b.Loop() {
		if sets, _ := Parse(text, ""); sets[0].Addrs.Len() == 0 {
			b.Fatal("nothing was read")
		}
	}
}

func BenchmarkParseAHundredThousandWithComments(b *testing.B) {
	text := dump(100_000, ` packets 0 bytes 0 comment "policy.yaml:12"`)
	for b.Loop() {
		if sets, _ := Parse(text, ""); len(sets[0].Elements) != 100_000 {
			b.Fatal("not all was read")
		}
	}
}
