package iptsave

import (
	"testing"

	"quaywall/internal/testkit/netns"
)

// TestPrintedIsLoaded: what Format writes iptables-restore takes, and iptables-save prints what was read in the beginning.
func TestPrintedIsLoaded(t *testing.T) {
	for _, name := range []string{"legacy", "nft", "legacy6", "nft6"} {
		t.Run(name, func(t *testing.T) {
			family := ""
			variant := name
			if name[len(name)-1] == '6' {
				family, variant = "6", name[:len(name)-1]
			}
			restore, save := "ip"+family+"tables-"+variant+"-restore", "ip"+family+"tables-"+variant+"-save"
			netns.Tool(t, restore)
			netns.Tool(t, "ipset")
			o := Options{Sets: testSets(t)}
			tables, _ := Parse(readDump(t, name+".save"), o)
			ns := netns.New(t)
			ns.Feed(t, readDump(t, "ipset.save"), "ipset", "restore")
			ns.Feed(t, Format(tables), restore, "--counters")
			again, problems := Parse(ns.Output(t, save, "-c"), o)
			if len(tables) != len(again) {
				t.Fatalf("%d tables of %d: %v", len(again), len(tables), problems)
			}
			for _, table := range tables {
				other := tableOf(again, table.Name)
				if other == nil {
					t.Fatalf("table %s is gone", table.Name)
				}
				if d := difference(withoutLines(tablesOf(table)), withoutLines(tablesOf(other))); d != "" {
					t.Error(d)
				}
			}
		})
	}
}
