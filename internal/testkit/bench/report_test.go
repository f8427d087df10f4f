package bench

import (
	"strings"
	"testing"
)

func TestMedianAndRatios(t *testing.T) {
	values := []float64{9, 2, 4, 6}
	i := 0
	row := compare(Row{What: "x", Unit: "ms", Beside: "y", Target: "at most 1.0", Met: true}, 3,
		func() float64 { i++; return values[i-1] }, func() float64 { return 2 })
	if row.Ours != 4 || row.Theirs != 2 || row.Ratio != 2 || row.Low != 1 || row.High != 3 {
		t.Errorf("the warm-up 9 must not count: %+v", row)
	}
	if m := median([]float64{1, 2, 3, 10}); m != 2.5 {
		t.Errorf("median %v", m)
	}
	r := Report{Rows: []Row{row}}
	if line := "| x | 4.0 ms | y: 2.0 | 2.00 [1.00-3.00] | at most 1.0 | yes |"; !strings.Contains(r.Markdown(), line) {
		t.Errorf("no line %q in\n%s", line, r.Markdown())
	}
}
