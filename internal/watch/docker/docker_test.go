package docker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/inventory"
	"quaywall/internal/watch/docker"
)

// What Docker 20.10.24 said (fields that nobody reads left out), with the gateway that engines up to 26 report of a
// network with IPv6.
const networks2010 = `[
 {"Name":"none","Id":"43f1bd4458bace5526","Scope":"local","Driver":"null","IPAM":{"Driver":"default","Config":[]},"Options":{}},
 {"Name":"host","Id":"e6722b93c784f150da","Scope":"local","Driver":"host","IPAM":{"Driver":"default","Config":[]},"Options":{}},
 {"Name":"bridge","Id":"fac3e23d12920f0311","Driver":"bridge","EnableIPv6":true,
  "IPAM":{"Config":[{"Subnet":"172.17.0.0/16"},{"Subnet":"2001:db8:17::/64","Gateway":"2001:db8:17::1/64"}]},
  "Options":{"com.docker.network.bridge.name":"docker0"}},
 {"Name":"int1","Id":"b4d96b0476d8ea0830288c","Driver":"bridge","Internal":true,
  "IPAM":{"Config":[{"Subnet":"10.99.0.0/24"}]},"Options":{}},
 {"Name":"my6","Id":"dc68447f2b7a55a18185","Driver":"bridge",
  "IPAM":{"Config":[{"Subnet":"172.18.0.0/16","Gateway":"172.18.0.1"},{"Subnet":"2001:db8:18::/64"}]},
  "Options":{"com.docker.network.bridge.name":"mybr","com.docker.network.bridge.gateway_mode_ipv6":"routed"}},
 {"Name":"lan","Id":"aaaaaaaaaaaaaaaa","Driver":"macvlan","IPAM":{"Config":[{"Subnet":"192.168.1.0/24"}]},"Options":{"parent":"eth0"}}
]`

const containers2010 = `[
 {"Names":["/c3"],"Ports":[],"NetworkSettings":{"Networks":{"host":{"Gateway":"","MacAddress":""}}}},
 {"Names":["/c1/alias","/c2"],"Ports":[
   {"IP":"::","PrivatePort":80,"PublicPort":9000,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":9000,"Type":"tcp"},
   {"PrivatePort":443,"Type":"tcp"}],
  "NetworkSettings":{"Networks":{"my6":{},"lan":{}}}},
 {"Names":["/c1"],"Ports":[{"IP":"127.0.0.1","PrivatePort":5353,"PublicPort":53,"Type":"udp"},
   {"PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],
  "NetworkSettings":{"Networks":{"bridge":{}}}}
]`

// engine answers like dockerd on a Unix socket, and gives its URL.
func engine(t *testing.T, api, networks, containers string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	engineAt(t, "unix", path, api, networks, containers)
	return "unix://" + path
}

// engineAt answers like dockerd, wherever it listens.
func engineAt(t *testing.T, network, address, api, networks, containers string) net.Addr {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", api)
		w.Header().Set("Server", "Docker/20.10.24+dfsg1 (linux)")
	})
	mux.HandleFunc("/v"+api+"/networks", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, networks) })
	mux.HandleFunc("/v"+api+"/containers/json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, containers) })
	mux.HandleFunc("/v"+api+"/events", func(w http.ResponseWriter, r *http.Request) {
		if f := r.URL.Query().Get("filters"); !json.Valid([]byte(f)) || strings.Contains(f, "exec") {
			t.Errorf("events are asked for with the filters %s", f)
		}
		fmt.Fprint(w, `{"Type":"network","Action":"create"}`+"\n"+`{"Type":"container","Action":"start"}`)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return listener.Addr()
}

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

var compare = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}

// Trap 27: the version is negotiated (1.41 is Docker 20.10, 1.44 the least that Docker 29 takes), absent addresses.
func TestList(t *testing.T) {
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	want := docker.Answer{
		Docker: inventory.Docker{Reachable: true, Version: "20.10.24+dfsg1"}, Local: true,
		Networks: []inventory.Network{
			{Name: "bridge", ID: "fac3e23d12920f0311", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16", "2001:db8:17::/64")},
			{Name: "int1", ID: "b4d96b0476d8ea0830288c", Bridge: "br-b4d96b0476d8", Internal: true, Subnets: prefixes("10.99.0.0/24")},
			{Name: "my6", ID: "dc68447f2b7a55a18185", Bridge: "mybr", Mode6: "routed", Subnets: prefixes("172.18.0.0/16", "2001:db8:18::/64")},
		},
		Published: []inventory.Published{
			{Addr: v4, Proto: 6, Port: 8080, Container: "c1", Networks: []string{"bridge"}, Target: 80},
			{Addr: v6, Proto: 6, Port: 8080, Container: "c1", Networks: []string{"bridge"}, Target: 80},
			{Addr: v4, Proto: 6, Port: 9000, Container: "c2", Networks: []string{"lan", "my6"}, Target: 80},
			{Addr: v6, Proto: 6, Port: 9000, Container: "c2", Networks: []string{"lan", "my6"}, Target: 80},
			{Addr: netip.MustParseAddr("127.0.0.1"), Proto: 17, Port: 53, Container: "c1", Networks: []string{"bridge"}, Target: 5353},
		},
		Unseen: []inventory.Unseen{{Name: "lan", Driver: "macvlan", Parent: "eth0"}},
	}
	for _, api := range []string{"1.41", "1.44", "1.51"} {
		got := docker.List(t.Context(), engine(t, api, networks2010, containers2010))
		if diff := cmp.Diff(want, got, compare); diff != "" {
			t.Errorf("API %s: %s", api, diff)
		}
	}
}

// Another host's engine may have bridges of the same names.
func TestListOverTheNetworkIsNotLocal(t *testing.T) {
	at := engineAt(t, "tcp", "127.0.0.1:0", "1.41", networks2010, containers2010)
	if got := docker.List(t.Context(), "tcp://"+at.String()); got.Local || !got.Docker.Reachable || len(got.Networks) != 3 {
		t.Errorf("got %+v", got)
	}
}

// A Docker socket may be shared with a container or a namespace whose bridges are others.
func TestInKeepsWhatIsHere(t *testing.T) {
	answer := docker.List(t.Context(), engine(t, "1.41", networks2010, containers2010))
	bridge := func(name string, addrs ...string) inventory.Interface {
		return inventory.Interface{Name: name, Kind: "bridge", Addrs: prefixes(addrs...)}
	}
	for _, c := range []struct {
		name      string
		links     []inventory.Interface
		networks  string
		published string
	}{
		{"nothing here", nil, "", ""},
		{"all here", []inventory.Interface{bridge("docker0", "172.17.0.1/16"), bridge("br-b4d96b0476d8"), bridge("mybr", "172.18.0.1/16")},
			"bridge int1 my6", "8080 8080 9000 9000 53"},
		{"an isolated bridge has no address, one down a link-local one", []inventory.Interface{bridge("br-b4d96b0476d8"), bridge("mybr", "fe80::1/64")},
			"int1 my6", "9000 9000"},
		{"docker0 of another engine", []inventory.Interface{bridge("docker0", "192.168.77.1/24", "fe80::1/64"), bridge("mybr", "2001:db8:18::1/64")},
			"my6", "9000 9000"},
		{"a name alone is no bridge", []inventory.Interface{{Name: "docker0", Kind: "dummy", Addrs: prefixes("172.17.0.1/16")}}, "", ""},
	} {
		networks, published := answer.In(c.links)
		if unseen := answer.UnseenIn(c.links); len(unseen) > 0 {
			t.Errorf("%s: %v is said to be here, and its parent isn't", c.name, unseen)
		}
		var names, ports []string
		for _, n := range networks {
			names = append(names, n.Name)
		}
		for _, p := range published {
			ports = append(ports, fmt.Sprint(p.Port))
		}
		if got := strings.Join(names, " "); got != c.networks {
			t.Errorf("%s: networks %q, want %q", c.name, got, c.networks)
		}
		if got := strings.Join(ports, " "); got != c.published {
			t.Errorf("%s: published %q, want %q", c.name, got, c.published)
		}
	}
}

// A network on another engine's interface is not this host's to warn of.
func TestUnseenInNeedsTheParent(t *testing.T) {
	answer := docker.List(t.Context(), engine(t, "1.41", networks2010, containers2010))
	links := []inventory.Interface{{Name: "eth0"}, {Name: "lo"}}
	if got := answer.UnseenIn(links); len(got) != 1 || got[0].Name != "lan" {
		t.Errorf("with eth0 here: %v, want the network lan", got)
	}
}

func TestListGivesReasons(t *testing.T) {
	dir := t.TempDir()
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stale.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	for _, c := range []struct{ host, want string }{
		{"unix://" + dir + "/none.sock", "is not there"},
		{"unix://" + dir + "/stale.sock", "is not running"},
		{"ssh://root@example.net", "is not an engine on this host"},
		{engine(t, "1.39", "[]", "[]"), "API version 1.39 is not supported"},
		{engine(t, "1.41", `{"message":"page not found"}`, "[]"), "reading its answer to GET /networks"},
	} {
		got := docker.List(t.Context(), c.host)
		if got.Docker.Reachable || !strings.Contains(got.Docker.Problem, c.want) {
			t.Errorf("%s: reachable %v, problem %q, want %q", c.host, got.Docker.Reachable, got.Docker.Problem, c.want)
		}
	}
}

func TestListGivesUpOnAHungEngine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	start := time.Now()
	got := docker.List(t.Context(), path)
	if got.Docker.Reachable || !strings.Contains(got.Docker.Problem, "did not answer within 2s") {
		t.Errorf("problem %q", got.Docker.Problem)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestWatch: a call when it is subscribed, one for each event, and an error when the engine goes.
func TestWatch(t *testing.T) {
	calls := 0
	err := docker.Watch(t.Context(), engine(t, "1.41", networks2010, containers2010), func() { calls++ })
	if calls != 3 || err == nil || !strings.Contains(err.Error(), "events ended") {
		t.Errorf("%d calls, then %v", calls, err)
	}
	if err := docker.Watch(t.Context(), "unix://"+t.TempDir()+"/none", func() { t.Error("called") }); !errors.Is(err, docker.ErrNoAnswer) {
		t.Error("without an engine there is no error")
	}
}

func TestListIsQuietWithoutDocker(t *testing.T) {
	if _, err := os.Stat("/var/run/docker.sock"); err == nil {
		t.Skip("there is a Docker here")
	}
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if got := docker.List(context.Background(), ""); got.Docker != (inventory.Docker{}) {
		t.Errorf("got %+v, want nothing", got.Docker)
	}
}

// writeContext makes a context as `docker context create` does.
func writeContext(t *testing.T, dir, name, meta string) {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	folder := filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "meta.json"), []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFindEndpoint(t *testing.T) {
	dir := t.TempDir()
	writeContext(t, dir, "lab", `{"Name":"lab","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///run/lab.sock","SkipTLSVerify":false}}}`)
	writeContext(t, dir, "far", `{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"ssh://example.net"}}}`)
	writeContext(t, dir, "torn", `{"Name":`)
	for _, c := range []struct{ name, flag, env, context, config, host, from, err string }{
		{name: "nothing", host: "unix:///var/run/docker.sock", from: "Docker's default"},
		{name: "flag first", flag: "/run/a.sock", env: "unix:///run/b.sock", host: "unix:///run/a.sock", from: "--docker-host"},
		{name: "environment before context", env: "127.0.0.1:2375", context: "lab", host: "tcp://127.0.0.1:2375", from: "DOCKER_HOST"},
		{name: "DOCKER_CONTEXT before config", context: "lab", config: `{"currentContext":"far"}`, host: "unix:///run/lab.sock", from: `the context "lab"`},
		{name: "config", config: `{"currentContext":"lab"}`, host: "unix:///run/lab.sock", from: `the context "lab"`},
		{name: "config without", config: `{"auths":{}}`, host: "unix:///var/run/docker.sock", from: "Docker's default"},
		{name: "default", config: `{"currentContext":"default"}`, host: "unix:///var/run/docker.sock", from: "Docker's default"},
		{name: "far", config: `{"currentContext":"far"}`, err: "not an engine on this host"},
		{name: "torn context", context: "torn", err: "unexpected end of JSON"},
		{name: "unknown context", context: "gone", err: `the Docker context "gone"`},
		{name: "torn config", config: `{"curr`, err: "config.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", c.env)
			t.Setenv("DOCKER_CONTEXT", c.context)
			t.Setenv("DOCKER_CONFIG", dir)
			os.Remove(filepath.Join(dir, "config.json"))
			if c.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := docker.FindEndpoint(c.flag)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got.Host != c.host || got.From != c.from {
				t.Errorf("%q from %q, %v; want %q from %q", got.Host, got.From, err, c.host, c.from)
			}
		})
	}
}
