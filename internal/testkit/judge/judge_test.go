package judge

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"quaywall/internal/kernel"
	"quaywall/internal/kernel/ipt"
	"quaywall/internal/kernel/nft"
)

var (
	seed     = flag.Uint64("seed", 0, "seed of the first policy; 0 takes one from the clock")
	policies = flag.Int("policies", 0, "how many policies to judge; 0 is QUAYWALL_JUDGE_POLICIES, or 300")
)

// usual is how many policies an ordinary run judges, and readEach how often it reads the rules in force: for one policy of so
// many. A longer run reads them always.
const (
	usual    = 300
	readEach = 19
)

func backends() []kernel.Backend {
	return []kernel.Backend{nft.New(), ipt.New(ipt.NFT, ipt.Options{}), ipt.New(ipt.Legacy, ipt.Options{})}
}

// howMany reads how many policies are wanted.
func howMany(t *testing.T) int {
	t.Helper()
	if *policies > 0 {
		return *policies
	}
	text := os.Getenv("QUAYWALL_JUDGE_POLICIES")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal("QUAYWALL_JUDGE_POLICIES: ", err)
	}
	return n
}

func TestJudge(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	start := time.Now()
	o := Options{Seed: first, Policies: howMany(t), Backends: backends()}
	if o.Policies == usual {
		o.ReadEach = readEach
	}
	r := Run(t, o)
	if missing := r.Coverage.Missing(); r.Policies >= usual && len(missing) > 0 {
		t.Errorf("the generator never made: %s", strings.Join(missing, ", "))
	}
	t.Logf("seed %d: %d policies, %d packets for each backend, in %v; asked about packets: %v\n%s", first, r.Policies, r.Packets,
		time.Since(start).Round(time.Millisecond), r.Asked, r.Coverage)
}
