package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Row is one line of the report.
type Row struct {
	What   string  `json:"what"`
	Ours   float64 `json:"ours"`             // median
	Theirs float64 `json:"theirs,omitempty"` // median of what it is compared with; 0 for none
	Unit   string  `json:"unit"`
	Beside string  `json:"beside,omitempty"` // what it is compared with
	Ratio  float64 `json:"ratio,omitempty"`  // median of ours/theirs, pair by pair
	Low    float64 `json:"low,omitempty"`    // smallest and largest of these ratios
	High   float64 `json:"high,omitempty"`
	Target string  `json:"target"`
	Met    bool    `json:"met"`
}

// Report collects rows; its methods may be called from several tests.
type Report struct {
	mu      sync.Mutex
	Machine Machine `json:"machine"`
	Rows    []Row   `json:"rows"`
}

// Machine is what the figures were measured on.
type Machine struct {
	When   string `json:"when"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Go     string `json:"go"`
}

func describeMachine(now time.Time) Machine {
	return Machine{
		When:   now.UTC().Format(time.RFC3339),
		Kernel: firstLine("/proc/sys/kernel/osrelease", ""),
		CPU:    firstLine("/proc/cpuinfo", "model name"),
		Cores:  runtime.NumCPU(),
		Go:     runtime.Version(),
	}
}

// firstLine gives the first line of a file that begins with a word, what stands behind the colon; the first line of all
// for no word.
func firstLine(path, word string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, word) {
			_, value, found := strings.Cut(line, ":")
			if !found {
				value = line
			}
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// Add puts a row into the report.
func (r *Report) Add(row Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Rows = append(r.Rows, row)
}

// Write writes PATH.md and PATH.json.
func (r *Report) Write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".json", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path+".md", []byte(r.Markdown()), 0o644)
}

// Markdown is the report for people.
func (r *Report) Markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "# quaywall, measured\n\n%s, %d × %s, Linux %s, %s. Median; ratios pair by pair, lowest to highest in brackets.\n\n",
		m.When, m.Cores, m.CPU, m.Kernel, m.Go)
	b.WriteString("| what | quaywall | beside it | ratio | target | met |\n|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s | %s |\n", row.What, figure(row.Ours), row.Unit, row.beside(), row.ratio(),
			row.Target, map[bool]string{true: "yes", false: "**no**"}[row.Met])
	}
	return b.String()
}

func (row Row) beside() string {
	if row.Beside == "" {
		return ""
	}
	return fmt.Sprintf("%s: %s", row.Beside, figure(row.Theirs))
}

func (row Row) ratio() string {
	if row.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f [%.2f-%.2f]", row.Ratio, row.Low, row.High)
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1 || v == 0:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// compare measures two things in turn, after one warm-up each, and fills in a row's figures.
func compare(row Row, pairs int, ours, theirs func() float64) Row {
	ours()
	theirs()
	var a, b, ratios []float64
	for range pairs {
		x, y := ours(), theirs()
		a, b, ratios = append(a, x), append(b, y), append(ratios, x/y)
	}
	row.Ours, row.Theirs, row.Ratio = median(a), median(b), median(ratios)
	row.Low, row.High = slices.Min(ratios), slices.Max(ratios)
	return row
}

// repeat measures one thing some times, after a warm-up, and gives the median.
func repeat(times int, measure func() float64) float64 {
	measure()
	var all []float64
	for range times {
		all = append(all, measure())
	}
	return median(all)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
