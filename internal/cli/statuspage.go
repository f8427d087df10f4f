package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"quaywall/internal/agent"
	"quaywall/internal/apply"
	"quaywall/internal/policy"
)

// showStatus writes the page: what matters most first, and all of it on one screen.
func (a *app) showStatus(w io.Writer, s style, st *StatusAnswer) {
	now := time.Now()
	rows := facts(s, "policy", headline(s, st.Status, now), "waiting", a.pendingLine(s, st.Pending), "taken back", undoneLine(st.Status),
		"drift", driftLine(s, st.Status), "backend", backendLine(st.Status), "docker", dockerSince(s, st))
	rows = append(rows, facts(s, agentLines(s, st, now)...)...)
	rows = append(rows, facts(s, repairLines(st.Agent.Repairs, now)...)...)
	rows = append(rows, facts(s, "ended", lastEndedLine(st.Status), "packets", packetsLine(s, st),
		"history", historyLine(a.program(), st))...)
	table(w, rows)
	most := driftShown
	if a.opts.verbose {
		most = math.MaxInt
	}
	if st.Drift != nil {
		writeDifference(w, s, *st.Drift, most)
	}
	a.showCounters(w, s, st.Status)
	if a.opts.verbose {
		showSets(w, s, st.Status)
	}
}

// driftShown is how much of a drift is shown without --verbose.
const driftShown = 6

func headline(s style, st *apply.Status, now time.Time) string {
	name := apply.PolicyName(st.File, st.Hash)
	switch {
	case st.Observed:
		return fmt.Sprintf("%s: %s, since %s", name, observedOnly(s), since(st.Since, now))
	case !st.InForce && st.Since.IsZero():
		return s.warn("none in force")
	case !st.InForce:
		return name + ": " + s.bad("not in force")
	case st.Since.IsZero():
		return s.good("in force") + ", but it is not recorded which"
	}
	return fmt.Sprintf("%s: %s since %s", name, s.good("in force"), since(st.Since, now))
}

// since is a moment and how long that is ago.
func since(t, now time.Time) string {
	return fmt.Sprintf("%s (%s)", t.Local().Format(time.DateTime), span(now.Sub(t)))
}

// span is a time as a person says it, by its two largest units.
func span(d time.Duration) string {
	seconds, minutes, hours := int(d/time.Second), int(d/time.Minute), int(d/time.Hour)
	switch {
	case d < 0: // somebody set the clock back
		return "in the future"
	case seconds < 60:
		return fmt.Sprintf("%d s", seconds)
	case minutes < 60:
		return fmt.Sprintf("%d min", minutes)
	case hours < 24:
		return fmt.Sprintf("%d h %d min", hours, minutes%60)
	}
	return fmt.Sprintf("%s %d h", count(hours/24, "day"), hours%24)
}

func (a *app) pendingLine(s style, p *apply.PendingStatus) string {
	switch {
	case p == nil:
		return ""
	case p.Overdue:
		return s.bad("Not confirmed, and its time is over.") + " The process that takes it back is at work, or gone: the agent or the next apply takes it back then"
	}
	return fmt.Sprintf("%s %d s left: at %s %s, unless you run %s confirm", s.warn("Not confirmed yet."), p.SecsLeft,
		p.Until.Local().Format(time.TimeOnly), goesBack(p), a.program())
}

func undoneLine(st *apply.Status) string {
	if st.Undone == nil {
		return ""
	}
	u := st.Undone
	return fmt.Sprintf("%s at %s: %s", apply.PolicyName(u.File, u.Hash), u.When.Local().Format(time.DateTime), u.Why)
}

func driftLine(s style, st *apply.Status) string {
	switch {
	case len(st.Others) > 0:
		return s.bad("more than one backend holds rules of quaywall's") + "; quaywall apply mends it"
	case st.Drift != nil:
		return s.bad("the kernel does not hold what was put into it") + "; quaywall apply mends it"
	}
	return "none"
}

// backendLine names the backend and sums the sets up.
func backendLine(st *apply.Status) string {
	if len(st.Sets) == 0 {
		return st.Backend
	}
	elements := 0
	for _, set := range st.Sets {
		elements += set.Elements
	}
	return fmt.Sprintf("%s, %s with %s in all", st.Backend, count(len(st.Sets), "set"), count(elements, "element"))
}

// dockerSince is Docker as it was just seen, and since when, if it changed while the agent looked.
func dockerSince(s style, st *StatusAnswer) string {
	d := st.Docker
	line := dockerLine(d)
	switch {
	case d.Reachable:
		line += ": " + s.good("answers")
	case d.Problem != "":
		line = s.warn(line)
	}
	if seen := st.Agent.Docker; st.Agent.Running && seen.Docker == d && seen.Since.Sub(st.Agent.Since) > time.Minute {
		line += ", since " + seen.Since.Local().Format(time.DateTime)
	}
	return line
}

// agentLines are pairs for facts: whether the agent runs, what it follows, and what it can't do.
func agentLines(s style, st *StatusAnswer, now time.Time) []string {
	if !st.Agent.Running {
		return []string{"agent", s.warn("does not run") + ": what others change is not put back; systemctl start quaywall-agent, or quaywall agent"}
	}
	line := fmt.Sprintf("%s since %s, process %d", s.good("runs"), since(st.Agent.Since, now), st.Agent.PID)
	if !st.Agent.Ready {
		line += ", just begun"
	}
	var follows, deaf []string
	for _, f := range st.Agent.Follows {
		switch {
		case f.Problem == "":
			follows = append(follows, f.Name)
		case f.Name != "Docker" || st.Docker.Reachable: // else its own line says why
			deaf = append(deaf, f.Name+" ("+f.Problem+")")
		}
	}
	pairs := []string{"agent", line}
	if len(follows) > 0 {
		pairs = append(pairs, "", "follows "+strings.Join(follows, ", "))
	}
	for _, name := range deaf {
		pairs = append(pairs, "", s.warn("does not hear of "+name))
	}
	for _, trouble := range st.Agent.Troubles {
		pairs = append(pairs, "", s.warn(trouble))
	}
	return pairs
}

// repairLines are pairs for facts: the last repair of quaywall's rules and of Docker's, and how many there were lately.
func repairLines(all []agent.Repair, now time.Time) []string {
	var pairs []string
	head := "repaired"
	add := func(text string) { pairs, head = append(pairs, head, text), "" }
	for _, whose := range []string{"quaywall", "Docker"} {
		if i := slices.IndexFunc(all, func(r agent.Repair) bool { return r.Rules == whose }); i >= 0 {
			add(repairLine(all[i], now))
		}
	}
	lately := 0
	for _, r := range all {
		if now.Sub(r.When) < 24*time.Hour {
			lately++
		}
	}
	switch {
	case lately == agent.ReportedRepairs:
		add(fmt.Sprintf("%d repairs or more in the last 24 hours", lately))
	case lately > len(pairs)/2:
		add(fmt.Sprintf("%d repairs in the last 24 hours", lately))
	}
	return pairs
}

// repairLine tells of a repair: when, what, how long it took, and who made it necessary.
func repairLine(r agent.Repair, now time.Time) string {
	line := fmt.Sprintf("%s, %s ago: %s of %s's missing%s; mended in %v", r.When.Local().Format(time.DateTime), span(now.Sub(r.When)),
		count(r.Missing+r.Mended, "rule"), r.Rules, tooMany(r.Added+r.TakenOut), r.Took.Round(time.Millisecond))
	if r.By != "" {
		line += ", after " + r.By
	}
	return line
}

func tooMany(rules int) string {
	if rules == 0 {
		return ""
	}
	return fmt.Sprintf(", %d too many", rules)
}

// lastEndedLine tells which connections the policy in force ended.
func lastEndedLine(st *apply.Status) string {
	e := st.Ended
	if e == nil || !st.InForce || e.Hash != st.Hash {
		return ""
	}
	parts := make([]string, len(e.Lines))
	for i, l := range e.Lines {
		parts[i] = fmt.Sprintf("%s %d", cmp.Or(l.Line, "what always holds"), l.Connections)
	}
	return fmt.Sprintf("%s that the policy denies, at %s (%s)", count(e.Connections, "connection"), e.When.Local().Format(time.DateTime),
		strings.Join(parts, ", "))
}

// packetsLine sums up what the lines of the policy decided on, "" where it is not recorded what they do. The kernel counts
// from when the rules were put into it last.
func packetsLine(s style, st *StatusAnswer) string {
	sums := map[string]uint64{}
	for _, c := range st.Counters {
		sums[c.Verb] += c.Packets
	}
	if _, unknown := sums[""]; unknown || len(sums) == 0 {
		return ""
	}
	denied, allowed, done := sums["deny"]+sums["reject"], sums["allow"], " denied"
	if st.Observed {
		denied, done = sums[policy.Would+"deny"]+sums[policy.Would+"reject"], " would have been denied"
	}
	line := s.bad(fmt.Sprint(denied)+done) + ", " + s.good(fmt.Sprint(allowed)+" let in")
	for _, verbs := range slices.Sorted(maps.Keys(sums)) {
		if n := sums[verbs]; n > 0 && strings.Contains(verbs, ", ") {
			line += fmt.Sprintf(", %d by lines that %s", n, strings.ReplaceAll(verbs, ", ", " and "))
		}
	}
	from := st.Changed
	if i := slices.IndexFunc(st.Agent.Repairs, isOwn); i >= 0 && st.Agent.Repairs[i].When.After(from) {
		from = st.Agent.Repairs[i].When
	}
	return line + ", since " + from.Local().Format(time.DateTime)
}

func isOwn(r agent.Repair) bool { return r.Rules == "quaywall" }

// historyLine says where what was before can be seen.
func historyLine(program string, st *StatusAnswer) string {
	var all []string
	if !st.Since.IsZero() {
		all = append(all, program+" rollback --list (policies)")
	}
	if st.Agent.Running || len(st.Agent.Repairs) > 0 {
		all = append(all, program+" log (denied packets)", "journalctl -u quaywall-agent")
	}
	return strings.Join(all, ", ")
}

// busiest is how many lines of the policy are shown.
const busiest = 8

// showCounters lists the lines of the policy that decided on most packets, with their text as it was put in force; with
// --verbose all, in their order.
func (a *app) showCounters(w io.Writer, s style, st *apply.Status) {
	if len(st.Counters) == 0 {
		return
	}
	shown := slices.Clone(st.Counters)
	if !a.opts.verbose {
		shown = slices.DeleteFunc(shown, func(c apply.Counter) bool { return c.Packets == 0 })
		slices.SortStableFunc(shown, busier)
		shown = shown[:min(len(shown), busiest)]
	}
	rows := [][]cell{{{"PACKETS", s.faint}, {"BYTES", s.faint}, {"VERDICT", s.faint}, {"LINE", s.faint}, {"", nil}}}
	for _, c := range shown {
		row := plain(strconv.FormatUint(c.Packets, 10), strconv.FormatUint(c.Bytes, 10), c.Verb, c.Line, lineText(st.Sources, c.Line))
		row[2].paint, row[4].paint = verdictPaint(s, c.Verb), s.faint
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	more := len(st.Counters) - len(shown)
	switch {
	case len(shown) == 0:
		fmt.Fprintln(w, s.faint("  no line of the policy has decided on a packet since"))
	case more > 0:
		rows = append(rows, []cell{{"…", s.faint}, {}, {}, {count(more, "line") + " more", s.faint}, {a.program() + " status --verbose", s.faint}})
	}
	if len(shown) > 0 {
		table(w, rows)
	}
}

// busier orders lines by their packets; those first that would deny, since whoever observes a policy looks for them.
func busier(a, b apply.Counter) int {
	rank := func(c apply.Counter) int {
		if strings.Contains(c.Verb, policy.Would) {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Packets, a.Packets))
}

func verdictPaint(s style, verb string) func(string) string {
	switch verb {
	case "allow":
		return s.good
	case "deny", "reject", policy.Would + "deny", policy.Would + "reject":
		return s.bad
	}
	return nil
}
