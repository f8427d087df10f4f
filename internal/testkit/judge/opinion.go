package judge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/analyze"
	"quaywall/internal/collect"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

// opinion is what one judge makes of a case.
type opinion struct {
	by    string
	host  string          // by its backend
	fates map[uint16]fate // of the packets that it was asked about
	wrong []*probe        // of which the evaluator says something else
}

// Who judges beside the evaluator.
const (
	byKernel    = "the kernel"
	bySimulator = "the simulator"
	byAnalyser  = "the analyser"
)

func (o opinion) String() string {
	if o.by == byKernel {
		return o.host
	}
	return o.by + ", of " + o.host
}

// opinions puts a case into force and asks the kernel, and, where the rules are to be read, those who read them.
func (h *bench) opinions(c *Case, read bool) ([]opinion, error) {
	fates, err := h.try(c)
	if err != nil {
		return nil, err
	}
	kernel := opinion{byKernel, h.name, fates, c.wrong(fates)}
	if !read {
		return []opinion{kernel}, nil
	}
	readers, err := h.readers(c)
	return append([]opinion{kernel}, readers...), err
}

// readers asks the simulator and the analyser about what is in force, as the tools print it.
func (h *bench) readers(c *Case) ([]opinion, error) {
	host, err := h.look()
	if err != nil {
		return nil, fmt.Errorf("%s: reading what is in force: %w", h.name, err)
	}
	r := reader{sim.New(host), setsOf(host), h.isMute}
	simulator, err := c.ask(opinion{by: bySimulator, host: h.name}, r.simulated)
	if err != nil {
		return nil, err
	}
	analyser, err := c.ask(opinion{by: byAnalyser, host: h.name}, r.analysed)
	return []opinion{simulator, analyser}, err
}

// ask asks somebody about each probe that can be compared.
func (c *Case) ask(o opinion, about func(*probe) (f fate, asked bool, err error)) (opinion, error) {
	o.fates = map[uint16]fate{}
	for _, p := range c.probes {
		f, asked, err := about(p)
		if err != nil {
			return o, fmt.Errorf("%s, about %s: %w", o, p.pk, err)
		}
		if !asked {
			continue
		}
		o.fates[p.id] = f
		if !p.agrees(f) {
			o.wrong = append(o.wrong, p)
		}
	}
	return o, nil
}

// someWrong is the first opinion that is wrong on anything.
func someWrong(all []opinion) (opinion, bool) {
	i := slices.IndexFunc(all, func(o opinion) bool { return len(o.wrong) > 0 })
	if i < 0 {
		return opinion{}, false
	}
	return all[i], true
}

// noEngine is where no Docker answers: the one of this machine has nothing to do with the judge's hosts.
const noEngine = "unix:///nowhere/docker.sock"

// look reads what is in force as explain does: from what the tools print. The judge's own tables are left out, and Docker's
// answers are those that it would give.
func (h *bench) look() (*snapshot.Host, error) {
	var host *snapshot.Host
	err := h.do(func() (err error) {
		host, err = collect.Here(context.Background(), collect.Options{DockerHost: noEngine})
		return err
	})
	if err != nil {
		return nil, err
	}
	if list := host.Problems; len(list) > 0 {
		return nil, fmt.Errorf("it isn't understood whole: %w", list[0])
	}
	if i := slices.IndexFunc(host.Missing, func(m snapshot.Missing) bool {
		return m.Part != snapshot.PartNetworks && m.Part != snapshot.PartContainers
	}); i >= 0 {
		return nil, errors.New(host.Missing[i].File + ": " + host.Missing[i].Why)
	}
	host.Rules.Tables = slices.DeleteFunc(host.Rules.Tables, func(t *netfilter.Table) bool { return t.Name == "judge" })
	known := inventoryOf()
	host.Inventory.Docker, host.Inventory.Networks, host.Inventory.Published = known.Docker, known.Networks, known.Published
	return host, nil
}

// reader asks those who read rules.
type reader struct {
	sim  *sim.Sim
	sets sets
	mute func(*probe) bool
}

// sets are the analyser's, by whether of IPv4.
type sets map[bool]*analyze.Analyzer

func setsOf(host *snapshot.Host) sets {
	return sets{true: analyze.New(host, netfilter.IPv4), false: analyze.New(host, netfilter.IPv6)}
}

// query is a probe as explain is asked about it.
func query(p *probe) packet.Query {
	q := packet.Query{Packet: p.pk, FromHost: p.pk.In == ""}
	if q.FromHost && q.Out != "lo" && q.Dst.Is6() && (q.Dst.IsMulticast() || q.Dst.IsLinkLocalUnicast()) {
		q.Dst = q.Dst.WithZone(q.Out)
	}
	return q
}

// simulated asks the simulator. asked is false of what can't be compared: it knows no limit that is used up.
func (r reader) simulated(p *probe) (f fate, asked bool, err error) {
	if p.flood > 0 || p.narrow {
		return fate{}, false, nil
	}
	tr, err := r.sim.Explain(query(p), sim.Options{Fast: true})
	if err != nil {
		return fate{}, false, err
	}
	f = fate{passed: tr.Verdict == sim.Accept, doubtful: tr.Verdict == sim.Unknown, carried: p.isFlooded(), mute: r.mute(p)}
	if tr.Verdict == sim.Reject {
		f.answer = answerOf(tr)
	}
	return f, true, nil
}

// answerOf is how a packet was answered that was rejected: by the last rule that it met.
func answerOf(tr *sim.Trace) answer {
	last := ""
	for _, step := range tr.Path {
		if n := len(step.Rules); n > 0 && step.Leg == sim.Request {
			last = step.Rules[n-1].Text
		}
	}
	if strings.Contains(last, "tcp reset") || strings.Contains(last, "tcp-reset") {
		return reset
	}
	return unreachable
}

// analysed asks the analyser. How a packet is denied isn't in a set.
func (r reader) analysed(p *probe) (f fate, asked bool, err error) {
	may, must, asked, err := r.sets.hold(p)
	return fate{passed: may, doubtful: may && !must, mute: true}, asked, err
}

// hold asks whether the sets of what gets in hold a packet, by its target and by all at once. asked is false of what they say
// nothing about.
func (s sets) hold(p *probe) (may, must, asked bool, err error) {
	a := s[p.pk.Dst.Is4()]
	if p.flood > 0 || p.bridged || !begins(p.pk) || !a.Everybody(p.pk.Dst)[p.pk.In].Contains(p.pk.Src) {
		return false, false, false, nil
	}
	may, must = a.Dials(query(p))
	if ofAll, sure := a.Holds(query(p)); ofAll != may || sure != must {
		err = fmt.Errorf("by its target may %v, must %v, by all may %v, must %v", may, must, ofAll, sure)
	}
	return may, must, true, err
}

// begins tells whether a packet begins a connection from outside with one machine, and not with one of another link.
func begins(pk packet.Packet) bool {
	kind := addrType(pk.Dst, pk.In)
	isOne := kind == ruleset.TypeLocal || kind == 0 && !pk.Dst.IsLinkLocalUnicast() && !isIn(linked6, pk.Dst)
	return pk.In != "" && isOne && pk.State == packet.New && (pk.Proto != policy.TCP || pk.Flags == packet.SYN)
}
