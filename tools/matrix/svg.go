package matrix

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/sluice-net/sluice/tools/verdict"
)

// Sizes of the picture, in pixels. Text is measured by the advance of the
// widest common monospace fonts, 0.62 em.
const (
	fontPx    = 12
	charPx    = fontPx * 62 / 100.0
	rowPx     = 26
	narrowPx  = 34 // least width of a column
	marginPx  = 20
	headPx    = 34 // title
	legendPx  = 18 // a line of the legend
	slantSine = 0.7071
)

// colours of the states: fill and text.
var colours = map[State][2]string{
	All:     {"#b7e4c7", "#1b4332"},
	Some:    {"#fff3bf", "#5f3b00"},
	Mixed:   {"#ffd8a8", "#7a2e00"},
	None:    {"#f1d0d3", "#7d1a24"},
	Self:    {"#e9ecef", "#868e96"},
	Nothing: {"#ffffff", "#adb5bd"},
}

// WriteSVG writes the matrix as a picture that needs nothing else: rows talk
// to columns. What decided is in the tooltip of each cell.
func (m *Matrix) WriteSVG(w io.Writer) error {
	var l legend
	names := 0
	text := make([][]string, len(m.Groups))
	widths := make([]float64, len(m.Groups))
	for i, g := range m.Groups {
		names = max(names, utf8.RuneCountInString(g.Name))
		widths[i] = narrowPx
	}
	for i := range m.Cells {
		text[i] = make([]string, len(m.Groups))
		for j := range m.Cells[i] {
			text[i][j] = m.Cells[i][j].text(&l)
			widths[j] = max(widths[j], float64(utf8.RuneCountInString(text[i][j]))*charPx+10)
		}
	}
	left := marginPx + float64(names)*charPx + 10
	top := headPx + marginPx + float64(names)*charPx*slantSine + 12
	right := left
	for _, x := range widths {
		right += x
	}
	height := top + float64(len(m.Groups))*rowPx
	p := &picture{}
	p.heads(m, left, top, widths)
	p.cells(m, text, left, top, widths)
	lines := legendLines(&l, m.Faults)
	widest := 0
	for i, s := range lines {
		p.text(marginPx, height+marginPx+58+float64(i)*legendPx, "start", "#495057", s)
		widest = max(widest, utf8.RuneCountInString(s))
	}
	p.key(marginPx, height+marginPx)
	// The last names lean out to the right.
	width := max(right+float64(names)*charPx*slantSine, marginPx*2+float64(widest)*charPx, 620) + marginPx
	height += marginPx*2 + 58 + float64(len(lines))*legendPx
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="%d">
<title>Who may reach whom</title>
<rect width="100%%" height="100%%" fill="#ffffff"/>
<text x="%d" y="%d" font-size="16" font-weight="bold" fill="#212529">Who may reach whom: rows connect to columns</text>
%s</svg>
`, width, height, width, height, fontPx, marginPx, headPx-6, p.b.String())
	return err
}

type picture struct{ b strings.Builder }

func (p *picture) text(x, y float64, anchor, fill, s string) {
	fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, fill, html.EscapeString(s))
}

// heads writes the names of rows, and those of columns on a slant.
func (p *picture) heads(m *Matrix, left, top float64, widths []float64) {
	x := left
	for i, g := range m.Groups {
		p.text(left-8, top+float64(i)*rowPx+rowPx/2+4, "end", ink(g), g.Name)
		fmt.Fprintf(&p.b, `<text transform="translate(%.1f %.1f) rotate(-45)" fill="%s">%s</text>`+"\n",
			x+widths[i]/2, top-8, ink(g), html.EscapeString(g.Name))
		x += widths[i]
	}
}

func ink(g *Group) string {
	if g.Region {
		return "#1864ab"
	}
	return "#212529"
}

func (p *picture) cells(m *Matrix, text [][]string, left, top float64, widths []float64) {
	for i := range m.Cells {
		x := left
		for j := range m.Cells[i] {
			c := &m.Cells[i][j]
			p.cell(x, top+float64(i)*rowPx, widths[j], c, text[i][j], m.Groups[i].Name+" to "+m.Groups[j].Name)
			x += widths[j]
		}
	}
}

func (p *picture) cell(x, y, width float64, c *Cell, text, pair string) {
	colour := colours[c.State]
	fmt.Fprintf(&p.b, `<g><title>%s</title><rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s" stroke="#ffffff" stroke-width="2"/>`,
		html.EscapeString(c.tooltip(pair)), x, y, width, rowPx, colour[0])
	if text != "" {
		fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="%s">%s</text>`,
			x+width/2, y+rowPx/2+4, colour[1], html.EscapeString(text))
	}
	p.b.WriteString("</g>\n")
}

func (c *Cell) tooltip(pair string) string {
	out := pair
	switch c.State {
	case Self:
		return pair + ": a pod always reaches itself"
	case Nothing:
		return pair + ": nothing to judge"
	}
	for _, r := range c.Rules {
		by := verdict.Decision{DecidedBy: r.DecidedBy, Reason: r.Reason}.Text()
		out += "\n" + r.Verdict + " " + r.Ports.String() + ": " + by
	}
	if c.State == Mixed {
		out += "\nothers of these pods, or another IP family, get another verdict"
	}
	return out
}

// key explains the colours.
func (p *picture) key(x, y float64) {
	for _, k := range []struct {
		state State
		text  string
	}{{All, "every port"}, {Some, "some ports"}, {None, "no port"}, {Mixed, "depends on member or family"}} {
		fmt.Fprintf(&p.b, `<rect x="%.1f" y="%.1f" width="22" height="14" fill="%s"/>`+"\n", x, y, colours[k.state][0])
		p.text(x+28, y+11, "start", "#495057", k.text)
		x += 28 + float64(utf8.RuneCountInString(k.text))*charPx + 24
	}
}

func legendLines(l *legend, faults []string) []string {
	var out []string
	for _, ports := range l.order {
		out = append(out, l.letters[ports]+": "+ports)
	}
	for _, f := range faults {
		out = append(out, "left out: "+f)
	}
	return out
}
