package compile

import (
	"fmt"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// actions are the small chains that end a packet's way. None of their rules counts: the rule or element that leads
// there has counted the packet for its policy line already.
type actions struct {
	denied   *ruleset.Verdict
	rejected *ruleset.Verdict
}

// deny is the verdict on a packet that is dropped silently: logged first where the policy wants that.
func (c *compiler) deny() ruleset.Verdict {
	if c.actions.denied == nil {
		v, name := ruleset.Verdict{Kind: ruleset.Drop}, "denied"
		if c.options.Observe {
			v, name = accept, "observed"
		}
		if !c.policy.Log.IsZero() {
			ch := c.chain(name, nil)
			add(ch, c.logDenied(), ruleset.Rule{Verdict: v})
			v = toChain(ch.Name)
		}
		c.actions.denied = &v
	}
	return *c.actions.denied
}

// reject is the verdict on a packet that is dropped and answered.
func (c *compiler) reject() ruleset.Verdict {
	if c.options.Observe {
		return c.deny()
	}
	if c.actions.rejected == nil {
		ch := c.chain("rejected", nil)
		if !c.policy.Log.IsZero() {
			add(ch, c.logDenied())
		}
		add(ch, answers()...)
		v := toChain(ch.Name)
		c.actions.rejected = &v
	}
	return *c.actions.rejected
}

// answers reject a packet: TCP by a RST, anything else by port-unreachable.
func answers() []ruleset.Rule {
	return []ruleset.Rule{
		{Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: policy.TCP}}, Verdict: ruleset.Verdict{Kind: ruleset.TCPReset}},
		{Verdict: ruleset.Verdict{Kind: ruleset.Unreachable}},
	}
}

func (c *compiler) logDenied() ruleset.Rule {
	prefix := "quaywall denied"
	if c.options.Observe {
		prefix = "quaywall " + policy.Would + policy.Deny.String()
	}
	return ruleset.Rule{
		Matches: []ruleset.Match{ruleset.RateMatch{Rate: c.policy.Log}},
		Log:     &ruleset.Log{Group: c.options.LogGroup, Prefix: prefix},
		Verdict: ruleset.Verdict{Kind: ruleset.Continue},
	}
}

// verdict is what a rule does with a packet that it matches. A limit or a log take a chain of the rule's own, however
// many places lead there, so that a limit counts a source once for all of the rule's ports.
func (c *compiler) verdict(r policy.Rule) ruleset.Verdict {
	if r.Limit.IsZero() && !r.Log {
		return c.verb(r.Verb)
	}
	ch := c.chain(fmt.Sprintf("rule-%d", r.Pos.Line), nil)
	origin := originOf(r)
	if !r.Limit.IsZero() {
		for _, f := range families {
			over := ruleset.SourceRateMatch{Family: f, Name: ch.Name, Rate: r.Limit}
			add(ch, ruleset.Rule{Matches: []ruleset.Match{over}, Verdict: c.deny(), Counter: c.options.Observe, Origin: c.overLimit(origin)})
		}
	}
	if !r.Log {
		add(ch, ruleset.Rule{Verdict: c.verb(r.Verb), Origin: origin})
		return toChain(ch.Name)
	}
	log := &ruleset.Log{Group: c.options.LogGroup, Prefix: c.logPrefix(r)}
	switch {
	case r.Verb == policy.Allow || c.options.Observe:
		add(ch, ruleset.Rule{Log: log, Verdict: accept, Origin: origin})
	case r.Verb == policy.Reject:
		add(ch, ruleset.Rule{Log: log, Verdict: ruleset.Verdict{Kind: ruleset.Continue}, Origin: origin})
		add(ch, answers()...)
	default:
		add(ch, ruleset.Rule{Log: log, Verdict: ruleset.Verdict{Kind: ruleset.Drop}, Origin: origin})
	}
	return toChain(ch.Name)
}

// verb is the verdict of a verb.
func (c *compiler) verb(v policy.Verb) ruleset.Verdict {
	switch v {
	case policy.Allow:
		return accept
	case policy.Reject:
		return c.reject()
	}
	return c.deny()
}

// maxPrefix is the longest prefix that xt_NFLOG takes.
const maxPrefix = 63

// logPrefix names verb and line; of a long file name the end is kept, since the line number stands there.
func (c *compiler) logPrefix(r policy.Rule) string {
	head, line := fmt.Sprintf("quaywall %s ", r.Verb), r.Origin()
	if c.options.Observe && r.Verb != policy.Allow {
		head = fmt.Sprintf("quaywall %s%s ", policy.Would, r.Verb)
	}
	if over := len(head) + len(line) - maxPrefix; over > 0 {
		line = line[over:]
	}
	return head + line
}

func originOf(r policy.Rule) ruleset.Origin { return ruleset.Origin{Line: r.Origin(), Note: r.Note} }

// midStream holds for TCP packets that don't begin a connection.
func midStream() []ruleset.Match {
	return []ruleset.Match{
		ruleset.ProtoMatch{Proto: policy.TCP},
		ruleset.TCPFlagsMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN, Not: true},
	}
}
