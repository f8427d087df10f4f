// Package cli is the command line: one file for each command, and what they share.
//
//	status := cli.Run(ctx, cli.Env{Stdout: os.Stdout, …}, []string{"check", "policy.yaml"})
//
// An answer goes to standard output, for a person or, with --json, as one JSON object; errors, warnings and progress go
// to standard error. Nothing is decided here: a command reads its flags, asks the packages below, and shows what they
// say.
//
// Be aware: Run works on the network namespace that the process is in. It neither exits nor panics, and a command that
// was told to stop by its context leaves the old or the new policy in force, never half of one.
package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/diag"
	"quaywall/internal/terminal"
)

// Env is the world outside of the process.
type Env struct {
	Version              string
	Program              string // how the program was called; "" is quaywall
	Stdin                io.Reader
	Stdout, Stderr       io.Writer
	StdoutTTY, StderrTTY bool               // a person is looking
	Terminal             *terminal.Terminal // where that person can answer; nil for nowhere
	Getenv               func(string) string
}

// Run runs a command line (without the program's name) and gives the exit status of the process.
func Run(ctx context.Context, env Env, args []string) int {
	a := newApp(env)
	root := a.root()
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	// Cobra may have failed before it read the flags, and the error has to come out as they ask.
	a.opts.json = a.opts.json || wantsJSON(args)
	return a.report(root.ExecuteContext(ctx))
}

// Command is the tree of commands without a world around it, for whoever documents it.
func Command() *cobra.Command {
	return newApp(Env{Getenv: func(string) string { return "" }}).root()
}

// app is one run of the program.
type app struct {
	env  Env
	opts options
}

func newApp(env Env) *app {
	return &app{env: env}
}

const rootLong = `quaywall is the firewall of a Linux host that runs Docker. One policy file says who may reach what; a rule names the port
that a client dials, and covers a daemon of the host, a published port of a container and docker-proxy alike, over IPv4
and IPv6. Docker's own rules are left as they are.`

// usageTemplate is what --help and a mistake print below the description.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND [flags]{{else}}{{.UseLine}}{{end}}
{{if .HasAvailableSubCommands}}
Commands:
{{- range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasExample}}
Examples:
{{.Example}}
{{end}}
` + ExitStatus

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "quaywall",
		Short:             "the firewall of a Linux host that runs Docker",
		Version:           a.env.Version + " ", // --version works, also where none is known
		Long:              rootLong,
		Example:           lines("quaywall init --minimal", "quaywall check", "quaywall apply --confirm 60s", "quaywall status"),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              noCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.opts.check(cmd) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.opts.register(root, a.env.Getenv)
	root.SetHelpCommand(helpCommand())
	root.SetVersionTemplate(a.version().String() + "\n")
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misused(cmd, err) })
	root.AddCommand(a.initCommand(), a.checkCommand(), a.fmtCommand(), a.planCommand(), a.applyCommand(), a.confirmCommand(),
		a.rollbackCommand(), a.stopCommand(), a.statusCommand(), a.logCommand(), a.traceCommand(), a.explainCommand(), a.snapshotCommand(), a.auditCommand(),
		a.diffCommand(), a.doctorCommand(), a.agentCommand(), a.servicesCommand(), a.versionCommand(),
		a.completionCommand(), a.installCommand(), a.uninstallCommand(), a.undoCommand(), a.unitStopCommand())
	for _, c := range root.Commands() {
		if !strings.Contains(c.Use, "FILE") && len(c.ValidArgs) == 0 {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return root
}

// helpCommand is what many type by habit for --help.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "tell about a command",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noCommand(cmd.Root(), args)
			}
			return found.Help()
		},
	}
}

// program is how this program was called, with the folders that flags named: without them it would be about another
// quaywall.
func (a *app) program() string {
	return cmp.Or(a.env.Program, "quaywall") +
		a.repeated("state-dir", a.opts.stateDir, defaultStateDir, "QUAYWALL_STATE_DIR") +
		a.repeated("run-dir", a.opts.runDir, defaultRunDir, "QUAYWALL_RUN_DIR")
}

// repeated is a global flag as it has to be given again, "" where neither a flag nor anything else but the environment did.
func (a *app) repeated(name, value, usual, variable string) string {
	if value == "" || value == usual || value == a.env.Getenv(variable) {
		return ""
	}
	return " --" + name + " " + value
}

// noCommand refuses a word that is no command; a near miss is named.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := "there is no command " + quoted(args[0])
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if near := diag.Nearest(args[0], names); near != "" {
		text += "; did you mean " + near + "?"
	}
	return misused(cmd, errors.New(text))
}
