package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// answer is a command, and the types that its answer in JSON is made of, as PACKAGE.TYPE.
type answer struct {
	head  string
	types []string
}

// answers lists every answer; what several share comes last.
func answers() []answer {
	return []answer{
		{"Errors", []string{"cli.ErrorAnswer", "cli.ErrorBody", "cli.CutAnswer"}},
		{"init", []string{"cli.InitAnswer"}},
		{"check", []string{"cli.CheckAnswer"}},
		{"fmt", []string{"cli.FmtAnswer"}},
		{"plan and apply --dry-run", []string{"cli.PlanAnswer", "apply.Plan"}},
		{"apply and rollback", []string{"cli.ApplyAnswer", "apply.Result"}},
		{"rollback --list", []string{"cli.HistoryAnswer", "apply.Past"}},
		{"explain", []string{"cli.ExplainAnswer", "sim.Trace", "sim.Delivery", "sim.Place", "sim.Step", "sim.RuleStep"}},
		{"confirm", []string{"apply.Confirmed"}},
		{"stop", []string{"apply.Stopped"}},
		{"status", []string{"cli.StatusAnswer", "apply.Status", "apply.SetStatus", "apply.Counter", "apply.LastEnded", "store.Undone", "store.Stamp",
			"agent.Status", "agent.Report", "agent.Followed", "agent.DockerSeen", "agent.Repair"}},
		{"log", []string{"denied.Entry"}},
		{"trace", []string{"trace.Packet"}},
		{"snapshot", []string{"cli.SnapshotAnswer", "cli.SnapshotMissing"}},
		{"audit", []string{"cli.AuditAnswer", "cli.AuditEndpoint", "cli.AuditUnseen"}},
		{"audit --rules", []string{"cli.RulesAnswer", "cli.UselessRule"}},
		{"diff", []string{"cli.DiffAnswer", "cli.DiffChange", "cli.DiffSide"}},
		{"doctor", []string{"cli.DoctorAnswer", "doctor.Finding"}},
		{"services", []string{"cli.ServicesAnswer", "cli.Service"}},
		{"version", []string{"cli.VersionAnswer"}},
		{"install", []string{"cli.InstallAnswer"}},
		{"uninstall", []string{"cli.UninstallAnswer"}},
		{"completion", []string{"cli.CompletionAnswer"}},
		{"What several answers hold", []string{"cli.Reach", "cli.ReachOwner", "cli.ReachOpen", "cli.AuditOpen", "apply.Difference", "apply.SetChange",
			"kernel.SetSummary", "apply.PendingStatus", "apply.Step", "inventory.Docker", "diag.Diagnostic", "diag.Pos"}},
	}
}

const jsonHead = `# Answers in JSON

With ` + "`--json`" + ` every command answers with one JSON object on standard output (` + "`log`" + ` and ` + "`trace`" + `: one on each line;
` + "`agent`" + ` writes its log so); an error is one on standard error. Made from the source by ` + "`make generate`" + `: each type as the program declares it, with the names that stand in the JSON in
the tags. A field with ` + "`omitempty` or `omitzero`" + ` is left out where it has nothing to say. An embedded type's fields stand beside
the others.
`

// jsonPage describes the answers in JSON.
func jsonPage() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(jsonHead)
	for _, a := range answers() {
		fmt.Fprintf(&b, "\n## %s\n\n```go\n", a.head)
		for i, name := range a.types {
			pkg, typ, _ := strings.Cut(name, ".")
			text, err := declaration(filepath.Join("internal", pkg), typ)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				b.WriteString("\n")
			}
			b.WriteString(text)
		}
		b.WriteString("```\n")
	}
	return b.Bytes(), nil
}

// hidden are the lines of a declaration that stand in no JSON.
var hidden = regexp.MustCompile("(?m)^\t([a-z].*|.*`json:\"-\"`.*)\n")

// declaration is the text of a type's declaration with its comment.
func declaration(dir, name string) (string, error) {
	sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, text, parser.ParseComments)
		if err != nil {
			return "", err
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE && d.Specs[0].(*ast.TypeSpec).Name.Name == name {
				from := files.Position(d.Pos()).Offset
				if d.Doc != nil {
					from = files.Position(d.Doc.Pos()).Offset
				}
				return hidden.ReplaceAllString(string(text[from:files.Position(d.End()).Offset])+"\n", ""), nil
			}
		}
	}
	return "", fmt.Errorf("%s: there is no type %s", dir, name)
}
