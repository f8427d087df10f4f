package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// load dials until ctx ends.
func load(ctx context.Context, l Load) LoadResult {
	var mu sync.Mutex
	var r LoadResult
	var wg sync.WaitGroup
	for range max(l.Workers, 1) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				got := Try(l.Dial)
				mu.Lock()
				r.add(got)
				mu.Unlock()
				pause(ctx, l.Interval)
			}
		}()
	}
	wg.Wait()
	return r
}

func (r *LoadResult) add(got DialResult) {
	if got.Outcome == Open {
		r.OK++
		r.Slowest = max(r.Slowest, got.Took)
		return
	}
	r.Failed++
	if len(r.Failures) < 20 {
		r.Failures = append(r.Failures, Failure{At: time.Now(), Outcome: got.Outcome, Error: got.Error})
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// open connects and says what it wants of the server.
func (d Dial) open(want ...byte) (*net.TCPConn, error) {
	if d.Timeout == 0 {
		d.Timeout = DefaultTimeout
	}
	conn, err := d.connect()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(want); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// stream runs one connection until ctx ends or it breaks.
func stream(ctx context.Context, s Stream, began func()) (StreamResult, error) {
	want := byte(wantNumbers)
	if s.PingPong {
		want = wantEcho
	}
	conn, err := s.Dial.open(want)
	if err != nil {
		return StreamResult{}, err
	}
	defer conn.Close()
	began()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := StreamResult{}
	err = s.pump(ctx, conn, &r)
	if r.Alive = ctx.Err() != nil; !r.Alive && err != nil {
		r.Error = err.Error()
	}
	return r, nil
}

func (s Stream) pump(ctx context.Context, conn net.Conn, r *StreamResult) error {
	last := time.Now()
	defer func() { r.stalled(last) }()
	interval := s.Interval
	if interval == 0 {
		interval = 5 * time.Millisecond
	}
	var buf [8]byte
	for {
		if s.PingPong {
			pause(ctx, interval)
			if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, r.Blocks)); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(conn, buf[:]); err != nil {
			return err
		}
		if n := binary.BigEndian.Uint64(buf[:]); n != r.Blocks {
			return fmt.Errorf("number %d came where %d was due", n, r.Blocks)
		}
		r.Blocks++
		r.stalled(last)
		last = time.Now()
		r.Last = last
	}
}

// stalled notes a time without a number if it is the longest.
func (r *StreamResult) stalled(since time.Time) {
	if d := time.Since(since); d > r.Stall {
		r.Stall, r.Since = d, since
	}
}

// hold opens connections, waits, and tells how many still work.
func hold(ctx context.Context, h Hold, began func()) (HoldResult, error) {
	var conns []*net.TCPConn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range max(h.Count, 1) {
		conn, err := h.openIdle()
		if err != nil {
			return HoldResult{}, err
		}
		conns = append(conns, conn)
	}
	began()
	if h.ServerFirst == 0 {
		<-ctx.Done()
	}
	var r HoldResult
	for _, conn := range conns {
		if h.stillWorks(conn) == nil {
			r.Alive++
		} else {
			r.Dead++
		}
	}
	return r, nil
}

func (h Hold) openIdle() (*net.TCPConn, error) {
	if h.ServerFirst > 0 {
		ms := binary.BigEndian.AppendUint32([]byte{wantOneLater}, uint32(h.ServerFirst.Milliseconds()))
		return h.Dial.open(ms...)
	}
	conn, err := h.Dial.open(wantEcho)
	if err != nil {
		return nil, err
	}
	if err := roundTrip(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (h Hold) stillWorks(conn net.Conn) error {
	if h.ServerFirst > 0 {
		_ = conn.SetDeadline(time.Now().Add(h.ServerFirst + DefaultTimeout))
		if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil {
			return err
		}
	}
	return roundTrip(conn)
}

func roundTrip(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(DefaultTimeout))
	if _, err := conn.Write(make([]byte, 8)); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 8))
	return err
}
