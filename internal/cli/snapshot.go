package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"quaywall/internal/collect"
	"quaywall/internal/snapshot"
)

const snapshotLong = `Writes what decides about this host's packets into one folder: the rules of iptables (both variants), of nf_tables and
the sets of ipset, interfaces, addresses, routes, sockets, kernel settings, and Docker's networks and containers. The
files are what the ordinary tools print, in plain text and JSON; where a tool is missing the kernel is asked, or the answer says what
is not known. Another quaywall reads the folder.

A container's environment, its command line and its labels are left out. Addresses, comments in rules and names of
processes are in it: the folder can be read by nobody but you. Nothing is changed on the host.`

// SnapshotAnswer is what "snapshot --json" says.
type SnapshotAnswer struct {
	Dir     string            `json:"dir"`
	Files   []string          `json:"files"`
	Missing []SnapshotMissing `json:"missing"`
}

// SnapshotMissing is something that the snapshot doesn't have.
type SnapshotMissing struct {
	Part  string `json:"part"` // "sockets"
	File  string `json:"file"` // that it would be in
	Why   string `json:"why"`
	Means string `json:"means"` // what is not known for want of it
}

func (a *app) snapshotCommand() *cobra.Command {
	var force bool
	o := collect.Options{ForPeople: true}
	cmd := &cobra.Command{
		Use:   "snapshot DIR",
		Short: "write what decides about this host's packets into a folder",
		Long:  snapshotLong,
		Example: lines("quaywall snapshot evidence", "quaywall snapshot --force evidence",
			"quaywall snapshot --netns container:web evidence"),
		Args: arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misusedf(cmd, "name the folder to write into")
			}
			o.DockerHost = a.opts.dockerHost
			return a.snapshot(cmd, o, args[0], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "write into a folder that isn't empty; files of an older snapshot in it are replaced")
	cmd.Flags().StringVar(&o.Netns, "netns", "", "of another network namespace: `PATH|container:NAME`")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return cmd
}

func (a *app) snapshot(cmd *cobra.Command, o collect.Options, dir string, force bool) error {
	doing := "taking a snapshot"
	files, err := collect.Gather(cmd.Context(), o)
	if err != nil {
		return &failure{status: Failed, doing: doing, err: err}
	}
	// What can't be read again is no snapshot.
	host, err := files.Read()
	if err != nil {
		return &failure{status: Failed, doing: doing, err: err, next: "run it as root"}
	}
	if err := files.Write(dir, force); err != nil {
		f := &failure{status: Failed, doing: "writing the snapshot", err: err}
		if errors.Is(err, collect.ErrNotEmpty) {
			f.next = "name a new folder, or use --force"
		}
		return f
	}
	a.showSnapshot(dir, files, host)
	return nil
}

func (a *app) showSnapshot(dir string, files collect.Files, host *snapshot.Host) {
	answer := SnapshotAnswer{Dir: dir, Files: slices.Sorted(maps.Keys(files.Texts)), Missing: []SnapshotMissing{}}
	for _, m := range host.Missing {
		answer.Missing = append(answer.Missing, SnapshotMissing{Part: string(m.Part), File: m.File, Why: m.Why, Means: m.So})
	}
	a.answer(answer, func(w io.Writer, s style) {
		rules := 0
		for _, t := range host.Rules.Tables {
			for _, c := range t.Chains {
				rules += len(c.Rules)
			}
		}
		fmt.Fprintf(w, "%s: %s in %s, %s, %s, %s\n", dir, count(rules, "rule"), count(len(host.Rules.Tables), "table"),
			count(len(host.Inventory.Interfaces), "interface"), count(len(host.Sockets), "socket"), count(len(host.Containers), "container"))
		for _, m := range answer.Missing {
			fmt.Fprintf(w, "  %s %s: %s\n", s.warn("missing"), m.Part, m.Why)
			fmt.Fprintf(w, "          %s\n", s.faint(m.Means))
		}
	})
}
