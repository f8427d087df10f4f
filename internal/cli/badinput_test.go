package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// badPolicy is a policy that has to be refused, and where and with which words.
type badPolicy struct {
	name string
	text string
	make func(t *testing.T, dir string) // makes files beside it, or the policy itself; nil where text is all
	want []string
}

// put puts the policy and what goes with it into a folder.
func (p badPolicy) put(t *testing.T, dir string) {
	t.Helper()
	if p.make != nil {
		p.make(t, dir)
	}
	if _, err := os.Lstat(filepath.Join(dir, "policy.yaml")); err != nil {
		write(t, dir, "policy.yaml", p.text)
	}
}

// ruled is a policy with one rule.
func ruled(rule string) string { return "version: 1\ninbound:\n  - " + rule + "\n" }

func badPolicies() []badPolicy {
	return []badPolicy{
		{name: "a directory", make: func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "policy.yaml"), 0o755)) },
			want: []string{"policy.yaml: error", "it is a directory"}},
		{name: "100 MB", make: func(t *testing.T, dir string) {
			write(t, dir, "policy.yaml", "version: 1\n")
			must(t, os.Truncate(filepath.Join(dir, "policy.yaml"), 100<<20))
		}, want: []string{"policy.yaml: error", "larger than"}},
		{name: "a pipe that nobody writes to", make: func(t *testing.T, dir string) {
			must(t, syscall.Mkfifo(filepath.Join(dir, "policy.yaml"), 0o600))
		}, want: []string{"it is a named pipe"}},
		{name: "a device", make: func(t *testing.T, dir string) { must(t, os.Symlink("/dev/zero", filepath.Join(dir, "policy.yaml"))) },
			want: []string{"it is a device"}},
		{name: "binary", text: "\x7fELF\x02\x01\x01\x00\x00\x00\xff\xfe", want: []string{"policy.yaml:1:"}},
		{name: "empty", text: "", want: []string{"policy.yaml:1:1", "the policy is empty"}},
		{name: "a list", text: "- a\n- b\n", want: []string{"policy.yaml:1:1", "mapping"}},
		{name: "a bomb of aliases", text: bomb(), want: []string{"policy.yaml:2:"}},
		{name: "a hundred thousand brackets", text: "version: 1\nsets: {a: " + strings.Repeat("[", 100000), want: []string{"policy.yaml:2:"}},
		{name: "a key twice", text: "version: 1\ninbound: []\ninbound: []\n", want: []string{"policy.yaml:3:1", "inbound"}},
		{name: "a tab", text: "version: 1\ninbound:\n\t- allow: ssh\n", want: []string{"policy.yaml:3:1", "tab"}},
		{name: "port 0", text: ruled("allow: 0/tcp"), want: []string{"policy.yaml:3:12", "port 0 is out of range"}},
		{name: "port 70000", text: ruled("allow: 70000"), want: []string{"policy.yaml:3:12", "port 70000 is out of range"}},
		{name: "a prefix with host bits", text: ruled("{allow: ssh, from: 192.0.2.1/24}"), want: []string{"policy.yaml:3:", "192.0.2.0/24"}},
		{name: "a range over two families", text: ruled(`{allow: ssh, from: "192.0.2.1-2001:db8::1"}`), want: []string{"policy.yaml:3:", "famil"}},
		{name: "an unknown set", text: ruled("{allow: ssh, from: offfice}") + "sets: {office: [192.0.2.1]}\n",
			want: []string{"policy.yaml:3:", `did you mean "office"?`}},
		{name: "an unknown key", text: ruled("{allow: ssh, form: 192.0.2.1}"), want: []string{"policy.yaml:3:", `did you mean "from"?`}},
		{name: "it includes itself", text: "version: 1\ninclude: [policy.yaml]\n", want: []string{"policy.yaml:2:", "includes itself"}},
		{name: "a loop of includes", text: "version: 1\ninclude: [a.yaml]\n",
			make: func(t *testing.T, dir string) { write(t, dir, "a.yaml", "include: [policy.yaml]\n") },
			want: []string{"a.yaml:1:1", "can't include"}},
		{name: "a set file that is not there", text: "version: 1\nsets: {friends: {file: friends.txt}}\n", want: []string{"policy.yaml:2:", "friends.txt"}},
		{name: "a bad line in a long set file", text: "version: 1\nsets: {friends: {file: friends.txt}}\n", make: longSetFile,
			want: []string{"friends.txt:3:1", "10.0.0.256"}},
		{name: "what comes later", text: ruled("{allow: ssh, container: web}"), want: []string{"policy.yaml:3:", "container"}},
	}
}

// bomb is a small YAML file that becomes a large one when its aliases are followed.
func bomb() string {
	var b strings.Builder
	b.WriteString("version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i, i, i, i, i, i)
	}
	return b.String()
}

func longSetFile(t *testing.T, dir string) {
	var b strings.Builder
	for i := range 1_000_000 {
		if i == 2 {
			b.WriteString("10.0.0.256\n")
			continue
		}
		fmt.Fprintf(&b, "10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
	}
	write(t, dir, "friends.txt", b.String())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBadInput: each is a clear error with its place, exit status 2.
func TestBadInput(t *testing.T) {
	for _, test := range badPolicies() {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.put(t, dir)
			r := run(t, dir, "check", "policy.yaml")
			r.expect(t, 2, nil, test.want)
			if strings.Contains(r.stderr, "was changed") {
				t.Errorf("a command that never changes anything said that it didn't:\n%s", r.stderr)
			}
			if len(r.stderr) > 16<<10 {
				t.Errorf("%d bytes of error are too many to read", len(r.stderr))
			}
		})
	}
}
