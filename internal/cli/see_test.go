package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/cli"
)

// evidence is a folder with a snapshot of another host, Docker 20.10 with a published port.
func evidence(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../collect/testdata/20.10.24-published-port")
	must(t, err)
	return dir
}

const openPage = `Open to anyone outside:
  PORT               WHAT          WAY     OPEN TO                      BY
  22/tcp             dvprobe       host    anyone by eth0, eth1
  172.17.0.2:80/tcp  container c1  direct  anyone by eth0, eth1 (IPv4)
  123/udp            dvprobe       host    anyone by eth0, eth1
  8080/tcp           container c1  dnat    anyone by eth0, eth1 (IPv4)
  8080/tcp           container c1  proxy   anyone by eth0, eth1 (IPv6)

Open to containers alone:
  PORT      WHAT          WAY    OPEN TO                       BY
  8080/tcp  container c1  proxy  containers by docker0 (IPv4)

1 endpoint is closed to all (--verbose lists them).
`

func TestAudit(t *testing.T) {
	dir := t.TempDir()
	audit := func(args ...string) ran {
		return run(t, dir, append([]string{"audit", "--snapshot", evidence(t)}, args...)...)
	}
	if r := audit(); r.stdout != openPage || r.status != 0 {
		t.Errorf("got\n%s%swant\n%s", r.stdout, r.stderr, openPage)
	}
	audit("--verbose").expect(t, 0, []string{"127.0.0.1:5432/tcp", "nobody", "Assumed: connections that begin"}, nil)
	audit("--fail-on", "open-to-any").expect(t, 4, nil, nil)
	audit("--fail-on", "open-to-any", "--except", "22,80/tcp,123/udp,8080").expect(t, 0, nil, nil)
	audit("--fail-on", "open-to-any", "--except", "22,80/udp,123,8080").expect(t, 4, nil, nil)
	audit("--fail-on", "uncertain").expect(t, 0, nil, nil)
	for _, typo := range []string{"ssh", "70000", "0", "22/foo", "22/6", "1-1023", "80,,"} {
		audit("--fail-on", "open-to-any", "--except", typo).expect(t, 2, nil, []string{"--except is about ports, as 443 or 53/udp, not "})
	}
	audit("--fail-on", "everything").expect(t, 2, nil, []string{"--fail-on knows open-to-any and uncertain"})
	audit("--from", "nobody").expect(t, 2, nil, []string{`--from "nobody" is neither an address nor a set`})
	run(t, dir, "audit", "--snapshot", dir).expect(t, 1, nil, []string{"reading the snapshot in " + dir})

	var v cli.AuditAnswer
	must(t, json.Unmarshal([]byte(audit("--from", "172.17.0.9", "--json").stdout), &v))
	at := slices.IndexFunc(v.Endpoints, func(e cli.AuditEndpoint) bool { return e.Path == "proxy" && e.Family == "ipv4" })
	if at < 0 || v.Endpoints[at].Port != 8080 || v.Endpoints[at].Owner != (cli.ReachOwner{Kind: "container", Name: "c1"}) || v.Endpoints[at].To != "172.17.0.2:80" ||
		len(v.Endpoints[at].OpenTo) != 1 || v.Endpoints[at].OpenTo[0].From != "any" || v.Endpoints[at].OpenTo[0].Interface != "docker0" || !v.Endpoints[at].Certain {
		t.Errorf("by the proxy: %+v", v.Endpoints)
	}
	if slices.ContainsFunc(v.Endpoints, func(e cli.AuditEndpoint) bool { return e.Family == "ipv6" || e.Port == 5432 }) {
		t.Errorf("not reached from there: %+v", v.Endpoints)
	}
}

// TestAuditNothing: where nothing can be dialled a sentence says so, and how far that is known.
func TestAuditNothing(t *testing.T) {
	dir := t.TempDir()
	must(t, os.CopyFS(filepath.Join(dir, "idle"), os.DirFS(evidence(t))))
	write(t, dir, "idle/ss-listen.txt", "")
	write(t, dir, "idle/container-inspect.json", "[]")
	audit := func(args ...string) ran {
		return run(t, dir, append([]string{"audit", "--snapshot", "idle"}, args...)...)
	}
	const sentence = "Nothing can be dialled here: no socket listens, and no container has a port.\n"
	if r := audit("--html", "page.html"); r.stdout != sentence || r.status != 0 {
		t.Errorf("got %q %s", r.stdout, r.stderr)
	}
	text, err := os.ReadFile(filepath.Join(dir, "page.html"))
	must(t, err)
	if page := string(text); !strings.Contains(page, "<p>"+strings.TrimSpace(sentence)+"</p>") || strings.Contains(page, "<table>") {
		t.Error(page)
	}
	audit("--json").expect(t, 0, []string{`"endpoints": []`}, nil)
	audit("--from", "8.8.8.8").expect(t, 0, []string{"Nothing here can be reached from 8.8.8.8.\n"}, nil)
	must(t, os.Remove(filepath.Join(dir, "idle", "ss-listen.txt")))
	audit().expect(t, 0, []string{"no container has a port. But "}, nil)
}

// TestAuditPage: the page is whole, and asks nobody for anything.
func TestAuditPage(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "audit", "--snapshot", evidence(t), "--html", "page.html").expect(t, 0, []string{"Open to anyone outside"}, nil)
	text, err := os.ReadFile(filepath.Join(dir, "page.html"))
	must(t, err)
	page := string(text)
	if n := strings.Count(page, "<tr><td"); n != 9 || !strings.Contains(page, "<td>container c1</td><td>dnat <span class=\"small\">to 172.17.0.2:80</span></td>") ||
		!strings.Contains(page, "20.10.24-published-port") || strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Errorf("%d rows\n%s", n, page)
	}
}

func TestDiff(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "lan.yaml", "version: 1\ninbound:\n  - allow: ssh\n  - allow: 8080\n    from: 192.168.50.0/24\n")
	write(t, dir, "all.yaml", "version: 1\ninbound:\n  - allow: [ssh, 8080]\n")
	write(t, dir, "words.yaml", "version: 1\ninbound:\n  - allow: 8080\n    from: [192.168.50.0/25, 192.168.50.128/25]\n  - allow: 22/tcp\n")
	diff := func(args ...string) ran {
		return run(t, dir, append([]string{"diff", "--snapshot", evidence(t)}, args...)...)
	}
	diff("lan.yaml", "words.yaml").expect(t, 0, []string{"No difference: lan.yaml and words.yaml let in the same, whatever the packet"}, nil)
	diff("lan.yaml", "words.yaml", "--exit-code").expect(t, 0, nil, nil)
	diff("lan.yaml", "all.yaml", "--exit-code").expect(t, 4, []string{
		"Gained, let in by all.yaml and not by lan.yaml:", "8080/tcp at this host, ipv4, from all but 172.17.0.0/16, 192.168.50.0/24 by eth0, eth1",
		"8080/tcp at this host, ipv6, from anyone by eth0, eth1", "for example tcp 198.51.100.77:40000 -> 192.168.50.1:8080 in eth0",
		"after:  It reaches container c1", "before: "}, nil)
	diff("all.yaml", "lan.yaml").expect(t, 0, []string{"Lost, let in by all.yaml and not by lan.yaml:"}, nil)
	diff("none", "lan.yaml").expect(t, 0, []string{"123/udp at this host, ipv4, from anyone", "of ports and protocols where nothing listens now"}, nil)
	// A socket on a loopback address, and a container's port at other addresses than its own, are no service to anybody outside.
	if r := diff("live", "lan.yaml"); strings.Contains(r.stdout, "5432/tcp") || strings.Contains(r.stdout, "nothing listens at") ||
		!strings.Contains(r.stdout, "80/tcp at 172.17.0.2, from") {
		t.Error(r.stdout)
	}
	diff("live", "none").expect(t, 0, []string{"No difference"}, nil)
	diff("live", evidence(t)).expect(t, 0, []string{"No difference"}, nil)
	diff("live").expect(t, 2, nil, []string{"name the two that are to be compared"})
	diff("live", "nothing.yaml").expect(t, 2, nil, []string{`"nothing.yaml" is neither a file nor a folder`})
	diff("@x", "live").expect(t, 2, nil, []string{`"@x": use a number as quaywall rollback --list tells`})
	diff("@1", "live").expect(t, 1, nil, []string{"there is no policy @1"})
	write(t, dir, "bad.yaml", "version: 1\ninbound:\n  - alow: 80\n")
	diff("live", "bad.yaml").expect(t, 2, nil, []string{"bad.yaml:3:5"})
}

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "doctor", "--snapshot", evidence(t), "--exit-code").expect(t, 0, []string{"nothing is wrong that doctor knows of"}, nil)
	run(t, dir, "doctor", "--snapshot", evidence(t), "--fix").expect(t, 2, nil, []string{"--fix is for this host alone"})
	flushed := filepath.Join(dir, "flushed")
	must(t, os.CopyFS(flushed, os.DirFS(evidence(t))))
	write(t, flushed, "iptables-save.txt", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n")
	must(t, os.Remove(filepath.Join(flushed, "nft-ruleset.json")))
	must(t, os.Remove(filepath.Join(flushed, "nft-ruleset.txt")))
	run(t, dir, "doctor", "--snapshot", flushed, "--exit-code").expect(t, 4, []string{"fault: Docker runs, and none of its rules are there", "it means", "seen by", "do "}, nil)
}

// TestSeeLive looks at a machine of the test's own, where the policy in force gives sets their names and endpoints their lines,
// by each backend.
func TestSeeLive(t *testing.T) {
	for _, backend := range []string{"nft", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			m := newMachine(t)
			write(t, m.dir, "policy.yaml", "version: 1\nsets:\n  friends: [198.51.100.0/24]\ninbound:\n  - allow: 8080\n    from: friends\n  - allow: 9090\n")
			m.daemon(t, "0.0.0.0:8080", "0.0.0.0:9090", "0.0.0.0:7070")
			see := func(args string) ran { return m.quaywall(t, "--policy policy.yaml "+args) }
			see("--backend "+backend+" apply --allow-lockout").expect(t, 0, nil, []string{})
			for what, want := range map[string][]string{
				"audit":                 {"8080/tcp", "friends by eth0 (IPv4)", "policy.yaml:5", "9090/tcp", "anyone by eth0", "policy.yaml:7", "2 endpoints are closed"},
				"audit --from friends":  {"8080/tcp", "9090/tcp"},
				"diff live policy.yaml": {"No difference: live and policy.yaml"},
				"diff none live":        {"7070/tcp", "8080/tcp", "Lost, let in by none and not by live"},
				"doctor --exit-code":    {"warning: Docker gives no answer", "no-docker.sock"},
			} {
				see(what).expect(t, 0, want, nil)
			}
			if r := see("audit --from 203.0.113.9"); strings.Contains(r.stdout, "8080") || !strings.Contains(r.stdout, "9090/tcp") {
				t.Errorf("from an address that is no friend's:\n%s", r.stdout)
			}
			see("audit --fail-on open-to-any --except 9090").expect(t, 0, nil, nil)
			see("audit --fail-on open-to-any").expect(t, 4, nil, nil)
		})
	}
}

// TestDoctorFix: what can be mended is.
func TestDoctorFix(t *testing.T) {
	m := newMachine(t)
	write(t, m.dir, "policy.yaml", "version: 1\ninbound:\n  - allow: 8080\n")
	see := func(args string) ran { return m.quaywall(t, "--policy policy.yaml --backend nft "+args) }
	see("apply").expect(t, 0, nil, []string{})
	m.Output(t, "nft", "delete", "table", "inet", "quaywall")
	see("doctor --exit-code").expect(t, 4, []string{"fault: quaywall's policy is not in force"}, nil)
	see("doctor --fix --exit-code").expect(t, 0, []string{"mended: quaywall-gone"}, nil)
	see("status").expect(t, 0, []string{"in force since"}, []string{})
}

// untidy is rules as people keep them, beside Docker's and fail2ban's.
const untidy = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:LOGDROP - [0:0]
:OLD - [0:0]
:f2b-sshd - [0:0]
-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
-A INPUT -s 192.168.0.0/17 -j DROP
-A INPUT -s 192.168.128.0/17 -j ACCEPT
-A INPUT -s 192.168.0.0/16 -p tcp -m tcp --dport 22 -m comment --comment "the admin" -j ACCEPT
-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT
-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT
-A INPUT -j LOGDROP
-A FORWARD -j DOCKER-USER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
-A LOGDROP -j LOG
-A LOGDROP -j DROP
-A OLD -s 198.51.100.4/32 -j DROP
-A OLD -j RETURN
-A f2b-sshd -j RETURN
COMMIT
`

const untidyPage = `ip filter (iptables-nft):
  INPUT 4: -s 192.168.0.0/16 -p tcp -m tcp --dport 22 -j ACCEPT  # the admin
      shadowed: rules before it together take all that it asks for, and not all of them decide as it would
        INPUT 2: -s 192.168.0.0/17 -j DROP
        INPUT 3: -s 192.168.128.0/17 -j ACCEPT
  INPUT 5: -p tcp -m tcp --dport 80 -j ACCEPT
      redundant: a rule behind it does the same
        INPUT 6: -p tcp -m multiport --dports 80,443 -j ACCEPT
  LOGDROP 2: -j DROP
      redundant: what packets meet behind LOGDROP does the same
  OLD 1: -s 198.51.100.4/32 -j DROP
      dead: no rule leads to its chain
  OLD 2: -j RETURN

5 of 15 rules could go, one by one or all: the same would become of each packet.
2 of Docker's, 2 of fail2ban's do nothing here, and are looked after by their programs (--verbose lists them).
`

func TestAuditRules(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "untidy.txt", untidy)
	audit := func(args ...string) ran { return run(t, dir, append([]string{"audit", "--rules"}, args...)...) }
	if r := audit("untidy.txt"); r.stdout != untidyPage || r.status != 0 {
		t.Errorf("got\n%s%swant\n%s", r.stdout, r.stderr, untidyPage)
	}
	audit("untidy.txt", "--verbose").expect(t, 0, []string{"FORWARD 1: -j DOCKER-USER  (Docker's)\n      redundant: the chain that it leads to decides on nothing",
		"f2b-sshd 1: -j RETURN  (fail2ban's)", "looked after by their programs.\n"}, nil)
	audit("untidy.txt", "--fail-on", "useless").expect(t, 4, nil, nil)
	audit("--snapshot", evidence(t), "--fail-on", "useless").expect(t, 0, []string{"Of 18 rules none that a person looks after is useless.\n8 of Docker's"}, nil)
	audit("untidy.txt", "--fail-on", "uncertain").expect(t, 2, nil, []string{"--fail-on knows useless here"})
	audit("untidy.txt", "--snapshot", evidence(t)).expect(t, 2, nil, []string{"not both"})
	audit("nothing.txt").expect(t, 2, nil, []string{"reading nothing.txt"})
	run(t, dir, "audit", "untidy.txt").expect(t, 2, nil, []string{"audit takes no arguments"})
	write(t, dir, "empty.txt", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
	audit("empty.txt").expect(t, 0, []string{"There are no rules.\n"}, nil)
	write(t, dir, "tidy.txt", "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n")
	audit("tidy.txt").expect(t, 0, []string{"Each of the 1 rule does something to some packet.\n"}, nil)

	var v cli.RulesAnswer
	must(t, json.Unmarshal([]byte(audit("untidy.txt", "--json").stdout), &v))
	if v.Rules != 15 || len(v.Useless) != 9 || len(v.Unread) != 0 {
		t.Fatalf("%+v", v)
	}
	u := v.Useless[0]
	if u.Keeper != "fail2ban" || u.Reason != "redundant" || u.Chain != "INPUT" || u.Rule != 1 {
		t.Errorf("%+v", u)
	}
	if u = v.Useless[1]; u.Reason != "shadowed" || u.Rule != 4 || len(u.By) != 2 || u.By[1].Rule != 3 || u.Comment != "the admin" || u.Table != "ip filter" || u.Dialect != "iptables-nft" {
		t.Errorf("%+v", u)
	}
}

// TestAuditUnread: what a file would tell that is missing, empty or damaged is said to be unknown, and --fail-on uncertain fails.
func TestAuditUnread(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	must(t, os.CopyFS(whole, os.DirFS(evidence(t))))
	audit := func(args ...string) ran {
		return run(t, dir, append([]string{"audit", "--snapshot", "whole"}, args...)...)
	}
	if r := audit("--fail-on", "uncertain"); r.status != 0 || strings.Contains(r.stdout, "Not known:") {
		t.Fatalf("a whole snapshot: status %d\n%s", r.status, r.stdout)
	}
	utf16 := func(text string) string { return "\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00") + "\x00" }
	half := func(text string) string { return text[:len(text)/2] }
	empty := func(string) string { return "" }
	for _, tt := range []struct {
		file, why string
		change    func(string) string
	}{
		{"ss-listen.txt", "it is not there", nil}, {"ip-route.txt", "it is not there", nil}, {"iptables-save.txt", "it is not there", nil},
		{"iptables-save.txt", "cut short", half},
		{"ip-addr.json", "it is empty", empty}, {"container-inspect.json", "it is empty", empty}, {"network-inspect.json", "it is empty", empty},
		{"nft-ruleset.json", "it is empty", empty}, {"ip-addr.json", "ip-addr.json:", half}, {"container-inspect.json", "container-inspect.json:", half},
		{"nft-ruleset.json", "none of nft's", half}, {"nft-ruleset.json", "no list of nft", utf16}, {"ip-addr.json", "ip-addr.json:", utf16},
		{"ss-listen.txt", "ss-listen.txt:", utf16}, {"ip-route.txt", "ip-route.txt:", utf16}, {"sysctl.txt", "it is not there", nil},
	} {
		before, err := os.ReadFile(filepath.Join(whole, tt.file))
		must(t, err)
		if tt.change == nil {
			must(t, os.Remove(filepath.Join(whole, tt.file)))
		} else {
			write(t, whole, tt.file, tt.change(string(before)))
		}
		r := audit("--fail-on", "uncertain")
		if r.status != 4 || !strings.Contains(r.stdout, "Not known: ") || !strings.Contains(r.stdout, "("+tt.file+": ") || !strings.Contains(r.stdout, tt.why) {
			t.Errorf("%s, %s: status %d\n%s%s", tt.file, tt.why, r.status, r.stdout, r.stderr)
		}
		if r := audit("--json"); !strings.Contains(r.stdout, `"unread"`) {
			t.Errorf("%s, %s: nothing in JSON", tt.file, tt.why)
		}
		if r := run(t, dir, "doctor", "--snapshot", "whole"); strings.Contains(r.stdout, "are gone") || strings.Contains(r.stdout, "none of its rules") {
			t.Errorf("%s, %s: %s", tt.file, tt.why, r.stdout)
		}
		write(t, whole, tt.file, string(before))
	}
}
