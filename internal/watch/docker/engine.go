package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

// patience bounds a whole listing: a hung daemon is normal, and apply must not wait for it.
const patience = 2 * time.Second

// maxAnswer bounds what is read of one answer, in bytes. 10,000 containers give about 40 MB.
const maxAnswer = 256 << 20

// engine is a connection to the API of one engine, of a version that both sides speak.
type engine struct {
	http    *http.Client
	base    string // "http://docker/v1.41"
	version string // of the engine: "20.10.24"
}

// connect finds out which version of the API to speak.
func connect(ctx context.Context, e Endpoint) (*engine, error) {
	at, err := client.ParseHostURL(e.Host)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, at.Scheme, at.Host)
	}
	transport := &http.Transport{DialContext: dial, TLSClientConfig: e.TLS, IdleConnTimeout: patience}
	var dialErr error // the client's own error doesn't wrap the cause
	noted := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		conn, dialErr = dial(ctx, network, addr)
		return conn, dialErr
	}
	var server string
	api, err := client.New(client.WithHTTPClient(&http.Client{Transport: transport}), client.WithHost(e.Host),
		client.WithDialContext(noted), client.WithAPIVersionFromEnv(),
		client.WithHTTPResponseHook(func(r *http.Response) { server = r.Header.Get("Server") }))
	if err != nil {
		return nil, err
	}
	defer api.Close()
	if _, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, cmp.Or(dialErr, err)
	}
	scheme := "http"
	if e.TLS != nil {
		scheme = "https"
	}
	base := scheme + "://" + hostName(at.Scheme, at.Host) + at.Path + "/v" + api.ClientVersion()
	return &engine{http: &http.Client{Transport: transport}, base: base, version: engineVersion(server)}, nil
}

// hostName is what the Host header says; dockerd wants one on its Unix socket too.
func hostName(scheme, host string) string {
	if scheme == "unix" {
		return "docker"
	}
	return host
}

// engineVersion reads "Docker/20.10.24+dfsg1 (linux)"; another engine keeps its name.
func engineVersion(server string) string {
	product, _, _ := strings.Cut(server, " ")
	return strings.TrimPrefix(product, "Docker/")
}

func (e *engine) close() { e.http.CloseIdleConnections() }

// get decodes an answer into what is needed of it. The client's own types are not used for that: they refuse the whole
// list for one odd field, such as the IPv6 gateways with a prefix length that engines up to 26 report.
// See https://github.com/moby/moby/issues/52991.
func get[T any](ctx context.Context, e *engine, path string) ([]T, error) {
	var all []T
	err := e.get(ctx, path, &all)
	return all, err
}

func (e *engine) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, 500))
		return fmt.Errorf("it answered %s to GET %s: %s", resp.Status, path, strings.TrimSpace(string(text)))
	}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("reading its answer to GET %s: %w", path, err)
	}
	return nil
}

// pid is the process of a container.
func (e *engine) pid(ctx context.Context, container string) (int, error) {
	var c struct{ State struct{ Pid int } }
	if err := e.get(ctx, "/containers/"+url.PathEscape(container)+"/json", &c); err != nil {
		return 0, err
	}
	if c.State.Pid == 0 {
		return 0, fmt.Errorf("the container %s does not run", container)
	}
	return c.State.Pid, nil
}

// problem is a sentence for a person about an engine that gave no answer; "" where there is none to be had.
func problem(e Endpoint, err error) string {
	where := fmt.Sprintf("Docker at %s (%s)", e.Host, e.From)
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.isDefault():
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return where + " is not there: start dockerd, or name its socket"
	case errors.Is(err, fs.ErrPermission):
		return where + " is closed to this user: run as root, or as a member of the group docker"
	case errors.Is(err, syscall.ECONNREFUSED):
		return where + " is not running: nothing listens there"
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("%s did not answer within %v: it hangs or is still starting", where, patience)
	}
	return where + ": " + err.Error()
}
