package iptsave

import (
	"path"
	"slices"
	"strings"

	"quaywall/internal/netfilter"
)

// scripted reads a line of a shell script that calls iptables, as people keep their rules and paste them: what the calls
// would do one after the other. It tells whether the line is one. What the shell would put in is not known, and neither is
// whether a line runs: conditions and loops are not followed.
func (r *reader) scripted(line string) bool {
	call, ok := callOf(line)
	if !ok {
		return false
	}
	for strings.HasSuffix(line, `\`) && r.text != "" { // it goes on behind the break
		end := lineEnd(r.text, 0)
		line = line[:len(line)-1] + " " + strings.TrimSpace(r.text[:end])
		r.text = r.text[min(end+1, len(r.text)):]
		r.rest++
	}
	call, _ = callOf(line)
	if call.restores {
		return false
	}
	r.turnTo(call)
	if call.lists() { // what follows is what it printed
		r.endTable(false)
		r.options.Table = call.table
		return true
	}
	before := r.table
	r.openTable(call.table)
	r.call(call)
	r.table = before
	return true
}

// call is a call of iptables.
type call struct {
	family   netfilter.Family
	legacy   bool
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
	for len(words) > 0 && (words[0].is("sudo") || words[0].is("exec") || isPrompt(words[0].text)) {
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
	c.legacy, c.restores = strings.Contains(program, "legacy"), strings.Contains(program, "restore")
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
	c.line = strings.TrimSuffix(strings.Join(kept, " "), ";")
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

// endsCall tells whether a word is the shell's, and ends the call.
func endsCall(w word) bool {
	return !w.quoted && (w.text[0] == '#' || slices.Contains([]string{";", "&&", "||", "|", "&"}, w.text) || strings.Contains(w.text, ">"))
}

// turnTo goes on with the rules of the family that a call is about.
func (r *reader) turnTo(c call) {
	dialect := r.dialect
	if c.legacy {
		dialect = netfilter.IPTablesLegacy
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
	command, rest, _ := strings.Cut(c.line, " ")
	chain, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	switch command {
	case "-F", "--flush":
		for _, one := range r.table.Chains {
			if chain == "" || one.Name == chain {
				one.Rules = nil
			}
		}
	case "-C", "--check", "-Z", "--zero", "-X", "--delete-chain", "-h", "-V", "--version":
	case "-A", "--append", "-I", "--insert", "-N", "--new-chain", "-P", "--policy":
		r.shell = c.unknown
		r.command(c.line)
		r.shell = false
	default:
		r.once("call "+command, "", "what this call does to the rules is not followed: %s", shorten(c.line))
	}
}
