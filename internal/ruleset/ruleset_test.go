package ruleset

import "testing"

func TestParseOrigin(t *testing.T) {
	for _, o := range []Origin{
		{},
		{Note: "established"},
		{Note: "not a line: really"},
		{Line: "policy.yaml:12"},
		{Line: "policy.yaml:12", Note: "the office: port 22"},
		{Line: "my policy.yaml:7", Note: "see other.yaml:9: there"},
		{Line: "default"},
		{Line: Always, Note: "spoofed source"},
		{Line: OverLimit + "policy.yaml:12", Note: "x"},
		{Line: "default", Note: "x"},
	} {
		if got := ParseOrigin(o.Comment()); got != o {
			t.Errorf("%q: got %#v, want %#v", o.Comment(), got, o)
		}
	}
}
