package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/lab"
	"quaywall/internal/testkit/pty"
)

// sshdFolder is where scripts/sshd unpacks a server to.
func (w *world) sshdFolder() string {
	w.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		w.Fatal(err)
	}
	folder := filepath.Join(cache, "quaywall", "sshd")
	_, err = os.Stat(filepath.Join(folder, "usr/sbin/sshd"))
	for _, tool := range []string{"ssh", "ssh-keygen", "sudo", "su", "tmux", "screen", "mosh"} {
		if err == nil {
			_, err = exec.LookPath(tool)
		}
	}
	if err != nil && os.Getenv("CI") == "true" {
		w.Fatal(err)
	}
	if err != nil {
		w.Skipf("people log in by programs of Debian's: run scripts/test, or scripts/sshd (%v)", err)
	}
	return folder
}

// sshd runs OpenSSH's server on a machine, whose /etc and /run are its own from then on, so that nothing is kept of it. Root
// comes in by a key, and so does "person", who has to use sudo or su.
type sshd struct {
	w    *world
	node *lab.Node
	dir  string // of keys
}

// serveSSH starts the server at a port. within is what it is started by: a program and its arguments, or nothing.
func (w *world) serveSSH(node *lab.Node, port string, within ...string) sshd {
	w.Helper()
	folder := w.sshdFolder()
	s := sshd{w, node, w.lab.Dir}
	key := filepath.Join(s.dir, "key")
	if _, err := os.Stat(key); err != nil {
		w.host.MustExec(w.T, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	node.MustExec(w.T, "sh", "-c", `set -e
[ ! -e /run/sshd ] || exit 0
mkdir -p /run/etc /run/home /run/sshd
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /run/etc
mkdir /run/etc/up /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/up,workdir=/run/etc/work overlay /etc
echo 'person:*:4711:4711::/run/home:/bin/sh' >>/etc/passwd
grep -q ^sshd: /etc/passwd || echo 'sshd:*:4712:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
echo 'person ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/person
printf '%s\n' 'auth sufficient pam_permit.so' 'account sufficient pam_permit.so' 'session sufficient pam_permit.so' >/etc/pam.d/su
cp "$1.pub" /run/keys
chmod 644 /run/keys
`, "sh", key)
	config := strings.Join([]string{"HostKey " + key, "AuthorizedKeysFile /run/keys", "StrictModes no", "PermitRootLogin yes",
		"PidFile none", "UsePAM no", "PermitTunnel yes", "UseDNS no"}, "\n")
	path := filepath.Join(s.dir, "sshd_config")
	if err := os.WriteFile(path, []byte(config+"\n"), 0o600); err != nil {
		w.Fatal(err)
	}
	args := append(slices.Clone(within), "env", "LD_LIBRARY_PATH="+folder+"/usr/lib/"+triplet(w), folder+"/usr/sbin/sshd", "-D", "-e",
		"-f", path, "-p", port)
	log := s.start(node, args...)
	w.within(patience, "an SSH server", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "listening on :: port "+port)
	})
	return s
}

// triplet is the name of the folder for libraries of this machine's kind.
func triplet(w *world) string {
	w.Helper()
	found, err := filepath.Glob(filepath.Join(w.sshdFolder(), "usr/lib/*-linux-*"))
	if err != nil || len(found) != 1 {
		w.Fatalf("the folder for libraries: %v %v", found, err)
	}
	return filepath.Base(found[0])
}

// start starts a program on a machine, which ends with the lab at the latest. What it says goes to a file, and is
// shown if the test fails.
func (s sshd) start(node *lab.Node, args ...string) (file string) {
	s.w.Helper()
	cmd, err := node.Command(context.WithoutCancel(s.w.Context()), args[0], args[1:]...)
	if err != nil {
		s.w.Fatal(err)
	}
	person, line, err := pty.Open(40, 120)
	if err != nil {
		s.w.Fatal(err)
	}
	log, err := os.CreateTemp(s.dir, "log-")
	if err != nil {
		s.w.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = line, log, log, pty.Session()
	if err := cmd.Start(); err != nil {
		s.w.Fatal(err)
	}
	w := s.w
	w.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); w.Failed() && err == nil {
			w.Logf("%s said:\n%s", strings.Join(args, " "), text)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_, _, _ = person.Close(), line.Close(), log.Close()
	})
	return log.Name()
}

// login is a shell that somebody has on a host, however they came to it. It runs what is put into its folder.
type login struct {
	w   *world
	dir string
	n   int
}

var logins atomic.Int64

// patience is how long a login, or a command in one, may take while all else on the machine runs as well.
const patience = 2 * time.Minute

// newLogin prepares a login: command is what has to be run to begin it.
func (w *world) newLogin() (l *login, command string) {
	w.Helper()
	l = &login{w: w, dir: filepath.Join(w.lab.Dir, fmt.Sprintf("login%d", logins.Add(1)))}
	script := `i=0
: >"$0.begun"
while :; do
	until [ -e "$0.$i" ]; do [ ! -e "$0.end" ] || exit 0; sleep 0.02; done
	sh "$0.$i" >"$0.$i.out" 2>&1; echo $? >"$0.$i.tmp"; mv "$0.$i.tmp" "$0.$i.code"; i=$((i+1))
done
`
	if err := os.WriteFile(l.dir, []byte(script), 0o700); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(l.end)
	return l, "sh " + l.dir
}

func (l *login) end() { _ = os.WriteFile(l.dir+".end", nil, 0o600) }

// begun waits until somebody has come in.
func (l *login) begun() {
	l.w.Helper()
	l.w.within(patience, "a login", func() bool { _, err := os.Stat(l.dir + ".begun"); return err == nil })
}

// quaywall runs quaywall in the login.
func (l *login) quaywall(args ...string) agent.ShellResult {
	l.w.Helper()
	all, err := l.w.fw.Args(l.w.Context(), args...)
	if err != nil {
		l.w.Fatal(err)
	}
	name := l.dir + "." + strconv.Itoa(l.n)
	l.n++
	if err := os.WriteFile(name+".cmd", []byte(strings.Join(all, " ")+"\n"), 0o600); err != nil {
		l.w.Fatal(err)
	}
	if err := os.Rename(name+".cmd", name); err != nil {
		l.w.Fatal(err)
	}
	l.w.within(patience, "the end of "+strings.Join(args, " "), func() bool { _, err := os.Stat(name + ".code"); return err == nil })
	code, err := os.ReadFile(name + ".code")
	if err != nil {
		l.w.Fatal(err)
	}
	out, err := os.ReadFile(name + ".out")
	if err != nil {
		l.w.Fatal(err)
	}
	r := agent.ShellResult{Code: -1, Output: string(out)}
	if r.Code, err = strconv.Atoi(strings.TrimSpace(string(code))); err != nil {
		l.w.Fatal(err)
	}
	return r
}

// sshFlags are what a client needs that was here never before.
func (s sshd) sshFlags(port string) []string {
	return []string{"-i", filepath.Join(s.dir, "key"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-F", "none", "-p", port}
}

// ssh has somebody log in from a machine, with a terminal, to run a command.
func (s sshd) ssh(from *lab.Node, port, to, command string, flags ...string) {
	s.w.Helper()
	s.start(from, slices.Concat([]string{"ssh"}, s.sshFlags(port), flags, []string{"-tt", to, command})...)
}

// mosh has somebody log in by SSH and go on by UDP. What env is given changes the environment of the server.
func (s sshd) mosh(from *lab.Node, to, command string, env ...string) {
	s.w.Helper()
	family := "-4"
	if strings.Contains(to, ":") {
		family = "-6"
	}
	s.start(from, slices.Concat([]string{"env", "LC_ALL=C.UTF-8", "TERM=xterm", "mosh", family, "--no-ssh-pty", "-p", "60001",
		"--ssh=ssh " + strings.Join(s.sshFlags("2222"), " "), "--server=env " + strings.Join(append(env, "LC_ALL=C.UTF-8"), " ") + " mosh-server", "root@" + to, "--"}, strings.Fields(command))...)
}
