// Package plot draws the figures of a benchmark's report: bars with every
// sample on them, and lines over a parameter. A figure is plain data that is
// drawn once, onto a canvas that becomes an SVG or a PNG: both show the same.
//
// Axes of quantities begin at 0, so that lengths may be compared; only a
// parameter may have a logarithmic axis, which then says so. Every figure
// carries what is needed to read it: title, unit, which way is better, and what
// the marks mean. Drawing takes milliseconds and nothing of the system: the
// font is in the binary. The package knows nothing of what is measured.
package plot

import (
	"fmt"
	"image/color"
	"math"
	"strings"
)

// Figure is something that can be drawn.
type Figure interface {
	// size is in points, of which a PNG has Scale² pixels each.
	size() (w, h float64)
	draw(canvas)
}

// anchor says which point of a text its position is.
type anchor string

const (
	start  anchor = "start"
	middle anchor = "middle"
	end    anchor = "end"
)

// canvas is what figures are drawn on; (0, 0) is the upper left corner.
type canvas interface {
	rect(x, y, w, h float64, c color.RGBA)
	line(x1, y1, x2, y2, width float64, c color.RGBA)
	dot(x, y, r float64, c color.RGBA)
	// text puts the base line of a text at y.
	text(x, y float64, s string, st style, at anchor)
}

type style struct {
	size float64
	bold bool
	c    color.RGBA
}

// Colours that are told apart also by the colour-blind (Okabe and Ito), and
// greys.
var (
	palette = []color.RGBA{
		{0x00, 0x72, 0xb2, 255}, {0xd5, 0x5e, 0x00, 255}, {0x00, 0x9e, 0x73, 255}, {0xcc, 0x79, 0xa7, 255},
		{0xe6, 0x9f, 0x00, 255}, {0x56, 0xb4, 0xe9, 255}, {0x70, 0x70, 0x70, 255}, {0x8c, 0x51, 0x0a, 255},
	}
	ink    = color.RGBA{0x22, 0x22, 0x22, 255}
	faint  = color.RGBA{0x66, 0x66, 0x66, 255}
	grid   = color.RGBA{0xdd, 0xdd, 0xdd, 255}
	paper  = color.RGBA{0xff, 0xff, 0xff, 255}
	warn   = color.RGBA{0xb0, 0x20, 0x20, 255}
	strong = style{14, true, ink}
	normal = style{12, false, ink}
	small  = style{11, false, faint}
	alarm  = style{11, false, warn}
)

// Format writes a value with three significant digits, thousands and more
// with a letter.
func Format(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case a >= 999.5e6:
		return digits(v/1e9) + "G"
	case a >= 999.5e3:
		return digits(v/1e6) + "M"
	case a >= 9995:
		return digits(v/1e3) + "k"
	}
	return digits(v)
}

func digits(v float64) string {
	if a := math.Abs(v); a >= 100 || a == 0 {
		return fmt.Sprintf("%.0f", v)
	}
	s := fmt.Sprintf("%.3g", v)
	if strings.Contains(s, "e") {
		return fmt.Sprintf("%.3f", v)
	}
	return s
}

// ticks returns round numbers from 0 to at least highest, some n of them.
func ticks(highest float64, n int) []float64 {
	if !(highest > 0) || math.IsInf(highest, 0) {
		highest = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(highest/float64(n))))
	for _, m := range []float64{2, 2.5, 2} { // 1, 2, 5, 10 times a power of ten
		if highest/step <= float64(n) {
			break
		}
		step *= m
	}
	var out []float64
	for i := 0; ; i++ {
		v := float64(i) * step
		out = append(out, v)
		if v >= highest*(1-1e-9) {
			return out
		}
	}
}

// wrap breaks a text into lines of at most width points.
func wrap(s string, st style, width float64) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && textWidth(line+" "+word, st) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimLeft(line+" "+word, " ")
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

const (
	width      = 760.0
	margin     = 16.0
	lineHeight = 16.0
)

// head is the title of a figure and what explains it.
type head struct{ title, about []string }

func newHead(title, about string) head {
	return head{wrap(title, strong, width-2*margin), wrap(about, small, width-2*margin)}
}

func (h head) height() float64 {
	return margin + lineHeight*float64(len(h.title)+len(h.about)) + 10
}

func (h head) draw(c canvas) {
	y := margin + 8
	for _, l := range h.title {
		c.text(margin, y, l, strong, start)
		y += lineHeight
	}
	for _, l := range h.about {
		c.text(margin, y, l, small, start)
		y += lineHeight
	}
}

// foot is notes below a figure.
type foot []string

func newFoot(notes []string) (f foot) {
	for _, n := range notes {
		f = append(f, wrap(n, small, width-2*margin)...)
	}
	return f
}

func (f foot) height() float64 { return lineHeight*float64(len(f)) + margin }

func (f foot) draw(c canvas, y float64) {
	for _, l := range f {
		c.text(margin, y, l, small, start)
		y += lineHeight
	}
}
