package ipt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
)

func ipset(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	_, err := sysexec.Run(ctx, sysexec.Command{Path: "ipset", Args: args, Stdin: stdin, Stdout: stdout})
	if errors.Is(err, sysexec.ErrNotFound) {
		return fmt.Errorf("%w: install the package ipset", err)
	}
	return err
}

// ownSets are the names of quaywall's sets in the kernel.
func ownSets(ctx context.Context) ([]string, error) {
	var out bytes.Buffer
	if err := ipset(ctx, nil, &out, "list", "-name"); err != nil {
		return nil, fmt.Errorf("listing ipsets: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(out.String()), func(name string) bool { return !render.OwnSet(name) }), nil
}

// fill makes sure that the sets are in the kernel, complete. It gives the names of quaywall's sets that were there before.
func (b *Backend) fill(ctx context.Context, sets []render.Set) (before []string, err error) {
	if before, err = ownSets(ctx); err != nil {
		return nil, err
	}
	for _, name := range before {
		if strings.HasPrefix(name, render.TempPrefix) {
			if err := destroy(ctx, name, time.Now().Add(patience)); err != nil {
				return nil, err
			}
		}
	}
	for i := range sets {
		if err := b.fillOne(ctx, &sets[i], slices.Contains(before, sets[i].Name)); err != nil {
			return nil, errors.Join(err, b.destroyBut(context.WithoutCancel(ctx), before))
		}
	}
	return before, nil
}

// fillOne makes sure of one set. One that is there under its name but holds something else was changed by somebody: a
// complete one takes its place at once, for it may be in use.
func (b *Backend) fillOne(ctx context.Context, s *render.Set, there bool) error {
	if there {
		c, err := readSet(ctx, s.Name)
		if err != nil {
			return err
		}
		if c.Elements() == s.Elements && c.String() == s.Digest {
			return nil
		}
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.Restore(w, there)) }()
	err := ipset(ctx, r, io.Discard, "restore")
	r.Close()
	if err != nil {
		return fmt.Errorf("filling the ipset %s: %w", s.Name, b.setRefusal(s, there, err))
	}
	return nil
}

// setRefusal shows the lines around a refused one: a payload may have a million of them.
func (b *Backend) setRefusal(s *render.Set, replace bool, err error) error {
	var failed *sysexec.Error
	if !errors.As(err, &failed) || failed.Signal != 0 {
		return err
	}
	const around = 5
	refused := lineOf(failed.Stderr)
	out := &kernel.PayloadError{Backend: b.Name(), Err: errors.New(failed.Stderr)}
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.Restore(w, replace)) }()
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		if n > 1 && (n < refused-around || n > refused+around) {
			continue
		}
		out.Payload += lines.Text() + "\n"
		if n <= refused {
			out.Line++
		}
	}
	return out
}

// destroyBut destroys quaywall's sets but some, and but those that the rules of the other variant use.
func (b *Backend) destroyBut(ctx context.Context, keep []string) error {
	now, err := ownSets(ctx)
	if err != nil {
		return err
	}
	doomed := slices.DeleteFunc(now, func(name string) bool { return slices.Contains(keep, name) })
	if len(doomed) == 0 {
		return nil
	}
	used := b.usedByTwin(ctx)
	until := time.Now().Add(patience)
	for _, name := range doomed {
		if used[name] {
			continue
		}
		if err := destroy(ctx, name, until); err != nil {
			return err
		}
	}
	return nil
}

// usedByTwin are the sets that the rules of the other variant use. What can't be read is taken for none: then a set in
// use is only tried in vain.
func (b *Backend) usedByTwin(ctx context.Context) map[string]bool {
	twin := New(NFT, Options{})
	if b.variant == NFT {
		twin = New(Legacy, Options{})
	}
	s, err := twin.tables(ctx)
	if err != nil {
		return nil
	}
	return usedSets(append(s.lines(ruleset.IPv4), s.lines(ruleset.IPv6)...))
}

// patience is how long sets that no rule uses any more may still be in use.
const patience = 2 * time.Second

// destroy destroys a set. One that stays in use is left for the next commit: it does no harm.
func destroy(ctx context.Context, name string, until time.Time) error {
	for ; ; time.Sleep(5 * time.Millisecond) {
		err := ipset(ctx, nil, io.Discard, "destroy", name)
		switch {
		case err == nil || noSet(err):
			return nil
		case !setBusy(err):
			return fmt.Errorf("destroying the ipset %s: %w", name, err)
		case time.Now().After(until):
			return nil
		}
	}
}

// content is what a set holds.
type content struct {
	render.Digest
	counters map[string]kernel.PacketCount // by policy line
}

// readSet reads a set.
func readSet(ctx context.Context, name string) (*content, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	c := &content{counters: map[string]kernel.PacketCount{}}
	go func() {
		err := c.read(r)
		r.CloseWithError(err)
		done <- err
	}()
	err := ipset(ctx, nil, w, "save", name)
	w.Close()
	if err := errors.Join(err, <-done); err != nil {
		return nil, fmt.Errorf("reading the ipset %s: %w", name, err)
	}
	return c, nil
}

// read reads what "ipset save" prints about one set: a line that creates it, then a line for each entry.
func (c *content) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	if !lines.Scan() {
		return errors.Join(lines.Err(), io.ErrUnexpectedEOF)
	}
	words := strings.Fields(lines.Text())
	if len(words) < 3 || words[0] != "create" {
		return fmt.Errorf("%q is not understood", lines.Text())
	}
	kind, ok := kinds[words[2]]
	if !ok {
		return fmt.Errorf("it is of type %s, which quaywall doesn't make", words[2])
	}
	start := len("add ") + len(words[1]) + len(" ")
	for lines.Scan() {
		line := lines.Text()
		if len(line) <= start {
			return fmt.Errorf("%q is not understood", line)
		}
		e, count, err := parseEntry(line[start:], kind)
		if err != nil {
			return err
		}
		c.Add(e, kind)
		if count != (kernel.PacketCount{}) {
			addCount(c.counters, e.Comment, count)
		}
	}
	return lines.Err()
}

var kinds = map[string]render.Kind{"hash:net": render.Nets, "hash:net,iface": render.IfaceNets, "bitmap:port": render.PortBits}

// parseEntry reads an entry: its key, then options.
func parseEntry(text string, k render.Kind) (e render.Entry, count kernel.PacketCount, err error) {
	key, options, _ := strings.Cut(text, " ")
	if err := parseKey(&e, key, k); err != nil {
		return e, count, err
	}
	for options != "" {
		var option, value string
		option, options, _ = strings.Cut(options, " ")
		switch option {
		case "wildcard":
			e.Wildcard = true
		case "packets":
			value, options, _ = strings.Cut(options, " ")
			count.Packets, err = strconv.ParseUint(value, 10, 64)
		case "bytes":
			value, options, _ = strings.Cut(options, " ")
			count.Bytes, err = strconv.ParseUint(value, 10, 64)
		case "comment":
			e.Comment, options = strings.Trim(options, `"`), ""
		default:
			return e, count, fmt.Errorf("the option %q of %q is not understood", option, text)
		}
		if err != nil {
			return e, count, err
		}
	}
	return e, count, nil
}

func parseKey(e *render.Entry, key string, k render.Kind) (err error) {
	if k == render.PortBits {
		port, err := strconv.ParseUint(key, 10, 16)
		e.Ports = netset.Ports{First: uint16(port), Last: uint16(port)}
		return err
	}
	if k == render.IfaceNets {
		key, e.Iface, _ = strings.Cut(key, ",")
	}
	if strings.Contains(key, "/") {
		e.Net, err = netip.ParsePrefix(key)
		return err
	}
	addr, err := netip.ParseAddr(key)
	e.Net = netip.PrefixFrom(addr, addr.BitLen())
	return err
}

func addCount(to map[string]kernel.PacketCount, comment string, count kernel.PacketCount) {
	line := ruleset.ParseOrigin(comment).Line
	if line == "" {
		return
	}
	sum := to[line]
	to[line] = kernel.PacketCount{Packets: sum.Packets + count.Packets, Bytes: sum.Bytes + count.Bytes}
}
