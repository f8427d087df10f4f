package policy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is said into the files of testdata; read the difference before committing it")

// mistake is a case of testdata/mistakes: a policy, the files it names, and what is said of it.
type mistake struct {
	name   string
	files  Memory
	says   string
	before string // the case's text up to what is said
}

// TestMistakes holds the language to what it says of mistakes, word by word and place by place. A case is
//
//	=== its name
//	--- policy.yaml        (and further files)
//	…
//	--- says
//	the diagnostics, a line each; nothing where all is well
func TestMistakes(t *testing.T) {
	groups, _ := filepath.Glob("testdata/mistakes/*.txt")
	count := 0
	for _, group := range groups {
		text, err := os.ReadFile(group)
		if err != nil {
			t.Fatal(err)
		}
		var rewritten strings.Builder
		for _, m := range mistakes(t, string(text)) {
			count++
			_, _, list := Load(m.files, "policy.yaml")
			got := strings.TrimSpace(list.Error())
			rewritten.WriteString(m.before + "--- says\n" + got + "\n\n")
			if got != m.says && !*update {
				t.Errorf("%s: %s\n%s\ngot:\n%s\nwant:\n%s", group, m.name, m.files["policy.yaml"], got, m.says)
			}
		}
		if *update {
			if err := os.WriteFile(group, []byte(strings.TrimRight(rewritten.String(), "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count < 150 {
		t.Errorf("only %d cases were found", count)
	}
}

func mistakes(t testing.TB, text string) []mistake {
	var all []mistake
	for _, c := range strings.Split("\n"+text, "\n=== ")[1:] {
		name, body, _ := strings.Cut(c, "\n")
		before, says, ok := strings.Cut(body, "--- says\n")
		if !ok {
			t.Fatalf("%s: nothing is said", name)
		}
		m := mistake{name: name, files: Memory{}, says: strings.TrimSpace(says), before: "=== " + name + "\n" + before}
		for _, part := range strings.Split("\n"+before, "\n--- ")[1:] {
			file, content, _ := strings.Cut(part, "\n")
			m.files[file] = content
		}
		all = append(all, m)
	}
	return all
}
