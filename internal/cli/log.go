package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"quaywall/internal/denied"
	"quaywall/internal/lock"
	"quaywall/internal/policy"
)

const logLong = `Shows the packets that were denied last, and with --follow those that are denied from now on: when, the verdict, the
packet with the address and the port that were dialled and the interface, the line of the policy, and the container that it
was for, or that it came from. "would deny" is what an observed policy (apply --observe) let through. Where no line decided, the reason is told. Packets of rules with "log: true" are shown as well, with the verdict of the rule.

The agent notes them, in the run directory: a hundred a second at most, some thousand in all, until the next boot. How many
packets come that far is for the policy to say (log: {denied: 10/second}; off is none at all).

With --json each packet is a JSON object on a line of its own.`

// lastShown is how many packets are shown that were denied before.
const lastShown = 20

func (a *app) logCommand() *cobra.Command {
	var follow bool
	var n int
	cmd := &cobra.Command{
		Use:     "log",
		Short:   "show denied packets, with line and container",
		Long:    logLong,
		Example: lines("quaywall log", "quaywall log -f", "quaywall log -n 100 --json"),
		Args:    arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 0 {
				return misusedf(cmd, "--lines %d: use 0 or more", n)
			}
			return a.log(cmd.Context(), n, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is denied from now on, until interrupted")
	cmd.Flags().IntVarP(&n, "lines", "n", lastShown, "show the last `N` that were denied before")
	completes(cmd, "lines", cobra.NoFileCompletions)
	return cmd
}

// startAgent is what there is to do where no agent runs.
const startAgent = "start one, which notes what is denied: systemctl start quaywall-agent, or quaywall agent"

func (a *app) log(ctx context.Context, n int, follow bool) error {
	holder, err := lock.Running(a.opts.runDir, "agent")
	if err != nil {
		return logFailure(err)
	}
	file, show := denied.In(a.opts.runDir), a.showDenied()
	if follow {
		if holder == nil {
			a.notices([]string{"no agent runs here; " + startAgent})
		}
		return logFailure(file.Follow(ctx, n, show))
	}
	entries, err := file.Last(n)
	if err != nil {
		return logFailure(err)
	}
	switch {
	case holder == nil && len(entries) == 0:
		return &failure{status: Failed, doing: "reading what was denied", err: errors.New("no agent runs here, and none has noted anything"), next: startAgent}
	case holder == nil:
		a.notices([]string{"no agent runs here, these are from before; " + startAgent})
	case len(entries) == 0:
		a.notices([]string{"nothing was noted yet: no packet was denied, or the policy logs none (log: {denied: off})"})
	}
	for _, e := range entries {
		if err := show(e); err != nil {
			return logFailure(err)
		}
	}
	return nil
}

// logFailure is why the packets can't be shown. That nobody reads them any more is none.
func logFailure(err error) error {
	switch {
	case err == nil, errors.Is(err, unix.EPIPE):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return &failure{status: Failed, doing: "reading what was denied", err: err, next: "that needs root"}
	}
	return &failure{status: Failed, doing: "reading what was denied", err: err}
}

// showDenied gives a function that shows an entry on a line.
func (a *app) showDenied() func(denied.Entry) error {
	if a.opts.json {
		enc := json.NewEncoder(a.env.Stdout)
		enc.SetEscapeHTML(false)
		return func(e denied.Entry) error { return enc.Encode(e) }
	}
	s := a.onStdout()
	widths := []int{0, 0, len("tcp 203.0.113.99:41234 -> 203.0.113.10:8080 in eth0"), len("policy.yaml:12")}
	return func(e denied.Entry) error {
		var line strings.Builder
		cells := deniedCells(s, e)
		for i, c := range cells {
			line.WriteString(c.painted())
			if i < len(cells)-1 {
				n := utf8.RuneCountInString(c.text)
				widths[i] = max(widths[i], n)
				line.WriteString(strings.Repeat(" ", widths[i]-n+2))
			}
		}
		_, err := fmt.Fprintln(a.env.Stdout, strings.TrimRight(line.String(), " "))
		return err
	}
}

func deniedCells(s style, e denied.Entry) []cell {
	when := cell{e.Time.Local().Format(time.DateTime), s.faint}
	if e.Lost > 0 {
		return []cell{when, {fmt.Sprintf("%d more were logged, faster than they are read", e.Lost), s.warn}}
	}
	verdict := cell{fmt.Sprintf("%-6s", e.Verdict), s.bad}
	if e.Verdict == policy.Allow.String() {
		verdict.paint = s.good
	}
	line := e.Line
	if line == "" {
		line = "-"
	}
	return []cell{when, verdict, {e.Packet, nil}, {line, nil}, {about(e), s.faint}}
}

// about is what else there is to say of a packet.
func about(e denied.Entry) string {
	var parts []string
	if e.In == "" && e.Out != "" {
		parts = append(parts, "out by "+e.Out)
	}
	if e.Container != "" {
		parts = append(parts, "container "+e.Container)
	}
	if e.Why != "" {
		parts = append(parts, e.Why)
	}
	return strings.Join(parts, "; ")
}
