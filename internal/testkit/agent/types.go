package agent

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Request is one job; exactly one field is set.
type Request struct {
	Dial    *Dial    `json:"dial,omitempty"`
	Listen  *Listen  `json:"listen,omitempty"`
	Load    *Load    `json:"load,omitempty"`
	Stream  *Stream  `json:"stream,omitempty"`
	Hold    *Hold    `json:"hold,omitempty"`
	Send    *Send    `json:"send,omitempty"`
	Capture *Capture `json:"capture,omitempty"`
	Nflog   *Nflog   `json:"nflog,omitempty"`
	Seen    *Seen    `json:"seen,omitempty"`
	Resolve *Resolve `json:"resolve,omitempty"`
	Shell   *Shell   `json:"shell,omitempty"`
	Engine  *Engine  `json:"engine,omitempty"`
}

// Outcome is how an attempt to reach a server ended, as the client saw it.
type Outcome string

const (
	Open        Outcome = "open"        // the server answered
	Refused     Outcome = "refused"     // a TCP reset, or an ICMP port unreachable
	Unreachable Outcome = "unreachable" // another ICMP error, no route, or no neighbour
	Timeout     Outcome = "timeout"     // nothing came back
	Closed      Outcome = "closed"      // a TCP connection was made, and ended before the server answered
	Silent      Outcome = "silent"      // a TCP connection was made, and no answer came
	Unsupported Outcome = "unsupported" // this kernel or node can't even try
)

// Dial is one attempt to reach a server.
type Dial struct {
	Proto   string         `json:"proto"` // "tcp", "udp", "icmp" (a ping, of the family of To), or "ip:N" for protocol N
	To      netip.AddrPort `json:"to"`    // no port with icmp and ip:N; a link-local address carries its zone
	From    netip.AddrPort `json:"from"`  // the zero value: as the routes say
	Device  string         `json:"device,omitempty"`
	Timeout time.Duration  `json:"timeout,omitempty"` // 0 is DefaultTimeout
}

// DefaultTimeout is how long an attempt waits: longer than the first retransmission of a SYN.
const DefaultTimeout = 3 * time.Second

// DialResult is how a Dial ended.
type DialResult struct {
	Outcome Outcome        `json:"outcome"`
	Answer  Answer         `json:"answer"` // when Open; empty for icmp
	From    netip.AddrPort `json:"from"`   // the client's own end
	Error   string         `json:"error,omitempty"`
	Took    time.Duration  `json:"took"`
}

// Answer is what a server saw.
type Answer struct {
	Node   string         `json:"node"`
	Proto  string         `json:"proto"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
}

// Listen is one server. It answers with what it saw, and serves streams.
type Listen struct {
	Proto string     `json:"proto"` // "tcp", "udp", or "ip:N"
	Addr  netip.Addr `json:"addr"`  // the zero value: every address, both families
	Port  uint16     `json:"port"`
}

// ParseListen reads "80/tcp", "127.0.0.1:53/udp", "[::1]:80/tcp", or "ip:47" for an IP protocol.
func ParseListen(s string) (Listen, error) {
	if strings.HasPrefix(s, "ip:") {
		return Listen{Proto: s}, nil
	}
	where, proto, ok := strings.Cut(s, "/")
	if !ok || proto != "tcp" && proto != "udp" {
		return Listen{}, fmt.Errorf("server %q: write it as 80/tcp, 127.0.0.1:53/udp or ip:47", s)
	}
	if port, err := strconv.ParseUint(where, 10, 16); err == nil {
		return Listen{Proto: proto, Port: uint16(port)}, nil
	}
	at, err := netip.ParseAddrPort(where)
	if err != nil {
		return Listen{}, fmt.Errorf("server %q: %w", s, err)
	}
	return Listen{Proto: proto, Addr: at.Addr(), Port: at.Port()}, nil
}

// Load dials again and again until told to stop.
type Load struct {
	Dial     Dial          `json:"dial"`
	Workers  int           `json:"workers,omitempty"`  // 0 is 1
	Interval time.Duration `json:"interval,omitempty"` // pause of a worker between two attempts
}

// LoadResult sums up a Load.
type LoadResult struct {
	OK       int           `json:"ok"`
	Failed   int           `json:"failed"`
	Failures []Failure     `json:"failures,omitempty"` // the first 20
	Slowest  time.Duration `json:"slowest"`            // of those that went well
}

// Failure is one attempt that did not get an answer.
type Failure struct {
	At      time.Time `json:"at"`
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"`
}

// Stream keeps one TCP connection busy with numbered blocks until told to stop.
type Stream struct {
	Dial     Dial          `json:"dial"`
	PingPong bool          `json:"pingPong,omitempty"` // each number is sent by the client and comes back; else the server alone sends
	Interval time.Duration `json:"interval,omitempty"` // between two numbers of a PingPong; 0 is 5 ms
}

// StreamResult sums up a Stream.
type StreamResult struct {
	Alive  bool          `json:"alive"`           // no error until it was told to stop
	Error  string        `json:"error,omitempty"` // why it broke, a wrong number included
	Blocks uint64        `json:"blocks"`          // numbers received, in order
	Last   time.Time     `json:"last"`            // when the last number came; the zero value: none did
	Stall  time.Duration `json:"stall"`           // the longest time without a number, the end included
	Since  time.Time     `json:"since"`           // when that began
}

// Hold opens TCP connections, leaves them idle until told to stop, and then sees whether they still work.
type Hold struct {
	Dial  Dial `json:"dial"`
	Count int  `json:"count,omitempty"` // 0 is 1
	// ServerFirst has the server speak first when the time comes: after it, counted from the connection's beginning.
	// The job then waits for that and needs no telling.
	ServerFirst time.Duration `json:"serverFirst,omitempty"`
}

// HoldResult sums up a Hold.
type HoldResult struct {
	Alive int `json:"alive"`
	Dead  int `json:"dead"`
}

// Send puts whole Ethernet frames on a device.
type Send struct {
	Device string   `json:"device"`
	Frames [][]byte `json:"frames"`
}

// Capture collects the frames that a device receives or sends, until told to stop.
type Capture struct {
	Device string `json:"device"`
}

// CaptureResult holds at most 2,000 frames.
type CaptureResult struct {
	Frames [][]byte `json:"frames"`
}

// Seen asks what the node's servers saw so far, refused by nobody: each connection and each datagram.
type Seen struct {
	Forget bool `json:"forget,omitempty"` // begin anew after this
}

// SeenResult holds at most the last 5,000.
type SeenResult struct {
	Answers []Answer `json:"answers"`
}

// Resolve asks the node's own resolver.
type Resolve struct {
	Name string `json:"name"`
}

// ResolveResult is the addresses of a name, sorted.
type ResolveResult struct {
	Addrs []netip.Addr `json:"addrs"`
}

// Engine starts or ends the node's Docker engine. Only the first process of a node of the lab knows how.
type Engine struct {
	Action string `json:"action"` // "start", "stop" (SIGTERM, waits for its end), "kill" (SIGKILL, waits), "state"
}

// EngineResult tells how the engine is after it.
type EngineResult struct {
	Running bool `json:"running"`
}
