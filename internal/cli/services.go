package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

const servicesLong = `Lists the names that a rule can say instead of a port: the built-in ones and, where there is a policy, its own.`

// ServicesAnswer is what "services --json" says.
type ServicesAnswer struct {
	Services []Service `json:"services"`
}

// Service is a name for traffic.
type Service struct {
	Name    string   `json:"name"`
	Traffic []string `json:"traffic"` // as a policy writes it: "53/tcp", "esp", "icmp/8"
	Own     bool     `json:"own"`     // the policy's own, not built in
}

func (a *app) servicesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "services",
		Short:   "list the services that rules can name",
		Long:    servicesLong,
		Example: lines("quaywall services"),
		Args:    arguments(0),
		RunE: func(*cobra.Command, []string) error {
			l, err := a.load()
			if err != nil {
				return err
			}
			a.showServices(append(services(policy.Services(), false), services(l.policy.Services, true)...))
			return nil
		},
	}
}

func services(all []policy.Service, own bool) []Service {
	list := make([]Service, len(all))
	for i, s := range all {
		list[i] = Service{Name: s.Name, Own: own}
		for _, t := range s.Traffic {
			list[i].Traffic = append(list[i].Traffic, traffic(t))
		}
	}
	return list
}

// traffic writes one kind of traffic as a policy does.
func traffic(t policy.Traffic) string {
	proto := packet.ProtoName(t.Proto)
	switch {
	case t.Published:
		return "published"
	case t.Proto == 0:
		return "any"
	case t.ICMP.HasType:
		return fmt.Sprintf("%s/%d", proto, t.ICMP.Type)
	case policy.HasPorts(t.Proto) && t.Ports != netset.AllPorts:
		return t.Ports.String() + "/" + proto
	}
	return proto
}

func (a *app) showServices(all []Service) {
	a.answer(ServicesAnswer{all}, func(w io.Writer, s style) {
		rows := make([][]cell, len(all))
		for i, v := range all {
			rows[i] = plain(v.Name, strings.Join(v.Traffic, ", "))
			if v.Own {
				rows[i] = append(rows[i], cell{"this policy's", s.faint})
			}
		}
		table(w, rows)
	})
}
