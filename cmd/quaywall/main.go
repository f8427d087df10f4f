// Command quaywall is the firewall of Linux hosts that run Docker.
//
// Be aware: there is nothing here but the way from the process to package cli.
package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"quaywall/internal/cli"
)

// version is set by the linker: -X main.version=….
var version = "unreleased"

func main() {
	os.Exit(run())
}

// run ends with a status rather than by os.Exit, so that the signals' context is given back.
func run() int {
	// A terminal that goes away stops what has not begun; a change that has goes on to its end, and so it does when nobody
	// reads what is told about it.
	ends := []os.Signal{os.Interrupt, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) { // nohup
		ends = append(ends, unix.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	return cli.Run(ctx, cli.Env{
		Version:   version,
		Program:   os.Args[0],
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		StdoutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		StderrTTY: term.IsTerminal(int(os.Stderr.Fd())),
		Getenv:    os.Getenv,
	}, os.Args[1:])
}
