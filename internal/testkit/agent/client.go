package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// Client speaks with the agent of one node.
type Client struct {
	Socket string // path of its unix socket
}

// reply is one line from the agent.
type reply struct {
	Began  bool            `json:"began,omitempty"`
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Job is a job that has begun.
type Job struct {
	conn  *net.UnixConn
	lines *bufio.Reader
}

// Start begins a job; it has begun when Start returns (connected, listening, capturing).
func (c Client) Start(ctx context.Context, req Request) (*Job, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	job := &Job{conn: conn.(*net.UnixConn), lines: bufio.NewReader(conn)}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return nil, errors.Join(fmt.Errorf("agent: %w", err), conn.Close())
	}
	if _, err := job.read(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return job, nil
}

// Stop tells the job to end and reads its result.
func (j *Job) Stop(result any) error {
	if err := j.conn.CloseWrite(); err != nil {
		return errors.Join(fmt.Errorf("agent: %w", err), j.conn.Close())
	}
	return j.Wait(result)
}

// Wait reads the result of a job that ends by itself.
func (j *Job) Wait(result any) error {
	r, err := j.read()
	err = errors.Join(err, j.conn.Close())
	if err != nil {
		return err
	}
	return json.Unmarshal(r.Result, result)
}

func (j *Job) read() (reply, error) {
	line, err := j.lines.ReadBytes('\n')
	if err != nil {
		return reply{}, fmt.Errorf("agent: answer: %w", err)
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return reply{}, fmt.Errorf("agent: answer: %w", err)
	}
	if r.Error != "" {
		return reply{}, errors.New(r.Error)
	}
	return r, nil
}

// call runs a job that ends by itself.
func call[R any](ctx context.Context, c Client, req Request) (R, error) {
	var result R
	job, err := c.Start(ctx, req)
	if err != nil {
		return result, err
	}
	stop := context.AfterFunc(ctx, func() { _ = job.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return result, job.Wait(&result)
}

// Dial tries to reach a server. That it can't be reached is no error.
func (c Client) Dial(ctx context.Context, d Dial) (DialResult, error) {
	return call[DialResult](ctx, c, Request{Dial: &d})
}

// Listen starts a server, which serves until the node goes down.
func (c Client) Listen(ctx context.Context, l Listen) error {
	_, err := call[struct{}](ctx, c, Request{Listen: &l})
	return err
}

// Send puts frames on a device.
func (c Client) Send(ctx context.Context, device string, frames ...[]byte) error {
	_, err := call[struct{}](ctx, c, Request{Send: &Send{Device: device, Frames: frames}})
	return err
}

// Seen lists what the node's servers saw.
func (c Client) Seen(ctx context.Context, s Seen) ([]Answer, error) {
	r, err := call[SeenResult](ctx, c, Request{Seen: &s})
	return r.Answers, err
}

// Resolve asks the node's own resolver.
func (c Client) Resolve(ctx context.Context, name string) (ResolveResult, error) {
	return call[ResolveResult](ctx, c, Request{Resolve: &Resolve{Name: name}})
}

// Engine starts, stops or kills the node's Docker engine.
func (c Client) Engine(ctx context.Context, action string) (EngineResult, error) {
	return call[EngineResult](ctx, c, Request{Engine: &Engine{Action: action}})
}

// Watch captures the frames of a device while f runs, and a moment more for what is under way.
func (c Client) Watch(ctx context.Context, device string, f func() error) ([][]byte, error) {
	job, err := c.Start(ctx, Request{Capture: &Capture{Device: device}})
	if err != nil {
		return nil, err
	}
	err = f()
	time.Sleep(100 * time.Millisecond)
	var r CaptureResult
	err = errors.Join(err, job.Stop(&r))
	return r.Frames, err
}
