package scenario

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"quaywall/internal/lock"
	"quaywall/internal/store"
	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
)

// did notes what others than quaywall do.
func (c *chaos) did(what string) {
	c.mischief[what]++
	c.note("%s", what)
}

// flush is somebody's who takes Docker's rules away. The agent is there to mend them, or is not.
func (c *chaos) flush(command string) {
	c.Helper()
	if c.rng.IntN(2) == 0 {
		c.startAgent()
	}
	c.did(command)
	c.host.MustExec(c.T, "sh", "-c", command)
}

const flushAllScript = `nft flush ruleset
for tool in iptables ip6tables; do
	for table in filter nat mangle raw security; do $tool -t $table -F; $tool -t $table -X; done
done
true` // what the agent puts back at the same time may not go

// flushEverything takes quaywall's rules away as well: then the host is open until the agent has put them back.
func (c *chaos) flushEverything() {
	c.Helper()
	c.startAgent()
	c.hear()
	c.did("everything is flushed")
	c.host.MustExec(c.T, "sh", "-c", flushAllScript)
	c.until("everything was flushed", c.mended)
	c.strangers()
	c.dial()
}

func (c *chaos) restartEngine() {
	c.Helper()
	c.did("Docker restarts")
	end := c.host.KillEngine
	if c.rng.IntN(2) == 0 {
		end = c.host.StopEngine
	}
	c.engine(end, c.host.StartEngine)
}

// stop takes quaywall out, and may be killed as it does. Somebody comes in while the host is open. The next apply ends that.
func (c *chaos) stop() {
	c.Helper()
	c.hear()
	c.did("stop")
	if c.rng.IntN(2) == 0 {
		c.kills("stop")
	}
	c.runs("stop")
	came, err := c.outside.Start(c.Context(), agent.Request{Stream: &agent.Stream{Dial: agent.Dial{Proto: "tcp",
		To: netip.MustParseAddrPort("203.0.113.1:9000"), Timeout: time.Second}, PingPong: true}})
	if err != nil {
		c.Fatalf("a stopped quaywall keeps somebody out: %v", err)
	}
	if c.rng.IntN(2) == 0 {
		c.kills("apply", "--allow-lockout")
	}
	c.quaywall(0, "apply", "--allow-lockout")
	c.until("an apply after a stop", c.mended)
	begin := time.Now().Add(silence / 2)
	time.Sleep(silence)
	var r agent.StreamResult
	if err := came.Stop(&r); err == nil && r.Last.After(begin) {
		c.Errorf("who came in while quaywall was stopped goes on: %+v", r)
	}
	c.strangers()
	c.dial()
}

// unplug has an interface be down for a moment. What it loses by that the host's network set-up gives it again.
func (c *chaos) unplug() {
	c.Helper()
	dev := []string{"eth0", "eth1"}[c.rng.IntN(2)]
	c.did(dev + " is down")
	c.host.MustExec(c.T, "ip", "link", "set", dev, "down")
	c.pause()
	c.networkUp()
}

// guestPort is where the guest would be reached if a policy allowed it.
const guestPort = "8090"

// comeOrGo makes a network and a container in it, or removes both. While its rules are damaged Docker may refuse that.
func (c *chaos) comeOrGo() {
	c.Helper()
	if c.guest == nil {
		c.did("a network and a container come")
		err := c.host.AddNetwork(c.Context(), lab.Network{Name: "guests"})
		if err == nil {
			c.guest, err = c.host.Run(c.Context(), lab.Container{Name: "guest", Networks: []string{"guests"},
				Publish: []string{guestPort + ":80"}, Serve: []string{"80/tcp"}})
		}
		if err == nil {
			return
		}
		c.note("%v", err)
	}
	c.did("a network and a container go")
	if c.guest != nil {
		c.note("%v", c.guest.RemoveContainer(c.Context()))
	}
	c.guest = nil
	c.note("%v", c.host.RemoveNetwork(c.Context(), "guests"))
}

// deniedGuest is the guest's own address, where it is there.
func (c *chaos) deniedGuest() []lab.Row {
	c.Helper()
	if c.guest == nil {
		return nil
	}
	return []lab.Row{denied(c.neighbour, netip.AddrPortFrom(c.addr(c.guest, false), 80).String(), direct)}
}

// moments are the times in a file of the store.
var moments = regexp.MustCompile(`"[0-9]{4}-[0-9-]+T[0-9:.]+(Z|[+-][0-9:]+)"`)

// jump has the clock jump by hours, forward or back. There is one for the whole machine, so it is the recorded times that do:
// processes that run don't see a jump, and those that start see no more of it.
func (c *chaos) jump() {
	c.Helper()
	by := time.Duration(c.rng.IntN(96)-48) * time.Hour
	c.did("the clock jumps")
	err := c.host.Inside(func() error {
		l, err := lock.Take(c.Context(), filepath.Join(c.host.Dir, "run"), eventually)
		if err != nil {
			return err
		}
		if err := jumpStore(filepath.Join(c.host.Dir, "state"), by); err != nil {
			_ = l.Release()
			return err
		}
		return l.Release()
	})
	if err != nil {
		c.Fatalf("a jump by %v: %v", by, err)
	}
}

// jumpStore makes what counts in a store look as if it had been written before the clock jumped.
func jumpStore(dir string, by time.Duration) error {
	files, err := filepath.Glob(filepath.Join(dir, "records", "*"))
	if err != nil {
		return err
	}
	for _, path := range append(files, store.Open(dir).StateFile()) {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		var jumped bytes.Buffer
		for line := range bytes.Lines(text) {
			_, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
			value = moments.ReplaceAllFunc(value, func(m []byte) []byte {
				t, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(m))
				if err != nil || t.IsZero() {
					return m
				}
				return t.Add(-by).AppendFormat(nil, `"`+time.RFC3339Nano+`"`)
			})
			fmt.Fprintf(&jumped, "%x %s\n", sha256.Sum256(value), value)
		}
		temp := path + ".jumped"
		if err := os.WriteFile(temp, jumped.Bytes(), 0o600); err != nil {
			return err
		}
		if err := os.Rename(temp, path); err != nil {
			return err
		}
	}
	return nil
}
