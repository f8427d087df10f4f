package iptsave

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/netfilter"
)

// scripted reads a line of a shell script that calls iptables, as people keep their rules and paste them: what the calls
// would do one after the other. It tells whether the line is one. What the shell would put in is not known, and neither is
// whether a line runs: conditions and loops are not followed.
func (r *reader) scripted(line string) bool {
	for strings.HasSuffix(line, `\`) && r.text != "" && r.rest < maxLines { // it goes on behind the break
		end := lineEnd(r.text, 0)
		line = line[:len(line)-1] + " " + strings.TrimSpace(r.text[:end])
		r.text = r.text[min(end+1, len(r.text)):]
		r.rest++
	}
	found, done := false, false // done: the command before is a call that succeeds
	for _, one := range commands(line) {
		call, ok := callOf(one.text)
		ok = ok && !call.restores
		found = found || ok
		if one.otherwise && done {
			continue
		}
		if ok {
			r.run(call)
		}
		done = ok && !call.mayFail()
	}
	return found
}

// run does what a call would, or takes what follows for what it printed.
func (r *reader) run(c call) {
	r.turnTo(c)
	if c.lists() {
		r.endTable(false)
		r.options.Table = c.table
		return
	}
	before := r.table
	r.openTable(c.table)
	r.call(c)
	r.table = before
}

// command is one of the commands of a line.
type command struct {
	text      string
	otherwise bool // it only runs if the one before fails
}

// commands splits a line where the shell would, outside of quotes, up to a comment.
func commands(line string) []command {
	var all []command
	var quote byte
	from, otherwise := 0, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0:
			if c == '\\' && quote == '"' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '\\':
			i++
		case c == '#' && i > 0 && isSpace(line[i-1]):
			return append(all, command{line[from:i], otherwise})
		case c == ';' || c == '|' || c == '&' && !redirects(line, i):
			all = append(all, command{line[from:i], otherwise})
			otherwise = strings.HasPrefix(line[i:], "||")
			if i+1 < len(line) && line[i+1] == c {
				i++
			}
			from = i + 1
		}
	}
	return append(all, command{line[from:], otherwise})
}

// redirects tells whether an & is part of 2>&1 or &>.
func redirects(line string, at int) bool {
	return at > 0 && line[at-1] == '>' || strings.HasPrefix(line[at:], "&>")
}

// call is a call of iptables.
type call struct {
	family   netfilter.Family
	legacy   bool // it names that variant
	nft      bool
	restores bool
	table    string
	line     string // its command and what follows, without the program and the table
	unknown  bool   // the shell puts something into it
}

// callOf reads a call; false where a line is none.
func callOf(line string) (call, bool) {
	if !strings.Contains(line, `"`) {
		line = strings.ReplaceAll(line, "'", `"`)
	}
	words, _ := split(line, nil)
	if len(words) > 1 && strings.HasPrefix(words[0].text, "[") && isPrompt(words[1].text) { // [root@host ~]#
		words = words[1:]
	}
	for len(words) > 0 && (beforeCall[words[0].text] || isPrompt(words[0].text)) {
		words = words[1:]
	}
	if len(words) < 2 {
		return call{}, false
	}
	c := call{family: netfilter.IPv4, table: "filter"}
	program := strings.ToLower(strings.Trim(path.Base(words[0].text), "${}"))
	switch {
	case strings.HasPrefix(program, "ip6t"):
		c.family = netfilter.IPv6
	case strings.HasPrefix(program, "iptables"), program == "ipt" && strings.HasPrefix(words[0].text, "$"):
	default:
		return call{}, false
	}
	c.legacy, c.nft, c.restores = strings.Contains(program, "legacy"), strings.Contains(program, "nft"), strings.Contains(program, "restore")
	var kept []string
	words = words[1:]
	for i := 0; i < len(words) && !endsCall(words[i]); i++ {
		w := words[i]
		switch {
		case w.is("-t") || w.is("--table"):
			if i++; i < len(words) {
				c.table = words[i].text
			}
		case !w.quoted && strings.HasPrefix(w.text, "--table="):
			c.table = w.text[len("--table="):]
		case w.is("-w") || w.is("--wait"):
			if i+1 < len(words) && strings.Trim(words[i+1].text, "0123456789") == "" {
				i++
			}
		default:
			kept = append(kept, line[w.at:w.end])
		}
	}
	c.line = strings.Join(kept, " ")
	c.unknown = strings.ContainsAny(c.line, "$`")
	return c, len(kept) > 0 && kept[0][0] == '-'
}

func (c call) lists() bool {
	command, _, _ := strings.Cut(c.line, " ")
	return slices.ContainsFunc([]string{"-L", "--list", "-S", "--list-rules", "-n", "-v"}, func(s string) bool { return strings.HasPrefix(command, s) })
}

// isPrompt tells whether a word is how a shell asks for a command. A "#" alone begins a comment.
func isPrompt(s string) bool {
	return strings.HasSuffix(s, "$") || strings.HasSuffix(s, "#") && len(s) > 1
}

// beforeCall are words that a shell lets stand in front of a command.
var beforeCall = map[string]bool{"sudo": true, "exec": true, "!": true, "if": true, "then": true, "elif": true, "else": true, "while": true,
	"until": true, "do": true, "{": true, "(": true}

// endsCall tells whether a word is the shell's, and ends the call.
func endsCall(w word) bool {
	return !w.quoted && (w.text == ")" || strings.Contains(w.text, ">"))
}

// mayFail tells whether a script counts on it that the call may fail, so that what is to be done then counts as done.
func (c call) mayFail() bool {
	command, _, _ := strings.Cut(c.line, " ")
	return slices.Contains([]string{"-C", "--check", "-N", "--new-chain", "-D", "--delete"}, command)
}

// turnTo goes on with the rules of the family that a call is about.
func (r *reader) turnTo(c call) {
	dialect := r.plain
	switch {
	case c.legacy:
		dialect = netfilter.IPTablesLegacy
	case c.nft:
		dialect = netfilter.IPTablesNFT
	}
	if r.family == c.family && r.dialect == dialect {
		return
	}
	r.endTable(false)
	r.family, r.dialect = c.family, dialect
	r.rule.reset(r)
}

// call does what a call would.
func (r *reader) call(c call) {
	words, _ := split(c.line, nil)
	command, words := words[0].text, words[1:]
	switch command {
	case "-C", "--check", "-Z", "--zero", "-X", "--delete-chain", "-h", "-V", "--version":
	case "-A", "--append", "-I", "--insert", "-N", "--new-chain", "-P", "--policy":
		r.shell = c.unknown
		r.command(c.line)
		r.shell = false
	case "-F", "--flush":
		if c.unknown {
			r.doubt(c, words)
			return
		}
		for _, one := range r.concerned(words) {
			one.Rules = nil
		}
	case "-D", "--delete", "-R", "--replace":
		if c.unknown || len(words) == 0 {
			r.doubt(c, words)
			return
		}
		r.takeOut(c, words, command == "-R" || command == "--replace")
	default:
		r.once("call "+command, "", "what this call does to the rules is not followed: %s", shorten(c.line))
		r.doubt(c, words)
	}
}

// takeOut does a call that takes a rule of a chain away, or puts another in its place.
func (r *reader) takeOut(c call, words []word, replaces bool) {
	chain := r.table.chains[words[0].text]
	if chain == nil {
		return
	}
	at := r.find(chain, c.line, words[1:])
	if at < 0 || replaces && len(words) < 3 {
		return // it fails
	}
	chain.Rules = slices.Delete(chain.Rules, at, at+1)
	renumber(chain.Rules, at)
	if replaces {
		r.add(chain.Name, c.line, words[2:], nil, at)
	}
}

// find is where the rule is that a call names by its number, or by what it says; -1 where there is none.
func (r *reader) find(chain *netfilter.Chain, line string, words []word) int {
	if len(words) > 0 {
		if n, err := strconv.Atoi(words[0].text); err == nil {
			if n < 1 || n > len(chain.Rules) {
				return -1
			}
			return n - 1
		}
	}
	wanted := r.rule.read(line, words)
	return slices.IndexFunc(chain.Rules, func(rule *netfilter.Rule) bool {
		return rule.Comment == wanted.Comment && reflect.DeepEqual(rule.Actions, wanted.Actions) && slices.Equal(meanings(rule), meanings(wanted))
	})
}

// meanings are the matches of a rule in an order that doesn't depend on how they stand in it.
func meanings(rule *netfilter.Rule) []string {
	var all []string
	for _, m := range rule.Matches {
		all = append(all, fmt.Sprintf("%T%+v", m, m))
	}
	slices.Sort(all)
	return all
}

// concerned are the chains that a call is about: all of the table where it names none, or the shell would.
func (r *reader) concerned(words []word) []*netfilter.Chain {
	if len(words) == 0 || strings.ContainsAny(words[0].text, "$`") {
		return r.table.Chains
	}
	if chain := r.table.chains[words[0].text]; chain != nil {
		return []*netfilter.Chain{chain}
	}
	return nil
}

// doubt has the rules be there or not that a call may take away which isn't followed.
func (r *reader) doubt(c call, words []word) {
	for _, chain := range r.concerned(words) {
		for _, rule := range chain.Rules {
			rule.Matches = append(slices.Clip(rule.Matches), netfilter.Opaque{Text: c.line})
		}
	}
}
