package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentedPolicies: every policy that the documentation shows is a valid one.
func TestDocumentedPolicies(t *testing.T) {
	shown := 0
	for _, page := range []string{"README.md", "docs/policy.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", page))
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range yamlBlocks(string(text)) {
			dir := t.TempDir()
			write(t, dir, "policy.yaml", block)
			write(t, dir, "friends.txt", "192.0.2.1\n2001:db8::/64  # a comment\n")
			shown++
			if r := run(t, dir, "check", "policy.yaml"); r.status != 0 {
				t.Errorf("%s, policy %d:\n%s", page, i+1, r.stderr)
			}
		}
	}
	if shown < 3 {
		t.Errorf("only %d policies found", shown)
	}
}

// yamlBlocks are the fenced blocks of a page that say they are YAML.
func yamlBlocks(page string) []string {
	var blocks []string
	for _, rest := range strings.Split(page, "```yaml\n")[1:] {
		block, _, _ := strings.Cut(rest, "```")
		blocks = append(blocks, block)
	}
	return blocks
}
