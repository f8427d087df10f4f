// Command docgen writes what is generated: from the commands' own help the man pages and docs/commands.md, from the
// declarations of the answers docs/json.md.
//
//	go run ./internal/docgen          # writes docs/man/*.8, docs/commands.md and docs/json.md
//	go run ./internal/docgen -check   # fails when one of them is not what it would write
//
// Be aware: it works from the top folder of the repository. A page of a command that is gone is deleted.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"quaywall/internal/cli"
)

const manDir = "docs/man"

func main() {
	check := flag.Bool("check", false, "compare instead of writing")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	files, err := pages(cli.Command())
	if err != nil {
		return err
	}
	stale, err := filepath.Glob(manDir + "/*")
	if err != nil {
		return err
	}
	stale = slices.DeleteFunc(stale, func(name string) bool { _, ok := files[name]; return ok })
	if check {
		return compare(files, stale)
	}
	return write(files, stale)
}

// pages renders every file, by its path.
func pages(root *cobra.Command) (map[string][]byte, error) {
	answers, err := jsonPage()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"docs/commands.md": markdown(root), "docs/json.md": answers}
	for _, cmd := range commands(root) {
		page, err := man(cmd)
		if err != nil {
			return nil, err
		}
		files[filepath.Join(manDir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".8")] = page
	}
	return files, nil
}

// commands are the root and what it offers, in the order of the help.
func commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			all = append(all, c)
		}
	}
	return all
}

// released dates the pages: a fixed date, so that the same help gives the same bytes.
func released() *time.Time {
	t := time.Date(2026, time.November, 21, 0, 0, 0, 0, time.UTC)
	return &t
}

func man(cmd *cobra.Command) ([]byte, error) {
	page := *cmd
	page.Long = manText(cmd)
	var b bytes.Buffer
	err := doc.GenMan(&page, &doc.GenManHeader{Section: "8", Source: "quaywall", Manual: "quaywall", Date: released()}, &b)
	return b.Bytes(), err
}

// manText is the description with the sections that cobra does not know of.
func manText(cmd *cobra.Command) string {
	text := description(cmd) + "\n\n# EXIT STATUS\n" + definitions(cli.ExitStatus)
	if !cmd.HasParent() {
		text += "\n\n# ENVIRONMENT\n" + definitions(cli.Environment) + "\n\n# FILES\n" + definitions(cli.Files)
	}
	return text
}

func description(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short
}

// definitions turns "  word  meaning" lines of help, below a heading, into a definition list.
func definitions(help string) string {
	var b strings.Builder
	for line := range strings.Lines(help) {
		word, meaning, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if ok {
			fmt.Fprintf(&b, "**%s**\n\t%s\n\n", word, strings.TrimSpace(meaning))
		}
	}
	return b.String()
}

// markdown is all commands on one page.
func markdown(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString("# The commands\n\nMade from the commands' own help by `make generate`; the man pages hold the same.\n")
	for _, cmd := range commands(root) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n%s", cmd.CommandPath(), description(cmd), cmd.UseLine())
		if flags := cmd.LocalFlags().FlagUsages(); flags != "" {
			b.WriteString("\n\n" + strings.TrimRight(flags, "\n"))
		}
		fmt.Fprintf(&b, "\n```\n\n```\n%s\n```\n", cmd.Example)
	}
	for _, part := range []struct{ head, text string }{
		{"Exit status", strings.TrimPrefix(cli.ExitStatus, "Exit status:\n")},
		{"Environment", cli.Environment},
		{"Files", cli.Files},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n```\n%s```\n", part.head, part.text)
	}
	return b.Bytes()
}

func write(files map[string][]byte, stale []string) error {
	if err := os.MkdirAll(manDir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	for _, name := range stale {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func compare(files map[string][]byte, stale []string) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if text, err := os.ReadFile(name); err != nil || !bytes.Equal(text, files[name]) {
			stale = append(stale, name)
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("not up to date: %s; run make generate", strings.Join(stale, ", "))
	}
	return nil
}
