package tree

import (
	"iter"

	"quaywall/internal/diag"
)

// Kind is the kind of a Node.
type Kind uint8

// The kinds. The zero value is a word.
const (
	Scalar Kind = iota
	List
	Map
	Bad // a mistake was reported here, and nothing is known of what was meant
)

func (k Kind) String() string { return [...]string{"word", "list", "mapping", "mistake"}[k] }

// Style is how a word was written.
type Style uint8

// The styles.
const (
	Plain  Style = iota
	Single       // 'in single quotes'
	Double       // "in double quotes"
)

// Node is a word, a list or a mapping. Lines and columns count from 1, columns in characters.
type Node struct {
	Kind    Kind
	Style   Style // of a word
	Flow    bool  // a list or mapping in brackets or braces
	Line    int32
	Col     int32
	EndLine int32  // the line of its last character
	Text    string // of a word, quotes and escapes undone
	Items   []Node // of a list; of a mapping its keys and values in turn, each key once
}

// IsNull tells whether nothing stands where a value could: no word at all, "~" or "null".
func (n *Node) IsNull() bool {
	if n.Kind != Scalar || n.Style != Plain {
		return false
	}
	switch n.Text {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// Pairs are the keys and values of a mapping in their order.
func (n *Node) Pairs() iter.Seq2[*Node, *Node] {
	return func(yield func(*Node, *Node) bool) {
		if n.Kind != Map {
			return
		}
		for i := 0; i+1 < len(n.Items); i += 2 {
			if !yield(&n.Items[i], &n.Items[i+1]) {
				return
			}
		}
	}
}

// Comment is a comment and where its "#" stands.
type Comment struct {
	Line, Col int32
	Text      string // from the "#" to the end of the line, without white space at the end
	OwnLine   bool   // nothing stands before it
}

// Doc is a document.
type Doc struct {
	File     string
	Root     Node // a null word where the document is empty
	Comments []Comment
	Broken   bool // parts were left out because of mistakes in the syntax
}

// Pos is the place of a node.
func (d *Doc) Pos(n *Node) diag.Pos {
	return diag.Pos{File: d.File, Line: int(n.Line), Col: int(n.Col)}
}
