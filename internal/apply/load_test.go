package apply_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quaywall/internal/apply"
)

// crowd is clients that dial a host all the time: one port that is always open, one that never is.
type crowd struct {
	stop            chan struct{}
	done            sync.WaitGroup
	in, failed, got atomic.Int64 // allowed connections, those that failed, forbidden ones that got in
	first           atomic.Value // the first failure
}

func newCrowd(t *testing.T, s street) *crowd {
	t.Helper()
	c := &crowd{stop: make(chan struct{})}
	for _, v6 := range []bool{false, true} {
		open, closed := net.JoinHostPort(s.host.addr(v6), "80"), net.JoinHostPort(s.host.addr(v6), "81")
		c.loop(t, s.client, func() {
			c.in.Add(1)
			if conn, err := net.DialTimeout("tcp", open, 3*time.Second); err != nil {
				c.failed.Add(1)
				c.first.CompareAndSwap(nil, err.Error())
			} else {
				conn.Close()
			}
			time.Sleep(time.Millisecond)
		})
		c.loop(t, s.client, func() {
			if conn, err := net.DialTimeout("tcp", closed, 100*time.Millisecond); err == nil {
				c.got.Add(1)
				conn.Close()
			}
		})
	}
	return c
}

// loop does something in a node until the crowd is told to go.
func (c *crowd) loop(t *testing.T, n node, once func()) {
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		n.Do(t, func() {
			for {
				select {
				case <-c.stop:
					return
				default:
					once()
				}
			}
		})
	}()
}

// leave ends the crowd and tells what it met.
func (c *crowd) leave(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.done.Wait()
	if c.failed.Load() > 0 || c.got.Load() > 0 || c.in.Load() < 20 {
		t.Errorf("of %d allowed connections %d failed (%v), %d forbidden ones got in", c.in.Load(), c.failed.Load(), c.first.Load(), c.got.Load())
	}
}

// settings are policies that differ and that all keep port 80 open and 81 closed.
func settings(t *testing.T) []string {
	t.Helper()
	var files []string
	for i, more := range []string{"", "  - deny: 8080/tcp\n    from: 192.0.2.0/24\n", "  - reject: 25/tcp\n  - allow: 443\n    limit: 10/minute\n"} {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("policy%d.yaml", i))
		if err := os.WriteFile(file, []byte("version: 1\ninbound:\n"+more+"  - allow: 80\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// underLoad applies policies again and again, by one backend after the other, while clients dial and a stream runs.
func underLoad(t *testing.T, backends []string, times int) {
	s := newStreet(t)
	h, files := local(t, t.TempDir()), settings(t)
	change := func(i int) {
		t.Helper()
		o := apply.Options{Policy: files[i%len(files)], Given: true, Backend: backends[i%len(backends)], Wait: time.Minute}
		s.host.Do(t, func() {
			if r, err := h.Apply(context.Background(), o); err != nil || !r.Changed {
				t.Fatalf("time %d: %+v, %v", i, r, err)
			}
		})
	}
	change(0)
	stream := &flow{name: "stream", talk: active}
	// One listener for both: a closed one keeps its port for as long as a program that is just being started holds a copy.
	web := open(t, s.host, "tcp", ":80")
	stream.from, stream.to = dialTo(t, s.client, web, s.host.v4)
	stream.begin(t)
	keepOpen(web)
	listen(t, s.host, ":81")
	c := newCrowd(t, s)
	for i := range times {
		change(i + 1)
	}
	c.leave(t)
	if err := stream.lives(); err != nil {
		t.Errorf("the stream broke: %v", err)
	}
}

func TestReapplyingUnderLoad(t *testing.T) {
	onEachBackend(t, func(t *testing.T, backend string) {
		times := 20
		if backend == apply.NFT {
			times = 200
		}
		underLoad(t, []string{backend}, times)
	})
}

// A change of the backend has no gap either.
func TestSwitchingBackendsUnderLoad(t *testing.T) {
	underLoad(t, realBackends(t), 12)
}
