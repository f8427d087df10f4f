// Command matrix runs the scenarios with several releases of Docker, one after the other, and writes what came of it as
// tables: version × backend × scenario, the leaks, the life of a host.
//
//	go run ./internal/testkit/cmd/matrix -o docs/matrix.md DIR…     beside the installed engine, those unpacked in DIR
//
// With QUAYWALL_ENGINE29=DIR, or the path of its dockerd, that engine is tried with both of its backends too.
//
// Be aware: it runs for half an hour. A test that was skipped counts as failed. A page holds what one run measured, so a run
// with -run has to write elsewhere.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	out := flag.String("o", "docs/matrix.md", "file to write")
	only := flag.String("run", "", "scenarios to run, as in go test -run; all of them otherwise")
	installed := flag.Bool("installed", true, "try the installed engine too")
	flag.Parse()
	var engines []engine
	if *installed {
		engines = append(engines, engine{})
	}
	for _, dir := range flag.Args() {
		engines = append(engines, engine{dir: dir})
	}
	if err := run(ctx, *out, *only, append(engines, engine29(os.Getenv("QUAYWALL_ENGINE29"))...)); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

// engine is a release of Docker to try.
type engine struct {
	dir     string // where it is unpacked; "": the installed one
	backend string // for --firewall-backend; "": as it is by default
	version string // "26.1.5"
}

// result is what came of one engine.
type result struct {
	engine engine
	passed map[[2]string]bool // by variant and test: "nft", "TestS1"
	leaks  []leakFact
	lives  []lifeFact
	failed bool
}

// leakFact and lifeFact are what the tests of these names log; see package scenario.
type leakFact struct {
	Leak          int
	What          string
	Engine        string
	Before, After bool
}

type lifeFact struct {
	Event                string
	Engine               string
	Works, Held, Noticed bool
}

func run(ctx context.Context, out, only string, engines []engine) error {
	if err := identify(ctx, engines); err != nil {
		return err
	}
	var results []result
	failed := false
	for _, e := range engines {
		fmt.Printf("Docker %v\n", e)
		r, err := try(ctx, e, only)
		if err != nil {
			return err
		}
		failed = failed || r.failed
		results = append(results, r)
	}
	if err := os.WriteFile(out, []byte(page(results)), 0o644); err != nil {
		return err
	}
	fmt.Println("written:", out)
	if failed {
		return errors.New("not all is as it should be: see the tests above")
	}
	return nil
}

// engine29 is the engine at a path, in a folder or its dockerd, with each of its backends.
func engine29(path string) []engine {
	if path == "" {
		return nil
	}
	if filepath.Base(path) == "dockerd" {
		path = filepath.Dir(path)
	}
	return []engine{{dir: path, backend: "iptables"}, {dir: path, backend: "nftables"}}
}

// identify asks engines for their versions.
func identify(ctx context.Context, engines []engine) error {
	for i, e := range engines {
		program := "dockerd"
		if e.dir != "" {
			program = filepath.Join(e.dir, program)
		}
		said, err := exec.CommandContext(ctx, program, "--version").Output()
		words := strings.Fields(string(said))
		if err != nil || len(words) < 3 {
			return fmt.Errorf("%s --version: %w: %s", program, err, said)
		}
		engines[i].version, _, _ = strings.Cut(strings.TrimSuffix(words[2], ","), "+")
	}
	return nil
}

func (e engine) String() string {
	if e.backend == "nftables" {
		return e.version + " (nftables)"
	}
	return e.version
}

// scenarios are the tests that the columns of the table stand for.
var scenarios = []struct{ title, test string }{
	{"S1", "TestS1"}, {"S2", "TestS2"}, {"S3", "TestS3"}, {"S4", "TestS4"}, {"S7", "TestS7"}, {"leaks", "TestLeaks"}, {"life", "TestLife"},
}

// repair is the test of what there is for Docker's rules of iptables alone.
const repair = "TestS3"

// try runs the scenarios with one engine.
func try(ctx context.Context, e engine, only string) (result, error) {
	if only == "" {
		for _, s := range scenarios {
			if s.test != repair || e.backend != "nftables" {
				only += "|^" + s.test + "$"
			}
		}
		only = only[1:]
	}
	cmd := exec.CommandContext(ctx, "scripts/go", "test", "-json", "-count=1", "-timeout", "60m",
		"-run", only, "./internal/testkit/scenario", "-args", "-matrix")
	cmd.Env = append(os.Environ(), "CI=true", "QUAYWALL_ENGINE="+e.dir, "QUAYWALL_ENGINE_BACKEND="+e.backend)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	r := result{engine: e, passed: map[[2]string]bool{}}
	err = r.read(pipe)
	var exit *exec.ExitError
	if werr := cmd.Wait(); werr != nil && !errors.As(werr, &exit) {
		err = errors.Join(err, werr)
	} else if werr != nil {
		r.failed = true
	}
	return r, err
}

// event is one line of go test -json (go doc test2json).
type event struct {
	Action, Test, Output string
}

// read takes the events of a run. What a failed test had to say is printed.
func (r *result) read(pipe io.Reader) error {
	said := map[string][]string{}
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		switch e.Action {
		case "output":
			said[e.Test] = append(said[e.Test], e.Output)
			if err := r.fact(e); err != nil {
				return err
			}
		case "pass", "fail", "skip":
			r.end(e, said[e.Test])
			delete(said, e.Test)
		}
	}
	return lines.Err()
}

func (r *result) end(e event, said []string) {
	if e.Action != "pass" {
		r.failed = true
		fmt.Print(strings.Join(said, ""))
	}
	if parts := strings.Split(e.Test, "/"); len(parts) == 2 {
		r.passed[[2]string{parts[1], parts[0]}] = e.Action == "pass"
		fmt.Printf("  %-5s %s\n", e.Action, e.Test)
	}
}

// fact keeps what a test measured.
func (r *result) fact(e event) error {
	_, text, found := strings.Cut(e.Output, "matrix: ")
	if !found {
		return nil
	}
	if strings.HasPrefix(e.Test, "TestLeaks/") {
		var f leakFact
		err := json.Unmarshal([]byte(text), &f)
		r.leaks = append(r.leaks, f)
		return err
	}
	var f lifeFact
	err := json.Unmarshal([]byte(text), &f)
	r.lives = append(r.lives, f)
	return err
}
