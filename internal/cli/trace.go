package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"quaywall/internal/collect"
	"quaywall/internal/packet"
	"quaywall/internal/scratch"
	"quaywall/internal/sim"
	"quaywall/internal/trace"
)

const traceLong = `Shows live packets on their way through the kernel's rules: each rule that a packet matched, in the order of the kernel and
whoever wrote it, in nftables and both variants of iptables, each rewriting by NAT, and what stopped it or that nothing did.
Addresses of containers and lines of the policy are named. What a packet would meet that never came, "explain" tells.

Which packets are meant is written as a packet is, any part of which may be left out, and whose addresses may be prefixes:
  ` + packet.FilterSyntax + `
It is what they are dialled to that counts, before any rewriting. Answers are packets of their own. Packets are followed from
before all rules on; where a state is asked for, from behind connection tracking on.

It ends after --for, with -n packets, or when it is interrupted. At most 50 packets a second are followed. For this a table of
quaywall's own marks them (inet quaywall_trace), which the kernel takes away with the process, however that ends; other rules
stay as they are. Where there are tables of iptables-legacy, the setting net.netfilter.nf_log is changed meanwhile; what a
killed trace left of it the next quaywall that traces, applies or stops puts back.

With --json each packet is a JSON object on a line of its own.`

const (
	traceTime    = 30 * time.Second
	tracePackets = 100
)

func (a *app) traceCommand() *cobra.Command {
	o := trace.Options{For: traceTime}
	var netns string
	cmd := &cobra.Command{
		Use:   "trace [PACKET]",
		Short: "show live packets on their way through the rules",
		Long:  traceLong,
		Example: lines("quaywall trace 'tcp -> :8080 state new'", "quaywall trace 'udp from container web' --for 5m",
			"quaywall trace '203.0.113.99 ->' -n 1 --json"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Filter, err = packet.ParseFilter(strings.Join(args, " ")); err != nil {
				return misused(cmd, err)
			}
			if o.Packets < 1 {
				return misusedf(cmd, "--packets %d: use 1 or more", o.Packets)
			}
			return a.trace(cmd.Context(), o, netns)
		},
	}
	cmd.Flags().Var(&timeFlag{&o.For, time.Second}, "for", "end after this `TIME`")
	cmd.Flags().IntVarP(&o.Packets, "packets", "n", tracePackets, "end after `N` packets")
	cmd.Flags().StringVar(&netns, "netns", "", "in another network namespace: `PATH|container:NAME`")
	completes(cmd, "for", cobra.NoFileCompletions)
	completes(cmd, "packets", cobra.NoFileCompletions)
	return cmd
}

func (a *app) trace(ctx context.Context, o trace.Options, netns string) error {
	o.DockerHost, o.RunDir = a.opts.dockerHost, a.opts.runDir
	o.Note = func(text string) { a.notices([]string{text}) }
	o.Ready = func() {
		if !a.opts.json {
			fmt.Fprintf(a.env.Stderr, "following packets for %v; Ctrl-C ends\n", o.For)
		}
	}
	var summary trace.Summary
	run := func() (err error) {
		summary, err = trace.Run(ctx, o, a.showTraced())
		return err
	}
	path, err := collect.Options{DockerHost: o.DockerHost, Netns: netns}.Path(ctx)
	if err == nil && path == "" {
		err = run()
	} else if err == nil {
		err = scratch.In(path, run)
	}
	if err != nil && !errors.Is(err, unix.EPIPE) {
		return &failure{status: Failed, doing: "tracing", err: err}
	}
	if summary.Lost > 0 {
		a.notices([]string{fmt.Sprintf("%d of what the kernel told had no room: some packets' ways have gaps", summary.Lost)})
	}
	if !a.opts.json && err == nil {
		fmt.Fprintf(a.env.Stderr, "%s: %s\n", count(summary.Packets, "packet"), summary.Ended)
	}
	return nil
}

// showTraced gives a function that shows a packet.
func (a *app) showTraced() func(*trace.Packet) error {
	if a.opts.json {
		enc := json.NewEncoder(a.env.Stdout)
		enc.SetEscapeHTML(false)
		return func(p *trace.Packet) error { return enc.Encode(p) }
	}
	s := a.onStdout()
	return func(p *trace.Packet) error {
		var page strings.Builder
		writeTraced(&page, s, p)
		_, err := io.WriteString(a.env.Stdout, page.String())
		return err
	}
}

func writeTraced(w io.Writer, s style, p *trace.Packet) {
	about := p.Time.Local().Format("15:04:05.000")
	if p.Flags != "" {
		about += ", " + p.Flags
	}
	for _, x := range []struct{ what, name string }{{"from", p.From}, {"to", p.To}} {
		if x.name != "" {
			about += ", " + x.what + " container " + x.name
		}
	}
	verdict := map[string]string{string(sim.Accept): s.good("Let through."), string(sim.Drop): s.bad("Dropped."), string(sim.Reject): s.bad("Rejected.")}[p.Verdict]
	if verdict == "" {
		verdict = s.warn("Not known.")
	}
	fmt.Fprintf(w, "%s  %s\n%s %s\n", s.strong(p.Packet), s.faint("("+about+")"), verdict, p.Why)
	for _, step := range p.Path {
		if !isQuiet(step) {
			showStep(w, s, step, true)
		}
	}
	fmt.Fprintln(w)
}
