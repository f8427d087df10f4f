package sim_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quaywall/internal/collect"
	"quaywall/internal/packet"
	"quaywall/internal/sim"
)

// row is what a real packet did.
type row struct {
	From      string `json:"from"`
	Proto     string `json:"proto"`
	Dst       string `json:"dst"`
	Port      uint16 `json:"dport"`
	Reachable bool   `json:"reachable"`
	By        string `json:"by"`
	SeenSrc   string `json:"seen_src"`
	Note      string `json:"note"`
}

// query is the packet as a person would ask for it.
func (r row) query(t *testing.T) packet.Query {
	at := netip.AddrPortFrom(netip.MustParseAddr(r.Dst), r.Port)
	clients := map[string][2]string{"wan": {"203.0.113.2", "2001:db8:113::2"}, "lan": {"192.168.50.2", "fd50::2"}}
	text := r.Proto + " -> " + at.String()
	switch client, ok := clients[r.From]; {
	case ok && at.Addr().Is4():
		text = r.Proto + " " + client[0] + " -> " + at.String()
	case ok:
		text = r.Proto + " " + client[1] + " -> " + at.String()
	case r.From == "host":
		text += " from host"
	default:
		text += " from container " + strings.TrimPrefix(r.From, "container:")
	}
	q, err := packet.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestTruth: real packets did what the simulator says of them, on the way that it says.
func TestTruth(t *testing.T) {
	dirs, err := filepath.Glob("../collect/testdata/*-published-port")
	if err != nil || len(dirs) < 2 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		host, err := collect.Read(os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "truth.json"))
		if err != nil {
			t.Fatal(err)
		}
		var rows []row
		if err := json.Unmarshal(text, &rows); err != nil || len(rows) < 40 {
			t.Fatal(len(rows), err)
		}
		s := sim.New(host)
		for _, r := range rows {
			r.check(t, s)
		}
	}
}

func (r row) check(t *testing.T, s *sim.Sim) {
	tr, err := s.Explain(r.query(t), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{"": "none", "c1": "container", "host": "host", "wan": "remote", "lan": "remote"}
	want := kinds[r.By]
	if seen, _ := netip.ParseAddr(r.SeenSrc); want == "container" && seen.IsValid() && (seen.Is4() != netip.MustParseAddr(r.Dst).Is4() || r.isProxied()) {
		want = "proxy"
	}
	isReachable := tr.Reachable == nil || *tr.Reachable == r.Reachable
	if (tr.Verdict == sim.Accept) != r.Reachable || !isReachable || tr.DeliveredTo.Kind != want || r.Reachable && tr.DeliveredTo.Source != r.SeenSrc {
		t.Errorf("%s: %s, %s from %s; it was reachable: %v by %s (%s) from %s\n%s", tr.Packet, tr.Verdict, tr.DeliveredTo.Kind, tr.DeliveredTo.Source,
			r.Reachable, r.By, want, r.SeenSrc, tr.Why)
	}
}

// isProxied tells whether docker-proxy is what takes an IPv4 packet: from the container itself, and to the loopback address.
func (r row) isProxied() bool {
	return r.Note == "published port" && (strings.HasPrefix(r.From, "container:") || r.Dst == "127.0.0.1")
}
