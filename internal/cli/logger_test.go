package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLogger: a line is what its reader expects: the journal, a program, a person.
func TestLogger(t *testing.T) {
	for _, c := range []struct {
		name    string
		journal bool
		json    bool
		want    string // what the line of a warning begins with
	}{
		{"journal", true, false, `<4>msg="somebody did it" by=me` + "\n"},
		{"json", true, true, `{"time":"`},
		{"person", false, false, "time="},
	} {
		var out bytes.Buffer
		a := newApp(Env{Stdout: &out, Stderr: &out, Getenv: func(name string) string {
			if name == "JOURNAL_STREAM" && c.journal {
				return "8:1234"
			}
			return ""
		}})
		a.opts.json = c.json
		a.logger().With(slog.String("by", "me")).Warn("somebody did it")
		if !strings.HasPrefix(out.String(), c.want) {
			t.Errorf("%s: %s", c.name, out.String())
		}
	}
}
