package cli

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"quaywall/internal/sim"
)

//go:embed graph.svg
var graphSVG string

// The measures of the drawing, in pixels, and how many letters of a line have room.
const (
	graphWidth   = 900
	graphMargin  = 24
	graphText    = 124 // where lines begin
	graphHeight  = 17
	graphGap     = 6
	graphLetters = 102
	graphSaying  = 125 // of the proportional letters of a sentence
)

// graph is a packet's way as it is drawn: for each leg the hooks of the kernel, lit as far as the packet came, and below
// what it met, with what decided.
type graph struct {
	Packet, Class string
	Verdict       sim.Verdict
	Why           []graphWords
	Width, Height int
	Legs          []graphLeg
}

type graphWords struct {
	Text, Class string
	Bold        bool
	X, Y        int
}

type graphLeg struct {
	Name  string
	Y     int
	Nodes []graphNode
	Edges []graphEdge
	Lines []graphRow
}

// graphNode is a hook, or where a packet comes from and goes to. X and Y are its middle.
type graphNode struct {
	Text, Class         string
	X, Y, Width, Height int
}

func (n graphNode) Left() int { return n.X - n.Width/2 }
func (n graphNode) Top() int  { return n.Y - n.Height/2 }
func (n graphNode) Base() int { return n.Y + 5 }

type graphEdge struct {
	X1, Y1, X2, Y2 int
	Lit            bool
}

// graphRow is something that a packet met.
type graphRow struct {
	Head    string // the hook where it changes
	Y       int
	Texts   []graphWords
	Decides bool
}

func (r graphRow) Top() int    { return r.Y - 14 }
func (r graphRow) Width() int  { return graphWidth - 32 }
func (r graphRow) Height() int { return len(r.Texts)*graphHeight + 3 }

// Nodes beside the hooks.
const (
	arrives = "arrives"
	routing = "routing"
	host    = "this host"
	leaves  = "leaves"
)

// graphPlan is where everything stands below the name of a leg.
var graphPlan = []graphNode{
	{Text: arrives, X: 70, Y: 34}, {Text: "prerouting", X: 200, Y: 34}, {Text: routing, X: 325, Y: 34}, {Text: "forward", X: 480, Y: 34},
	{Text: "postrouting", X: 695, Y: 34}, {Text: leaves, X: 825, Y: 34}, {Text: "input", X: 400, Y: 92}, {Text: host, X: 515, Y: 92}, {Text: "output", X: 625, Y: 92},
}

var graphWays = [][2]string{{arrives, "prerouting"}, {"prerouting", routing}, {routing, "forward"}, {"forward", "postrouting"}, {"postrouting", leaves},
	{routing, "input"}, {"input", host}, {host, "output"}, {"output", "postrouting"}}

// graphPlanHeight is what the plan takes.
const graphPlanHeight = 128

// drawTrace draws a packet's way as one SVG.
func drawTrace(t *sim.Trace) ([]byte, error) {
	g := graph{Packet: t.Packet, Verdict: t.Verdict, Class: graphClass(string(t.Verdict)), Width: graphWidth}
	y := 80
	for _, line := range wrapped(t.Why, graphSaying) {
		g.Why = append(g.Why, graphWords{Text: line, Y: y})
		y += graphHeight
	}
	decided := false
	for _, leg := range legsOf(t) {
		y += graphHeight
		l := graphLeg{Name: upperFirst(leg), Y: y}
		l.plan(t, leg)
		y = l.list(t, leg, y+graphPlanHeight, &decided)
		g.Legs = append(g.Legs, l)
	}
	g.Height = y + graphMargin
	page, err := template.New("graph").Parse(graphSVG)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = page.Execute(&b, g)
	return b.Bytes(), err
}

func legsOf(t *sim.Trace) (legs []string) {
	for _, s := range t.Path {
		if !slices.Contains(legs, s.Leg) {
			legs = append(legs, s.Leg)
		}
	}
	return legs
}

// plan draws the hooks.
func (l *graphLeg) plan(t *sim.Trace, leg string) {
	way, stop := wayOf(t, leg)
	at := map[string]graphNode{}
	for _, n := range graphPlan {
		n.Y += l.Y
		n.Width, n.Height = 16+8*len(n.Text), 28
		switch {
		case n.Text == stop:
			n.Class = "stop"
		case slices.Contains(way, n.Text):
			n.Class = "lit"
		}
		at[n.Text] = n
		l.Nodes = append(l.Nodes, n)
	}
	for _, w := range graphWays {
		from, to := at[w[0]], at[w[1]]
		i := slices.Index(way, w[0])
		l.Edges = append(l.Edges, graphEdge{from.X, from.Y, to.X, to.Y, i >= 0 && i+1 < len(way) && way[i+1] == w[1]})
	}
}

// wayOf is the nodes that a packet came to on a leg, and the one where that ended.
func wayOf(t *sim.Trace, leg string) (way []string, stop string) {
	for _, h := range t.Hops {
		if h.Leg != leg {
			continue
		}
		switch {
		case len(way) == 0 && h.Hook == "prerouting":
			way = append(way, arrives)
		case len(way) == 0:
			way = append(way, host)
		case way[len(way)-1] == "prerouting":
			way = append(way, routing)
		}
		way = append(way, h.Hook)
	}
	stop = stopOf(t, leg)
	if len(way) == 0 || stop != "" && stop != routing {
		return way, stop
	}
	switch last := way[len(way)-1]; {
	case stop == routing && last == "prerouting":
		way = append(way, routing)
	case last == "postrouting":
		way = append(way, leaves)
	case last == "input":
		way = append(way, host)
	}
	return way, stop
}

// stopOf is where a way ended against its will: at a hook, or at the routing.
func stopOf(t *sim.Trace, leg string) string {
	for _, s := range t.Path {
		if s.Leg == leg && graphClass(s.Verdict) == "deny" {
			return s.Hook
		}
	}
	if leg == sim.Request && t.Verdict != sim.Accept && t.DecidedBy != nil && t.DecidedBy.Table == "kernel" {
		return routing
	}
	return ""
}

// list writes what a packet met, below the plan, and gives where that ends. What decided is decided once.
func (l *graphLeg) list(t *sim.Trace, leg string, y int, decided *bool) int {
	add := func(r graphRow, indent int, text, class string, bold bool) {
		r.Y = y
		for i, line := range wrapped(text, graphLetters-indent) {
			if i > 0 {
				line = "    " + line
			}
			r.Texts = append(r.Texts, graphWords{Text: line, Class: class, Bold: bold || r.Decides, X: graphText + 7*indent, Y: y + i*graphHeight})
		}
		y += len(r.Texts)*graphHeight + graphGap
		l.Lines = append(l.Lines, r)
	}
	decides := func(table, chain string, rule int) bool {
		d := t.DecidedBy
		is := !*decided && d != nil && d.Table == table && d.Chain == chain && d.Rule == rule
		*decided = *decided || is
		return is
	}
	for _, s := range t.Path {
		if s.Leg != leg {
			continue
		}
		if s.Chain == "" {
			add(graphRow{Head: s.Hook}, 0, rewritten(s.Text, s.Before, s.After), "said", false)
			continue
		}
		byPolicy := decides(s.Table, s.Chain, 0)
		add(graphRow{Head: s.Hook, Decides: byPolicy}, 0, fmt.Sprintf("%s %s (%d): %s", s.Table, s.Chain, s.Priority, s.Verdict), graphClass(s.Verdict), true)
		for _, r := range s.Rules {
			if r.Matched == "no" {
				continue
			}
			text := strings.TrimSpace(fmt.Sprintf("%s %d: %s → %s  %s", r.Chain, r.Rule, r.Text, r.Did, r.PolicyLine))
			add(graphRow{Decides: decides(s.Table, r.Chain, r.Rule)}, 2+2*r.Depth, rewritten(text, r.Before, r.After), graphClass(r.Did), false)
		}
	}
	return y
}

func rewritten(text, before, after string) string {
	if before == after {
		return text
	}
	return text + "   [" + before + " → " + after + "]"
}

func graphClass(verdict string) string {
	switch verdict {
	case "accept", "policy accept":
		return "accept"
	case "drop", "policy drop", "reject":
		return "deny"
	case "unknown":
		return "unknown"
	}
	return ""
}

// wrapped breaks a text into lines of so many letters, between words where it can.
func wrapped(text string, most int) (lines []string) {
	most = max(most, 20)
	runes := []rune(text)
	for len(runes) > most {
		end := most
		for i := most; i > most/2; i-- {
			if runes[i] == ' ' {
				end = i
				break
			}
		}
		lines = append(lines, string(runes[:end]))
		runes = []rune(strings.TrimLeft(string(runes[end:]), " "))
	}
	return append(lines, string(runes))
}
