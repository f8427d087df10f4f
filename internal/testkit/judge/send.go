package judge

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// send sends a batch and gives each probe's fate by id.
func (w *world) send(probes []*probe) (map[uint16]fate, error) {
	if err := w.tracker.flush(); err != nil {
		return nil, err
	}
	for _, p := range probes {
		if p.known != nil {
			if err := w.tracker.add(*p.known, p.id); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range probes {
		if err := w.emit(p); err != nil {
			return nil, fmt.Errorf("sending %s: %w", p.pk, err)
		}
	}
	if err := w.sentinel(); err != nil {
		return nil, err
	}
	return w.seen.collect(2 * time.Second)
}

// emit sends one packet: from the host itself, or as frames to one of its interfaces.
func (w *world) emit(p *probe) error {
	if p.pk.In == "" {
		return w.emitFromHost(p)
	}
	mac := w.mac[p.pk.In]
	switch {
	case p.isFlooded():
		mac = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	case p.bridged:
		mac = net.HardwareAddr{2, 0, 0, 0, 0, 0x77} // nobody's: the bridge sends it to all ports
	}
	for _, piece := range fragments(p) {
		if _, err := unix.Write(w.inject[p.pk.In], ethernet(mac, piece)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) emitFromHost(p *probe) error {
	ip := datagram(p)
	if p.pk.Dst.Is4() {
		return refusedIsSent(unix.Sendto(w.raw4, ip, 0, &unix.SockaddrInet4{Addr: p.pk.Dst.As4()}))
	}
	to := &unix.SockaddrInet6{Addr: p.pk.Dst.As16()}
	if p.pk.Dst.IsMulticast() || p.pk.Dst.IsLinkLocalUnicast() {
		to.ZoneId = w.index[p.pk.Out]
	}
	return refusedIsSent(unix.Sendto(w.raw6, ip, 0, to))
}

// refusedIsSent takes the error of a packet that a rule dropped for none: the sender is told in output.
func refusedIsSent(err error) error {
	if err == unix.EPERM {
		return nil
	}
	return err
}

// sentinel sends the packet that ends a batch.
func (w *world) sentinel() error {
	pk := packet.Packet{Proto: policy.UDP, Src: netip.MustParseAddr("192.0.2.250"), Dst: netip.MustParseAddr("192.0.2.251"), DstPort: 9, In: "eth0"}
	return w.emit(&probe{id: sentinelID, pk: pk})
}
