package analyze_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"quaywall/internal/analyze"
	"quaywall/internal/collect"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// outside are the machines of the snapshots that dialled.
var outside = map[string]map[bool]struct {
	addr  netip.Addr
	iface string
}{
	"wan": {true: {netip.MustParseAddr("203.0.113.2"), "eth0"}, false: {netip.MustParseAddr("2001:db8:113::2"), "eth0"}},
	"lan": {true: {netip.MustParseAddr("192.168.50.2"), "eth1"}, false: {netip.MustParseAddr("fd50::2"), "eth1"}},
}

// TestTruth holds the sets against what real packets did on the hosts of the snapshots.
func TestTruth(t *testing.T) {
	dirs, err := filepath.Glob("../collect/testdata/*")
	if err != nil || len(dirs) < 2 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			host, err := collect.Read(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "truth.json"))
			var rows []struct {
				From, Proto, Dst string
				Dport            uint16
				Reachable        bool
			}
			if err == nil {
				err = json.Unmarshal(text, &rows)
			}
			if err != nil {
				t.Fatal(err)
			}
			of := map[bool]*analyze.Analyzer{true: analyze.New(host, netfilter.IPv4), false: analyze.New(host, netfilter.IPv6)}
			asked := 0
			for _, row := range rows {
				dst := netip.MustParseAddr(row.Dst)
				from, ok := outside[row.From][dst.Is4()]
				if !ok {
					continue
				}
				proto, err := packet.ParseProto(row.Proto)
				if err != nil {
					t.Fatal(err)
				}
				asked++
				a, reached := of[dst.Is4()], false
				for _, w := range a.Dial(analyze.Target{Proto: proto, Addr: dst, Port: row.Dport}) {
					reached = reached || w.Path != analyze.NoSocket && a.May(w)[from.iface].Contains(from.addr)
				}
				if reached != row.Reachable {
					t.Errorf("%+v, and the sets say %v", row, reached)
				}
			}
			if asked < 20 {
				t.Errorf("only %d rows were asked for", asked)
			}
		})
	}
}
