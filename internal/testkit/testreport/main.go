// Command testreport reads what `go test -json` prints and tells it to a person: a line for each package, everything
// about a test that failed, and a last line with the sums.
//
//	go test -json ./... | go run ./internal/testkit/testreport -no-skips
//
// Be aware: it fails when anything failed, when nothing was run at all, and with -no-skips when a test was skipped; the
// status of go test itself is lost in a pipe and not needed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	noSkips := flag.Bool("no-skips", false, "a skipped test is a failure")
	flag.Parse()
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if !r.conclude(*noSkips) {
		os.Exit(1)
	}
}

// event is one line of go test -json (go doc test2json), or of go build -json.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// report collects the events of one run.
type report struct {
	w       io.Writer
	output  map[[2]string][]string // by package and test, until that test has ended
	passed  int
	failed  []string
	skipped []string
}

func newReport(w io.Writer) *report {
	return &report{w: w, output: map[[2]string][]string{}}
}

// read takes events to their end. A line that is no event is passed on: it is what a compiler or the shell had to say.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.event(e)
			} else {
				fmt.Fprintf(r.w, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) event(e event) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnd(e, r.output[key])
		} else {
			r.testEnd(e, r.output[key])
		}
		delete(r.output, key)
	}
}

// testEnd counts a test. Subtests are counted like any other test.
func (r *report) testEnd(e event, output []string) {
	name := e.Package + " " + e.Test
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed = append(r.failed, name)
		fmt.Fprint(r.w, strings.Join(output, ""))
	case "skip":
		r.skipped = append(r.skipped, name+": "+reason(output))
	}
}

// packageEnd prints a package's line. A package can fail with no test of its own failing: it did not build, it
// panicked, or it ran out of time.
func (r *report) packageEnd(e event, output []string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.w, "ok    %-50s %7.1fs\n", e.Package, e.Elapsed)
	case "fail":
		if !slices.ContainsFunc(r.failed, func(name string) bool { return strings.HasPrefix(name, e.Package+" ") }) {
			r.failed = append(r.failed, e.Package)
			r.unfinished(e.Package)
		}
		fmt.Fprint(r.w, strings.Join(output, ""))
		fmt.Fprintf(r.w, "FAIL  %-50s %7.1fs\n", e.Package, e.Elapsed)
	}
}

// unfinished prints what tests had said that were running when their package died.
func (r *report) unfinished(pkg string) {
	for key, output := range r.output {
		if key[0] == pkg && key[1] != "" {
			fmt.Fprint(r.w, strings.Join(output, ""))
		}
	}
}

// reason is the sentence that a test was skipped with.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if _, after, ok := strings.Cut(line, ".go:"); ok {
			_, text, _ := strings.Cut(after, ": ")
			return strings.TrimSpace(text)
		}
	}
	return "no reason given"
}

// conclude prints the sums and tells whether the run was good.
func (r *report) conclude(noSkips bool) bool {
	for _, s := range r.skipped {
		fmt.Fprintln(r.w, "skipped:", s)
	}
	for _, f := range r.failed {
		fmt.Fprintln(r.w, "failed:", f)
	}
	if noSkips && len(r.skipped) > 0 {
		fmt.Fprintln(r.w, "Here a skipped test counts as failed: something that the tests need is missing.")
	}
	none := r.passed+len(r.failed) == 0
	if none {
		fmt.Fprintln(r.w, "No test was run.")
	}
	fmt.Fprintf(r.w, "%d passed, %d failed, %d skipped\n", r.passed, len(r.failed), len(r.skipped))
	return len(r.failed) == 0 && !none && !(noSkips && len(r.skipped) > 0)
}
