package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "quaywall/"

// source is one Go file of the module.
type source struct {
	pkg  string // path of its package below the module
	name string // path of the file below the module
	test bool
	ast  *ast.File
}

// imports are the import paths of a file.
func (s source) imports() []string {
	paths := make([]string, len(s.ast.Imports))
	for i, spec := range s.ast.Imports {
		paths[i], _ = strconv.Unquote(spec.Path.Value)
	}
	return paths
}

// sources are the module's Go files, the tools' own module and hidden folders aside.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d source files: the walk is wrong", len(all))
	}
	return all
}

// parsed parses them once for all tests.
var parsed = sync.OnceValues(func() ([]source, error) {
	root := os.DirFS(filepath.Join("..", "..", ".."))
	var all []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || name == "tools" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		all = append(all, source{pkg: path.Dir(name), name: name, test: strings.HasSuffix(name, "_test.go"), ast: file})
		return err
	})
	return all, err
})

// under tells whether a package is the one that a path of the table means, or below it where the path ends in /.
func under(pkg, place string) bool {
	if strings.HasSuffix(place, "/") {
		return strings.HasPrefix(pkg, place)
	}
	return pkg == place
}

// layerOf finds the layer of a package.
func layerOf(pkg string) (layer, bool) {
	if l, ok := layers[pkg]; ok {
		return l, true
	}
	for place, l := range layers {
		if strings.HasSuffix(place, "/") && under(pkg, place) {
			return l, true
		}
	}
	return 0, false
}

func TestEveryPackageHasALayer(t *testing.T) {
	for _, s := range sources(t) {
		if _, ok := layerOf(s.pkg); !ok {
			t.Errorf("%s: package %s is in no layer; put it into the table", s.name, s.pkg)
		}
	}
}

// TestContributing: the table there is this one.
func TestContributing(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[layer][]string{}
	for place, l := range layers {
		name := strings.TrimPrefix(place, "internal/")
		if strings.HasSuffix(name, "/") {
			name += "…"
		}
		rows[l] = append(rows[l], "`"+name+"`")
	}
	for l, names := range rows {
		slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.Trim(a, "`"), strings.Trim(b, "`")) })
		if row := "\n| " + l.String() + " | " + strings.Join(names, ", ") + " |\n"; !strings.Contains(string(text), row) {
			t.Errorf("CONTRIBUTING.md lacks this row of its table of layers:%s", row)
		}
	}
}

// TestImportsGoDown: a test may import whatever it needs, its package may not.
func TestImportsGoDown(t *testing.T) {
	for _, s := range sources(t) {
		from, ok := layerOf(s.pkg)
		if s.test || !ok {
			continue
		}
		for _, imported := range s.imports() {
			to, inside := strings.CutPrefix(imported, module)
			if !inside {
				checkOutside(t, s, from, imported)
				continue
			}
			if height, ok := layerOf(to); ok && height > from {
				t.Errorf("%s: %s (%s) imports %s (%s), which is above it", s.name, s.pkg, from, to, height)
			}
			for _, x := range strangers {
				if under(s.pkg, x.from) && under(to, x.to) {
					t.Errorf("%s: %s must not import %s: %s", s.name, s.pkg, to, x.why)
				}
			}
		}
	}
}

// checkOutside judges the import of something that is not of the module.
func checkOutside(t *testing.T, s source, from layer, imported string) {
	for _, lib := range libraries {
		if within(imported, lib.prefix) && !slices.ContainsFunc(lib.homes, func(h string) bool { return under(s.pkg, h) }) {
			t.Errorf("%s: %s must not import %s: %s", s.name, s.pkg, imported, lib.why)
		}
	}
	if from > pure || allowedImpure[[2]string{s.pkg, imported}] != "" {
		return
	}
	for prefix, why := range impure {
		// The standard library's tree says nothing about purity: net/netip is pure, net is not.
		if imported == prefix || strings.Contains(prefix, ".") && within(imported, prefix) {
			t.Errorf("%s: %s (%s) must not import %s: %s", s.name, s.pkg, from, imported, why)
		}
	}
}

// within tells whether an import path is a prefix or below it.
func within(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

func TestPurePackagesReadNoClock(t *testing.T) {
	for _, s := range sources(t) {
		if from, ok := layerOf(s.pkg); s.test || !ok || from > pure {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
				t.Errorf("%s: %s calls time.%s: a pure package is handed the time", s.name, s.pkg, sel.Sel.Name)
			}
			return true
		})
	}
}

// TestNothingRunsBeforeMain keeps the program's start short and its order plain.
func TestNothingRunsBeforeMain(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: has an init function; make it an ordinary one that somebody calls", s.name)
			}
		}
	}
}

// TestEveryPackageHasADoc: purpose, and what a caller must know that the names do not say.
func TestEveryPackageHasADoc(t *testing.T) {
	docs := map[string]string{}
	for _, s := range sources(t) {
		docs[s.pkg] += s.ast.Doc.Text()
	}
	for pkg, doc := range docs {
		if !strings.Contains(doc, "Be aware") {
			t.Errorf("%s: its package doc has no part that begins with \"Be aware\"", pkg)
		}
	}
}

// TestTheTableIsCurrent: a row about a package that is gone would go on looking like a rule.
func TestTheTableIsCurrent(t *testing.T) {
	all := sources(t)
	for place := range layers {
		if !slices.ContainsFunc(all, func(s source) bool { return under(s.pkg, place) }) {
			t.Errorf("no package is %s, which the table of layers names", place)
		}
	}
}
