package policy

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/netset"
	"quaywall/internal/policy/tree"
)

// laterSets are the kinds of sets of the language that this version can't fill yet.
var laterSets = []string{"dns", "url", "runtime", "swarm"}

// readSets reads the sets of one file. Set files are read by fillSets.
func (f *file) readSets(n *tree.Node) {
	if n.Kind != tree.Map {
		f.errorf(n, "write NAME: [ADDRESS, …]", "sets is a mapping of names, not a %s", n.Kind)
		return
	}
	for k, v := range n.Pairs() {
		if f.enough() {
			return
		}
		p := checkName(k.Text)
		if p == nil && f.sets[k.Text] != nil {
			p = &problem{0, fmt.Sprintf("there is a set %q already, in %s", k.Text, f.sets[k.Text].pos), "choose another name"}
		}
		if p != nil {
			f.report(k, p)
			continue
		}
		f.sets[k.Text] = &named{pos: f.doc.Pos(k)}
		s := Set{Name: k.Text, Pos: f.doc.Pos(k)}
		if v.Kind == tree.Map {
			f.readSetSource(v, &s)
		} else {
			s.Addrs, s.Entries = f.inlineSet(k, v)
		}
		f.policy.Sets = append(f.policy.Sets, s)
	}
}

// inlineSet reads addresses, prefixes and ranges, and counts them.
func (f *file) inlineSet(k, v *tree.Node) (netset.Set, int) {
	var b netset.Builder
	if v.Kind == tree.List && len(v.Items) == 0 {
		return netset.Set{}, 0
	}
	for _, item := range f.words(v, "set "+k.Text) {
		r, p := f.setEntry(item.Text)
		if p != nil {
			f.report(item, p)
			continue
		}
		b.Add(r)
	}
	entries := b.Len()
	s, _ := b.Set() // every range in it was checked
	return s, entries
}

// readSetSource reads the form {file: F}.
func (f *file) readSetSource(v *tree.Node, s *Set) {
	if len(v.Items) == 0 {
		f.errorf(v, "write [] for an empty set, or {file: F}", "set %s: nothing says what fills it", s.Name)
	}
	for k, source := range v.Pairs() {
		switch {
		case k.Text == "file":
			if name, ok := f.word(source, "file"); ok {
				f.setFiles = append(f.setFiles, setFile{file: f, node: source, set: s.Name, path: f.resolve(name)})
			}
		case slices.Contains(laterSets, k.Text):
			f.errorf(k, "fill it by {file: F} or write its addresses", "sets filled by %s come with a later version", k.Text)
			return
		default:
			f.unknownKey(k, "a set", append([]string{"file"}, laterSets...))
		}
	}
}

// setFile is a file that fills a set.
type setFile struct {
	file *file
	node *tree.Node
	set  string
	path string
}

// fillSets reads the set files, each once however many sets it fills, and sorts the sets by name.
func (l *loader) fillSets() {
	slices.SortFunc(l.policy.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	for i, s := range l.policy.Sets {
		l.sets[s.Name].index = i
	}
	read := map[string]Set{}
	slices.SortStableFunc(l.setFiles, func(a, b setFile) int { return strings.Compare(a.set, b.set) })
	for _, sf := range l.setFiles {
		filled, ok := read[sf.path]
		if !ok {
			filled.Addrs, filled.Entries = sf.file.readSetFile(sf)
			read[sf.path] = filled
		}
		s := &l.policy.Sets[l.sets[sf.set].index]
		s.Addrs, s.Entries = filled.Addrs, filled.Entries
		s.File, _ = l.files.Abs(sf.path) // it could be read under this name
	}
}
