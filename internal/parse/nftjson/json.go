package nftjson

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// node is a value of JSON, as it stands in the text: lists and objects are their values one after the other.
type node struct {
	kind        kind
	key         string // in an object
	text        string // of a string what it says, of a number, true, false and null the word
	child, next *node
	cut         bool // the text ends, or makes no sense any more, in the middle of it
}

type kind uint8

const (
	object kind = iota
	list
	str
	number
	word // true, false, null
)

// get finds a value of an object; nil where there is none.
func (n *node) get(key string) *node {
	if n == nil || n.kind != object {
		return nil
	}
	for c := n.child; c != nil; c = c.next {
		if c.key == key {
			return c
		}
	}
	return nil
}

// only is the one value of an object that has one: statements and expressions are such.
func (n *node) only() (key string, value *node) {
	if n == nil || n.kind != object || n.child == nil || n.child.next != nil {
		return "", nil
	}
	return n.child.key, n.child
}

// str is a value's text, "" where it has none.
func (n *node) str(key string) string {
	if v := n.get(key); v != nil && v.kind != object && v.kind != list {
		return v.text
	}
	return ""
}

// uint is a value that is a number, 0 for any other.
func (n *node) uint(key string) uint64 {
	v, _ := strconv.ParseUint(n.str(key), 10, 64)
	return v
}

func (n *node) isTrue(key string) bool { return n.str(key) == "true" }

// each goes through the values of a list; one that isn't in a list is a list of its own, as nft writes it.
func (n *node) each(yield func(*node) bool) {
	if n == nil {
		return
	}
	if n.kind != list {
		yield(n)
		return
	}
	for c := n.child; c != nil; c = c.next {
		if !yield(c) {
			return
		}
	}
}

// pair is a list of two values.
func (n *node) pair() (a, b *node, ok bool) {
	if n == nil || n.kind != list || n.child == nil || n.child.next == nil || n.child.next.next != nil {
		return nil, nil, false
	}
	return n.child, n.child.next, true
}

// isCut tells whether anything in a value was cut short.
func (n *node) isCut() bool {
	if n == nil {
		return false
	}
	if n.cut {
		return true
	}
	// Only what stands last can have been cut.
	last := n.child
	for last != nil && last.next != nil {
		last = last.next
	}
	return last.isCut()
}

// reader reads JSON from a text that may be anything. What it gives is valid until release.
type reader struct {
	text string
	at   int
	// Lines are counted as reading goes on.
	line, counted int
	slabs         [][]node
	slab          int
}

// maxDepth bounds how deep values are read into each other. nft's own are some fifteen deep.
const maxDepth = 100

// slabSize is how many nodes are made at once. Rules and sets are read one after the other, in the same nodes.
const slabSize = 1024

func (r *reader) new() *node {
	for {
		if r.slab == len(r.slabs) {
			r.slabs = append(r.slabs, make([]node, 0, slabSize))
		}
		s := &r.slabs[r.slab]
		if len(*s) < cap(*s) {
			*s = append(*s, node{})
			return &(*s)[len(*s)-1]
		}
		r.slab++
	}
}

// release makes the nodes that were given free for others.
func (r *reader) release() {
	for i := range r.slabs[:min(r.slab+1, len(r.slabs))] {
		r.slabs[i] = r.slabs[i][:0]
	}
	r.slab = 0
}

// lineAt is the line of a place that isn't before the last one that was asked for.
func (r *reader) lineAt(at int) int {
	r.line += strings.Count(r.text[r.counted:at], "\n")
	r.counted = at
	return r.line + 1
}

// space skips what may stand between values. NUL bytes are what a broken copy has there.
func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\r', '\n', 0:
			r.at++
		default:
			return
		}
	}
}

// take skips a character if it comes next.
func (r *reader) take(c byte) bool {
	r.space()
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// value reads a value; nil where none stands there.
func (r *reader) value(depth int) *node {
	r.space()
	if r.at == len(r.text) || depth > maxDepth {
		return nil
	}
	switch c := r.text[r.at]; {
	case c == '{':
		return r.values(object, '}', depth)
	case c == '[':
		return r.values(list, ']', depth)
	case c == '"':
		n := r.new()
		n.kind = str
		n.text, n.cut = r.quoted()
		return n
	case c == '-' || '0' <= c && c <= '9':
		return r.word(number)
	case 'a' <= c && c <= 'z':
		return r.word(word)
	}
	return nil
}

// values reads an object or a list.
func (r *reader) values(k kind, end byte, depth int) *node {
	n := r.new()
	n.kind = k
	r.at++
	last := &n.child
	for !r.take(end) {
		if *last != nil {
			if last = &(*last).next; !r.take(',') {
				n.cut = true
				return n
			}
		}
		key, ok := r.key(k)
		if !ok {
			n.cut = true
			return n
		}
		v := r.value(depth + 1)
		if v == nil {
			n.cut = true
			return n
		}
		v.key = key
		*last = v
		if v.cut {
			n.cut = true
			return n
		}
	}
	return n
}

// key reads the name of a value in an object.
func (r *reader) key(k kind) (string, bool) {
	if k != object {
		return "", true
	}
	if r.space(); r.at == len(r.text) || r.text[r.at] != '"' {
		return "", false
	}
	key, cut := r.quoted()
	return key, !cut && r.take(':')
}

func (r *reader) word(k kind) *node {
	n := r.new()
	n.kind = k
	from := r.at
	for r.at < len(r.text) && !strings.ContainsRune(" \t\r\n\x00,]}:", rune(r.text[r.at])) {
		r.at++
	}
	n.text = r.text[from:r.at]
	return n
}

// quoted reads a string. Line breaks in it are what nft writes for such in a comment.
func (r *reader) quoted() (text string, cut bool) {
	r.at++
	from := r.at
	end := strings.IndexAny(r.text[from:], `"\`)
	if end < 0 {
		r.at = len(r.text)
		return r.text[from:], true
	}
	if r.at = from + end; r.text[r.at] == '"' {
		r.at++
		return r.text[from : from+end], false
	}
	b := []byte(r.text[from:r.at])
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case '"':
			r.at++
			return string(b), false
		case '\\':
			b = r.escaped(b)
		default:
			b = append(b, c)
			r.at++
		}
	}
	return string(b), true
}

// escaped reads what stands behind a backslash.
func (r *reader) escaped(b []byte) []byte {
	rest := r.text[r.at+1:]
	if rest == "" {
		r.at++
		return b
	}
	r.at += 2
	if rest[0] == 'u' && len(rest) >= 5 {
		code, err := strconv.ParseUint(rest[1:5], 16, 16)
		if err == nil {
			r.at += 4
			return utf8.AppendRune(b, rune(code))
		}
	}
	if i := strings.IndexByte("nrtbf", rest[0]); i >= 0 {
		return append(b, "\n\r\t\b\f"[i])
	}
	return append(b, rest[0])
}
