package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"quaywall/internal/collect"
	"quaywall/internal/packet"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

const explainLong = `Tells which way a packet takes through this host, and why: each table, chain and rule that it meets in the order of the
kernel, whoever wrote them, each rewriting by NAT, what takes it in the end, and whether the answer comes back. Then what
decided, and what to change.

A packet is written
  ` + packet.Syntax + `
where PROTO is tcp, udp, sctp, icmp[/TYPE], icmp6[/TYPE], or a protocol's name or number. What is left out follows from the
routes: without a source the packet comes from far away, by the interface of the default route. With - packets are read from
standard input, one a line, and answered with one JSON object a line.

The host is this one, another network namespace, a snapshot, or with --rules no more than rules: what iptables-save,
iptables -S, iptables -L or nft -j list ruleset print, on any host. With --policy it is the host as it would be with that policy.
Rules that matched, or that nearly did, are shown; with -v all that were looked at. What isn't known, and a rule that isn't
understood, is followed both ways: where these end differently the verdict is unknown, and the rule is named.`

// ExplainAnswer is what "explain --json" says of one packet.
type ExplainAnswer struct {
	*sim.Trace
	Warnings []string `json:"warnings,omitempty"` // what of the files that were read isn't understood, with its place
}

// warningsOf are the sentences on what of a host's files isn't understood.
func warningsOf(h *snapshot.Host) (all []string) {
	for _, p := range h.Problems {
		all = append(all, p.Error())
	}
	return all
}

type explainFlags struct {
	at           where
	rules        []string
	in, state    string
	graph        string
	policyChosen bool
}

func (a *app) explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain PACKET|-",
		Short: "tell which way a packet takes, and why",
		Long:  explainLong,
		Example: lines("quaywall explain 'tcp 203.0.113.99 -> 203.0.113.10:8080'", "quaywall explain 'tcp -> 192.0.2.1:443 from container web'",
			"quaywall explain --policy new.yaml 'tcp -> 203.0.113.10:8080'", "quaywall explain --rules iptables-save.txt 'udp -> 203.0.113.10:53'"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.policyChosen = cmd.Flags().Changed("policy")
			return a.explain(cmd, f, strings.Join(args, " "))
		},
	}
	f.at.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.in, "in", "", "the packet comes in by this `IFACE`")
	flags.StringVar(&f.state, "state", "", "what connection tracking says of it: `new|established|related|invalid`")
	flags.StringArrayVar(&f.rules, "rules", nil, "read the rules from `DUMP` and know nothing else of the host; - is standard input; may be given again")
	flags.StringVar(&f.graph, "graph", "", "draw the way into `FILE` as well, as SVG")
	cmd.MarkFlagsMutuallyExclusive("rules", "snapshot", "netns")
	completes(cmd, "in", cobra.NoFileCompletions)
	completes(cmd, "state", cobra.FixedCompletions([]string{"new", "established", "related", "invalid"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) explain(cmd *cobra.Command, f explainFlags, text string) error {
	if text == "" {
		return misusedf(cmd, "name a packet: %s", packet.Syntax)
	}
	var q packet.Query
	if text != "-" {
		var err error
		if q, err = f.query(text); err != nil {
			return misused(cmd, err)
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	host, err := a.hostFor(cmd.Context(), f)
	if err != nil {
		return err
	}
	s := sim.New(host)
	if text == "-" {
		return a.explainAll(cmd.Context(), s, f)
	}
	trace, err := s.Explain(q, sim.Options{All: a.opts.verbose, Ended: cmd.Context().Err})
	if err := cmd.Context().Err(); err != nil {
		return interrupted(err)
	}
	if err != nil {
		return &failure{status: Usage, doing: "explaining " + q.String(), err: err}
	}
	if f.graph != "" {
		drawing, err := drawTrace(trace)
		if err == nil {
			err = os.WriteFile(f.graph, drawing, 0o644)
		}
		if err != nil {
			return &failure{status: Failed, doing: "drawing the way", err: err}
		}
	}
	a.answer(ExplainAnswer{trace, warningsOf(host)}, func(w io.Writer, s style) { showTrace(w, s, trace, a.opts.verbose) })
	return nil
}

// interrupted is the end of a command that was not to go on.
func interrupted(err error) error {
	return &failure{status: Failed, doing: "following the packet", err: err}
}

// query reads a packet, with what the flags say of it.
func (f *explainFlags) query(text string) (packet.Query, error) {
	if f.in != "" {
		text += " in " + f.in
	}
	if f.state != "" {
		text += " state " + f.state
	}
	return packet.Parse(text)
}

// gcPercent lets garbage grow while a host is read and asked about: what was read stays. The program collects early otherwise, which
// saves an apply memory.
const gcPercent = 400

// hostFor is the host that packets are led through.
func (a *app) hostFor(ctx context.Context, f explainFlags) (*snapshot.Host, error) {
	host, err := a.lookOrRead(ctx, f.at, f.rules)
	if err != nil || !f.policyChosen {
		return host, err
	}
	l, err := a.load()
	if err != nil {
		return nil, err
	}
	a.diagnostics(l.warnings, l.sources.Text)
	planned, problems := with(host, l.policy)
	if problems.HasErrors() {
		return nil, &failure{status: Usage, err: invalidPolicy(a.opts.policy, problems, ""), list: problems, source: l.sources.Text}
	}
	return planned, nil
}

// lookOrRead is a host, or no more than the rules that dumps hold, where some are named.
func (a *app) lookOrRead(ctx context.Context, at where, dumps []string) (*snapshot.Host, error) {
	if len(dumps) == 0 {
		seen, err := a.look(ctx, at)
		if err != nil {
			return nil, err
		}
		return seen.host, nil
	}
	var texts [][]byte
	for _, name := range dumps {
		text, err := a.dump(name)
		if err != nil {
			return nil, &failure{status: Usage, doing: "reading " + name, err: err}
		}
		texts = append(texts, text)
	}
	host, err := collect.Pasted(texts)
	if errors.Is(err, collect.ErrNoRules) {
		return nil, &failure{status: Usage, err: fmt.Errorf("there are no rules in %s", strings.Join(dumps, ", ")),
			next: "give what iptables-save, iptables -S, iptables -L -n -v or nft -j list ruleset print, or a script that calls iptables"}
	}
	if err != nil {
		return nil, &failure{status: Usage, doing: "reading the rules", err: err}
	}
	if !a.opts.json {
		a.diagnostics(host.Problems, func(string) []byte { return nil })
	}
	return host, nil
}

func (a *app) dump(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.env.Stdin)
	}
	return os.ReadFile(name)
}

// batch is how many packets are answered side by side.
const batch = 512

// explainAll answers packets from standard input.
func (a *app) explainAll(ctx context.Context, s *sim.Sim, f explainFlags) error {
	in := bufio.NewScanner(a.env.Stdin)
	in.Buffer(make([]byte, 64<<10), 1<<20)
	in.Split(splitLines)
	out := bufio.NewWriterSize(a.env.Stdout, 1<<20)
	var texts []string
	flush := func() error {
		answers := a.answers(ctx, s, f, texts)
		if err := ctx.Err(); err != nil {
			return interrupted(err)
		}
		for _, answer := range answers {
			if _, err := out.Write(answer); err != nil {
				return &failure{status: Failed, doing: "answering", err: err}
			}
		}
		texts = texts[:0]
		return out.Flush()
	}
	for in.Scan() {
		if text := strings.TrimSpace(strings.TrimPrefix(in.Text(), "\ufeff")); text != "" {
			texts = append(texts, text)
		}
		if len(texts) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := in.Err(); err != nil {
		return &failure{status: Failed, doing: "reading packets", err: err}
	}
	return flush()
}

// splitLines is a bufio.SplitFunc of lines, whichever system ended them: with empty ones in between where it took two characters.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	if end := bytes.IndexAny(data, "\r\n"); end >= 0 {
		return end + 1, data[:end], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// answers are one line of JSON for each packet.
func (a *app) answers(ctx context.Context, s *sim.Sim, f explainFlags, texts []string) [][]byte {
	all := make([][]byte, len(texts))
	var working sync.WaitGroup
	each := max(1, (len(texts)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for first := 0; first < len(texts); first += each {
		working.Add(1)
		go func() {
			defer working.Done()
			for i := first; i < min(first+each, len(texts)); i++ {
				all[i] = a.answerLine(ctx, s, f, texts[i])
			}
		}()
	}
	working.Wait()
	return all
}

// answerLine is the answer to a line. What is no packet has no verdict.
func (a *app) answerLine(ctx context.Context, s *sim.Sim, f explainFlags, text string) []byte {
	var trace *sim.Trace
	q, err := f.query(text)
	if err == nil {
		trace, err = s.Explain(q, sim.Options{Fast: !a.opts.verbose, All: a.opts.verbose, Ended: ctx.Err})
	}
	if err != nil {
		trace = &sim.Trace{Packet: text, Verdict: sim.Unknown, DeliveredTo: sim.Delivery{Kind: "none"}, Path: []sim.Step{}, Why: err.Error()}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(trace) // a trace has nothing that JSON can't say
	return b.Bytes()
}

// showTrace tells a person: what becomes of the packet and why, then its way, then what to change.
func showTrace(w io.Writer, s style, t *sim.Trace, all bool) {
	fmt.Fprintf(w, "%s\n%s %s\n", t.Packet, verdictWord(s, t), t.Why)
	leg := ""
	for _, step := range t.Path {
		if !all && isQuiet(step) {
			continue
		}
		if step.Leg != leg {
			leg = step.Leg
			fmt.Fprintf(w, "\n%s\n", s.strong(upperFirst(leg)))
		}
		showStep(w, s, step, all)
	}
	if t.Hint != "" {
		fmt.Fprintf(w, "\n%s\n", t.Hint)
	}
	for i, a := range t.Assumptions {
		if i == 0 {
			fmt.Fprintf(w, "\n%s\n", s.faint("Taken for granted:"))
		}
		fmt.Fprintf(w, "  %s\n", s.faint(a))
	}
}

// isQuiet tells whether there is nothing to tell of a step: a chain that let the packet on without a rule's having to do with it.
func isQuiet(step sim.Step) bool {
	return step.Chain != "" && len(step.Rules) == 0 && (step.Verdict == "accept" || step.Verdict == "policy accept")
}

func verdictWord(s style, t *sim.Trace) string {
	answered := "whether it is answered isn't known"
	if t.Reachable != nil {
		answered = map[bool]string{true: "answered", false: "not answered"}[*t.Reachable]
	}
	switch t.Verdict {
	case sim.Accept:
		paint := s.good
		if t.Reachable != nil && !*t.Reachable {
			paint = s.warn
		}
		return paint("Let through, " + answered + ".")
	case sim.Drop:
		return s.bad("Dropped.")
	case sim.Reject:
		return s.bad("Rejected.")
	}
	return s.warn("Not known.")
}

func upperFirst(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func showStep(w io.Writer, s style, step sim.Step, all bool) {
	if step.Chain == "" {
		fmt.Fprintf(w, "  %s\n", step.Text)
		showRewriting(w, s, "    ", step.Before, step.After)
		return
	}
	fmt.Fprintf(w, "  %s  %s %s (%s%d)%s\n", s.faint(fmt.Sprintf("%-11s", step.Hook)), step.Table, step.Chain, dialectWord(step.Dialect), step.Priority,
		": "+paintedVerdict(s, step.Verdict))
	for i, r := range step.Rules {
		switch left := len(step.Rules) - 2*mostShown; {
		case all || left <= 0 || i < mostShown || i >= len(step.Rules)-mostShown:
			showRule(w, s, r)
		case i == mostShown:
			fmt.Fprintf(w, "    %s\n", s.faint(fmt.Sprintf("… %s in between (--verbose lists them)", count(left, "rule"))))
		}
	}
}

// mostShown is how many rules of a base chain are shown from its beginning, and how many from its end; deepest is how many jumps
// a line is moved in for at most.
const (
	mostShown = 50
	deepest   = 16
)

// dialectWord names the keeper of a table where that isn't nft.
func dialectWord(dialect string) string {
	if dialect == "nft" {
		return ""
	}
	return dialect + ", "
}

func paintedVerdict(s style, verdict string) string {
	switch {
	case strings.HasSuffix(verdict, "drop") || verdict == "reject":
		return s.bad(verdict)
	case verdict == "accept":
		return s.good(verdict)
	}
	return verdict
}

func showRule(w io.Writer, s style, r sim.RuleStep) {
	indent := strings.Repeat("  ", min(r.Depth, deepest))
	mark := map[string]string{"yes": s.good("✓"), "no": s.faint("·"), "unknown": s.warn("?")}[r.Matched]
	text := r.Text
	if r.Comment != "" {
		text += "  # " + r.Comment
	}
	if r.Matched == "no" {
		text = s.faint(text)
	}
	fmt.Fprintf(w, "    %s%s %s %d: %s\n", indent, mark, r.Chain, r.Rule, text)
	switch {
	case r.Failed != "":
		fmt.Fprintf(w, "      %s  %s\n", indent, s.faint(r.Failed))
	case r.Did != "":
		fmt.Fprintf(w, "      %s  → %s\n", indent, paintedVerdict(s, r.Did))
	}
	showRewriting(w, s, "      "+indent+"  ", r.Before, r.After)
}

func showRewriting(w io.Writer, s style, indent, before, after string) {
	if before != after {
		fmt.Fprintf(w, "%s%s  →  %s\n", indent, before, s.strong(after))
	}
}
