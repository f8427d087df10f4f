// Package nftrace reads what the kernel tells of packets that are marked to be traced (meta nftrace set 1): each rule that
// they match.
//
//	r, err := nftrace.Open()
//	err = r.WithLegacy()              // also of iptables-legacy
//	events, err := r.Read(deadline)
//
// nf_tables, and with it iptables-nft, tells by events (NFT_MSG_TRACE). The mark is the packet's, and iptables-legacy heeds it
// as well: it writes a line for each rule where the logger of the family (net.netfilter.nf_log.2 and .10) says; if that is
// nfnetlink_log, to NFLOG group 0. Both come by one socket here, and so in their order.
//
// What has no room in the socket's queue is counted and gone: a flood costs a bounded amount of memory.
//
// Be aware: marks and logger are for others to set (kernel/nft, kernel/tracelog). All programs in a network namespace see the
// same events, whoever marked the packets. The namespace is the one of the operating system thread that opens.
package nftrace

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/watch/nflog"
)

const (
	groupTrace   = 9       // NFNLGRP_NFTRACE
	groupLegacy  = 0       // what rules that name no group log to, and traces
	queue        = 2 << 20 // of the socket, which the kernel takes twice: some 5,000 events
	messageTrace = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE
)

// Reader reads events.
type Reader struct{ conn *netlink.Conn }

// Open begins to read events of nf_tables.
func Open() (*Reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("reading traces: %w", err)
	}
	// Without the right to a longer queue it is as long as the system's limit.
	if conn.SetReadBuffer(queue) != nil {
		_ = conn.SetReadBuffer(queue / 16)
	}
	if err := errors.Join(conn.SetOption(netlink.NoENOBUFS, true), conn.JoinGroup(groupTrace)); err != nil {
		return nil, errors.Join(fmt.Errorf("reading traces: %w", err), conn.Close())
	}
	return &Reader{conn}, nil
}

// WithLegacy has the reader read what iptables-legacy tells as well.
func (r *Reader) WithLegacy() error {
	if err := nflog.Bind(r.conn, groupLegacy, false); err != nil {
		return fmt.Errorf("reading NFLOG group %d: %w", groupLegacy, err)
	}
	return nil
}

// Close ends reading.
func (r *Reader) Close() error { return r.conn.Close() }

// Lost tells how many events had no room since Open.
func (r *Reader) Lost() (uint32, error) { return nflog.Lost(r.conn) }

// Read waits for events until a deadline: then the error is os.ErrDeadlineExceeded.
func (r *Reader) Read(deadline time.Time) ([]Event, error) {
	if err := r.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	messages, err := r.conn.Receive()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, os.ErrDeadlineExceeded
	}
	if err != nil {
		return nil, fmt.Errorf("reading traces: %w", err)
	}
	var events []Event
	for _, m := range messages {
		var e Event
		ok := false
		switch m.Header.Type {
		case messageTrace:
			e, ok = decode(m.Data)
		case nflog.MessagePacket:
			e, ok = decodeLegacy(m.Data)
		}
		if ok {
			events = append(events, e)
		}
	}
	return events, nil
}
