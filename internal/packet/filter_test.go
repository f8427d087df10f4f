package packet

import (
	"strings"
	"testing"
)

func TestParseFilter(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"tcp", "tcp"},
		{"tcp -> :443", "tcp -> :443"},
		{"203.0.113.0/24 ->", "203.0.113.0/24 ->"},
		{"203.0.113.77/24 -> 10.0.0.1", "203.0.113.0/24 -> 10.0.0.1"},
		{"-> 2001:db8::1", "-> 2001:db8::1"},
		{"udp [2001:db8::1]:53 -> ::/0", "udp [2001:db8::1]:53 -> ::/0"},
		{"tcp :80 ->", "tcp :80 ->"},
		{"tcp 203.0.113.99:1234 -> 203.0.113.10:8080 in eth0 state new", "tcp 203.0.113.99:1234 -> 203.0.113.10:8080 in eth0 state new"},
		{"icmp", "icmp"},
		{"icmp/8 -> 10.0.0.1", "icmp/8 -> 10.0.0.1"},
		{"icmp6/1/4", "icmp6/1/4"},
		{"state established from host", "from host state established"},
		{"from container web", "from container web"},
		{"50", "esp"},
	} {
		f, err := ParseFilter(test.text)
		if err != nil || f.String() != test.want {
			t.Errorf("%q is read as %q, %v; want %q", test.text, f, err, test.want)
			continue
		}
		if again, err := ParseFilter(f.String()); err != nil || again.String() != test.want {
			t.Errorf("%q, written and read again, is %q, %v", test.text, again, err)
		}
	}
}

func TestParseFilterRefuses(t *testing.T) {
	for _, test := range []struct{ text, word string }{
		{"-> :80", "a port needs its protocol"},
		{"icmp -> 10.0.0.1:80", "icmp has no ports"},
		{"icmp -> 2001:db8::1", "not of one family"},
		{"tcp 10.0.0.1 -> 2001:db8::1", "not of one family"},
		{"tcp 10.0.0.1", "stands before or behind ->"},
		{"tcp -> 10.0.0.1 10.0.0.2", "stands before or behind ->"},
		{"bogus", "is no IP protocol"},
		{"tcp -> :0", "is no port"},
		{"tcp -> 10.0.0.1:99999", "neither an address"},
		{"tcp/8", "too many parts"},
		{"in eth0 from host", "said twice"},
		{"state odd", "is no state"},
	} {
		_, err := ParseFilter(test.text)
		if err == nil || !strings.Contains(err.Error(), test.word) || !strings.Contains(err.Error(), FilterSyntax) {
			t.Errorf("%q: %v; want a word of %q and the syntax", test.text, err, test.word)
		}
	}
}
