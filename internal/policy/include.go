package policy

import (
	"maps"
	"path"
	"slices"
	"strings"

	"quaywall/internal/policy/tree"
)

// maxFragments is more than any folder of a person's, and few enough to be read.
const maxFragments = 1000

// readIncludes reads the syntax of the fragments, in bytewise order of their paths whatever pattern named them.
func (f *file) readIncludes(n *tree.Node) {
	if n.Kind == tree.List && len(n.Items) == 0 {
		return
	}
	found := map[string]*tree.Node{}
	for _, item := range f.words(n, "include") {
		for _, name := range f.fragments(item) {
			found[name] = item
		}
	}
	if len(found) > maxFragments {
		f.errorf(n, "", "%d fragments are more than %d", len(found), maxFragments)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		f.readFragment(name, found[name])
	}
}

// fragments gives the paths that one entry of include names.
func (f *file) fragments(n *tree.Node) []string {
	pattern := f.resolve(n.Text)
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}
	}
	if _, err := path.Match(pattern, ""); err != nil {
		f.errorf(n, "", "%q is no pattern of paths", short(n.Text))
		return nil
	}
	names, err := f.files.Glob(pattern)
	if err != nil {
		f.errorf(n, "", "looking for %s: %v", pattern, err)
	}
	return names
}

func (f *file) readFragment(name string, n *tree.Node) {
	if f.sameFile(name, f.doc.File) {
		f.errorf(n, "leave the file itself out", "%s includes itself", path.Base(name))
		return
	}
	text, err := f.read(name, MaxPolicySize)
	if err != nil {
		f.errorf(n, "paths are relative to the file that names them", "reading %s: %v", name, err)
		return
	}
	f.addHash("fragment "+path.Base(name), sumOf(text))
	f.parse(name, text).fragment()
}

func (f *file) sameFile(a, b string) bool {
	absA, errA := f.files.Abs(a)
	absB, errB := f.files.Abs(b)
	return errA == nil && errB == nil && absA == absB
}
