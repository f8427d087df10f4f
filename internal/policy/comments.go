package policy

import (
	"slices"
	"strings"

	"quaywall/internal/policy/tree"
)

// comments are a document's comments, each at the entry it belongs to. An entry is known by its key, or by itself where it
// is an item of a list.
type comments struct {
	header []ownComment                // at the beginning of the file, apart from what follows
	head   map[*tree.Node][]ownComment // before an entry
	tail   map[*tree.Node]string       // on its line
	foot   map[*tree.Node][]ownComment // behind the last entry of a list or mapping
	footer []ownComment                // at the end of the file
	blanks []bool                      // which lines are empty, from 1
}

// ownComment is a comment on a line of its own.
type ownComment struct {
	text  string
	blank bool // an empty line stands before it
}

// anchor is a place where an entry begins, in the order of the file.
type anchor struct {
	line, col int32
	entry     *tree.Node
	parents   []parent // the lists and mappings it is in, the innermost last
}

// parent is a list or mapping and the column of its entries.
type parent struct {
	node *tree.Node
	col  int32
}

// attach finds out what each comment belongs to.
func attach(doc *tree.Doc, source []byte) *comments {
	c := &comments{head: map[*tree.Node][]ownComment{}, tail: map[*tree.Node]string{}, foot: map[*tree.Node][]ownComment{}}
	c.blanks = append(c.blanks, false)
	for line := range strings.Lines(string(source)) {
		c.blanks = append(c.blanks, strings.Trim(strings.TrimPrefix(line, "\ufeff"), " \t\r\n") == "")
	}
	anchors := anchorsOf(&doc.Root, nil, nil)
	next := 0 // the first anchor behind the comment
	for _, comment := range doc.Comments {
		for next < len(anchors) && before(anchors[next], comment) {
			next++
		}
		if !comment.OwnLine && next > 0 && anchors[next-1].line == comment.Line {
			entry := anchors[next-1].entry
			if c.tail[entry] == "" {
				c.tail[entry] = comment.Text
			} else { // a key and its value, a line and a comment each
				c.head[entry] = append(c.head[entry], ownComment{text: comment.Text})
			}
			continue
		}
		c.place(anchors, next, comment)
	}
	if len(anchors) > 0 {
		c.splitHeader(anchors[0].entry, doc.Comments)
	}
	return c
}

func before(a anchor, c tree.Comment) bool {
	return a.line < c.Line || a.line == c.Line && a.col < c.Col
}

// anchorsOf lists the entries of a node in their order. Those of a flow list or mapping on one line count as part of what
// they are in.
func anchorsOf(n *tree.Node, all []anchor, parents []parent) []anchor {
	if n.Kind == tree.Scalar || n.Flow && n.Line == n.EndLine {
		return all
	}
	if n.Kind == tree.List {
		for i := range n.Items {
			item := &n.Items[i]
			col := item.Col
			switch { // a comment is aligned with the dash, if with anything
			case n.Flow:
			case item.Kind == tree.Scalar && item.Text == "" && item.Style == tree.Plain:
				col--
			default:
				col = max(1, col-2)
			}
			within := append(parents[:len(parents):len(parents)], parent{n, col})
			all = anchorsOf(item, append(all, anchor{item.Line, col, item, within}), within)
		}
		return all
	}
	for k, v := range n.Pairs() {
		within := append(parents[:len(parents):len(parents)], parent{n, k.Col})
		all = append(all, anchor{k.Line, k.Col, k, within})
		if v.Kind == tree.Scalar && v.Line > k.Line {
			all = append(all, anchor{v.Line, v.Col, k, within}) // a comment between them belongs to the key
		}
		all = anchorsOf(v, all, within)
	}
	return all
}

// place puts a comment on a line of its own before the entry that follows, unless it is indented further than that:
// then it belongs to the end of what comes before.
func (c *comments) place(anchors []anchor, next int, comment tree.Comment) {
	own := ownComment{comment.Text, c.blankAt(comment.Line)}
	column := int32(1)
	if next < len(anchors) {
		column = anchors[next].col
	}
	if next > 0 && (comment.Col > column || next == len(anchors) && comment.Col > 1) {
		parents := anchors[next-1].parents
		for i := len(parents) - 1; i > 0; i-- { // what stands behind the outermost one is the file's
			if next < len(anchors) && anchors[next].isIn(parents[i].node) {
				break // it goes on behind the comment
			}
			if parents[i].col <= comment.Col {
				c.foot[parents[i].node] = append(c.foot[parents[i].node], own)
				return
			}
		}
	}
	if next == len(anchors) {
		c.footer = append(c.footer, own)
		return
	}
	entry := anchors[next].entry
	for i := next - 1; i >= 0 && (anchors[i].entry == entry || begins(entry, anchors[i].entry)); i-- {
		entry = anchors[i].entry // there is no place between a dash and what stands behind it
	}
	c.head[entry] = append(c.head[entry], own)
}

func (a anchor) isIn(n *tree.Node) bool {
	return slices.ContainsFunc(a.parents, func(p parent) bool { return p.node == n })
}

// begins tells whether an entry is the first of a list or mapping.
func begins(entry, n *tree.Node) bool { return len(n.Items) > 0 && &n.Items[0] == entry }

func (c *comments) blankAt(line int32) bool { return line > 1 && c.blanks[line-1] }

// blankBefore tells whether an empty line stands before an entry.
func (c *comments) blankBefore(n *tree.Node) bool { return c.blankAt(n.Line) }

// splitHeader takes the comments that an empty line parts from the first entry for the file's own.
func (c *comments) splitHeader(first *tree.Node, all []tree.Comment) {
	head := c.head[first]
	for i := len(head); i > 0; i-- {
		if line := all[i-1].Line; int(line)+1 < len(c.blanks) && c.blanks[line+1] {
			c.header, c.head[first] = head[:i], head[i:]
			return
		}
	}
}
