package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"quaywall/internal/watch/nflog"
)

// Nflog collects what the rules of a node log to a group, until told to stop.
type Nflog struct {
	Group uint16 `json:"group"`
}

// NflogResult holds the packets in the order they were logged.
type NflogResult struct {
	Logged []Logged `json:"logged"`
}

// Logged is one packet: the prefix of the rule that logged it, and the packet from its IP header on.
type Logged struct {
	Prefix string `json:"prefix"`
	Packet []byte `json:"packet"`
}

// readLog reads a group. Only one reader can have it.
func readLog(ctx context.Context, q Nflog, began func()) (NflogResult, error) {
	reader, err := nflog.Open(q.Group)
	if err != nil {
		return NflogResult{}, err
	}
	defer reader.Close()
	began()
	var r NflogResult
	for {
		logged, err := reader.Read(time.Now().Add(50 * time.Millisecond))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return r, nil // nothing more is under way
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return r, err
		}
		for _, l := range logged {
			r.Logged = append(r.Logged, Logged{l.Prefix, l.Packet})
		}
	}
}
