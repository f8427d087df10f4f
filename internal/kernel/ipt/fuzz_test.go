package ipt

import "testing"

// What the save programs print is read without a panic whatever it is, and only what is whole is an answer.
func FuzzParseSave(f *testing.F) {
	for _, text := range []string{
		"*mangle\n:PREROUTING ACCEPT [0:0]\n:QUAYWALL-gate - [0:0]\n[1:60] -A PREROUTING -j QUAYWALL-gate\n" +
			"[3:4] -A QUAYWALL-gate -p tcp -m tcp --dport 22 -m comment --comment \"policy.yaml:4: \\\"ssh\\\"\" -j RETURN\nCOMMIT\n",
		"*nat\n:DOCKER - [0:0]\nCOMMIT\n# a comment\n*mangle\nCOMMIT\n", "*mangle\n", "[1:2] -A X", "[:] -A  ", "", "\x00\n*mangle\nCOMMIT",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tables, err := parseSave(text, "mangle")
		if err != nil {
			return
		}
		for _, c := range tables["mangle"].present.Chains {
			if c.Name == "" {
				t.Errorf("a chain without a name in %q", text)
			}
		}
	})
}
