package names

import "testing"

func TestNumbers(t *testing.T) {
	type reading struct {
		n  uint64
		ok bool
	}
	read := func(n uint64, ok bool) reading { return reading{n, ok} }
	for _, c := range []struct {
		what      string
		got, want reading
	}{
		{"a protocol's name", read(Protocol("TCP")), reading{6, true}},
		{"its number", read(Protocol("132")), reading{132, true}},
		{"no protocol", read(Protocol("256")), reading{0, false}},
		{"nothing", read(Protocol("")), reading{0, false}},
		{"a port's name", read(Port("domain")), reading{53, true}},
		{"an octal one", read(Port("0100")), reading{64, true}},
		{"a hexadecimal one", read(Port("0x10")), reading{16, true}},
		{"no port", read(Port("65536")), reading{0, false}},
		{"an underscore", read(Number("1_0", 32)), reading{0, false}},
		{"binary", read(Number("0b1", 32)), reading{0, false}},
		{"a MAC address", read(MAC("02:00:00:00:00:0A")), reading{0x02000000000a, true}},
		{"a short one", read(MAC("02:00:00:00:00")), reading{0, false}},
		{"one of letters", read(MAC("02:00:00:00:00:xy")), reading{0, false}},
	} {
		if c.got.ok != c.want.ok || c.got.ok && c.got.n != c.want.n {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestICMP(t *testing.T) {
	for name, want := range map[string]ICMP{"Echo-Request": {8, 0, 255}, "3/4": {3, 4, 4}, "host-prohibited": {3, 10, 10}, "11": {11, 0, 255}, "any": {255, 0, 255}} {
		if got, ok := ICMPType(name); !ok || got != want {
			t.Errorf("%s: %v %v", name, got, ok)
		}
	}
	if got, ok := ICMPv6Type("neighbour-advertisement"); !ok || got != (ICMP{136, 0, 255}) {
		t.Errorf("%v %v", got, ok)
	}
	for _, name := range []string{"", "frob", "256", "3/256", "3/"} {
		if got, ok := ICMPType(name); ok {
			t.Errorf("%q is %v", name, got)
		}
	}
}
