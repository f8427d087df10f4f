package nft

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"iter"
	"slices"
)

// Summary tells sets apart: what kind of set it is and what it holds, comments included, counters not.
type Summary struct {
	Elements int // intervals count once
	Ends     int // of intervals; one that goes up to the last key has none
	Digest   [16]byte
}

// Text is the digest in hex.
func (s Summary) Text() string { return hex.EncodeToString(s.Digest[:]) }

// CountIs tells whether the kernel's count of a set's elements is as of a set of this summary. A beginning and an end make
// one, rounded down.
func (s Summary) CountIs(count int) bool {
	if s.Ends > 0 {
		return count == (s.Elements+s.Ends)/2
	}
	return count == s.Elements
}

// Summarize goes through a rendered set. It takes the elements in their order and keeps none of them.
func (s *Set) Summarize() Summary {
	d := s.digester()
	for e := range s.Elements {
		d.add(e)
	}
	return d.sum()
}

// SummarizeUnsorted is Summarize for elements as they were read.
func (s *Set) SummarizeUnsorted(elements []Element) Summary {
	slices.SortFunc(elements, func(a, b Element) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 || a.End == b.End {
			return c
		}
		if a.End {
			return -1
		}
		return 1
	})
	sorted := *s
	sorted.Elements = slices.Values(elements)
	return sorted.Summarize()
}

// Cut is the table with just so many elements, or one more, in each set: to try whether the kernel takes it.
func (t *Table) Cut(limit int) *Table {
	short := *t
	short.Sets = slices.Clone(t.Sets)
	for i := range short.Sets {
		short.Sets[i].Elements = cut(t.Sets[i].Elements, limit)
	}
	return &short
}

// cut leaves no interval without its end.
func cut(elements iter.Seq[Element], limit int) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		n := 0
		for e := range elements {
			if n++; n > limit && !e.End || !yield(e) {
				return
			}
		}
	}
}

// header is what makes two sets of the same elements different sets.
func (s *Set) header() string {
	return fmt.Sprintf("%d %d %#x %t %s %d %q", s.Key.Magic, s.Key.Len, s.Flags, s.Counter, s.Timeout, s.Size, s.Comment)
}

// digester hashes elements, many at a time.
type digester struct {
	hash     hash.Hash
	pending  []byte
	elements int
	ends     int
}

// digestSize is how much is hashed at a time, about.
const digestSize = 4 << 10

func (s *Set) digester() *digester {
	return &digester{hash: sha256.New(), pending: append(make([]byte, 0, 2*digestSize), s.header()...)}
}

func (d *digester) add(e Element) {
	b := append(d.pending, byte(len(e.Key)), byte(len(e.KeyEnd)), 0)
	if e.End {
		b[len(b)-1] = 1
		d.ends++
	} else {
		d.elements++
	}
	b = append(append(b, e.Key...), e.KeyEnd...)
	if e.Verdict != nil {
		b = binary.BigEndian.AppendUint32(b, uint32(int32(e.Verdict.Kind)))
		b = append(append(b, e.Verdict.Chain...), 0)
	}
	b = append(append(b, e.Comment...), 0)
	if len(b) >= digestSize {
		d.hash.Write(b)
		b = b[:0]
	}
	d.pending = b
}

func (d *digester) sum() Summary {
	d.hash.Write(d.pending)
	s := Summary{Elements: d.elements, Ends: d.ends}
	copy(s.Digest[:], d.hash.Sum(nil))
	return s
}
