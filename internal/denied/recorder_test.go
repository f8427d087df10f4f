package denied

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"quaywall/internal/testkit/frame"
	"quaywall/internal/watch/nflog"
)

// script is a kernel that logs what a test says.
type script struct {
	reads  []any // []nflog.Logged or an error, one for each Read
	lost   []uint32
	closed bool
}

func (s *script) Read(deadline time.Time) ([]nflog.Logged, error) {
	if len(s.reads) == 0 {
		return nil, errors.New("the script is over")
	}
	next := s.reads[0]
	s.reads = s.reads[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return next.([]nflog.Logged), nil
}

func (s *script) Lost() (uint32, error) {
	if len(s.lost) == 0 {
		return 0, errors.New("nobody knows")
	}
	next := s.lost[0]
	s.lost = s.lost[1:]
	return next, nil
}

func (s *script) Close() error { s.closed = true; return nil }

// dialled is a packet of a client to a port.
func dialled(prefix, src, dst string) nflog.Logged {
	mac := make(net.HardwareAddr, 6)
	w := frame.Way{SrcMAC: mac, DstMAC: mac, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
	return nflog.Logged{Prefix: prefix, In: 98765, Packet: w.TCP(frame.SYN)[14:]}
}

var anyDenied = dialled("quaywall denied", "203.0.113.9:40000", "203.0.113.1:8080")

func newRecorder(t *testing.T) (*Recorder, *bytes.Buffer) {
	var log bytes.Buffer
	r := NewRecorder(86, In(t.TempDir()), slog.New(slog.NewTextHandler(&log, nil)))
	r.Know(Facts{testPolicy(t, "inbound:", "  - reject: 8080"), testInventory, testAddrs})
	return r, &log
}

var clockTime = regexp.MustCompile(`(?m)^time=\S+ `)

// TestRecorder: a line in the log and an entry in the file for each packet, and for those that were lost.
func TestRecorder(t *testing.T) {
	r, log := newRecorder(t)
	s := &script{reads: []any{
		[]nflog.Logged{anyDenied, dialled("another firewall's", "203.0.113.9:40000", "203.0.113.1:8080"), {Prefix: "quaywall denied", Packet: []byte{1}}},
		os.ErrDeadlineExceeded,
		[]nflog.Logged{dialled("quaywall allow policy.yaml:7", "[2001:db8::9]:40000", "[2001:db8::1]:22")},
		[]nflog.Logged{dialled("quaywall denied", "203.0.113.9:40000", "203.0.113.1:5432")},
		os.ErrDeadlineExceeded,
		[]nflog.Logged{dialled("quaywall would deny", "203.0.113.9:40000", "203.0.113.1:8080"), dialled("quaywall would deny", "203.0.113.9:40000", "203.0.113.1:5432")},
		os.ErrDeadlineExceeded,
	}, lost: []uint32{0, 17, 17}}
	if err := r.read(t.Context(), s); err == nil || err.Error() != "the script is over" || !s.closed {
		t.Errorf("reading ended with %v, closed: %v", err, s.closed)
	}
	want := strings.Join([]string{
		`level=INFO msg=rejected in=#98765 proto=tcp src=203.0.113.9 sport=40000 dst=203.0.113.1 dport=8080 section=inbound line=policy.yaml:3 container=web`,
		`level=INFO msg=allowed in=#98765 proto=tcp src=2001:db8::9 sport=40000 dst=2001:db8::1 dport=22 section=inbound line=policy.yaml:7`,
		`level=INFO msg=denied in=#98765 proto=tcp src=203.0.113.9 sport=40000 dst=203.0.113.1 dport=5432 section=inbound line=default container=db`,
		`level=WARN msg="more packets were logged than are read" lost=17`,
		`level=INFO msg="would be rejected" in=#98765 proto=tcp src=203.0.113.9 sport=40000 dst=203.0.113.1 dport=8080 section=inbound line=policy.yaml:3 container=web`,
		`level=INFO msg="would be denied" in=#98765 proto=tcp src=203.0.113.9 sport=40000 dst=203.0.113.1 dport=5432 section=inbound line=default container=db`,
	}, "\n") + "\n"
	if got := clockTime.ReplaceAllString(log.String(), ""); got != want {
		t.Errorf("the log:\n%swant\n%s", got, want)
	}
	entries, err := r.file.Last(10)
	if err != nil || len(entries) != 6 || entries[0].Container != "web" || entries[3].Lost != 17 {
		t.Errorf("the file: %+v, %v", entries, err)
	}
}

// TestFlood: in a window no more is read than its share.
func TestFlood(t *testing.T) {
	r, log := newRecorder(t)
	s := &script{}
	for range 5 * most {
		s.reads = append(s.reads, []nflog.Logged{anyDenied})
	}
	over, cancel := context.WithCancel(t.Context())
	cancel() // so that the rest of the window passes at once
	for window := 1; window <= 5; window++ {
		if err := r.window(over, s); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "msg=rejected"); n != window*most {
			t.Fatalf("%d lines after %d windows, want %d in each", n, window, most)
		}
	}
	if err := r.window(over, s); err == nil {
		t.Error("the end of the script is no error")
	}
}

// TestTroubleIsSaidOnce: a file that can't be written doesn't fill the log, and keeps no packet from it.
func TestTroubleIsSaidOnce(t *testing.T) {
	r, log := newRecorder(t)
	good := r.file
	for _, f := range []File{In("/dev/null"), In("/dev/null"), good, good, In("/dev/null")} {
		r.file = f
		r.take(anyDenied)
	}
	if n := strings.Count(log.String(), "can't be kept"); n != 2 {
		t.Errorf("said %d times, want one for each beginning:\n%s", n, log)
	}
	if n := strings.Count(log.String(), "msg=rejected"); n != 5 {
		t.Errorf("%d of 5 packets are in the log:\n%s", n, log)
	}
}
