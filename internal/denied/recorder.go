package denied

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/watch/nflog"
)

// How much is read: so many packets in so long a time. What comes faster waits in the kernel, and is lost where the kernel's
// queue is full.
const (
	most   = 100
	window = time.Second
)

// Recorder tells of the packets that rules log.
type Recorder struct {
	group uint16
	file  File
	log   *slog.Logger
	facts atomic.Pointer[Facts]
	known chan struct{} // closed once there are facts
	once  sync.Once
	said  string // why the file isn't written; once is enough
}

// NewRecorder makes a recorder that reads nothing yet.
func NewRecorder(group uint16, file File, log *slog.Logger) *Recorder {
	return &Recorder{group: group, file: file, log: log, known: make(chan struct{})}
}

// Know takes the facts that packets are judged by from now on. It may be called from any goroutine. Until it was called
// once, packets wait.
func (r *Recorder) Know(f Facts) {
	r.facts.Store(&f)
	r.once.Do(func() { close(r.known) })
}

// source is where packets come from: a nflog.Reader.
type source interface {
	Read(deadline time.Time) ([]nflog.Logged, error)
	Lost() (uint32, error)
	Close() error
}

// Run reads until ctx ends, or fails; then it may be called again. began is called once it is sure of the packets.
func (r *Recorder) Run(ctx context.Context, began func()) error {
	reader, err := nflog.Open(r.group)
	if err != nil {
		return err
	}
	began()
	select {
	case <-r.known:
	case <-ctx.Done():
	}
	return r.read(ctx, reader)
}

func (r *Recorder) read(ctx context.Context, s source) error {
	defer context.AfterFunc(ctx, func() { s.Close() })()
	defer s.Close()
	var told uint32
	for {
		err := r.window(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if lost, err := s.Lost(); err == nil && lost != told {
			r.note(Entry{Time: time.Now(), Lost: uint64(lost - told)})
			told = lost
		}
	}
}

// window waits for a packet, then takes what comes within a window, and not more than most.
func (r *Recorder) window(ctx context.Context, s source) error {
	logged, err := s.Read(time.Time{})
	end := time.Now().Add(window)
	for n := 0; err == nil; {
		for _, l := range logged {
			r.take(l)
		}
		if n += len(logged); n >= most {
			sleep(ctx, time.Until(end))
			return nil
		}
		logged, err = s.Read(end)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// take notes a packet that quaywall's rules logged.
func (r *Recorder) take(l nflog.Logged) {
	pk, err := packet.Decode(l.Packet)
	if err != nil {
		return
	}
	pk.In, pk.Out = printable(nflog.InterfaceName(l.In)), printable(nflog.InterfaceName(l.Out))
	pk.State = l.State
	e := Entry{Time: time.Now()}
	if r.facts.Load().explain(&e, pk, l.Prefix) {
		r.note(e)
	}
}

// printable keeps a name from writing to a terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}

// done is how the log says what became of a packet.
func done(verdict string) string {
	verb, observed := strings.CutPrefix(verdict, policy.Would)
	past := map[string]string{"deny": "denied", "reject": "rejected", "allow": "allowed"}[verb]
	if observed {
		return policy.Would + "be " + past
	}
	return past
}

// note writes an entry to the log and to the file.
func (r *Recorder) note(e Entry) {
	if e.Lost > 0 {
		r.log.Warn("more packets were logged than are read", "lost", e.Lost)
	} else {
		r.log.Info(done(e.Verdict), e.attrs()...)
	}
	r.keep(e)
}

// keep adds an entry to the file. Why that fails is said once, until there is another reason.
func (r *Recorder) keep(e Entry) {
	said := ""
	if err := r.file.Append(e); err != nil {
		said = err.Error()
	}
	if said != "" && said != r.said {
		r.log.Warn("what is denied can't be kept for quaywall log", "error", said)
	}
	r.said = said
}

// attrs are what the log says of a packet. What has nothing to say is left out.
func (e Entry) attrs() []any {
	var attrs []any
	add := func(key string, value any, is bool) {
		if is {
			attrs = append(attrs, key, value)
		}
	}
	add("in", e.In, e.In != "")
	add("out", e.Out, e.Out != "")
	attrs = append(attrs, "proto", e.Proto, "src", e.Src)
	add("sport", e.SrcPort, e.SrcPort != 0)
	attrs = append(attrs, "dst", e.Dst)
	add("dport", e.DstPort, e.DstPort != 0)
	attrs = append(attrs, "section", e.Section)
	add("line", e.Line, e.Line != "")
	add("container", e.Container, e.Container != "")
	add("why", e.Why, e.Why != "")
	return attrs
}
