package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"quaywall/internal/collect"
	"quaywall/internal/doctor"
)

const doctorLong = `Names what is wrong with the packet filtering of this host: states that Docker, its versions, and other tools bring hosts into, and
in which something is open, or dead, that nobody meant to be. Each comes with what it means, what it was seen by, and what to do.

fault: something is open or dead now. warning: sooner or later. note: somebody should know. On a host that is well it says so.

With --fix it mends what can be mended without doing harm: it turns forwarding on, and puts quaywall's policy in force again, with
all checks of an apply. With --exit-code the status is 4 where there is a fault. With --snapshot it looks at another host.`

// DoctorAnswer is what "doctor --json" says.
type DoctorAnswer struct {
	Findings []doctor.Finding `json:"findings"`
	Fixed    []string         `json:"fixed,omitempty"` // the findings that --fix has mended, by their ids
}

func (a *app) doctorCommand() *cobra.Command {
	var at where
	var fix, exitCode bool
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "name what is wrong on this host, and what to do",
		Long:    doctorLong,
		Example: lines("quaywall doctor", "quaywall doctor --fix", "quaywall doctor --snapshot DIR", "quaywall doctor --exit-code --json"),
		Args:    arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if fix && (at.snapshot != "" || at.netns != "") {
				return misusedf(cmd, "--fix is for this host alone")
			}
			return a.doctor(cmd.Context(), at, fix, exitCode)
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVar(&fix, "fix", false, "mend what can be mended without doing harm")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 4 where there is a fault")
	return cmd
}

func (a *app) doctor(ctx context.Context, at where, fix, exitCode bool) error {
	found, err := a.examine(ctx, at)
	if err != nil {
		return err
	}
	v := DoctorAnswer{Findings: found}
	if fix {
		if err := a.fix(ctx, found); err != nil {
			return err
		}
		if v.Findings, err = a.examine(ctx, at); err != nil {
			return err
		}
		for _, f := range found {
			if !slices.ContainsFunc(v.Findings, func(o doctor.Finding) bool { return o.ID == f.ID }) {
				v.Fixed = append(v.Fixed, f.ID)
			}
		}
	}
	a.answer(v, func(w io.Writer, s style) { showFindings(w, s, v) })
	if exitCode && slices.ContainsFunc(v.Findings, func(f doctor.Finding) bool { return f.Severity == doctor.Fault }) {
		return differences()
	}
	return nil
}

// examine looks at a host, at this one with what a snapshot doesn't tell.
func (a *app) examine(ctx context.Context, at where) ([]doctor.Finding, error) {
	seen, err := a.look(ctx, at)
	if err != nil {
		return nil, err
	}
	facts := doctor.Facts{}
	if at.snapshot == "" && at.netns == "" {
		facts.Settings = collect.DockerSettings()
		st, err := a.host().Status(ctx)
		if err != nil {
			return nil, a.explained(err)
		}
		a.settled()
		facts.Problem, facts.Applied, facts.Drift = st.Docker.Problem, !st.Since.IsZero(), st.Drift != nil
	}
	found := doctor.Examine(seen.host, facts)
	if found == nil {
		found = []doctor.Finding{}
	}
	return found, nil
}

// sysctls are the files that fixes write 1 to.
var sysctls = map[doctor.Fix]string{doctor.Forward4: "/proc/sys/net/ipv4/ip_forward", doctor.Forward6: "/proc/sys/net/ipv6/conf/all/forwarding"}

func (a *app) fix(ctx context.Context, found []doctor.Finding) error {
	applied := false
	for _, f := range found {
		switch {
		case sysctls[f.Fix] != "":
			if err := os.WriteFile(sysctls[f.Fix], []byte("1"), 0); err != nil {
				return &failure{status: Failed, doing: "turning forwarding on", err: err, next: "run it as root"}
			}
		case f.Fix == doctor.Apply && !applied:
			if _, err := a.host().Apply(ctx, a.applyOptions()); err != nil {
				return a.explained(err)
			}
			a.settled()
			applied = true
		}
	}
	return nil
}

func showFindings(w io.Writer, s style, v DoctorAnswer) {
	for _, id := range v.Fixed {
		fmt.Fprintf(w, "%s %s\n", s.good("mended:"), id)
	}
	if len(v.Findings) == 0 {
		fmt.Fprintln(w, s.good("nothing is wrong that doctor knows of"))
		return
	}
	paint := map[doctor.Severity]func(string) string{doctor.Fault: s.bad, doctor.Warning: s.warn, doctor.Note: s.faint}
	for i, f := range v.Findings {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s %s\n", paint[f.Severity](string(f.Severity)+":"), s.strong(f.Title))
		fmt.Fprintf(w, "  %s %s\n", s.faint("it means"), f.Means)
		for _, e := range f.Evidence {
			fmt.Fprintf(w, "  %s  %s\n", s.faint("seen by"), e)
		}
		fmt.Fprintf(w, "  %s    %s\n", s.faint("do"), f.Do)
	}
}
