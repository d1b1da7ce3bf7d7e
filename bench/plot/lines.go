package plot

import (
	"math"
	"slices"
)

// Lines shows how one quantity depends on a parameter: a line a thing, through
// the medians, with a rule from the least to the greatest sample of each point.
type Lines struct {
	Title, About string
	XAxis, YAxis string
	LogX         bool
	Series       []Series
	Notes        []string
}

// Series is one of the things compared.
type Series struct {
	Name   string
	Points []Point // by X, ascending
}

// Point is the samples for one value of the parameter.
type Point struct {
	X      float64
	Values []float64
}

const plotHeight = 300.0

func (l Lines) size() (float64, float64) {
	return width, newHead(l.Title, l.About).height() + lineHeight + plotHeight + 44 + newFoot(l.notes()).height()
}

func (l Lines) notes() []string {
	return append([]string{"Lines go through the medians; rules from the least to the greatest sample."}, l.Notes...)
}

// place is where the y of a label may go without covering another.
func place(used *[]float64, y float64) float64 {
	for slices.ContainsFunc(*used, func(u float64) bool { return math.Abs(u-y) < 13 }) {
		y += 2
	}
	*used = append(*used, y)
	return y
}

func (l Lines) draw(c canvas) {
	h := newHead(l.Title, l.About)
	h.draw(c)
	var xs []float64
	highest, right := 0.0, 0.0
	for _, s := range l.Series {
		right = max(right, textWidth(s.Name, normal))
		for _, p := range s.Points {
			xs = append(xs, p.X)
			for _, v := range p.Values {
				highest = max(highest, v)
			}
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	if len(xs) == 0 {
		return
	}
	scale := ticks(highest, 6)
	left, top := margin+52, h.height()+lineHeight
	bottom, span := top+plotHeight, width-2*margin-52-right-20
	fx := func(x float64) float64 { return x }
	if l.LogX {
		fx = func(x float64) float64 { return math.Log10(max(x, 0.1)) }
	}
	lo, hi := fx(xs[0]), fx(xs[len(xs)-1])
	if lo == hi {
		lo, hi = lo-1, hi+1
	}
	atX := func(x float64) float64 { return left + 14 + (span-28)*(fx(x)-lo)/(hi-lo) }
	atY := func(v float64) float64 { return bottom - plotHeight*v/scale[len(scale)-1] }
	for _, v := range scale {
		c.line(left, atY(v), left+span, atY(v), 1, grid)
		c.text(left-6, atY(v)+4, Format(v), small, end)
	}
	last := math.Inf(-1)
	for _, x := range xs {
		c.line(atX(x), bottom, atX(x), bottom+4, 1, ink)
		if atX(x)-last > 30 { // a label that would cover its neighbour is left out
			c.text(atX(x), bottom+16, Format(x), small, middle)
			last = atX(x)
		}
	}
	c.line(left, bottom, left+span, bottom, 1, ink)
	c.text(left-6, top-6, l.YAxis, small, start)
	c.text(left+span/2, bottom+34, l.XAxis, normal, middle)
	var used []float64
	for i, s := range l.Series {
		col := palette[i%len(palette)]
		var px, py float64
		for k, p := range s.Points {
			v := slices.Sorted(slices.Values(p.Values))
			if len(v) == 0 {
				continue
			}
			x, y := atX(p.X), atY(median(v))
			if k > 0 {
				c.line(px, py, x, y, 2, col)
			}
			c.line(x, atY(v[0]), x, atY(v[len(v)-1]), 1.5, col)
			c.dot(x, y, 3.5, col)
			px, py = x, y
		}
		if len(s.Points) > 0 {
			st := normal
			st.c = col
			c.text(left+span+8, place(&used, py+4), s.Name, st, start)
		}
	}
	newFoot(l.notes()).draw(c, bottom+58)
}
