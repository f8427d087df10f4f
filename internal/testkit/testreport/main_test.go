package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		pass  = `{"Action":"pass","Package":"q/a","Test":"TestOne"}` + "\n"
		skip  = `{"Action":"output","Package":"q/a","Test":"TestTwo","Output":"    two_test.go:7: needs root\n"}` + "\n" + `{"Action":"skip","Package":"q/a","Test":"TestTwo"}` + "\n"
		fail  = `{"Action":"output","Package":"q/a","Test":"TestThree","Output":"    three_test.go:9: got 1\n"}` + "\n" + `{"Action":"fail","Package":"q/a","Test":"TestThree"}` + "\n"
		died  = `{"Action":"output","Package":"q/b","Test":"TestFour","Output":"panic: four\n"}` + "\n" + `{"Action":"fail","Package":"q/b"}` + "\n"
		noise = "go: downloading something\n"
	)
	for _, test := range []struct {
		name, in string
		noSkips  bool
		good     bool
		want     []string
	}{
		{"all pass", noise + pass, true, true, []string{"go: downloading something", "1 passed, 0 failed, 0 skipped"}},
		{"a skip for a person", pass + skip, false, true, []string{"skipped: q/a TestTwo: needs root", "1 passed, 0 failed, 1 skipped"}},
		{"a skip in CI", pass + skip, true, false, []string{"skipped: q/a TestTwo: needs root", "counts as failed"}},
		{"a failure", pass + fail, false, false, []string{"three_test.go:9: got 1", "failed: q/a TestThree", "1 passed, 1 failed"}},
		{"a package that died", pass + died, false, false, []string{"panic: four", "failed: q/b", "1 passed, 1 failed"}},
		{"nothing", "", false, false, []string{"No test was run."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(test.in)); err != nil {
				t.Fatal(err)
			}
			if good := r.conclude(test.noSkips); good != test.good {
				t.Errorf("good = %v, want %v", good, test.good)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q:\n%s", want, out.String())
				}
			}
		})
	}
}
