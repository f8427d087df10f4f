package kernel

import (
	"errors"
	"testing"
)

func TestPayloadError(t *testing.T) {
	cause := errors.New("no such file")
	for _, test := range []struct {
		name string
		err  *PayloadError
		want string
	}{
		{"a line", &PayloadError{"iptables-nft", "*mangle\n-A X -j Y\nCOMMIT\n", 2, cause},
			`iptables-nft refuses line 2 of its payload, "-A X -j Y": no such file`},
		{"no line", &PayloadError{"nft", "add rule\n", 0, cause}, "nft refuses its payload: no such file"},
		{"a line that isn't there", &PayloadError{"nft", "add rule\n", 9, cause}, "nft refuses its payload: no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.err.Error(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if !errors.Is(test.err, cause) {
				t.Error("the cause is lost")
			}
		})
	}
}

func TestNumbered(t *testing.T) {
	e := &PayloadError{Payload: "*mangle\nCOMMIT\n"}
	if got, want := e.Numbered(), "    1  *mangle\n    2  COMMIT\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
