package iptsave

import (
	"strings"
	"testing"

	"quaywall/internal/netfilter"
)

// TestScript: the lines of a script do what its calls would, and what a shell would put in is not known.
func TestScript(t *testing.T) {
	tables, problems := Parse(`#!/bin/bash
IPT=/sbin/iptables
# iptables -A INPUT -j DROP
iptables -P INPUT DROP
$IPT -A INPUT -j ACCEPT
sudo iptables -F INPUT
iptables -N web 2>/dev/null
/usr/sbin/iptables -w 5 -A INPUT -p tcp --dport 22 -m comment --comment 'my ssh' -j ACCEPT || exit 1
	iptables -t nat -A PREROUTING -p tcp --dport 80 \
		-j REDIRECT --to-ports 8080   # the web
${IPTABLES} -I INPUT 1 -s 203.0.113.99 -j DROP;
iptables -A INPUT -i $WAN -p tcp -j DROP
ip6tables -A INPUT -s 2001:db8::/32 -j DROP
iptables-legacy --table=mangle -A FORWARD -j web
iptables-nft -E web www
iptables-restore < /etc/rules
`, Options{File: "script"})
	want := []string{
		"4 nft filter INPUT -s 203.0.113.99 -j DROP",
		`4 nft filter INPUT -p tcp --dport 22 -j ACCEPT`,
		"4 nft filter INPUT -i $WAN -p tcp -j DROP",
		"4 nft nat PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080",
		"6 nft filter INPUT -s 2001:db8::/32 -j DROP",
		"4 legacy mangle FORWARD -j web",
	}
	if got := rulesOf(tables); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	input := tables[0].Chains[0]
	if input.Base.Policy != netfilter.Drop || input.Rules[1].Comment != "my ssh" || input.Rules[1].Line != 8 {
		t.Errorf("%+v %+v", input.Base, input.Rules[1])
	}
	if _, opaque := input.Rules[2].Matches[0].(netfilter.Opaque); !opaque || len(input.Rules[2].Matches) != 1 {
		t.Errorf("what $WAN is can't be known: %+v", input.Rules[2].Matches)
	}
	var told []string
	for _, p := range problems {
		told = append(told, p.Message)
	}
	all := strings.Join(told, "\n")
	for _, word := range []string{"-E web www", "this line is not part of any rules", "2 lines are not part", `"web" is neither a chain of table "mangle"`} {
		if !strings.Contains(all, word) {
			t.Errorf("nothing is said of %s:\n%s", word, all)
		}
	}
}

// TestPastedPrompt: a command above its listing says which table that is of.
func TestPastedPrompt(t *testing.T) {
	const list = "Chain PREROUTING (policy ACCEPT)\nnum  target     prot opt source               destination\n1    DOCKER     all  --  0.0.0.0/0            0.0.0.0/0            ADDRTYPE match dst-type LOCAL\n"
	tables, _ := Parse("root@host:~# iptables -t nat -nL --line-numbers\n"+list+"\n$ sudo ip6tables -S\n-P INPUT DROP\n", Options{Family: netfilter.IPv4})
	if len(tables) != 2 || tables[0].Name != "nat" || tables[0].Chains[0].Base.Hook != netfilter.Prerouting || tables[1].Name != "filter" || tables[1].Family != netfilter.IPv6 {
		t.Errorf("%+v", tables)
	}
}

// rulesOf is a line for each rule of what a text says: family, variant, table, chain and the rule.
func rulesOf(tables []*netfilter.Table) string {
	var all []string
	for _, table := range tables {
		for _, c := range table.Chains {
			for _, rule := range c.Rules {
				all = append(all, strings.Join([]string{[...]string{"", "4", "6"}[table.Family], [...]string{"", "nft", "legacy"}[table.Dialect], table.Name, c.Name, rule.Text}, " "))
			}
		}
	}
	return strings.Join(all, "\n")
}

// TestScriptLines: a line may have several calls in it, of which those after || only run if the one before fails.
func TestScriptLines(t *testing.T) {
	const a, b = "4 nft filter INPUT -s 192.0.2.1 -j DROP", "4 nft filter INPUT -s 192.0.2.2 -j DROP"
	const addA, addB = "iptables -A INPUT -s 192.0.2.1 -j DROP", "iptables -A INPUT -s 192.0.2.2 -j DROP"
	for text, want := range map[string]string{
		"iptables -P INPUT DROP && " + addA:                             a,
		addA + " ; " + addB:                                             a + "\n" + b,
		addA + ";" + addB + ";":                                         a + "\n" + b,
		addA + "&&" + addB:                                              a + "\n" + b,
		addA + " >/dev/null 2>&1 && " + addB + " &>/dev/null":           a + "\n" + b,
		"[ -x /sbin/iptables ] && " + addA:                              a,
		"[[ -x /sbin/iptables ]] && " + addA + " || exit 1; " + addB:    a + "\n" + b,
		"iptables -C INPUT -s 192.0.2.1 -j DROP 2>/dev/null || " + addA: a,
		"if ! iptables -C INPUT -j DROP; then " + addA + "; fi":         a,
		"for i in 1 2; do " + addA + "; done":                           a,
		addA + " || " + addB:                                            a,
		"( " + addA + " )":                                              a,
		"iptables -C INPUT -s 192.0.2.1 -j DROP ||\\\n  " + addA:        a,
		addA + " # && " + addB:                                          a,
		addA + " -m comment --comment \"a && b; c || 'd\" && " + addB:   a + "\n" + b,
		addA + " -m comment --comment 'a && b; c || d' && " + addB:      a + "\n" + b,
		"[root@host ~]# " + addA:                                        a,
	} {
		tables, problems := Parse(text+"\n", Options{Family: netfilter.IPv4})
		if got := rulesOf(tables); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s\n%v", text, got, want, problems)
		}
	}
}

// TestScriptVariants: each call is of the variant that it names; one that names none is of nf_tables', unless the script speaks
// of the legacy one alone.
func TestScriptVariants(t *testing.T) {
	const plain, legacy, nft = "iptables -A INPUT -j DROP\n", "iptables-legacy -A INPUT -j RETURN\n", "iptables-nft -A OUTPUT -j DROP\n"
	for text, want := range map[string]string{
		legacy + plain + nft: "4 legacy filter INPUT -j RETURN\n4 nft filter INPUT -j DROP\n4 nft filter OUTPUT -j DROP",
		plain + legacy:       "4 legacy filter INPUT -j DROP\n4 legacy filter INPUT -j RETURN",
		plain + nft:          "4 nft filter INPUT -j DROP\n4 nft filter OUTPUT -j DROP",
	} {
		tables, _ := Parse(text, Options{Family: netfilter.IPv4})
		if got := rulesOf(tables); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", text, got, want)
		}
	}
}

// TestScriptDeletes: calls that delete and replace are followed; where the shell hides which rule goes, each may be gone.
func TestScriptDeletes(t *testing.T) {
	const filled = "iptables -A INPUT -s 192.0.2.1 -p tcp -j DROP\niptables -A INPUT -s 192.0.2.2 -j DROP\niptables -t nat -A OUTPUT -j RETURN\n"
	const a, b, nat = "4 nft filter INPUT -s 192.0.2.1 -p tcp -j DROP", "4 nft filter INPUT -s 192.0.2.2 -j DROP", "4 nft nat OUTPUT -j RETURN"
	for call, want := range map[string][]string{
		"-D INPUT 1":                                 {b, nat},
		"-D INPUT 3":                                 {a, b, nat},
		"--delete INPUT -s 192.0.2.2 -j DROP":        {a, nat},
		"-D INPUT -p tcp -s 192.0.2.1/32 -j DROP":    {b, nat},
		"-D INPUT -s 192.0.2.2 -j ACCEPT":            {a, b, nat},
		"-D OUTPUT -s 192.0.2.2 -j DROP":             {a, b, nat},
		"-R INPUT 1 -s 192.0.2.3 -j DROP":            {"4 nft filter INPUT -s 192.0.2.3 -j DROP", b, nat},
		"-F":                                         {nat},
		"-F INPUT":                                   {nat},
		"-A INPUT -s 192.0.2.4\niptables -R INPUT 3": {a, b, "4 nft filter INPUT -s 192.0.2.4", nat},
		"-A OUTPUT\niptables -R OUTPUT":              {a, b, "4 nft filter OUTPUT ", nat},
		"-F OUTPUT":                                  {a, b, nat},
		"-t nat -F":                                  {a, b},
		"-I INPUT 2 -s 192.0.2.3 -j DROP":            {a, "4 nft filter INPUT -s 192.0.2.3 -j DROP", b, nat},
	} {
		tables, _ := Parse(filled+"iptables "+call+"\n", Options{Family: netfilter.IPv4})
		if got := rulesOf(tables); got != strings.Join(want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", call, got, strings.Join(want, "\n"))
		}
		for _, c := range tables[0].Chains {
			for i, rule := range c.Rules {
				if rule.Number != i+1 {
					t.Errorf("%s: %s %d has number %d", call, c.Name, i+1, rule.Number)
				}
			}
		}
	}
	for call, doubted := range map[string]bool{"-D INPUT $N": true, "-D INPUT -s $IP -j DROP": true, "-F $CHAIN": true, "-R INPUT $N -j DROP": true,
		"-D $CHAIN 1": true, "-E INPUT x": true, "-D OUTPUT $N": false, "-C INPUT -s $IP -j DROP": false, "-Z INPUT": false} {
		tables, _ := Parse(filled+"iptables "+call+"\n", Options{Family: netfilter.IPv4})
		for _, rule := range tables[0].Chains[0].Rules {
			_, opaque := rule.Matches[len(rule.Matches)-1].(netfilter.Opaque)
			if opaque != doubted {
				t.Errorf("%s: %+v", call, rule)
			}
		}
	}
}
