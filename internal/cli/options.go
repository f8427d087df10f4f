package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/units"
)

// Where things are unless a flag or the environment says otherwise.
const (
	defaultPolicy   = "/etc/quaywall/policy.yaml"
	defaultStateDir = "/var/lib/quaywall"
	defaultRunDir   = "/run/quaywall"
)

// options are the global flags.
type options struct {
	backend     string
	policy      string
	policyGiven bool // by flag or environment; without, a policy file that is not there means the built-in default
	dockerHost  string
	stateDir    string
	runDir      string
	verbose     bool
	json        bool
}

// register adds the global flags. Each path can be set by the environment as well, so that several quaywalls can live
// in the network namespaces of one machine.
func (o *options) register(root *cobra.Command, getenv func(string) string) {
	flags := root.PersistentFlags()
	env := func(name, other string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return other
	}
	o.policyGiven = getenv("QUAYWALL_POLICY") != ""
	flags.StringVar(&o.backend, "backend", env("QUAYWALL_BACKEND", "auto"), "how rules get into the kernel: `auto|nft|iptables`")
	flags.StringVar(&o.policy, "policy", env("QUAYWALL_POLICY", defaultPolicy), "the policy `FILE`")
	flags.StringVar(&o.dockerHost, "docker-host", "", "`URL` of Docker's API (default: as the docker program finds it)")
	flags.StringVar(&o.stateDir, "state-dir", env("QUAYWALL_STATE_DIR", defaultStateDir), "`DIR` of the last good policy and of a pending confirmation")
	flags.StringVar(&o.runDir, "run-dir", env("QUAYWALL_RUN_DIR", defaultRunDir), "`DIR` of what lives until the next boot")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "tell each step on standard error")
	flags.BoolVar(&o.json, "json", false, "answer in JSON, errors too")
	completes(root, "backend", cobra.FixedCompletions(backends(), cobra.ShellCompDirectiveNoFileComp))
	completes(root, "docker-host", cobra.NoFileCompletions)
}

// completes tells the shells' completions what the values of a flag are.
func completes(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	// An error would say that there is no such flag, or that it is registered twice: TestCompletion would notice.
	_ = cmd.RegisterFlagCompletionFunc(flag, f)
}

// backends are the values of --backend.
func backends() []string { return []string{"auto", "nft", "iptables"} }

// check judges the global flags once they are read.
func (o *options) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("policy") {
		o.policyGiven = true
	}
	if !slices.Contains(backends(), o.backend) {
		return misusedf(cmd, "--backend %s: use %s", quoted(o.backend), strings.Join(backends(), ", "))
	}
	return nil
}

// tell has units call the program with the global flags that were given. What they name must not depend on the folder that
// this program was started in.
func (o *options) tell(cmd *cobra.Command, to *units.Options) error {
	for _, f := range []struct {
		name, value string
		is          *[]string // what the folder is to the units; nil where the flag names none
	}{
		{"policy", o.policy, &to.Reads}, {"backend", o.backend, nil}, {"docker-host", o.dockerHost, nil},
		{"state-dir", o.stateDir, &to.Writes}, {"run-dir", o.runDir, &to.Writes},
	} {
		if !cmd.Flags().Changed(f.name) {
			continue
		}
		if f.is != nil {
			path, err := filepath.Abs(f.value)
			if err != nil {
				return fmt.Errorf("--%s: %w", f.name, err)
			}
			f.value = path
			*f.is = append(*f.is, path)
		}
		to.Flags = append(to.Flags, "--"+f.name+"="+f.value)
	}
	return nil
}

// takePolicy lets a FILE argument stand for --policy.
func (o *options) takePolicy(args []string) {
	if len(args) > 0 {
		o.policy, o.policyGiven = args[0], true
	}
}

// wantsJSON finds --json in a command line that could not be read.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

// Environment explains the variables that are read, for the man page.
const Environment = `  QUAYWALL_POLICY     the policy file, as --policy
  QUAYWALL_BACKEND    the backend, as --backend
  QUAYWALL_STATE_DIR  as --state-dir
  QUAYWALL_RUN_DIR    as --run-dir
  DOCKER_HOST         Docker's API, as --docker-host
  NO_COLOR            any value turns colour off
`

// Files explains where things are, for the man page.
const Files = `  /etc/quaywall/policy.yaml  the policy
  /var/lib/quaywall          the last good policy, a pending confirmation
  /run/quaywall              what lives until the next boot
`
