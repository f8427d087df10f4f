package docker_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/snapshot"
	"quaywall/internal/watch/docker"
)

var names = docker.Files{Networks: "network-inspect.json", Containers: "container-inspect.json", Version: "docker-version.json"}

// What the API says of a container beside what matters.
const secret = `,"Command":"run --password=hunter2","Labels":{"token":"hunter2"},"Mounts":[{"Source":"/hunter2"}]`

const listedContainers = `[{"Id":"abc","Names":["/c1"],"HostConfig":{"NetworkMode":"my6"},"Ports":[
   {"IP":"127.0.0.1","PrivatePort":5353,"PublicPort":53,"Type":"udp"},{"PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],
  "NetworkSettings":{"Networks":{"my6":{"IPAddress":"172.18.0.2","GlobalIPv6Address":"2001:db8:18::2","MacAddress":"02:42:ac:12:00:02"},"bridge":{"IPAddress":""}}}` + secret + `},
 {"Id":"def","Names":["/c2"],"HostConfig":{"NetworkMode":"host"},"Ports":[],"NetworkSettings":{"Networks":{"host":{"IPAddress":""}}}` + secret + `}]`

// TestInspection: what is written of an engine, and read again, is what List says of it. Nothing that may be a secret is in it.
func TestInspection(t *testing.T) {
	networks := strings.Replace(networks2010, `"Options":{}}`, `"Options":{},"Labels":{"token":"hunter2"}}`, 1)
	host := engine(t, "1.41", networks, listedContainers)
	in, engine := docker.Inspect(t.Context(), host)
	if !engine.Reachable {
		t.Fatal(engine.Problem)
	}
	for _, text := range [][]byte{in.Networks, in.Containers, in.Version} {
		if strings.Contains(string(text), "hunter2") {
			t.Errorf("a secret is written: %s", text)
		}
	}
	got, containers, problems := in.Read(names)
	if len(problems) > 0 {
		t.Error(problems)
	}
	same := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	if diff := cmp.Diff(docker.List(t.Context(), host), got, same); diff != "" {
		t.Error(diff)
	}
	want := []snapshot.Container{
		{Name: "c1", ID: "abc", Mode: "my6", Exposed: []snapshot.Port{{Proto: 6, Port: 80}, {Proto: 6, Port: 443}, {Proto: 17, Port: 5353}},
			Networks: []snapshot.Endpoint{{Network: "bridge"}, {Network: "my6", MAC: "02:42:ac:12:00:02",
				Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("2001:db8:18::2")}}}},
		{Name: "c2", ID: "def", Mode: "host", Networks: []snapshot.Endpoint{{Network: "host"}}},
	}
	if diff := cmp.Diff(want, containers, same); diff != "" {
		t.Error(diff)
	}
}

func TestInspectAnEngineThatIsNotThere(t *testing.T) {
	in, engine := docker.Inspect(t.Context(), "unix://"+t.TempDir()+"/docker.sock")
	if engine.Reachable || !strings.Contains(engine.Problem, "is not there") || in.Networks != nil {
		t.Errorf("%+v %+v", engine, in)
	}
	if _, err := docker.PID(t.Context(), "unix://"+t.TempDir()+"/docker.sock", "web"); err == nil {
		t.Error("a container of no engine has a process")
	}
}

// TestDirtyInspection: what is damaged is told, and the rest is read.
func TestDirtyInspection(t *testing.T) {
	in := docker.Inspection{Networks: []byte(networks2010[:len(networks2010)-40]), Version: []byte(`{"Server":`),
		Containers: []byte(`[{"Name":"/a","Config":{"ExposedPorts":{"x/tcp":{},"9/tcp":{}}},"NetworkSettings":{"Ports":{"80/foo":[{"HostPort":"80"}],"9/tcp":[{"HostPort":"x"}]}}},{"Name":7}]`)}
	got, containers, problems := in.Read(names)
	var files []string
	for _, p := range problems {
		files = append(files, p.Pos.File)
	}
	if diff := cmp.Diff([]string{"network-inspect.json", "container-inspect.json", "docker-version.json"}, files); diff != "" {
		t.Error(problems)
	}
	if len(got.Networks) != 3 || !got.Docker.Reachable || len(got.Published) != 0 || len(containers) != 2 || len(containers[1].Exposed) != 1 {
		t.Errorf("%+v %+v", got, containers)
	}
}

func FuzzInspection(f *testing.F) {
	text, err := os.ReadFile("../../collect/testdata/20.10.24-published-port/container-inspect.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(networks2010, string(text))
	f.Fuzz(func(_ *testing.T, networks, containers string) {
		docker.Inspection{Networks: []byte(networks), Containers: []byte(containers)}.Read(names)
	})
}
