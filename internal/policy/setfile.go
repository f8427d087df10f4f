package policy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"go4.org/netipx"

	"quaywall/internal/diag"
	"quaywall/internal/netset"
)

const (
	maxSetLine   = 4096 // bytes; an entry of ipset with a comment has some 350
	maxSetErrors = 20   // told of one file; of the others the number
)

// readSetFile reads a file that fills a set: an entry a line, or what `ipset save` prints. Its bytes are hashed and
// forgotten as they come. The entries are counted as they were written.
func (f *file) readSetFile(sf setFile) (addrs netset.Set, entries int) {
	r, err := f.files.Open(sf.path, MaxSetSize)
	if err != nil {
		f.errorf(sf.node, "paths are relative to the file that names them", "reading set %s from %s: %v", sf.set, sf.path, err)
		return netset.Set{}, 0
	}
	defer r.Close()
	s := setReader{name: sf.path, file: f, hash: sha256.New()}
	if err := s.read(r); err != nil {
		f.errorf(sf.node, "", "reading set %s from %s: %v", sf.set, sf.path, err)
		return netset.Set{}, 0
	}
	f.addSetHash("set "+sf.set, s.hash.Sum(nil))
	entries = s.entries.Len()
	addrs, _ = s.entries.Set() // every range in it was checked
	return addrs, entries
}

// setReader reads one set file.
type setReader struct {
	name    string
	file    *file
	hash    hash.Hash
	entries netset.Builder
	line    int
	errors  int
	last    diag.Pos // of the last error that was told
	ipset   string   // the set's name in ipset's format
	source  []byte   // the lines that errors are about, each at its place
	lines   int      // how many lines source has
}

func (s *setReader) read(r io.Reader) error {
	in := bufio.NewReaderSize(io.TeeReader(r, s.hash), 1<<16)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			s.line++
			s.readLine(line)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the line was refused as too long
			_, err = in.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			s.finish()
			return nil
		case err != nil:
			return err
		}
	}
}

func (s *setReader) finish() {
	if more := s.errors - maxSetErrors; more > 0 {
		s.file.list.Errorf(s.last, "", "of the lines behind this one, %d more are wrong", more)
	}
	if s.source != nil {
		s.file.sources[s.name] = s.source
	}
}

// readLine reads a line, its end included.
func (s *setReader) readLine(line []byte) {
	if s.line == 1 {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	text := line
	if i := bytes.IndexByte(text, '#'); i >= 0 && !bytes.HasPrefix(text, []byte("add ")) {
		text = text[:i]
	}
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
	case len(line) > maxSetLine:
		s.report(line[:maxSetLine], &problem{0, fmt.Sprintf("a line longer than %d bytes", maxSetLine), "write an entry a line"})
	case s.ipset != "" || bytes.HasPrefix(text, []byte("create ")) || bytes.HasPrefix(text, []byte("add ")):
		s.readIPSet(line, string(text))
	default:
		s.readEntry(line, bytes.Index(line, text), text)
	}
}

// readEntry reads an entry that begins at an offset of the line.
func (s *setReader) readEntry(line []byte, at int, entry []byte) {
	if r, ok := fastEntry(entry); ok {
		s.entries.Add(r)
		return
	}
	r, p := setEntry(string(entry))
	if p != nil {
		p.at += at
		s.report(line, p)
		return
	}
	s.entries.Add(r)
}

// report keeps the line for the caret and reports what is wrong with it.
func (s *setReader) report(line []byte, p *problem) {
	if s.errors++; s.errors > maxSetErrors {
		return
	}
	for ; s.lines < s.line-1; s.lines++ {
		s.source = append(s.source, '\n')
	}
	line = bytes.TrimRight(line, "\r\n")
	s.source = append(append(s.source, line...), '\n')
	s.lines = s.line
	s.last = diag.Pos{File: s.name, Line: s.line, Col: utf8.RuneCount(line[:min(p.at, len(line))]) + 1}
	s.file.list.Errorf(s.last, p.hint, "%s", p.text)
}

// readIPSet reads a line of what `ipset save` prints.
func (s *setReader) readIPSet(line []byte, text string) {
	words := strings.Fields(text)
	at := func(i int) int { return wordOffset(line, i) }
	switch {
	case len(words) < 3 || words[0] != "add" && words[0] != "create":
		s.report(line, &problem{at(0), fmt.Sprintf("%q is no line of ipset's restore format", short(text)),
			"write create NAME TYPE … or add NAME ENTRY …"})
	case s.ipset != "" && words[1] != s.ipset:
		s.report(line, &problem{at(1), fmt.Sprintf("a second set, %q: a file fills one set", short(words[1])),
			"keep one set a file"})
	case words[0] == "create":
		s.ipset = words[1]
		if kinds := []string{"hash:ip", "hash:net", "bitmap:ip"}; !slices.Contains(kinds, words[2]) {
			s.report(line, &problem{at(2), fmt.Sprintf("a set of type %s is more than addresses", short(words[2])), "only " + strings.Join(kinds, ", ") + " can be read"})
		}
	default:
		s.ipset = words[1]
		if i := slices.Index(words, "nomatch"); i >= 3 && !slices.Contains(words[:i], "comment") {
			s.report(line, &problem{at(i), "an exception (nomatch) can't be read", "write the prefixes around it"})
			return
		}
		s.readEntry(line, at(2), []byte(words[2]))
	}
}

// wordOffset is where word i of a line begins.
func wordOffset(line []byte, i int) int {
	rest := line
	for {
		rest = bytes.TrimLeft(rest, " \t")
		if i == 0 {
			return len(line) - len(rest)
		}
		i--
		rest = rest[max(0, bytes.IndexAny(rest, " \t")):]
	}
}

// setEntry reads an entry of a set.
func (f *file) setEntry(s string) (netipx.IPRange, *problem) {
	if f.sets[s] != nil {
		return netipx.IPRange{}, &problem{0, "a set can't hold another set", "list both where they are used, as in from: [a, b]"}
	}
	return setEntry(s)
}

func setEntry(s string) (netipx.IPRange, *problem) {
	if isAddress(s) {
		return parseRange(s)
	}
	hint := "sets hold addresses, prefixes and ranges"
	if strings.Contains(s, ".") {
		hint += "; names from DNS come with a later version"
	}
	return netipx.IPRange{}, &problem{0, fmt.Sprintf("%q is not an address", short(s)), hint}
}

// fastEntry reads an IPv4 address or prefix in its usual form: of a file with a million lines nearly all. What it can't
// read is for setEntry to read or to refuse.
func fastEntry(s []byte) (netipx.IPRange, bool) {
	var b [4]byte
	i, n := 0, 0
	for ; n < 4; n++ {
		start, v := i, 0
		for ; i < len(s) && i-start < 3 && s[i] >= '0' && s[i] <= '9'; i++ {
			v = v*10 + int(s[i]-'0')
		}
		if i == start || v > 255 || s[start] == '0' && i-start > 1 {
			return netipx.IPRange{}, false
		}
		b[n] = byte(v)
		if n < 3 {
			if i >= len(s) || s[i] != '.' {
				return netipx.IPRange{}, false
			}
			i++
		}
	}
	a := netip.AddrFrom4(b)
	if i == len(s) {
		return netipx.IPRangeFrom(a, a), true
	}
	return fastPrefix(a, b, s[i:])
}

func fastPrefix(a netip.Addr, b [4]byte, s []byte) (netipx.IPRange, bool) {
	if s[0] != '/' || len(s) < 2 || len(s) > 3 || s[1] < '1' || s[1] > '9' {
		return netipx.IPRange{}, false
	}
	bits := int(s[1] - '0')
	if len(s) == 3 {
		if s[2] < '0' || s[2] > '9' {
			return netipx.IPRange{}, false
		}
		bits = bits*10 + int(s[2]-'0')
	}
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if bits > 32 || v<<bits != 0 {
		return netipx.IPRange{}, false
	}
	last := v | uint32(1<<(32-bits)-1)
	return netipx.IPRangeFrom(a, netip.AddrFrom4([4]byte{byte(last >> 24), byte(last >> 16), byte(last >> 8), byte(last)})), true
}
