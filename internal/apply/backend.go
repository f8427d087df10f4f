package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/kernel"
	"quaywall/internal/sysexec"
)

// reading is what one backend holds of quaywall's.
type reading struct {
	backend kernel.Backend
	err     error
	listing *kernel.Listing // nil with an error
}

// holds tells whether the backend has something of quaywall's in the kernel.
func (r reading) holds() bool { return r.listing != nil && r.listing.Present }

// readAll asks all backends at a time. One whose programs are not installed holds nothing.
func (h *Host) readAll(ctx context.Context, ns *namespace) []reading {
	all := make([]reading, len(h.Backends))
	var group errgroup.Group
	for i, b := range h.Backends {
		all[i].backend = b
		group.Go(func() error {
			err := ns.run(func() (err error) { all[i].listing, err = b.Read(ctx); return err })
			if errors.Is(err, sysexec.ErrNotFound) {
				all[i].listing, err = &kernel.Listing{}, nil
			}
			all[i].err = err
			return nil
		})
	}
	_ = group.Wait()
	return all
}

// holdsAnything tells whether anything of quaywall's is in the kernel, as far as that can be read.
func (c *change) holdsAnything(ctx context.Context) bool {
	return slices.ContainsFunc(c.host.readAll(ctx, c.ns), reading.holds)
}

// The values of --backend. A backend's own name does as well.
const (
	Auto     = "auto"
	NFT      = "nft"
	IPTables = "iptables"
)

// choose picks the backend of a change and says why: nft where it works, else the variant of iptables that this host
// uses. The calling thread must be in the host's network namespace.
func (h *Host) choose(ctx context.Context, name string) (kernel.Backend, string, error) {
	switch name {
	case Auto, "":
		b, err := h.backend(NFT)
		if err == nil {
			err = b.Probe(ctx)
		}
		if err == nil {
			return b, "nf_tables works here", nil
		}
		variant, why := h.Variant(ctx)
		b, otherwise := h.backend(variant)
		return b, fmt.Sprintf("%v; %s", err, why), otherwise
	case IPTables:
		variant, why := h.Variant(ctx)
		b, err := h.backend(variant)
		return b, why, err
	}
	b, err := h.backend(name)
	return b, "--backend " + name, err
}

// backend finds a backend by its name.
func (h *Host) backend(name string) (kernel.Backend, error) {
	for _, b := range h.Backends {
		if b.Name() == name {
			return b, nil
		}
	}
	return nil, fmt.Errorf("there is no backend %q", name)
}

// readingOf is the reading of one backend, and those of all others.
func readingOf(readings []reading, b kernel.Backend) (own reading, others []reading) {
	for _, r := range readings {
		if r.backend.Name() == b.Name() {
			own = r
		} else {
			others = append(others, r)
		}
	}
	return own, others
}

// explained makes a preflight's refusal say what is missing here, where a probe finds out. A lock that is held says nothing
// about this host, and would be waited for again.
func explained(ctx context.Context, b kernel.Backend, err error) error {
	if err == nil || errors.Is(err, kernel.ErrLocked) {
		return err
	}
	if missing := b.Probe(ctx); missing != nil {
		return missing
	}
	return err
}
