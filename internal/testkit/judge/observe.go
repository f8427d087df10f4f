package judge

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/packet"
	"quaywall/internal/testkit/netns"
)

// observerTable sees what passed all chains of a policy, and ends it. Packets to the host itself over lo go on and are
// seen when they come in. The last packet of a batch has an identification of its own and is seen before everything.
const observerTable = `table inet judge {
 chain sentinel { type filter hook prerouting priority -600;
  ip id 65535 log group 4321 snaplen 256
  ip id 65535 drop
 }
 chain input { type filter hook input priority 300;
  log group 4321 snaplen 256
  drop
 }
 chain forward { type filter hook forward priority 300;
  log group 4321 snaplen 256
  drop
 }
 chain output { type filter hook output priority 300;
  oifname "lo" accept
  log group 4321 snaplen 256
  drop
 }
}
`

// observerPort sees resets that leave by a port of a bridge. Under bridge netfilter the kernel hands the answer to a packet
// that came in by a port straight to that port, past all hooks of IP.
const observerPort = `table netdev judge {
 chain %[1]s { type filter hook egress device %[1]s priority 0;
  meta l4proto tcp tcp flags & rst == rst log group 4321 snaplen 256 drop
 }
}
`

const (
	observerGroup = 4321
	sentinelID    = 65535
)

// What nfnetlink_log speaks (linux/netfilter/nfnetlink_log.h).
const (
	ulogPacket       = 4 << 8
	ulogConfig       = 4<<8 | 1
	ulogCfgCmd       = 1
	ulogCfgMode      = 2
	ulogCfgThreshold = 5
	ulogCmdBind      = 1
	ulogCopyPacket   = 2
	ulogHeader       = 1
	ulogIn           = 4 // the index of an interface of IP: a bridge, not its port
	ulogOut          = 5
	ulogPayload      = 9
)

// observer reads what the judge's table logs.
type observer struct{ conn *netlink.Conn }

// newObserver has a host observed by a table.
func newObserver(t testing.TB, host *netns.NS, rules string) *observer {
	for _, c := range cards {
		if c.port != "" {
			rules += fmt.Sprintf(observerPort, c.port)
		}
	}
	host.Feed(t, rules, "nft", "-f", "-")
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := setReadBuffer(conn, 16<<20); err != nil {
		t.Fatal(err)
	}
	for _, attrs := range [][]netlink.Attribute{
		{{Type: ulogCfgCmd, Data: []byte{ulogCmdBind}}},
		{{Type: ulogCfgMode, Data: []byte{0, 0, 1, 0, ulogCopyPacket, 0}}, {Type: ulogCfgThreshold, Data: []byte{0, 0, 0, 1}}},
	} {
		data, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			t.Fatal(err)
		}
		head := []byte{unix.AF_UNSPEC, 0, observerGroup >> 8, observerGroup & 0xff}
		msg := netlink.Message{Header: netlink.Header{Type: ulogConfig, Flags: netlink.Request | netlink.Acknowledge}, Data: append(head, data...)}
		if _, err := conn.Execute(msg); err != nil {
			t.Fatal("asking for logged packets: ", err)
		}
	}
	return &observer{conn}
}

// setReadBuffer makes room for a whole batch: what doesn't fit the kernel throws away.
func setReadBuffer(conn *netlink.Conn, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) })
	return errors.Join(err, setErr)
}

// answer is how a packet was answered.
type answer uint8

const (
	noAnswer answer = iota
	reset
	unreachable
)

func (a answer) String() string { return [...]string{"no answer", "a reset", "port-unreachable"}[a] }

// fate is what became of a packet.
type fate struct {
	passed  bool
	hook    uint8 // where it was seen to have passed, as netfilter numbers hooks
	carried bool  // by a bridge, from port to port: a copy that isn't the host's
	answer  answer
	mute    bool // nobody would have answered, whatever the verdict

	// doubtful tells that a reader of the rules isn't sure: it hangs on what isn't known, or on packets before.
	doubtful bool

	seen packet.Packet // as it was where it was seen to have passed
}

func (f fate) String() string {
	switch {
	case f.doubtful:
		return "may pass, or not"
	case f.passed && f.hook == 0:
		return "passed"
	case f.passed:
		return fmt.Sprintf("passed (seen in %s)", [...]string{"prerouting", "input", "forward", "output", "postrouting"}[f.hook])
	case f.answer != noAnswer:
		return "rejected with " + f.answer.String()
	}
	return "dropped"
}

// collect reads until the batch's last packet was seen, and gives each probe's fate by id. Probes that aren't in it were
// dropped.
func (o *observer) collect(wait time.Duration) (map[uint16]fate, error) {
	fates := map[uint16]fate{}
	if err := o.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	for {
		msgs, err := o.conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errors.New("the last packet of the batch was not seen")
		}
		if err != nil {
			return nil, fmt.Errorf("reading logged packets: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type != ulogPacket || len(m.Data) < 4 {
				continue
			}
			hook, flooded, ip, err := logged(m.Data[4:])
			if err != nil {
				return nil, err
			}
			if identification(ip) == sentinelID && hook == unix.NF_INET_PRE_ROUTING {
				return fates, nil
			}
			note(fates, hook, flooded, ip)
		}
	}
}

// logged takes a logged packet apart. flooded tells that it leaves by the bridge that it came in by.
func logged(data []byte) (hook uint8, flooded bool, ip []byte, err error) {
	attrs, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return 0, false, nil, err
	}
	var in, out []byte
	for _, a := range attrs {
		switch {
		case a.Type == ulogHeader && len(a.Data) >= 3:
			hook = a.Data[2]
		case a.Type == ulogPayload:
			ip = a.Data
		case a.Type == ulogIn:
			in = a.Data
		case a.Type == ulogOut:
			out = a.Data
		}
	}
	if len(ip) > 14 && (ip[12] == 0x08 || ip[12] == 0x86) && ip[0]>>4 != 4 && ip[0]>>4 != 6 {
		ip = ip[14:] // logged with its frame's header
	}
	return hook, hook == unix.NF_INET_FORWARD && in != nil && bytes.Equal(in, out), ip, nil
}

func note(fates map[uint16]fate, hook uint8, flooded bool, ip []byte) {
	if id, kind := answered(ip); kind != noAnswer && id != 0 {
		f := fates[id]
		f.answer = kind
		fates[id] = f
		return
	}
	if id := identification(ip); id != 0 {
		f := fates[id]
		if _, dst := ends(ip); flooded && isToMany(dst) {
			f.carried = true
		} else {
			f.passed, f.hook = true, hook
			f.seen, _ = packet.Decode(ip)
		}
		fates[id] = f
	}
}

// drain throws away what was logged and not read yet.
func (o *observer) drain() {
	for {
		if o.conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)) != nil {
			return
		}
		if _, err := o.conn.Receive(); err != nil {
			return
		}
	}
}
