package cli

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"quaywall/internal/analyze"
	"quaywall/internal/apply"
	"quaywall/internal/collect"
	"quaywall/internal/eval"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/snapshot"
)

// where says which host a command looks at: this one, another network namespace of it, or a snapshot.
type where struct {
	snapshot string
	netns    string
}

// register adds the flags to a command that looks at a host.
func (l *where) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.snapshot, "snapshot", "", "look at the host that a snapshot in `DIR` is of, instead of this one")
	cmd.Flags().StringVar(&l.netns, "netns", "", "look at another network namespace: `PATH|container:NAME`")
	cmd.MarkFlagsMutuallyExclusive("snapshot", "netns")
	completes(cmd, "snapshot", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
}

// name is what a person calls the host.
func (l *where) name() string {
	if l.snapshot != "" {
		return filepath.Base(l.snapshot)
	}
	name, err := os.Hostname()
	if err != nil {
		name = "this host"
	}
	if l.netns != "" {
		return name + ", " + l.netns
	}
	return name
}

// seen is a host that a command looks at.
type seen struct {
	host   *snapshot.Host
	policy *policy.Policy // in force on this host; nil for none, and for others
}

// look takes a snapshot of the host, or reads one.
func (a *app) look(ctx context.Context, at where) (*seen, error) {
	if at.snapshot != "" {
		host, err := collect.Read(os.DirFS(at.snapshot))
		if err != nil {
			return nil, &failure{status: Failed, doing: "reading the snapshot in " + at.snapshot, err: err, next: "name a folder that quaywall snapshot wrote"}
		}
		return &seen{host: host}, nil
	}
	host, err := collect.Here(ctx, collect.Options{DockerHost: a.opts.dockerHost, Netns: at.netns})
	if err != nil {
		return nil, &failure{status: Failed, doing: "looking at this host", err: err, next: "run it as root"}
	}
	if at.netns != "" {
		return &seen{host: host}, nil
	}
	return &seen{host, a.policyInForce()}, nil
}

// policyInForce is the policy that is recorded as in force; nil for none, or where the record can't be read.
func (a *app) policyInForce() *policy.Policy {
	store := a.host().Store
	state, err := store.State()
	if err != nil || state.Current == "" {
		return nil
	}
	record, err := store.Record(state.Current)
	if err != nil {
		return nil
	}
	p, _, list := apply.Kept(record)
	if list.HasErrors() {
		return nil
	}
	return p
}

// sets are the policy's sets by their names.
func (s *seen) sets() map[string]netset.Set {
	all := map[string]netset.Set{}
	if s.policy != nil {
		for _, set := range s.policy.Sets {
			all[set.Name] = set.Addrs
		}
	}
	return all
}

// lineOf is the line of the policy that lets packets in to an endpoint: that of a packet from the first place that it is
// open to. "" where nothing is known of a policy, or none decides.
func (s *seen) lineOf(e analyze.Endpoint) string {
	if s.policy == nil || len(e.OpenTo) == 0 {
		return ""
	}
	target := e.Witness()
	d := eval.Evaluate(s.policy, &s.host.Inventory, packet.Packet{Proto: target.Proto, Src: first(e.OpenTo[0].Addrs), SrcPort: 40_000,
		Dst: target.Addr, DstPort: target.Port, Flags: packet.SYN, In: e.OpenTo[0].Iface})
	if !d.Judged || d.Verb != policy.Allow {
		return ""
	}
	return d.Origin
}

func first(set netset.Set) netip.Addr {
	for r := range set.Each() {
		return r.From()
	}
	return netip.Addr{}
}
