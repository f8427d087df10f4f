package diag

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPos(t *testing.T) {
	for want, pos := range map[string]Pos{"": {}, "f": {File: "f"}, "f:3": {"f", 3, 0}, "f:3:4": {"f", 3, 4}} {
		if got := pos.String(); got != want {
			t.Errorf("%+v: %q, want %q", pos, got, want)
		}
	}
}

func TestList(t *testing.T) {
	var l List
	l.Warnf(Pos{"b", 1, 1}, "", "w")
	if l.Err() != nil || l.HasErrors() {
		t.Error("warnings are no error")
	}
	l.Errorf(Pos{"a", 2, 1}, "do %s", "e %d", 1)
	l.Errorf(Pos{"a", 1, 9}, "", "first")
	l.Errorf(Pos{"a", 1, 9}, "", "first")
	l.Sort()
	want := "a:1:9: error: first\na:2:1: error: e 1 (do %s)\nb:1:1: warning: w"
	if l.Err() == nil || l.Err().Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", l.Err(), want)
	}
	got, err := json.Marshal(l[2])
	if want := `{"severity":"warning","pos":{"file":"b","line":1,"col":1},"message":"w"}`; err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
}

// TestFormat: the caret stands under the place, whatever stands before it, and nothing of a broken file reaches the terminal.
func TestFormat(t *testing.T) {
	long := strings.Repeat("ä", 1000) + "X" + strings.Repeat("ö", 1000)
	source := "größer: x\n\tb\x1b[31m\n" + long + "\n"
	for _, c := range []struct {
		pos         Pos
		line, caret string
	}{
		{Pos{"f", 1, 9}, "größer: x", "        ^"},
		{Pos{"f", 1, 10}, "größer: x", "         ^"},
		{Pos{"f", 1, 99}, "größer: x", "         ^"},
		{Pos{"f", 2, 2}, " b·[31m", " ^"},
		{Pos{"f", 3, 1001}, strings.Repeat("ä", 79) + "X" + strings.Repeat("ö", 80), strings.Repeat(" ", 79) + "^"},
	} {
		list := List{{Pos: c.pos, Message: "m", Hint: "h"}}
		got := strings.Split(list.Format(func(string) []byte { return []byte(source) }), "\n")
		if len(got) != 5 || got[0] != c.pos.String()+": error: m" || got[1][8:] != c.line || got[2][8:] != c.caret || got[3] != "  h" {
			t.Errorf("%v:\n%s", c.pos, strings.Join(got, "\n"))
		}
	}
	for _, pos := range []Pos{{}, {File: "f"}, {"f", 9, 1}} {
		list := List{{Pos: pos, Message: "m"}}
		if got := list.Format(func(string) []byte { return []byte(source) }); strings.Count(got, "\n") != 1 {
			t.Errorf("%v: %q", pos, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"allow", "deny", "reject", "from", "to", "log"}
	for word, want := range map[string]string{
		"alow": "allow", "alolw": "allow", "denyy": "deny", "form": "from", "rejcet": "reject", "frobnicate": "", "lgo": "log", "": "", "xyz": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
