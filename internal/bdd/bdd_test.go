package bdd

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Three fields of four bits: few enough strings to list them all.
var (
	x      = Field{0, 4}
	y      = Field{4, 4}
	z      = Field{8, 4}
	fields = []Field{x, y, z}
)

const strings = 1 << 12

// list is a set as a table of its members.
type list [strings]bool

func (u *Universe) list(s Set) (l list) {
	for i := range l {
		rest := s
		for _, f := range fields {
			rest = u.Cofactor(rest, f, part(i, f))
		}
		l[i] = rest == All
	}
	return l
}

func part(i int, f Field) Value { return Small(uint64(i) >> (12 - f.end()) & 15) }

// pair is a set, and what has to be in it.
type pair struct {
	set  Set
	want list
}

func (p pair) check(t *testing.T, u *Universe, what string) {
	t.Helper()
	if u.list(p.set) != p.want {
		t.Fatalf("%s has other members", what)
	}
}

func where(is func(i int) bool) (l list) {
	for i := range l {
		l[i] = is(i)
	}
	return l
}

// random is one of the sets that fields make.
func random(r *rand.Rand, u *Universe) pair {
	f := fields[r.IntN(3)]
	a, b := uint64(r.IntN(16)), uint64(r.IntN(16))
	switch r.IntN(4) {
	case 0:
		return pair{u.Equal(f, Small(a)), where(func(i int) bool { return part(i, f).Lo == a })}
	case 1:
		return pair{u.Masked(f, Small(b), Small(a)), where(func(i int) bool { return (part(i, f).Lo^a)&b == 0 })}
	case 2:
		a, b = min(a, b), max(a, b)
		return pair{u.Range(f, Small(a), Small(b)), where(func(i int) bool { n := part(i, f).Lo; return a <= n && n <= b })}
	}
	a, b = a%4, 8+b%4
	return pair{u.Ranges(f, []Interval{{Small(a), Small(a + 2)}, {Small(b), Small(b + 3)}}),
		where(func(i int) bool { n := part(i, f).Lo; return a <= n && n <= a+2 || b <= n && n <= b+3 })}
}

func TestOperations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		u := New()
		all := []pair{{None, list{}}, {All, where(func(int) bool { return true })}}
		for range 12 {
			p := random(r, u)
			p.check(t, u, "a field's set")
			q := all[r.IntN(len(all))]
			p = combine(r, u, p, q)
			p.check(t, u, "a combination")
			for _, other := range all {
				if (p.want == other.want) != (p.set == other.set) {
					t.Fatal("equal sets have one value, others have others")
				}
			}
			all = append(all, p)
		}
	}
}

func combine(r *rand.Rand, u *Universe, p, q pair) pair {
	f, v := fields[r.IntN(3)], Small(uint64(r.IntN(16)))
	switch r.IntN(6) {
	case 0:
		return pair{u.And(p.set, q.set), where(func(i int) bool { return p.want[i] && q.want[i] })}
	case 1:
		return pair{u.Or(p.set, q.set), where(func(i int) bool { return p.want[i] || q.want[i] })}
	case 2:
		return pair{u.Diff(p.set, q.set), where(func(i int) bool { return p.want[i] && !q.want[i] })}
	case 3:
		both, either := u.And(p.set, q.set), u.Or(p.set, q.set)
		return pair{u.Diff(either, both), where(func(i int) bool { return p.want[i] != q.want[i] })}
	case 4:
		q = pair{u.And(p.set, q.set), where(func(i int) bool { return p.want[i] && q.want[i] })}
		return pair{u.Cofactor(q.set, f, v), where(func(i int) bool { return q.want[put(i, f, v)] })}
	}
	q = pair{u.Or(p.set, q.set), where(func(i int) bool { return p.want[i] || q.want[i] })}
	return pair{u.Exists(q.set, f), where(func(i int) bool {
		for n := range uint64(16) {
			if q.want[put(i, f, Small(n))] {
				return true
			}
		}
		return false
	})}
}

// put is a string whose field has another value.
func put(i int, f Field, v Value) int {
	shift := 12 - f.end()
	return i&^(15<<shift) | int(v.Lo)<<shift
}

func TestAsks(t *testing.T) {
	u := New()
	s := u.Or(u.And(u.Equal(x, Small(3)), u.Equal(z, Small(5))), u.Equal(x, Small(9)))
	for f, want := range map[Field]bool{x: true, y: false, z: true} {
		if got := u.Asks(s, f); got != want {
			t.Errorf("%v: %v", f, got)
		}
	}
	if rest := u.Cofactor(s, x, Small(9)); u.Asks(rest, x) || u.Asks(All, x) || u.Asks(rest, z) {
		t.Error("a constant asks nothing")
	}
}

func TestClasses(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		u := New()
		s := combine(r, u, combine(r, u, random(r, u), random(r, u)), random(r, u)).set
		for _, f := range fields {
			count := 0
			for left, values := range u.Classes(s, f) {
				for _, i := range values {
					for v := i.First.Lo; v <= i.Last.Lo; v++ {
						count++
						if u.Cofactor(s, f, Small(v)) != left {
							t.Fatalf("%d is of another class", v)
						}
					}
				}
			}
			if count != 16 {
				t.Fatalf("%d values of 16", count)
			}
		}
	}
}

func TestIntervals(t *testing.T) {
	u, addr := New(), Field{3, 128}
	want := []Interval{{Value{0, 0}, Value{0, 5}}, {Value{0, ^uint64(0)}, Value{1, 0}}, {Value{7, 7}, Value{7, 7}}, {Value{8, 0}, most(128)}}
	s := u.Ranges(addr, want)
	if diff := cmp.Diff(want, u.Intervals(s, addr)); diff != "" {
		t.Error(diff)
	}
	if got := u.Intervals(s.Not(), addr); len(got) != 3 || got[2].Last != (Value{7, ^uint64(0)}) {
		t.Errorf("all others: %v", got)
	}
}

func TestWitness(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		u := New()
		s := combine(r, u, random(r, u), random(r, u)).set
		if s == None {
			continue
		}
		rest := s
		for i, v := range u.Witness(s, fields) {
			rest = u.Cofactor(rest, fields[i], v)
		}
		if rest != All {
			t.Fatal("the witness is not in the set")
		}
	}
}

// A set of many intervals costs no more than their bits.
func TestRangesStaySmall(t *testing.T) {
	u, addr := New(), Field{0, 32}
	var all []Interval
	for i := range uint64(10_000) {
		all = append(all, Interval{Small(i * 1000), Small(i*1000 + 500)})
	}
	u.Ranges(addr, all)
	if n := u.Nodes(); n > 400_000 {
		t.Errorf("%d nodes", n)
	}
}
