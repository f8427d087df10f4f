package ipt

import (
	"bytes"
	"slices"
	"strings"
)

// Present is what of quaywall's a table of the kernel holds.
type Present struct {
	Chains  []Chain      // quaywall's, sorted by name, with rules as the save programs print them
	Jumps   []PlacedJump // rules of other chains that lead into them, in order
	Missing []string     // what a jump makes: built-in chains that aren't there yet, and MissingTable
}

// MadePrefix begins the names of chains that hold nothing: MadePrefix+"INPUT" says that the built-in chain INPUT was made
// for quaywall's jump. Nobody else would know, once the jump is gone.
const MadePrefix = "QUAYWALL+"

// MissingTable stands for the table itself.
const MissingTable = "TABLE"

// PlacedJump is a jump and where it stands in its chain, counted from 1.
type PlacedJump struct {
	Jump
	Position int
}

// Empty tells whether there is nothing.
func (p Present) Empty() bool { return len(p.Chains) == 0 && len(p.Jumps) == 0 }

// Payload is what makes iptables-restore --noflush put the family into the kernel in place of what is there, by the names
// of tables. Tables that hold nothing of quaywall's and shall hold nothing are not touched; nil is nothing to do.
//
// What answers and drops labelled packets comes before the table that labels them, and goes after it. Table raw may come
// anywhere: it drops nothing that table mangle of the same policy wouldn't drop, so between the two each packet still
// meets the old policy's verdict or the new one's.
func (f *Family) Payload(now map[string]Present) []byte {
	var b bytes.Buffer
	for _, t := range []*Table{&f.Security, &f.Filter} {
		if len(t.Chains) > 0 {
			t.write(&b, now[t.Name])
		}
	}
	f.Raw.write(&b, now[f.Raw.Name])
	f.Mangle.write(&b, now[f.Mangle.Name])
	for _, t := range []*Table{&f.Filter, &f.Security} {
		if len(t.Chains) == 0 {
			t.write(&b, now[t.Name])
		}
	}
	return b.Bytes()
}

// is tells whether the table holds what it shall. Rules that the save programs print in other words than those they were
// written in count as different.
func (t *Table) is(now Present) bool {
	return t.inPlace(now.Jumps) && slices.EqualFunc(t.Chains, now.Chains, func(a, b Chain) bool {
		return a.Name == b.Name && slices.Equal(a.Rules, b.Rules)
	})
}

// write describes each chain from the beginning: naming a chain empties it. All of it takes effect at COMMIT.
func (t *Table) write(b *bytes.Buffer, now Present) {
	if t.is(now) {
		return
	}
	line := func(words ...string) {
		for i, w := range words {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(w)
		}
		b.WriteByte('\n')
	}
	line("*" + t.Name)
	wanted := map[string]bool{}
	for _, c := range t.Chains {
		line(":"+c.Name, "- [0:0]")
		wanted[c.Name] = true
	}
	stale := slices.DeleteFunc(slices.Clone(now.Chains), func(c Chain) bool { return wanted[c.Name] })
	for _, c := range stale {
		line(":"+c.Name, "- [0:0]")
	}
	for _, name := range t.makes(now) {
		line(":"+MadePrefix+name, "- [0:0]")
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			line("-A", c.Name, r.Spec)
		}
	}
	if !t.inPlace(now.Jumps) {
		for _, j := range now.Jumps {
			line("-D", j.From, j.Spec)
		}
		for _, j := range slices.Backward(t.Jumps) {
			line("-I", j.From, j.Spec)
		}
	}
	for _, c := range stale {
		line("-X", c.Name)
	}
	line("COMMIT")
}

// makes are the missing things that the table's jumps make.
func (t *Table) makes(now Present) []string {
	var all []string
	for _, name := range now.Missing {
		from := func(j Jump) bool { return j.From == name }
		if slices.ContainsFunc(t.Jumps, from) || name == MissingTable && len(t.Jumps) > 0 {
			all = append(all, name)
		}
	}
	return all
}

// inPlace tells whether the jumps are the wanted ones, each where it belongs: first in its chain, or behind those that
// come before it.
func (t *Table) inPlace(now []PlacedJump) bool {
	if len(now) != len(t.Jumps) {
		return false
	}
	position := map[string]int{}
	for _, j := range t.Jumps {
		position[j.From]++
		if !slices.Contains(now, PlacedJump{j, position[j.From]}) {
			return false
		}
	}
	return true
}

// Words splits a rule, as the save programs print it or as a payload holds it, into words without their quotes.
func Words(spec string) ([]string, error) {
	words, err := splitWords(spec)
	var all []string
	for _, w := range words {
		all = append(all, w.text)
	}
	return all, err
}

// LeadsToOwn tells whether a rule, as the save programs print it, jumps to a chain of quaywall's.
func LeadsToOwn(spec string) bool {
	words, _ := Words(spec)
	for i, w := range words {
		if (w == "-j" || w == "-g") && i+1 < len(words) && strings.HasPrefix(words[i+1], Prefix) {
			return true
		}
	}
	return false
}

// CommentOf is the comment of a rule as the save programs print it, "" where it has none.
func CommentOf(spec string) string {
	_, rest, ok := strings.Cut(spec, "--comment ")
	if !ok || rest == "" {
		return ""
	}
	w, _, _ := firstWord(rest)
	return w.text
}
