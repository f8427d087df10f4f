package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Server does the jobs on one node.
type Server struct {
	Name   string                             // of the node, for its answers
	Engine func(Engine) (EngineResult, error) // nil: this node has no engine
	mu     sync.Mutex
	seen   []Answer
}

// maxSeen bounds what is remembered of a flood.
const maxSeen = 5000

// Serve takes jobs until the listener is closed.
func (s *Server) Serve(ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go s.serveJob(conn)
	}
}

func (s *Server) serveJob(conn net.Conn) {
	defer conn.Close()
	dec := json.NewDecoder(conn)
	var req Request
	if err := dec.Decode(&req); err != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { // the end of what the caller sends is the end of the job
		_, _ = io.Copy(io.Discard, conn)
		stop()
	}()
	enc := json.NewEncoder(conn)
	result, err := s.do(ctx, req, func() { _ = enc.Encode(reply{Began: true}) })
	if err != nil {
		_ = enc.Encode(reply{Error: s.Name + ": " + err.Error()})
		return
	}
	data, err := json.Marshal(result)
	if err != nil {
		_ = enc.Encode(reply{Error: s.Name + ": " + err.Error()})
		return
	}
	_ = enc.Encode(reply{Result: data})
}

// do runs one job. It calls began once, when the job is under way; not when it gives an error before.
func (s *Server) do(ctx context.Context, req Request, began func()) (any, error) {
	switch {
	case req.Dial != nil:
		began()
		return Try(*req.Dial), nil
	case req.Listen != nil:
		return after(began, struct{}{}, s.Listen(*req.Listen))
	case req.Load != nil:
		began()
		return load(ctx, *req.Load), nil
	case req.Stream != nil:
		return stream(ctx, *req.Stream, began)
	case req.Hold != nil:
		return hold(ctx, *req.Hold, began)
	case req.Send != nil:
		return after(began, struct{}{}, sendFrames(*req.Send))
	case req.Capture != nil:
		return capture(ctx, *req.Capture, began)
	case req.Nflog != nil:
		return readLog(ctx, *req.Nflog, began)
	case req.Seen != nil:
		began()
		return s.report(*req.Seen), nil
	case req.Resolve != nil:
		began()
		return resolve(ctx, *req.Resolve)
	case req.Shell != nil:
		return shell(ctx, *req.Shell, began)
	case req.Engine != nil && s.Engine != nil:
		began()
		return s.Engine(*req.Engine)
	}
	return nil, errors.New("the agent of this node doesn't know that job")
}

// after is for jobs that are done as soon as they have begun.
func after(began func(), result any, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	began()
	return result, nil
}

func (s *Server) note(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == maxSeen {
		s.seen = s.seen[1:]
	}
	s.seen = append(s.seen, a)
}

func (s *Server) report(q Seen) SeenResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := SeenResult{Answers: slices.Clone(s.seen)}
	if q.Forget {
		s.seen = nil
	}
	return r
}

func resolve(ctx context.Context, q Resolve) (ResolveResult, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", q.Name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return ResolveResult{Addrs: addrs}, err
}
