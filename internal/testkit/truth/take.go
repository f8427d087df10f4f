package truth

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// commands write a snapshot with the tools that every host has, as a person would.
var commands = []struct{ file, command string }{
	{"iptables-save.txt", "iptables-save -c"},
	{"ip6tables-save.txt", "ip6tables-save -c"},
	{"iptables-legacy-save.txt", "iptables-legacy-save -c"},
	{"ip6tables-legacy-save.txt", "ip6tables-legacy-save -c"},
	{"nft-ruleset.txt", "nft -a list ruleset"},
	{"nft-ruleset.json", "nft -j list ruleset"},
	{"ipset-save.txt", "ipset save"},
	{"ip-link.json", "ip -d -j link"},
	{"ip-rule.txt", "ip rule"},
	{"ip-addr.json", "ip -j addr"},
	{"ip-route.txt", "ip route show table all; ip -6 route show table all"},
	{"ss-listen.txt", "ss -tulnpH"},
	{"sysctl.txt", `sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.route_localnet
		sysctl -a 2>/dev/null | grep -E '^net\.bridge\.|\.route_localnet' || true`},
	{"docker-version.json", "echo '{\"Server\":'; " + api("/version") + "; echo '}'"},
	{"network-inspect.json", inspect("/networks", "/networks/")},
	{"container-inspect.json", inspect("/containers/json", "/containers/", "/json")},
}

// api asks Docker as its client does, which may be too old to speak with it.
func api(path string) string {
	return "curl -sf --unix-socket ${DOCKER_HOST#unix://} http://docker" + path
}

// inspect asks for each thing of a list.
func inspect(list, prefix string, suffix ...string) string {
	return "echo '['; first=1; for id in $(" + api(list) + " | tr ',' '\\n' | sed -n 's/.*\"Id\":\"\\([0-9a-f]*\\)\".*/\\1/p'); do " +
		"[ $first ] || echo ,; first=; " + api(prefix+"$id"+strings.Join(suffix, "")) + "; done; echo ']'"
}

// Take takes a snapshot with ordinary tools. run runs a command of a shell on the host and gives what it printed.
func Take(ctx context.Context, dir string, run func(ctx context.Context, command string) (string, error)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range commands {
		text, err := run(ctx, c.command)
		if err != nil {
			return err
		}
		// A variant of iptables without rules, and sets where there are none, are left out, as in the shared examples.
		if strings.Contains(c.file, "legacy") && !strings.Contains(text, "-A ") && !strings.Contains(text, " DROP [") || c.file == "ipset-save.txt" && text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
