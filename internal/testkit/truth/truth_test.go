package truth

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/collect"
)

var (
	whole  = flag.Bool("whole", false, "play all set-ups with all that happens to them, and leave out each file of each snapshot in turn")
	byNFT  = flag.Bool("by-nft", false, "Docker writes its rules by its own nftables backend")
	engine = flag.String("engine", "", "a release of Docker unpacked in this folder; else the installed one")
	keep   = flag.String("keep", "", "folder for the snapshots of the hosts that are played")
	judged = flag.String("judge", "", "folder below which snapshots were kept, to be judged once more")
)

// TestShared: real packets did what is said of them on the hosts of the shared examples.
func TestShared(t *testing.T) {
	dirs, err := filepath.Glob("../../collect/testdata/*-published-port")
	if err != nil || len(dirs) < 2 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		rows, err := Rows(os.DirFS(dir))
		if err != nil || len(rows) < 40 {
			t.Fatal(len(rows), err)
		}
		for i := range rows {
			rows[i].Path = examplePath(rows[i])
		}
		judge(t, dir, rows, true)
	}
}

// examplePath is how a connection of the shared examples got there: docker-proxy takes what comes from the container itself, to
// the loopback address, and IPv6, since the container has none.
func examplePath(r Row) string {
	proxied := strings.HasPrefix(r.From, "container:") || r.Dst == "127.0.0.1" || strings.Contains(r.Dst, ":")
	switch {
	case r.By == "host":
		return "host"
	case r.Note == "published port" && proxied:
		return "proxy"
	case r.Note == "published port":
		return "dnat"
	}
	return "direct"
}

// TestHosts plays hosts, takes snapshots of them with ordinary tools, dials, and compares.
func TestHosts(t *testing.T) {
	version := engineVersion(t)
	for _, s := range setups {
		brief := s.name == "plain" || s.name == "six"
		if !*whole && !brief || slices.Compare(version, s.from) < 0 || *byNFT && !s.nft {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.play(t)
		})
	}
}

// engineVersion is that of the engine that is played with: {28, 5, 2}.
func engineVersion(t *testing.T) []int {
	said, err := exec.CommandContext(t.Context(), filepath.Join(*engine, "dockerd"), "--version").Output()
	words := strings.Fields(string(said))
	if err != nil || len(words) < 3 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("dockerd --version: %v: %s", err, said)
		}
		t.Skip("there is no dockerd here:", err)
	}
	var version []int
	for _, part := range strings.FieldsFunc(words[2], func(c rune) bool { return c < '0' || c > '9' }) {
		n, _ := strconv.Atoi(part) // digits alone
		version = append(version, n)
	}
	return version
}

func (s setup) play(t *testing.T) {
	e := s.engine
	e.Dir = *engine
	if *byNFT {
		e.Args = append(e.Args, "--firewall-backend=nftables")
	}
	dir := *keep
	if dir == "" {
		dir = t.TempDir()
	}
	w := newWorld(t, e, s.forward || *byNFT)
	s.build(w)
	stages := append([]stage{{"fresh", func(*world) {}}}, s.then...)
	if !*whole {
		stages = stages[:1+len(stages)/4] // plain has its address translation flushed, too
	}
	for i, st := range stages {
		st.do(w)
		at := filepath.Join(dir, fmt.Sprintf("%s-%d-%s", s.name, i, st.name))
		judge(t, at, w.take(at), *whole && !s.all)
	}
}

// judge reads a snapshot and holds what is said of it against its rows.
func judge(t *testing.T, dir string, rows []Row, without bool) {
	t.Helper()
	tell := func(what string, wrong []Wrong, err error) {
		if err != nil {
			t.Errorf("%s%s: %v", dir, what, err)
		}
		for i, x := range wrong {
			if i == 40 {
				t.Errorf("… and %d more", len(wrong)-i)
				break
			}
			t.Errorf("%s%s: %v", filepath.Base(dir), what, x)
		}
		t.Logf("%s%s: %d rows, %d wrong", filepath.Base(dir), what, len(rows), len(wrong))
	}
	wrong, err := ask(os.DirFS(dir), rows)
	tell("", wrong, err)
	if !without || len(wrong) > 0 {
		return
	}
	for _, file := range beside(t, dir) {
		wrong, err := ask(lacking{os.DirFS(dir), file}, rows)
		tell(" without "+file, wrong, err)
	}
}

func ask(dir fs.FS, rows []Row) ([]Wrong, error) {
	host, err := collect.Read(dir)
	if err != nil {
		return nil, err
	}
	return Judge(host, rows)
}

// beside are the files of a snapshot that may be missing: all but the rules.
func beside(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		rules := strings.Contains(e.Name(), "tables-") || strings.HasPrefix(e.Name(), "nft-ruleset")
		if !rules && e.Name() != File {
			all = append(all, e.Name())
		}
	}
	return all
}

// lacking is a folder but for one file.
type lacking struct {
	fs.FS
	file string
}

func (l lacking) Open(name string) (fs.File, error) {
	if name == l.file {
		return nil, fs.ErrNotExist
	}
	return l.FS.Open(name)
}

// TestJudged judges snapshots that were kept.
func TestJudged(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(*judged, "*", File))
	if *judged == "" {
		return
	}
	if err != nil || len(found) == 0 {
		t.Fatal("no snapshots below", *judged, err)
	}
	for _, f := range found {
		dir := filepath.Dir(f)
		name, _, _ := strings.Cut(filepath.Base(dir), "-")
		all := slices.ContainsFunc(setups, func(s setup) bool { return s.all && s.name == name })
		t.Run(filepath.Base(dir), func(t *testing.T) {
			rows, err := Rows(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			judge(t, dir, rows, *whole && !all)
		})
	}
}
