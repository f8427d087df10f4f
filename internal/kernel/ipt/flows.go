package ipt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	"quaywall/internal/nlsock"
	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// Flows lists what the sets of flows hold that rules use.
func (b *Backend) Flows(ctx context.Context) ([]ruleset.Flow, error) {
	s, err := b.tables(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := dialIPSet()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var all []ruleset.Flow
	for name := range usedSets(append(s.lines(ruleset.IPv4), s.lines(ruleset.IPv6)...)) {
		if !render.IsFlows(name) {
			continue
		}
		if all, err = conn.flows(name, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// flows appends what a set of flows holds.
func (c *ipsetConn) flows(name string, all []ruleset.Flow) ([]ruleset.Flow, error) {
	answer, err := c.Execute(ipsetMessage(cmdList, netlink.Dump, setName(name)))
	if err != nil {
		return nil, fmt.Errorf("reading the ipset %s: %w", name, err)
	}
	for _, m := range answer {
		for attr, list := range nlsock.Attributes(m.Data[min(4, len(m.Data)):]) {
			if attr != attrADT {
				continue
			}
			for _, entry := range nlsock.Attributes(list) {
				all = append(all, decodeFlow(entry))
			}
		}
	}
	return all, nil
}

// AddFlows adds flows to sets that rules use.
func (b *Backend) AddFlows(_ context.Context, sets []ruleset.Set) error {
	conn, err := dialIPSet()
	if err != nil {
		return err
	}
	defer conn.Close()
	var errs []error
	for i := range sets {
		s := render.NewFlows(&sets[i])
		if err := conn.add(s.Name, &s); err != nil {
			errs = append(errs, fmt.Errorf("adding to the ipset %s: %w", s.Name,
				&kernel.PayloadError{Backend: b.Name(), Payload: s.Create() + "\n", Line: 1, Err: err}))
		}
	}
	return errors.Join(errs...)
}

// appendFlow appends a flow as an attribute of attributes.
func appendFlow(b []byte, f *ruleset.Flow) []byte {
	b, entry := nlsock.Begin(b, attrData|unix.NLA_F_NESTED)
	b = appendAddr(b, entryIP, f.Server.Addr())
	b = append16(b, entryPort, f.Server.Port())
	b = nlsock.Append(b, entryProto, f.Proto)
	b = appendAddr(b, entryIP2, f.Client)
	return nlsock.End(b, entry)
}

func decodeFlow(entry []byte) (f ruleset.Flow) {
	address := func(nested []byte) (a netip.Addr) {
		for _, v := range nlsock.Attributes(nested) {
			a, _ = netip.AddrFromSlice(v)
		}
		return a
	}
	var server netip.Addr
	var port uint16
	for kind, value := range nlsock.Attributes(entry) {
		switch {
		case kind == entryIP:
			server = address(value)
		case kind == entryIP2:
			f.Client = address(value)
		case kind == entryPort && len(value) == 2:
			port = binary.BigEndian.Uint16(value)
		case kind == entryProto && len(value) == 1:
			f.Proto = value[0]
		}
	}
	f.Server = netip.AddrPortFrom(server, port)
	return f
}
