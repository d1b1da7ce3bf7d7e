package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/color"
	"io"
)

// SVG writes a figure as an element that stands alone, or in a page of HTML.
func SVG(out io.Writer, f Figure) error {
	w, h := f.size()
	s := &svg{}
	fmt.Fprintf(&s.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" font-family="Go, Helvetica, Arial, sans-serif">`+"\n", w, h, w, h)
	s.rect(0, 0, w, h, paper)
	f.draw(s)
	s.b.WriteString("</svg>\n")
	_, err := out.Write(s.b.Bytes())
	return err
}

type svg struct{ b bytes.Buffer }

func hex(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func (s *svg) rect(x, y, w, h float64, c color.RGBA) {
	fmt.Fprintf(&s.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="%.2g"/>`+"\n",
		x, y, max(w, 0), h, hex(c), float64(c.A)/255)
}

func (s *svg) line(x1, y1, x2, y2, width float64, c color.RGBA) {
	fmt.Fprintf(&s.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"/>`+"\n", x1, y1, x2, y2, hex(c), width)
}

func (s *svg) dot(x, y, r float64, c color.RGBA) {
	fmt.Fprintf(&s.b, `<circle cx="%.1f" cy="%.1f" r="%g" fill="%s"/>`+"\n", x, y, r, hex(c))
}

func (s *svg) text(x, y float64, text string, st style, at anchor) {
	weight := ""
	if st.bold {
		weight = ` font-weight="bold"`
	}
	fmt.Fprintf(&s.b, `<text x="%.1f" y="%.1f" font-size="%g" fill="%s" text-anchor="%s"%s>`, x, y, st.size, hex(st.c), at, weight)
	xml.EscapeText(&s.b, []byte(text)) // a bytes.Buffer takes all
	s.b.WriteString("</text>\n")
}
