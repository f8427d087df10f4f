package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/testkit/agent"
)

// What a Row may want. Any other agent.Outcome serves too.
const (
	Open     = agent.Open    // the server answers
	Denied   = agent.Timeout // silence
	Rejected = agent.Refused // a TCP reset or a port unreachable: by a rule, or because nothing listens
)

// Row is a line of a table of who reaches what.
type Row struct {
	From   *Node
	Source string // source address, with or without a port; "": as the routes say
	Device string // "": as the routes say
	Proto  string // "": tcp. Or udp, icmp, ip:N
	To     string // "203.0.113.1:80", "[2001:db8:1::1]:80", "[fe80::1%eth0]:80"; an address alone with icmp and ip:N
	Want   agent.Outcome
	Server string // when Open: the node that has to answer; "": any
	SeenAs string // when Open: the source address that the server has to see; "": any
	Why    string // the reason to expect it: a policy line, a default, Docker's own doing
}

// Result is what came of a Row.
type Result struct {
	Row Row
	Got agent.DialResult
	Err error // the row could not be tried
}

// At most so many rows are tried at a time: enough to make waiting for silence cheap.
const parallelRows = 200

// Patience of a row. Silence is believed after the first retransmission of a SYN, which comes after a second.
const (
	patience       = 8 * time.Second
	silentPatience = 1300 * time.Millisecond
)

// Probe tries all rows in parallel. The results are in the order of the rows.
func (l *Lab) Probe(ctx context.Context, rows []Row) []Result {
	results := make([]Result, len(rows))
	var group errgroup.Group
	group.SetLimit(parallelRows)
	for i, row := range rows {
		group.Go(func() error {
			results[i] = row.try(ctx)
			return nil
		})
	}
	_ = group.Wait() // no row gives an error: it is in its result
	return results
}

// Check tries all rows and reports each that is not as wanted.
func (l *Lab) Check(t testing.TB, rows []Row) {
	t.Helper()
	wrong := 0
	for _, r := range l.Probe(t.Context(), rows) {
		if problem := r.Problem(); problem != "" {
			wrong++
			t.Errorf("%s", problem)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d rows are not as they should be", wrong, len(rows))
	}
}

func (r Row) try(ctx context.Context) Result {
	d, err := r.Dial()
	if err != nil {
		return Result{Row: r, Err: err}
	}
	got, err := r.From.Dial(ctx, d)
	return Result{Row: r, Got: got, Err: err}
}

// Dial is the attempt that tries the row.
func (r Row) Dial() (agent.Dial, error) {
	d := agent.Dial{Proto: r.Proto, Device: r.Device, Timeout: patience}
	if r.Proto == "" {
		d.Proto = "tcp"
	}
	if r.Want == Denied {
		d.Timeout = silentPatience
	}
	var err error
	if d.To, err = addrPort(r.To); err != nil {
		return d, err
	}
	if r.Source != "" {
		d.From, err = addrPort(r.Source)
	}
	return d, err
}

func addrPort(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr, 0), nil
	}
	return netip.ParseAddrPort(text)
}

// Problem says in one line how the result differs from what the row wants; "" where it doesn't.
func (r Result) Problem() string {
	got := string(r.Got.Outcome)
	switch {
	case r.Err != nil:
		got = "could not be tried: " + r.Err.Error()
	case r.Got.Outcome != r.Row.Want:
		if r.Got.Outcome == Open {
			got += " (" + r.Got.Answer.Node + " answered)"
		}
	case r.Row.Want != Open:
		return ""
	case r.Row.Server != "" && r.Got.Answer.Node != r.Row.Server:
		got = fmt.Sprintf("%s answered instead of %s", r.Got.Answer.Node, r.Row.Server)
	case r.Row.SeenAs != "" && r.Got.Answer.Remote.Addr().String() != r.Row.SeenAs:
		got = fmt.Sprintf("seen as %v instead of %s", r.Got.Answer.Remote.Addr(), r.Row.SeenAs)
	default:
		return ""
	}
	return fmt.Sprintf("%v: want %s (%s), got %s", r.Row, r.Row.Want, r.Row.Why, got)
}

func (r Row) String() string {
	proto := r.Proto
	if proto == "" {
		proto = "tcp"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s -> %s", r.From.Name, proto, r.Source, r.To))
}
