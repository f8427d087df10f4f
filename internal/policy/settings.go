package policy

import (
	"path"
	"slices"
	"strings"

	"quaywall/internal/policy/tree"
	"quaywall/internal/rate"
)

// field is a key of a mapping and what reads its value.
type field struct {
	name string
	read func(*tree.Node)
}

// mapping reads a mapping whose keys are known. A null value is like a key that is not there.
func (f *file) mapping(n *tree.Node, what string, fields []field) {
	if n.IsNull() {
		return
	}
	if n.Kind != tree.Map {
		f.errorf(n, "write KEY: VALUE", "%s is a mapping, not a %s", what, n.Kind)
		return
	}
	for k, v := range n.Pairs() {
		if f.enough() {
			return
		}
		i := slices.IndexFunc(fields, func(x field) bool { return x.name == k.Text })
		if i < 0 {
			f.unknownKey(k, what, fieldNames(fields))
			continue
		}
		if !v.IsNull() {
			fields[i].read(v)
		}
	}
}

func fieldNames(fields []field) []string {
	names := make([]string, len(fields))
	for i, x := range fields {
		names[i] = x.name
	}
	return names
}

func (f *file) unknownKey(k *tree.Node, what string, known []string) {
	f.errorf(k, oneOf(k.Text, known), "%s has no key %q", what, short(k.Text))
}

// settings reads all of the main file but sets, services and rules, and the syntax of its fragments.
func (f *file) settings() {
	skip := func(*tree.Node) {}
	fields := []field{
		{"version", f.readVersion}, {"sets", skip}, {"services", skip}, {"inbound", skip}, {"egress", skip}, {"outbound", skip},
		{"defaults", f.readDefaults}, {"trusted", f.readTrusted}, {"log", f.readLog}, {"established", f.readEstablished},
		{"docker-repair", f.readRepair}, {"hygiene", f.readHygiene}, {"include", f.readIncludes}, {"raw", f.readRaw},
	}
	f.mapping(&f.doc.Root, "a policy", fields)
	missing := true
	for k := range f.doc.Root.Pairs() {
		missing = missing && k.Text != "version"
	}
	if missing && !f.partial && f.doc.Root.Kind == tree.Map {
		f.errorf(&f.doc.Root, "begin the file with: version: 1", "the version of the policy language is missing")
	}
}

// fragment refuses what only the main file may hold.
func (f *file) fragment() {
	known := []string{"sets", "services", "inbound", "egress", "outbound"}
	if n := &f.doc.Root; n.Kind != tree.Map && !n.IsNull() {
		f.errorf(n, "write KEY: VALUE", "a fragment is a mapping, not a %s", n.Kind)
	}
	for k := range f.doc.Root.Pairs() {
		switch {
		case f.enough():
			return
		case slices.Contains(known, k.Text):
		case k.Text == "include":
			f.errorf(k, "name it in the main file", "a fragment can't include further files")
		case slices.Contains([]string{"version", "defaults", "trusted", "log", "established", "docker-repair", "hygiene", "raw"}, k.Text):
			f.errorf(k, "move it to the main file", "a fragment can't have %q: it holds sets, services and rules", k.Text)
		default:
			f.unknownKey(k, "a fragment", known)
		}
	}
}

// word gives the text of a word, false after having said that it is none.
func (f *file) word(n *tree.Node, what string) (string, bool) {
	if n.Kind != tree.Scalar {
		f.errorf(n, "", "%s is one word, not a %s", what, n.Kind)
		return "", false
	}
	if n.Text == "" {
		f.errorf(n, "", "%s: nothing stands here", what)
		return "", false
	}
	return n.Text, true
}

// words gives the items of a list of words, or one word as a list of one.
func (f *file) words(n *tree.Node, what string) []*tree.Node {
	if n.Kind == tree.Map {
		f.errorf(n, "", "%s is a word or a list of words, not a mapping", what)
		return nil
	}
	if n.Kind != tree.List {
		if _, ok := f.word(n, what); !ok {
			return nil
		}
		return []*tree.Node{n}
	}
	if len(n.Items) == 0 {
		f.errorf(n, "name one, or leave the key out", "%s: the list is empty", what)
	}
	var found []*tree.Node
	for i := range n.Items {
		if f.enough() {
			break
		}
		if _, ok := f.word(&n.Items[i], "an entry of "+what); ok {
			found = append(found, &n.Items[i])
		}
	}
	return found
}

// choice gives the index of a word among those that are known, false after having said that it is none of them.
func (f *file) choice(n *tree.Node, what string, known ...string) (int, bool) {
	w, ok := f.word(n, what)
	if !ok {
		return 0, false
	}
	i := slices.Index(known, w)
	if i < 0 {
		f.errorf(n, oneOf(w, known), "%s can't be %q", what, short(w))
	}
	return i, i >= 0
}

func (f *file) readVersion(n *tree.Node) {
	if w, ok := f.word(n, "version"); ok && w != "1" {
		f.errorf(n, "write version: 1", "this quaywall knows version 1 of the policy language, not %q", short(w))
	}
}

func (f *file) readDefaults(n *tree.Node) {
	d := &f.policy.Defaults
	verdict := func(name string, v *Verdict) field {
		return field{name, func(n *tree.Node) {
			if i, ok := f.choice(n, "the default of "+name, "deny", "reject", "allow"); ok {
				*v = Verdict{Verb: Verb(i), Pos: f.doc.Pos(n)}
			}
		}}
	}
	f.mapping(n, "defaults", []field{
		verdict("inbound", &d.Inbound), verdict("egress", &d.Egress), verdict("outbound", &d.Outbound),
	})
}

func (f *file) readTrusted(n *tree.Node) {
	if n.Kind == tree.List && len(n.Items) == 0 {
		return
	}
	f.policy.Trusted = f.interfaces(n, "trusted")
}

func (f *file) readLog(n *tree.Node) {
	f.mapping(n, "log", []field{{"denied", func(n *tree.Node) {
		w, ok := f.word(n, "log: denied")
		if !ok {
			return
		}
		if w == "off" {
			f.policy.Log = rate.Rate{}
			return
		}
		r, p := parseRate(w)
		if p != nil {
			if p.at == 0 {
				p.hint = strings.Replace(p.hint, "write", "write off or", 1)
			}
			f.report(n, p)
			return
		}
		f.policy.Log = r
	}}})
}

func (f *file) readEstablished(n *tree.Node) {
	i, _ := f.choice(n, "established", "recheck", "keep")
	f.policy.Keep = i == 1
}

func (f *file) readRepair(n *tree.Node) {
	i, _ := f.choice(n, "docker-repair", "mend", "tell", "off")
	f.policy.Repair = Repair(max(i, 0))
}

func (f *file) readHygiene(n *tree.Node) {
	i, _ := f.choice(n, "hygiene", "on", "off")
	f.policy.Hygiene = i != 1
}

// resolve makes a path that a file of the policy names relative to that file's folder.
func (f *file) resolve(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(path.Dir(f.doc.File), name)
}

func (f *file) readRaw(n *tree.Node) {
	read := func(name string, to *RawFile) field {
		return field{name, func(n *tree.Node) { f.readRawFile(n, "raw "+name, to) }}
	}
	f.mapping(n, "raw", []field{read("nft", &f.policy.Raw.NFT), read("iptables", &f.policy.Raw.IPTables)})
}

func (f *file) readRawFile(n *tree.Node, role string, to *RawFile) {
	name, ok := f.word(n, role)
	if !ok {
		return
	}
	name = f.resolve(name)
	text, err := f.read(name, MaxPolicySize)
	if err == nil {
		to.Path, err = f.files.Abs(name)
	}
	switch {
	case err != nil:
		f.errorf(n, "paths are relative to the file that names them", "reading %s: %v", name, err)
	case strings.IndexByte(string(text), 0) >= 0:
		f.errorf(n, "", "%s is not a text file", name)
	default:
		to.Pos, to.Text = f.doc.Pos(n), string(text)
		f.addHash(role, sumOf(text))
	}
}
