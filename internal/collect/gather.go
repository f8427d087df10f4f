package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/scratch"
	"quaywall/internal/snapshot"
	"quaywall/internal/sysexec"
	"quaywall/internal/watch/docker"
	"quaywall/internal/watch/nftlist"
)

// Options say what a snapshot is taken of.
type Options struct {
	DockerHost string // of Docker's API; "" for Docker's own rules
	Netns      string // another network namespace than this thread's: its path, or "container:NAME"
	ForPeople  bool   // also what is there for reading alone: nft-ruleset.txt, tools.txt
}

// Files are the files of a snapshot by their names.
type Files struct {
	Texts map[string][]byte
	// Reasons say why a file that could be there isn't: "nft is not installed".
	Reasons map[string]string
}

// Here takes a snapshot of this host. It writes nothing.
func Here(ctx context.Context, o Options) (*snapshot.Host, error) {
	files, err := Gather(ctx, o)
	if err != nil {
		return nil, err
	}
	return files.Read()
}

// Read is Read of files that are not in a folder.
func (f Files) Read() (*snapshot.Host, error) {
	r := reader{reason: func(file string) string { return f.Reasons[file] }, file: func(name string) ([]byte, error) {
		if text, ok := f.Texts[name]; ok {
			return text, nil
		}
		return nil, fs.ErrNotExist
	}}
	host, err := r.read()
	if errors.Is(err, ErrNoRules) {
		for _, file := range []string{fileNFT, fileRules4} {
			if why := f.Reasons[file]; why != "" {
				err = fmt.Errorf("reading the rules of this host: %s; quaywall reads them as root, by nft or by iptables-save", why)
			}
		}
	}
	return host, err
}

// Gather takes the files of a snapshot from this host, with the tools that are there. What no tool gives is asked of the
// kernel where that can be done in other ways.
func Gather(ctx context.Context, o Options) (Files, error) {
	path, err := o.Path(ctx)
	if err != nil {
		return Files{}, err
	}
	g := gatherer{ctx: ctx, Files: Files{Texts: map[string][]byte{}, Reasons: map[string]string{}}}
	in, engine := docker.Inspect(ctx, o.DockerHost)
	all := func() error { g.gather(o); return nil }
	if path == "" {
		err = all()
	} else {
		err = scratch.In(path, all)
	}
	if engine.Reachable {
		g.Texts[fileNetworks], g.Texts[fileContainers], g.Texts[fileVersion] = in.Networks, in.Containers, in.Version
	} else {
		why := engine.Problem
		if why == "" {
			why = snapshot.NoDocker
		}
		g.Reasons[fileNetworks], g.Reasons[fileContainers] = why, why
	}
	return g.Files, err
}

// Path is that of the network namespace, "" for this thread's.
func (o Options) Path(ctx context.Context) (string, error) {
	name, ok := strings.CutPrefix(o.Netns, "container:")
	if !ok {
		return o.Netns, nil
	}
	pid, err := docker.PID(ctx, o.DockerHost, name)
	if err != nil {
		return "", fmt.Errorf("finding the network namespace of container %s: %w", name, err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", pid), nil
}

type gatherer struct {
	Files
	ctx context.Context
}

// tool is a file that a program writes, or several one after the other.
type tool struct {
	file     string
	commands []sysexec.Command
	instead  func() ([]byte, error) // without the program; nil for no other way
}

func run(program string, args ...string) sysexec.Command {
	return sysexec.Command{Path: program, Args: args}
}

// gather runs all programs at the same time.
func (g *gatherer) gather(o Options) {
	tools := []tool{
		{fileRules4, []sysexec.Command{run(either("iptables-nft-save", "iptables-save"), "-c")}, nil},
		{fileRules6, []sysexec.Command{run(either("ip6tables-nft-save", "ip6tables-save"), "-c")}, nil},
		{fileLegacy4, []sysexec.Command{run("iptables-legacy-save", "-c")}, nil},
		{fileLegacy6, []sysexec.Command{run("ip6tables-legacy-save", "-c")}, nil},
		{fileNFT, []sysexec.Command{run("nft", "-j", "-a", "list", "ruleset")}, nftlist.List},
		{fileSets, []sysexec.Command{run("ipset", "save")}, nil},
		{fileAddrs, []sysexec.Command{run("ip", "-j", "addr")}, addrsByNetlink},
		{fileLinks, []sysexec.Command{run("ip", "-d", "-j", "link")}, linksByNetlink},
		{fileRoutes, []sysexec.Command{run("ip", "-4", "route", "show", "table", "all"), run("ip", "-6", "route", "show", "table", "all")}, routesByNetlink},
		{filePolicies, []sysexec.Command{run("ip", "-4", "rule"), run("ip", "-6", "rule")}, rulesByNetlink},
		{fileSockets, []sysexec.Command{run("ss", "-tulnpH")}, socketsByNetlink},
	}
	if o.ForPeople {
		tools = append(tools, tool{fileNFTText, []sysexec.Command{run("nft", "-a", "list", "ruleset")}, nil})
	}
	var commands []sysexec.Command
	for _, t := range tools {
		commands = append(commands, t.commands...)
	}
	results := sysexec.RunAll(g.ctx, commands...)
	for _, t := range tools {
		g.keep(t, results[:len(t.commands)])
		results = results[len(t.commands):]
	}
	for _, file := range []string{fileLegacy4, fileLegacy6} {
		// Most hosts have one variant.
		if !bytes.Contains(g.Texts[file], []byte("\n*")) {
			delete(g.Texts, file)
		}
	}
	if len(g.Texts[fileSets]) == 0 {
		delete(g.Texts, fileSets)
	}
	g.Texts[fileSysctls] = sysctls()
	if o.ForPeople {
		g.Texts["tools.txt"] = g.versions()
	}
}

// either is the first of two programs that is installed.
func either(first, second string) string {
	if _, err := sysexec.Look(first); err == nil {
		return first
	}
	return second
}

// keep keeps what programs printed, or why they did not.
func (g *gatherer) keep(t tool, results []sysexec.Result) {
	var text []byte
	var err error
	for _, r := range results {
		text = append(text, r.Stdout...)
		err = errors.Join(err, r.Err)
	}
	if err != nil && t.instead != nil {
		if other, otherErr := t.instead(); otherErr == nil {
			text, err = other, nil
		}
	}
	switch {
	case err == nil:
		g.Texts[t.file] = text
	case errors.Is(err, sysexec.ErrNotFound):
		g.Reasons[t.file] = t.commands[0].Path + " is not installed"
	default:
		g.Reasons[t.file] = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
}

// patterns are the settings that packets' ways depend on, below /proc/sys.
var patterns = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/*/forwarding", "net/ipv4/conf/*/route_localnet", "net/ipv4/conf/*/rp_filter",
	"net/ipv4/conf/*/accept_local", "net/ipv4/conf/*/src_valid_mark", "net/ipv4/fwmark_reflect", "net/ipv4/tcp_fwmark_accept",
	"net/ipv4/icmp_echo_ignore_all", "net/ipv4/icmp_echo_ignore_broadcasts", "net/ipv4/ip_nonlocal_bind", "net/ipv4/ip_local_port_range",
	"net/ipv6/bindv6only", "net/ipv6/conf/*/forwarding", "net/ipv6/conf/*/disable_ipv6", "net/ipv6/conf/*/accept_ra",
	"net/ipv6/icmp/echo_ignore_all", "net/bridge/*", "net/netfilter/nf_conntrack_tcp_loose", "net/netfilter/nf_conntrack_tcp_be_liberal",
	"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count",
}

// sysctls reads settings as sysctl would print them. Those of the network are of the namespace of the thread that reads.
func sysctls() []byte {
	const root = "/proc/sys/"
	var text []byte
	for _, pattern := range patterns {
		paths, _ := filepath.Glob(root + pattern) // the patterns are valid
		for _, path := range paths {
			value, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			name := strings.NewReplacer("/", ".", ".", "/").Replace(strings.TrimPrefix(path, root))
			text = fmt.Appendf(text, "%s = %s\n", name, strings.ReplaceAll(strings.TrimSpace(string(value)), "\t", " "))
		}
	}
	return text
}

// versions are those of the tools and of the kernel.
func (g *gatherer) versions() []byte {
	var text []byte
	for _, r := range sysexec.RunAll(g.ctx, run("iptables", "--version"), run("nft", "--version"), run("ipset", "--version"), run("ip", "-V")) {
		text = append(text, r.Stdout...)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		text = append(text, unix.ByteSliceToString(name.Release[:])+"\n"...)
	}
	return text
}

// Write writes the files into a folder, which nobody else may read. One that has anything in it already is refused, unless
// force is set: then the files of an older snapshot go.
func (f Files) Write(dir string, force bool) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 && !force {
		return fmt.Errorf("%s: %w", dir, ErrNotEmpty)
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for name, text := range f.Texts {
		if err := writeNew(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

// ErrNotEmpty is the cause of the error about a folder that has something in it.
var ErrNotEmpty = errors.New("the folder is not empty")

var names = []string{fileRules4, fileRules6, fileLegacy4, fileLegacy6, fileNFT, fileNFTText, fileSets, fileAddrs, fileLinks, fileRoutes,
	filePolicies, fileSockets, fileSysctls, fileNetworks, fileContainers, fileVersion, "tools.txt"}

// writeNew writes a file that isn't there: a link that somebody put in its place is not followed.
func writeNew(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}
