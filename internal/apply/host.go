package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/guard"
	"quaywall/internal/inventory"
	"quaywall/internal/kernel"
	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/kernel/ipt"
	"quaywall/internal/kernel/nft"
	"quaywall/internal/scratch"
	"quaywall/internal/store"
	"quaywall/internal/sysexec"
	"quaywall/internal/watch"
)

// Host is a host whose policy is steered: where things are kept, and how it is reached. Tests put in others.
type Host struct {
	Store    *store.Store
	RunDir   string
	Backends []kernel.Backend // all there are, the preferred one first

	Inventory func(context.Context) (*inventory.Inventory, error)
	WaysIn    func(*inventory.Inventory) (guard.Found, error)
	Logins    func(*inventory.Inventory) (guard.Found, error) // the ways in of whoever is logged in, wherever this process comes from
	Variant   func(context.Context) (name, why string)        // the backend of the variant of iptables that this host uses
	Adopt     func() error                                    // tells connection tracking of flows that run already
	Running   Connections                                     // the connections that run
	Scratch   func(func() error) error                        // runs a function in a scratch network namespace
	Watchdog  func(pending string) (pid int, err error)       // starts the process that takes a pending change back
	Alive     func(pid int, pending string) bool              // tells whether that process is there
	Now       func() time.Time
	Uptime    func() time.Duration // CLOCK_BOOTTIME
	Boot      string               // tells one boot of the kernel from another
	OnStep    func(step string)    // told before each step; may be nil
}

// Config is what a person may choose about this host.
type Config struct {
	StateDir   string
	RunDir     string
	DockerHost string // "" for Docker's own rules
}

// Local is the host that the process runs on, in the network namespace of whichever thread calls.
func Local(c Config) *Host {
	return &Host{
		Store:     store.Open(c.StateDir),
		RunDir:    c.RunDir,
		Backends:  []kernel.Backend{nft.New(), ipt.New(ipt.NFT, ipt.Options{}), ipt.New(ipt.Legacy, ipt.Options{})},
		Inventory: func(ctx context.Context) (*inventory.Inventory, error) { return watch.Inventory(ctx, c.DockerHost) },
		WaysIn:    guard.Find,
		Logins:    guard.Logins,
		Variant:   variant,
		Adopt:     adopt,
		Running:   liveConnections{},
		Scratch:   scratch.Run,
		Watchdog:  func(pending string) (int, error) { return startWatchdog(c, pending) },
		Alive:     isWatchdog,
		Now:       time.Now,
		Uptime:    uptime,
		Boot:      bootID(),
	}
}

func variant(ctx context.Context) (name, why string) {
	v, why := ipt.Detect(ctx)
	return "iptables-" + string(v), why
}

func adopt() error {
	flows, err := conntrack.Unseen()
	if err == nil {
		_, err = conntrack.Adopt(flows)
	}
	return err
}

// uptime is CLOCK_BOOTTIME: no change of the clock moves it, and it runs on while the host is suspended.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// bootID is another one after each boot, "" where /proc doesn't tell.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// UndoCommand is the hidden command that waits for a confirmation; its argument is the ID of the pending change.
const UndoCommand = "undo"

// startWatchdog starts this program again, in a session of its own, so that it outlives the terminal.
func startWatchdog(c Config, pending string) (int, error) {
	self, err := os.Executable()
	if _, gone := os.Stat(self); err != nil || gone != nil {
		self = "/proc/self/exe" // an upgrade took the program's file away
	}
	if err := os.MkdirAll(c.RunDir, 0o700); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(c.RunDir+"/undo.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	pid, err := sysexec.Detach(sysexec.Command{
		Path: self, Args: []string{UndoCommand, "--state-dir", c.StateDir, "--run-dir", c.RunDir, pending},
	}, log)
	return pid, errors.Join(err, log.Close())
}

// isWatchdog knows the process by the ID on its command line: process ids come round again.
func isWatchdog(pid int, pending string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(text), pending)
}

// checkPrivilege tells before anything else that an ordinary user can't do this.
func checkPrivilege() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("asking for this process's capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errNoRoot
	}
	return nil
}
