// Package arch has no code, only tests of what the source tree as a whole must keep to: which package may import which,
// that every package is documented, that nothing runs before main.
//
// Be aware: it reads source files and compiles nothing. A new package has to be put into the table of layers; the tests
// fail until it is.
package arch

// layer is a height: a package imports only packages below its own layer, or of its own layer where no row of
// strangers forbids it.
type layer int

const (
	leaf     layer = iota // knows nothing but the standard library
	data                  // typed facts: what a person wants, what a host has, what rules there are
	pure                  // functions of data: no files, no clock, no kernel
	effects               // one small package for each thing outside of the process
	steering              // puts pure and effects into an order
	edge                  // speaks to a person
	tests                 // may import all of it, and nothing but tests imports it
)

func (l layer) String() string {
	return [...]string{"leaf", "data", "pure", "effects", "steering", "edge", "tests"}[l]
}

// layers places every package, by its path below quaywall/; a path that ends in / places all below it.
var layers = map[string]layer{
	"internal/bdd":    leaf,
	"internal/diag":   leaf,
	"internal/netset": leaf,
	"internal/rate":   leaf,
	"internal/packet": leaf,

	"internal/policy":    data,
	"internal/policy/":   data,
	"internal/inventory": data,
	"internal/ruleset":   data,
	"internal/netfilter": data,
	"internal/snapshot":  data,

	"internal/compile":  pure,
	"internal/eval":     pure,
	"internal/render/":  pure,
	"internal/exposure": pure,
	"internal/recheck":  pure,
	"internal/parse/":   pure,
	"internal/sim":      pure,
	"internal/analyze":  pure,
	"internal/doctor":   pure,

	"internal/sysexec":            effects,
	"internal/files":              effects,
	"internal/lock":               effects,
	"internal/scratch":            effects,
	"internal/store":              effects,
	"internal/terminal":           effects,
	"internal/nlsock":             effects,
	"internal/collect":            effects,
	"internal/units":              effects,
	"internal/kernel":             effects,
	"internal/kernel/":            effects,
	"internal/kernel/conformance": tests,
	"internal/watch":              effects,
	"internal/watch/":             effects,

	"internal/guard":  steering,
	"internal/apply":  steering,
	"internal/agent":  steering,
	"internal/denied": steering,
	"internal/repair": steering,
	"internal/trace":  steering,

	"internal/cli":    edge,
	"internal/docgen": edge,
	"cmd/quaywall":    edge,

	"internal/testkit/": tests,
}

// stranger is an import that the layers would allow and that is forbidden all the same.
type stranger struct {
	from, to string // paths as in layers
	why      string
}

var strangers = []stranger{
	{"internal/policy", "internal/inventory", "a policy is checked on a laptop that has none of the host's interfaces"},
	{"internal/policy", "internal/ruleset", "only the compiler knows both what is wanted and how netfilter says it"},
	{"internal/inventory", "internal/policy", "what a host has does not depend on what somebody wants of it"},
	{"internal/ruleset", "internal/policy", "rules speak netfilter and nothing else, so that rules of others fit in as well"},
	{"internal/ruleset", "internal/inventory", "rules speak netfilter and nothing else"},
	{"internal/eval", "internal/compile", "the evaluator is what the compiler is judged against: they must not share a mistake"},
	{"internal/eval", "internal/ruleset", "the evaluator is what the compiler is judged against: they must not share a mistake"},
	{"internal/compile", "internal/eval", "the evaluator is what the compiler is judged against: they must not share a mistake"},
	{"internal/compile", "internal/render/", "the compiler emits one ruleset for all backends"},
	{"internal/render/", "internal/policy", "a renderer that knows the policy would judge for itself"},
	{"internal/render/", "internal/compile", "a renderer takes any ruleset, not just the compiler's"},
	{"internal/render/", "internal/eval", "a renderer that asks the evaluator could not be judged against it"},
	{"internal/render/nft", "internal/render/ipt", "the renderers are judged against each other: they must not share a mistake"},
	{"internal/render/ipt", "internal/render/nft", "the renderers are judged against each other: they must not share a mistake"},
	{"internal/sim", "internal/render/", "the simulator judges what the renderers made of the rules: they must not share a mistake"},
	{"internal/sim", "internal/compile", "the simulator judges rules, whoever made them"},
	{"internal/sim", "internal/eval", "both are asked about the same packets: they must not share a mistake"},
	{"internal/sim", "internal/analyze", "one packet and sets of packets are judged against each other"},
	{"internal/analyze", "internal/sim", "one packet and sets of packets are judged against each other"},
	{"internal/analyze", "internal/render/", "the analyser judges what the renderers made of the rules: they must not share a mistake"},
	{"internal/parse/", "internal/render/", "a parser that knew the renderers would read what they meant"},
	{"internal/kernel/nft", "internal/kernel/ipt", "a backend works without the other one's tools"},
	{"internal/kernel/ipt", "internal/kernel/nft", "a backend works without the other one's tools"},
	{"internal/kernel/", "internal/compile", "a backend commits what it is given"},
	{"internal/watch/", "internal/kernel", "what a host has is found out without touching its rules"},
}

// library is an import from outside of the module that has one home.
type library struct {
	prefix string   // an import path, and all below it
	homes  []string // paths as in layers
	why    string
}

var libraries = []library{
	{"os/exec", []string{"internal/sysexec", "internal/testkit/"},
		"one place starts programs, so that locale, namespaces and errors are treated alike"},
	{"github.com/moby/moby/client", []string{"internal/watch/docker", "internal/testkit/"},
		"Docker's types change by version; the rest sees an inventory"},
	{"github.com/moby/moby/api", []string{"internal/watch/docker", "internal/testkit/"},
		"Docker's types change by version; the rest sees an inventory"},
	{"github.com/spf13", []string{"internal/cli", "internal/docgen"},
		"flags and commands are the edge's"},
	{"github.com/coreos/go-systemd", []string{"internal/cli"},
		"who started the program is known at its edge"},
	{"go.yaml.in/yaml", []string{"internal/policy/tree"},
		"one place reads YAML: elsewhere positions would be lost"},
	{"github.com/google/nftables", []string{"internal/render/nft", "internal/kernel/nft", "internal/kernel/ipt", "internal/testkit/"},
		"the backend's own language stays in the backend; kernel/ipt lists iptables-nft's tables, which are nf_tables ones"},
}

// impure are imports that leaf, data and pure packages may not have.
var impure = map[string]string{
	"os":                           "no files, no environment: whoever calls reads and writes",
	"os/exec":                      "no programs",
	"os/signal":                    "no process",
	"io/ioutil":                    "no files",
	"log":                          "nothing is told behind the caller's back",
	"log/slog":                     "nothing is told behind the caller's back",
	"net":                          "no sockets; addresses are of net/netip",
	"net/http":                     "no sockets",
	"syscall":                      "no kernel",
	"golang.org/x/sys/unix":        "no kernel",
	"github.com/vishvananda":       "no kernel",
	"github.com/mdlayher":          "no kernel",
	"github.com/moby":              "no Docker",
	"math/rand":                    "the same input gives the same output",
	"math/rand/v2":                 "the same input gives the same output",
	"github.com/google/nftables":   "no kernel",
	"github.com/fsnotify":          "no files",
	"github.com/coreos/go-systemd": "no processes",
}

// allowedImpure are the exceptions from impure, by package and import, with the reason.
var allowedImpure = map[[2]string]string{
	{"internal/render/nft", "github.com/google/nftables"}:          "its types are the messages' form; no connection is opened",
	{"internal/render/nft", "github.com/google/nftables/expr"}:     "its types are the messages' form",
	{"internal/render/nft", "github.com/google/nftables/userdata"}: "the form of comments",
	{"internal/render/nft", "golang.org/x/sys/unix"}:               "constants of the netfilter protocol",
}

// clock are the functions of package time that leaf, data and pure packages may not call.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
