package cli

import (
	_ "embed"
	"html/template"
	"io"
	"net/netip"
	"time"
)

//go:embed audit.html
var auditHTML string

// auditPage is what the page of an audit shows.
type auditPage struct {
	Name, When  string
	Nothing     string // instead of rows
	Heads       []string
	Counts      []auditCount
	Rows        []auditPageRow
	Unseen      []AuditUnseen
	Assumptions []string
}

type auditCount struct {
	Class, Text string
	Number      int
	Last        bool
}

type auditPageRow struct {
	AuditEndpoint
	Class, How, What, OpenTo string
	Rank                     int
}

var auditClassNames = [...]string{openToAny: "any", openToSome: "some", openToContainers: "containers", closed: "closed"}

// writeAuditPage writes a page that needs nothing but a browser.
func writeAuditPage(w io.Writer, name string, when time.Time, v AuditAnswer) error {
	page := auditPage{Name: name, When: when.Format(time.RFC1123), Nothing: v.nothing, Unseen: v.Unseen, Assumptions: v.Assumptions,
		Heads: []string{"How far", "Port", "Address", "What", "Way", "Open to", "By"}}
	for class := openToAny; class <= closed; class++ {
		page.Counts = append(page.Counts, auditCount{Class: auditClassNames[class], Text: auditHeads[class], Last: class == closed})
	}
	for _, e := range v.Endpoints {
		page.Counts[e.class].Number++
		line := auditLine{AuditEndpoint: e}
		row := auditPageRow{AuditEndpoint: e, Class: auditClassNames[e.class], How: auditHeads[e.class], What: line.what(), OpenTo: line.openTo(), Rank: int(e.class)}
		if a, err := netip.ParseAddr(e.Address); err == nil && a.IsUnspecified() {
			row.Address = "all, " + e.Family
		}
		page.Rows = append(page.Rows, row)
	}
	t, err := template.New("audit").Parse(auditHTML)
	if err != nil {
		return err
	}
	return t.Execute(w, page)
}
