package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quaywall/internal/testkit/netns"
)

// program is the built program: what a person runs is what is tested.
var program string

// listenVar makes the test program listen on the TCP addresses that it names, until its standard input ends.
const listenVar = "QUAYWALL_TEST_LISTEN"

func TestMain(m *testing.M) {
	if at := os.Getenv(listenVar); at != "" {
		os.Exit(serve(strings.Fields(at)))
	}
	netns.Isolate()
	os.Exit(build(m))
}

// serve is a daemon, which greets whoever connects. A test that listened itself would be an ancestor of the program, and
// what it listens on a way in.
func serve(addrs []string) int {
	for _, at := range addrs {
		l, err := net.Listen("tcp", at)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go greet(l)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func greet(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = conn.Write([]byte("\n"))
			_, _ = io.Copy(io.Discard, conn)
		}()
	}
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "quaywall-cli-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "quaywall")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "quaywall/cmd/quaywall").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// ran is how a run of the program ended.
type ran struct {
	status         int
	stdout, stderr string
}

// command is the program in a folder. Its environment is the test's, but with no word about quaywall and Docker.
func command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=xterm",
		"QUAYWALL_STATE_DIR=" + filepath.Join(dir, "state"), "QUAYWALL_RUN_DIR=" + filepath.Join(dir, "run"),
		"DOCKER_HOST=unix://" + filepath.Join(dir, "no-docker.sock")}
	return cmd
}

// run runs the program in a folder.
func run(t *testing.T, dir string, args ...string) ran {
	t.Helper()
	return runAs(t, dir, func(*exec.Cmd) {}, args...)
}

// runAs is run with something changed about the process.
func runAs(t *testing.T, dir string, change func(*exec.Cmd), args ...string) ran {
	t.Helper()
	cmd := command(dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	change(cmd)
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// expect compares a run with what it has to say. Every word of the lists has to be there, in any order.
func (r ran) expect(t *testing.T, status int, stdout, stderr []string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d", r.status, status)
	}
	for _, want := range stdout {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("standard output lacks %q", want)
		}
	}
	for _, want := range stderr {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("standard error lacks %q", want)
		}
	}
	if stderr == nil && r.stderr != "" {
		t.Errorf("standard error isn't empty")
	}
	if t.Failed() {
		t.Logf("standard output:\n%sstandard error:\n%s", r.stdout, r.stderr)
	}
}

// write puts a file into a folder.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "good.yaml", "version: 1\nservices: {mine: 9100/tcp}\ninbound: [{allow: mine}]\n")
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr []string
	}{
		{"", 0, []string{"Usage:", "Exit status:", "4  something was found"}, nil},
		{"--help", 0, []string{"Examples:", "check"}, nil},
		{"version", 0, []string{"quaywall unreleased (go"}, nil},
		{"version --json", 0, []string{`"version": "unreleased"`}, nil},
		{"version 1", 2, nil, []string{`version takes no arguments, not "1"`, "see quaywall version --help"}},
		{"verison", 2, nil, []string{`there is no command "verison"; did you mean version?`, "see quaywall --help"}},
		{"verison --json", 2, nil, []string{`"exit_status": 2`, `"message": "there is no command`}},
		{"check --nope", 2, nil, []string{"unknown flag: --nope", "see quaywall check --help"}},
		{"check a b", 2, nil, []string{"check takes one argument, not 2"}},
		{"check --backend pf good.yaml", 2, nil, []string{`--backend "pf": use auto, nft, iptables`}},
		{"check good.yaml", 0, []string{"good.yaml: valid (1 rule, 0 sets)"}, nil},
		{"check --policy good.yaml", 0, []string{"good.yaml: valid"}, nil},
		{"check --json good.yaml", 0, []string{`"rules": 1`, `"warnings": []`}, nil},
		{"check missing.yaml", 2, nil, []string{"missing.yaml: error: reading the policy: no such file or directory"}},
		{"services --policy good.yaml", 0, []string{"22/tcp", "mine", "9100/tcp", "this policy's"}, nil},
		{"services --json --policy good.yaml", 0, []string{`"name": "mine"`, `"own": true`}, nil},
		{"completion bash", 0, []string{"__start_quaywall"}, nil},
		{"completion zsh", 0, []string{"#compdef quaywall"}, nil},
		{"completion fish", 0, []string{"complete -c quaywall"}, nil},
		{"completion", 2, nil, []string{"name a shell: bash, zsh, fish"}},
		{"completion ksh", 2, nil, []string{`there are no completions for "ksh"`}},
	} {
		t.Run(test.args, func(t *testing.T) {
			run(t, dir, strings.Fields(test.args)...).expect(t, test.status, test.stdout, test.stderr)
		})
	}
}

// TestCompletion asks as the shells do.
func TestCompletion(t *testing.T) {
	const noFiles, files = ":4\n", ":0\n" // cobra's directives
	for _, test := range []struct {
		words []string
		want  []string
	}{
		{[]string{"apply", "--backend", ""}, []string{"auto\n", "nft\n", "iptables\n", noFiles}},
		{[]string{"apply", ""}, []string{files}},
		{[]string{"status", ""}, []string{noFiles}},
		{[]string{"completion", ""}, []string{"bash\n", "zsh\n", "fish\n", noFiles}},
		{[]string{"st"}, []string{"status\t", "stop\t", noFiles}},
	} {
		r := run(t, t.TempDir(), append([]string{"__complete"}, test.words...)...)
		r.expect(t, 0, test.want, []string{})
	}
}

// TestHelp: every command says what it does, has an example and tells the exit statuses.
func TestHelp(t *testing.T) {
	dir := t.TempDir()
	_, list, _ := strings.Cut(run(t, dir, "--help").stdout, "Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	names := strings.Split(list, "\n")
	if len(names) < 5 {
		t.Fatalf("only these commands: %q", names)
	}
	for _, line := range names {
		name := strings.Fields(line)[0]
		run(t, dir, name, "--help").expect(t, 0, []string{"Usage:\n  quaywall " + name, "Examples:\n  quaywall " + name, "Exit status:"}, nil)
	}
}

// TestColour: what is no terminal gets no escape sequence.
func TestColour(t *testing.T) {
	r := run(t, t.TempDir(), "check")
	if strings.Contains(r.stdout, "\x1b") {
		t.Errorf("an escape sequence in %q", r.stdout)
	}
}

// TestErrorsInJSON: an error is one JSON object on standard error, and standard output is empty.
func TestErrorsInJSON(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bad.yaml", "version: 1\ninbound:\n  - allow: 70000\n")
	r := run(t, dir, "check", "--json", "bad.yaml")
	r.expect(t, 2, nil, []string{`"line": 3`})
	var answer struct {
		Error struct {
			Status      int `json:"exit_status"`
			Diagnostics []struct {
				Pos struct{ File string }
			}
		}
	}
	if err := json.Unmarshal([]byte(r.stderr), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Error.Status != 2 || len(answer.Error.Diagnostics) != 1 || answer.Error.Diagnostics[0].Pos.File != "bad.yaml" {
		t.Errorf("got %+v", answer)
	}
	if r.stdout != "" {
		t.Errorf("standard output is %q", r.stdout)
	}
}

// TestWords: what is typed by habit works, and what is typed wrong is answered by what to type.
func TestWords(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "policy.yaml", "version: 1\ninbound:\n  - allow: ssh\n    from: [::1, 10.0.0.0/8]\n")
	for _, c := range []struct {
		args           string
		status         int
		stdout, stderr []string
	}{
		{"help apply", 0, []string{"quaywall apply [FILE]", "--allow-lockout"}, nil},
		{"help", 0, []string{"Commands:"}, nil},
		{"help aply", 2, nil, []string{"did you mean apply?"}},
		{"--version", 0, []string{"quaywall ", "linux/"}, nil},
		{"apply --confirm 60", 2, nil, []string{"write 60s"}},
		{"apply --confirm soon", 2, nil, []string{"as in 60s"}},
		{"rollback --confirm 10ms", 2, nil, []string{"use 1s or more"}},
		{"apply --wait -1s", 2, nil, []string{"use 0s or more"}},
		{"check policy.yaml", 2, nil, []string{`write "::1", with the quotes`}},
	} {
		run(t, dir, strings.Fields(c.args)...).expect(t, c.status, c.stdout, c.stderr)
	}
	if version, flag := run(t, dir, "version"), run(t, dir, "--version"); version != flag {
		t.Errorf("version says %q, --version %q", version.stdout, flag.stdout)
	}
}

// TestHistoryForOthers: somebody who is not root is told what to do.
func TestHistoryForOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another user than this one is needed: run it as root")
	}
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "state"), 0o700))
	write(t, filepath.Join(dir, "state"), "state.json", "")
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	r := runAs(t, dir, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	},
		"rollback", "--list")
	r.expect(t, 1, nil, []string{"permission denied", "run it as root"})
}
