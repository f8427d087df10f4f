package scenario

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"quaywall/internal/policy"
	"quaywall/internal/testkit/firewall"
	"quaywall/internal/testkit/lab"
)

// TestMain lets more tests run side by side than there are processors, unless it was told how many: they mostly wait for
// silence.
func TestMain(m *testing.M) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		if err := flag.Set("test.parallel", "4"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(lab.Main(m, "quaywall/cmd/quaywall"))
}

// variant is one way in which quaywall's rules get into a kernel.
type variant struct {
	name    string
	backend string // for --backend
	legacy  bool   // Docker uses iptables-legacy, and quaywall's iptables backend follows it
}

var variants = []variant{
	{name: "nft", backend: "nft"}, {name: "iptables-nft", backend: "iptables"}, {name: "iptables-legacy", backend: "iptables", legacy: true},
}

// What the evaluator says where no line of the policy decides.
const (
	direct = "a container's own address is dialled from outside"
	within = "the host talks to itself"
)

// onEach runs a test once for each variant, side by side.
func onEach(t *testing.T, test func(t *testing.T, v variant)) {
	t.Parallel()
	for _, v := range backends() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

// onEachProxy also runs it with userland-proxy on and off.
func onEachProxy(t *testing.T, test func(t *testing.T, v variant, e lab.Engine)) {
	onEach(t, func(t *testing.T, v variant) {
		for _, off := range []bool{false, true} {
			t.Run(fmt.Sprintf("proxy=%v", !off), func(t *testing.T) {
				t.Parallel()
				test(t, v, lab.Engine{NoProxy: off})
			})
			if *whole {
				t.Run(fmt.Sprintf("proxy=%v,ipv6=true", !off), func(t *testing.T) {
					t.Parallel()
					test(t, v, lab.Engine{NoProxy: off, IPv6: true})
				})
			}
		}
	})
}

// world is a lab with one host to be judged.
type world struct {
	*testing.T
	lab                           *lab.Lab
	host, outside, lan, neighbour *lab.Node
	variant                       variant
	fw                            *firewall.Firewall
	found                         lab.Rules // when nothing of quaywall's was there yet
}

// oneHost is a world with a host and three clients; the engine's iptables follow the variant.
func oneHost(t *testing.T, v variant, e lab.Engine, serve ...string) *world {
	t.Helper()
	topology := lab.OneHost(chosen(v, e))
	topology.Nodes[0].Forward = dockerByNft() // without it that backend does not start
	topology.Nodes[0].Serve = append([]string{"22/tcp"}, serve...)
	return newWorld(t, v, topology)
}

// bareHost is a world whose host has no Docker, where nothing has used connection tracking.
func bareHost(t *testing.T, v variant, serve ...string) *world {
	t.Helper()
	topology := lab.OneHost(lab.Engine{})
	topology.Nodes[0].Engine = nil
	topology.Nodes[0].Serve = append([]string{"22/tcp"}, serve...)
	w := newWorld(t, v, topology)
	return w
}

func newWorld(t *testing.T, v variant, topology lab.Topology) *world {
	t.Helper()
	l := lab.Start(t, topology)
	host := l.Node("host")
	fw, err := firewall.New(t.Context(), host, v.backend)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, variant: v, lab: l, host: host, outside: l.Node("outside"), lan: l.Node("lan"), neighbour: l.Node("neighbour"), fw: fw}
	w.mark()
	return w
}

// run starts a container.
func (w *world) run(c lab.Container) *lab.Node {
	w.Helper()
	node, err := w.host.Run(w.Context(), c)
	if err != nil {
		w.Fatalf("%v\n%s", err, w.host.EngineLog(20))
	}
	return node
}

func (w *world) network(n lab.Network) {
	w.Helper()
	if err := w.host.AddNetwork(w.Context(), n); err != nil {
		w.Fatal(err)
	}
}

// mark notes the rules as they are: those that have to stay.
func (w *world) mark() {
	w.Helper()
	w.found = w.rules()
}

func (w *world) rules() lab.Rules {
	w.Helper()
	r, err := w.host.Rules(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// apply puts a policy in force and sees that everybody else's rules stay as they were.
func (w *world) apply(text string, flags ...string) firewall.Ran {
	w.Helper()
	ran, err := w.fw.Apply(w.Context(), text, flags...)
	w.expect(ran, err, 0)
	w.unchanged("apply")
	return ran
}

// stop takes quaywall out, and sees that the host is as it was.
func (w *world) stop() {
	w.Helper()
	ran, err := w.fw.Run(w.Context(), "stop")
	w.expect(ran, err, 0)
	w.gone("stop")
}

// quaywall runs a command that has to end with a status.
func (w *world) quaywall(code int, args ...string) firewall.Ran {
	w.Helper()
	ran, err := w.fw.Run(w.Context(), args...)
	w.expect(ran, err, code)
	return ran
}

func (w *world) expect(ran firewall.Ran, err error, code int) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	if ran.Code != code {
		w.Fatalf("quaywall ended with %d, want %d:\n%s%s", ran.Code, code, ran.Stdout, ran.Stderr)
	}
}

// unchanged sees that all rules but quaywall's are what they were, to the byte, counters aside.
func (w *world) unchanged(after string) {
	w.Helper()
	if diff := w.rules().Foreign().Diff(w.found.Foreign()); diff != "" {
		w.Fatalf("after %s, rules that are not quaywall's differ:\n%s", after, diff)
	}
}

// gone sees that not a trace of quaywall is left. With the iptables backends, empty tables and built-in chains count as
// nothing.
func (w *world) gone(after string) {
	w.Helper()
	is, was := w.rules(), w.found
	if w.variant.backend == "iptables" {
		is, was = is.WithoutEmpty(), was.WithoutEmpty()
	}
	if diff := is.Diff(was); diff != "" {
		w.Fatalf("after %s, the rules are not as they were found:\n%s", after, diff)
	}
}

// check tries a table of rows. With a policy in force, Why has to be the reason that the evaluator gives: the policy
// line, "default", or its sentence where no line decides.
func (w *world) check(rows ...lab.Row) {
	w.Helper()
	w.lab.Check(w.T, w.reasons(rows...))
}

// reasons compares a table with what the evaluator says, and gives it back.
func (w *world) reasons(rows ...lab.Row) []lab.Row {
	w.Helper()
	decisions, err := w.fw.Decide(w.Context(), rows)
	if err != nil {
		w.Fatal(err)
	}
	for i, d := range decisions {
		reason := d.Origin
		if reason == "" {
			reason = d.Why
		}
		if reason != rows[i].Why {
			w.Errorf("%v: the evaluator says %s because of %q (%s), the table because of %q", rows[i], d.Verb, reason, d.Why, rows[i].Why)
		}
		if allowed := d.Verb == policy.Allow; !allowed && rows[i].Want == lab.Open {
			w.Errorf("%v: the evaluator denies it (%s), the table wants it open", rows[i], d.Why)
		}
		if d.Verb == policy.Deny && rows[i].Want != lab.Denied {
			w.Errorf("%v: the evaluator denies it (%s), the table wants %s", rows[i], d.Why, rows[i].Want)
		}
	}
	return rows
}

// try tries a table with no policy in force: Why is Docker's doing.
func (w *world) try(rows ...lab.Row) {
	w.Helper()
	w.lab.Check(w.T, rows)
}

// leaks tries rows that Docker leaves open up to version 27 and closes by itself since 28: a test that closes them proves
// more with an older one.
func (w *world) leaks(rows ...lab.Row) {
	w.Helper()
	if w.major() >= 28 {
		for i := range rows {
			rows[i].Want = lab.Denied
		}
	}
	w.try(rows...)
}

// major is the first number of the engine's version.
func (w *world) major() int {
	w.Helper()
	major, err := w.host.EngineMajor(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return major
}

// open and denied and rejected are rows.
func open(from *lab.Node, to, server, why string) lab.Row {
	return lab.Row{From: from, To: to, Want: lab.Open, Server: server, Why: why}
}

func denied(from *lab.Node, to, why string) lab.Row {
	return lab.Row{From: from, To: to, Want: lab.Denied, Why: why}
}

func rejected(from *lab.Node, to, why string) lab.Row {
	return lab.Row{From: from, To: to, Want: lab.Rejected, Why: why}
}

// by gives rows another protocol.
func by(proto string, rows ...lab.Row) []lab.Row {
	for i := range rows {
		rows[i].Proto = proto
	}
	return rows
}

// lines is a policy with its lines numbered from 1, as the reasons name them.
func lines(text ...string) string {
	return strings.Join(text, "\n") + "\n"
}
