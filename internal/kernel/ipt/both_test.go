package ipt

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/ruleset"
	"quaywall/internal/sysexec"
	"quaywall/internal/testkit/netns"
)

// alternative is what the program iptables is on this machine.
func alternative(t *testing.T) string {
	t.Helper()
	path, err := sysexec.Look("iptables")
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	link, _ := os.Readlink("/etc/alternatives/iptables") // not every distribution has them
	return path + " " + link
}

// asDocker makes the chain by which Docker is known.
func asDocker(t *testing.T, v Variant) {
	t.Helper()
	out, err := sysexec.Run(context.Background(), sysexec.Command{Path: "iptables-" + string(v), Args: []string{"-w", "10", "-t", "nat", "-N", "DOCKER"}})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Trap 25: rules of both variants at once. Each backend sees its own, and takes nothing away from the other one; nobody
// switches alternatives.
func TestBothVariantsAtOnce(t *testing.T) {
	before := alternative(t)
	nft, legacy := New(NFT, Options{}), New(Legacy, Options{})
	netns.Run(t, func() {
		wantNFT, wantLegacy := planned(t, nft, sample()), planned(t, legacy, setPolicy(7))
		commit(t, nft, sample())
		commit(t, legacy, setPolicy(7))
		for range 2 { // sets are common to both: what one no longer uses the other may
			inForce(t, nft, wantNFT)
			inForce(t, legacy, wantLegacy)
			commit(t, nft, setPolicy(7))
			commit(t, nft, sample())
		}
		remove(t, nft)
		if l := read(t, nft); l.Present {
			t.Errorf("iptables-nft still holds %v", l.Rules)
		}
		inForce(t, legacy, wantLegacy)
		commit(t, nft, sample())
		remove(t, legacy)
		inForce(t, nft, wantNFT)
		noneLeft(t, wantNFT)
	})
	if after := alternative(t); after != before {
		t.Errorf("the program iptables was %s and is %s", before, after)
	}
}

// Trap 25: the variant that Docker uses is taken; where Docker is in both, that is said.
func TestDetect(t *testing.T) {
	for name, test := range map[string]struct {
		docker []Variant
		want   Variant
		why    string
	}{
		"nft":     {[]Variant{NFT}, NFT, "Docker's chains are in iptables-nft"},
		"legacy":  {[]Variant{Legacy}, Legacy, "Docker's chains are in iptables-legacy"},
		"both":    {[]Variant{Legacy, NFT}, NFT, "Docker's chains are in both variants of iptables"},
		"neither": {nil, "", "the program iptables, version "},
	} {
		t.Run(name, func(t *testing.T) {
			netns.Tool(t, "iptables")
			netns.Run(t, func() {
				for _, v := range test.docker {
					asDocker(t, v)
				}
				got, why := Detect(context.Background())
				if test.want != "" && got != test.want || !strings.HasPrefix(why, test.why) {
					t.Errorf("%s: %s", got, why)
				}
				if there, err := legacyTables(ruleset.IPv4); err != nil || len(there) > 0 && !slices.Contains(test.docker, Legacy) {
					t.Errorf("asking made tables of iptables-legacy: %v, %v", there, err)
				}
			})
		})
	}
}
