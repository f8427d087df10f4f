package scenario

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"quaywall/internal/testkit/lab"
)

// whole is what `make matrix` asks for: every configuration of the engine with every backend. Otherwise each backend gets
// one of them.
var whole = flag.Bool("matrix", false, "each backend with every configuration of the engine")

// engineDir names an unpacked release of Docker to try instead of the installed one.
func engineDir() string {
	return os.Getenv("QUAYWALL_ENGINE")
}

// dockerByNft tells whether Docker is to write its rules by its own nftables backend, which 29 and newer have.
func dockerByNft() bool {
	return os.Getenv("QUAYWALL_ENGINE_BACKEND") == "nftables"
}

// chosen is an engine as the environment asks for it.
func chosen(v variant, e lab.Engine) lab.Engine {
	e.Legacy, e.Dir = v.legacy, engineDir()
	if dockerByNft() {
		e.Args = append(e.Args, "--firewall-backend=nftables")
	}
	return e
}

// besideLegacy is a host that speaks nftables for quaywall, and iptables-legacy for Docker.
var besideLegacy = variant{name: "nft-beside-legacy", backend: "nft", legacy: true}

// backends are the variants, and in the long form of `make matrix` the mixed one as well.
func backends() []variant {
	if *whole && !dockerByNft() {
		return append(variants[:len(variants):len(variants)], besideLegacy)
	}
	return variants
}

// configs are the ways to run an engine that change which rules it writes. ip6tables is off where IPv6 is on: that is what
// engines before 27 do by themselves, and the worse case.
func configs() []lab.Engine {
	var all []lab.Engine
	for _, noProxy := range []bool{false, true} {
		for _, six := range []bool{false, true} {
			e := lab.Engine{NoProxy: noProxy, IPv6: six}
			if six {
				e.Args = []string{"--ip6tables=false"}
			}
			all = append(all, e)
		}
	}
	return append(all, lab.Engine{NoIPTables: true}, lab.Engine{NoIPTables: true, NoProxy: true})
}

// configName is a configuration as a test's name has it.
func configName(e lab.Engine) string {
	return fmt.Sprintf("iptables=%v,proxy=%v,ipv6=%v", !e.NoIPTables, !e.NoProxy, e.IPv6)
}

// onEachConfig runs a test for each backend with every configuration, and in the short form with one of them each. Docker
// can't write IPv6 rules with ip6tables-legacy 1.8.9, as Debian 12 has it: that says of rules that they are there which are
// not ("ip6tables: Fix checking existence of rule", 1.8.10), and Docker leaves them out.
func onEachConfig(t *testing.T, all []lab.Engine, test func(t *testing.T, v variant, e lab.Engine)) {
	t.Parallel()
	for i, v := range backends() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			for j, e := range all {
				if !*whole && j%len(all) != i*2%len(all) || e.IP6Tables && v.legacy {
					continue
				}
				t.Run(configName(e), func(t *testing.T) {
					t.Parallel()
					test(t, v, e)
				})
			}
		})
	}
}

// measured hands a fact to `make matrix`, which reads it from the test's log.
func (w *world) measured(fact any) {
	w.Helper()
	line, err := json.Marshal(fact)
	if err != nil {
		w.Fatal(err)
	}
	w.Logf("matrix: %s", line)
}

// flushAll takes everybody's rules away, with the tools of the variant that Docker uses and of the one that quaywall does.
func (w *world) flushAll() {
	w.Helper()
	w.host.MustExec(w.T, "nft", "flush", "ruleset")
	if w.variant.legacy {
		w.host.MustExec(w.T, "sh", "-ec", strings.Join([]string{"for tool in iptables ip6tables; do",
			"for table in filter nat mangle raw security; do $tool -t $table -F; $tool -t $table -X; done; done"}, " "))
	}
}
