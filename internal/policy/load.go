package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"quaywall/internal/diag"
	"quaywall/internal/policy/tree"
	"quaywall/internal/rate"
)

// Load reads a policy with all that it names: fragments, set files, raw files. With errors in the list there is no
// policy. The sources are what was read, for diag.List.Format.
func Load(files Files, name string) (*Policy, Sources, diag.List) {
	l := newLoader(files, name)
	text, err := l.read(name, MaxPolicySize)
	if err != nil {
		l.list.Errorf(diag.Pos{File: name}, "", "reading the policy: %v", err)
		return nil, l.sources, l.list
	}
	l.load(name, text)
	return l.result()
}

// Parse reads a policy that names no other files.
func Parse(name string, text []byte) (*Policy, diag.List) {
	p, _, list := Load(Memory{name: string(text)}, name)
	return p, list
}

// Sources are the texts that a policy was read from, by the names that positions have. Of a set file only the lines
// that a diagnostic is about are kept.
type Sources map[string][]byte

// Text is the text of a file, nil where it was not read.
func (s Sources) Text(file string) []byte { return s[file] }

// loader collects a policy. Everything that is wrong goes to its list, and reading goes on.
type loader struct {
	files    Files
	sources  Sources
	list     diag.List
	hash     hash.Hash
	written  hash.Hash // of the same without what fills sets
	policy   *Policy
	docs     []*file // the main file first
	sets     map[string]*named
	services map[string]*named
	setFiles []setFile
	syntax   [3][]ruleSyntax // of each section's rules, for the warnings
	partial  bool            // syntax errors took parts away: that something is missing means nothing
}

// named is something that the policy gives a name to.
type named struct {
	pos     diag.Pos
	index   int // in Policy.Sets
	traffic []Traffic
	used    bool
}

// file is one file of the policy while it is read.
type file struct {
	*loader
	doc  *tree.Doc
	main bool
}

// ruleSyntax is where the parts of a rule stand; nil where they don't.
type ruleSyntax struct {
	file                     *file
	rule, what, from, to, on *tree.Node
}

func newLoader(files Files, name string) *loader {
	return &loader{
		files: files, sources: Sources{}, hash: sha256.New(), written: sha256.New(), sets: map[string]*named{}, services: map[string]*named{},
		policy: &Policy{
			File:     name,
			Defaults: Defaults{Inbound: Verdict{Verb: Deny}, Egress: Verdict{Verb: Allow}, Outbound: Verdict{Verb: Allow}},
			Log:      rate.Rate{Count: 10, Per: time.Second, Burst: rate.DefaultBurst},
			Hygiene:  true,
		},
	}
}

// read gives the text of a small file and keeps it as a source.
func (l *loader) read(name string, limit int64) ([]byte, error) {
	r, err := l.files.Open(name, limit)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	l.sources[name] = text
	return text, nil
}

// addHash makes an input part of the policy's hash. Its role and length keep two inputs from running into one.
func (l *loader) addHash(role string, sum []byte) {
	l.addSetHash(role, sum)
	fmt.Fprintf(l.written, "%s\n%x\n", role, sum)
}

// addSetHash makes what fills a set part of the policy's hash.
func (l *loader) addSetHash(role string, sum []byte) {
	fmt.Fprintf(l.hash, "%s\n%x\n", role, sum)
}

func sumOf(text []byte) []byte {
	sum := sha256.Sum256(text)
	return sum[:]
}

func (l *loader) load(name string, text []byte) {
	l.addHash("policy "+path.Base(name), sumOf(text))
	main := l.parse(name, text)
	main.main = true
	if root := &main.doc.Root; root.Kind == tree.Scalar && root.Text == "" && !main.doc.Broken {
		l.list.Errorf(diag.Pos{File: name, Line: 1, Col: 1}, "begin it with: version: 1", "the policy is empty")
		return
	}
	main.settings()
	for _, f := range l.docs {
		f.section("sets", f.readSets)
	}
	l.fillSets()
	for _, f := range l.docs {
		f.section("services", f.readServices)
	}
	for _, s := range []Section{Inbound, Egress, Outbound} {
		for _, f := range l.docs {
			f.section(s.String(), func(n *tree.Node) { f.readRules(s, n) })
		}
	}
	if !l.list.HasErrors() {
		l.checkRules()
	}
}

// parse reads the syntax of a file.
func (l *loader) parse(name string, text []byte) *file {
	doc, list := tree.Parse(name, text)
	l.list = append(l.list, list...)
	l.partial = l.partial || doc.Broken
	f := &file{loader: l, doc: doc}
	l.docs = append(l.docs, f)
	return f
}

// section finds a top-level key's value; without one there is nothing to do.
func (f *file) section(key string, read func(*tree.Node)) {
	for k, v := range f.doc.Root.Pairs() {
		if k.Text == key && !v.IsNull() {
			read(v)
		}
	}
}

// maxTold bounds what is told of one policy; nobody mends more in one go.
const maxTold = 200

// enough tells whether so much is wrong that looking for more is a waste of time.
func (l *loader) enough() bool { return len(l.list) > maxTold }

// cut leaves what a person can read, errors rather than warnings.
func (l *loader) cut() {
	if !l.enough() {
		return
	}
	what, severity := "warnings", diag.Warning
	if l.list.HasErrors() {
		l.list = slices.DeleteFunc(l.list, func(d diag.Diagnostic) bool { return d.Severity == diag.Warning })
		what, severity = "mistakes", diag.Error
	}
	if !l.enough() {
		return
	}
	l.list = append(l.list[:maxTold], diag.Diagnostic{
		Severity: severity, Pos: diag.Pos{File: l.policy.File}, Message: "there are more " + what + " than these",
	})
}

func (l *loader) result() (*Policy, Sources, diag.List) {
	l.list.Sort()
	l.cut()
	if l.list.HasErrors() {
		return nil, l.sources, l.list
	}
	slices.SortFunc(l.policy.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	l.policy.Hash, l.policy.Written = hex.EncodeToString(l.hash.Sum(nil)), hex.EncodeToString(l.written.Sum(nil))
	return l.policy, l.sources, l.list
}

// errorf reports a mistake at a node, unless its syntax was one already.
func (f *file) errorf(n *tree.Node, hint, format string, args ...any) {
	if n.Kind == tree.Bad {
		return // one mistake is told once
	}
	f.list.Errorf(f.doc.Pos(n), hint, format, args...)
}

// warnf reports a warning at a node.
func (f *file) warnf(n *tree.Node, hint, format string, args ...any) {
	f.list.Warnf(f.doc.Pos(n), hint, format, args...)
}

// problem is what is wrong with a word: where in the word, in bytes, what, and what to do.
type problem struct {
	at         int
	text, hint string // without a text it is not told: what is missing may stand where the syntax is wrong
}

// report reports what is wrong with a word at its place in the word.
func (f *file) report(n *tree.Node, p *problem) {
	if p.text == "" {
		return
	}
	pos := f.doc.Pos(n)
	if n.Style != tree.Plain {
		pos.Col++
	}
	pos.Col += len([]rune(n.Text[:min(p.at, len(n.Text))]))
	f.list.Errorf(pos, p.hint, "%s", p.text)
}

// elsewhere is what other firewalls call things.
var elsewhere = map[string]string{
	"accept": "allow", "pass": "allow", "drop": "deny", "block": "deny", "source": "from", "src": "from", "saddr": "from",
	"destination": "to", "dest": "to", "dst": "to", "daddr": "to", "interface": "on", "iface": "on", "iif": "on", "comment": "note",
	"description": "note", "rate": "limit", "input": "inbound", "output": "outbound", "forward": "egress", "groups": "sets",
}

// didYouMean is the hint for a word that is none of those that are known.
func didYouMean(word string, known []string) string {
	if name := elsewhere[strings.ToLower(word)]; slices.Contains(known, name) {
		return fmt.Sprintf("did you mean %q?", name)
	}
	if lower := strings.ToLower(word); lower != word && slices.Contains(known, lower) {
		return fmt.Sprintf("did you mean %q?", lower)
	}
	if near := diag.Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// oneOf is the hint for a value of which there are few.
func oneOf(word string, known []string) string {
	if hint := didYouMean(word, known); hint != "" {
		return hint
	}
	last := len(known) - 1
	if last == 0 {
		return "write " + known[0]
	}
	return "write " + strings.Join(known[:last], ", ") + " or " + known[last]
}

// short keeps a message on its line.
func short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
