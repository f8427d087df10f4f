package cli

import (
	"bytes"
	"fmt"
	"html"

	"quaywall/internal/sim"
)

// The measures of the drawing, in pixels.
const (
	graphWidth  = 900
	graphRow    = 34
	graphHead   = 96
	graphMargin = 24
)

// drawTrace draws a packet's way as one SVG: what it met from top to bottom, lit as far as it came, with what decided named.
func drawTrace(t *sim.Trace) []byte {
	var b bytes.Buffer
	rows := graphRows(t)
	height := graphHead + len(rows)*graphRow + graphMargin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n",
		graphWidth, height, graphWidth, height)
	fmt.Fprintf(&b, "<title>%s: %s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", html.EscapeString(t.Packet), t.Verdict)
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"32\" font-size=\"17\" font-weight=\"bold\">%s</text>\n", graphMargin, html.EscapeString(t.Packet))
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"58\" fill=\"%s\" font-weight=\"bold\">%s</text>\n", graphMargin, graphColour(string(t.Verdict)), t.Verdict)
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"80\">%s</text>\n", graphMargin, html.EscapeString(shortened(t.Why, 130)))
	for i, r := range rows {
		r.draw(&b, graphHead+i*graphRow, i+1 < len(rows))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// graphLine is one line of the drawing.
type graphLine struct {
	head, text, colour string
	isHead             bool // it begins a leg
}

func graphRows(t *sim.Trace) (rows []graphLine) {
	leg := ""
	for _, s := range t.Path {
		if s.Leg != leg {
			leg = s.Leg
			rows = append(rows, graphLine{head: upperFirst(leg), isHead: true})
		}
		if s.Chain == "" {
			rows = append(rows, graphLine{text: rewritten(s.Text, s.Before, s.After), colour: "#456"})
			continue
		}
		rows = append(rows, graphLine{head: s.Hook, text: fmt.Sprintf("%s %s (%d): %s", s.Table, s.Chain, s.Priority, s.Verdict), colour: graphColour(s.Verdict)})
		for _, r := range s.Rules {
			if r.Matched == "no" {
				continue
			}
			rows = append(rows, graphLine{text: rewritten(fmt.Sprintf("%s %d: %s → %s", r.Chain, r.Rule, r.Text, r.Did), r.Before, r.After), colour: graphColour(r.Did)})
		}
	}
	return rows
}

func rewritten(text, before, after string) string {
	if before == after {
		return text
	}
	return text + "   [" + before + " → " + after + "]"
}

func graphColour(verdict string) string {
	switch verdict {
	case "accept":
		return "#17803d"
	case "drop", "policy drop", "reject":
		return "#c01c28"
	case "unknown":
		return "#b5651d"
	}
	return "#333"
}

// shortened cuts a text that would leave the drawing.
func shortened(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

func (r graphLine) draw(b *bytes.Buffer, y int, goesOn bool) {
	if r.isHead {
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", graphMargin, y+graphRow/2, html.EscapeString(r.head))
		return
	}
	const lane = 140
	if goesOn {
		fmt.Fprintf(b, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"3\"/>\n", lane, y+graphRow/2, lane, y+graphRow+graphRow/2, r.colour)
	}
	fmt.Fprintf(b, "<circle cx=\"%d\" cy=\"%d\" r=\"6\" fill=\"%s\"/>\n", lane, y+graphRow/2, r.colour)
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" fill=\"#667\">%s</text>\n", graphMargin, y+graphRow/2+5, html.EscapeString(r.head))
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" fill=\"%s\">%s</text>\n", lane+18, y+graphRow/2+5, r.colour, html.EscapeString(shortened(r.text, 105)))
}
