package plot

import (
	"math"
	"slices"
)

// Bars compares things by one quantity: a bar to each one's median, a dot for
// every sample, a rule from the least to the greatest.
type Bars struct {
	Title, About string
	Axis         string // quantity and unit, and which way is better
	Bars         []Bar
	Notes        []string
}

// Bar is one of the things compared.
type Bar struct {
	Label  string
	Values []float64
	Note   string // beside the bar
	Alarm  bool   // the note is a warning
	Base   bool   // what the others are compared to
}

const (
	barHeight = 16.0
	barStep   = 30.0
)

func (b Bars) size() (float64, float64) {
	return width, newHead(b.Title, b.About).height() + barStep*float64(len(b.Bars)) + 44 + newFoot(b.notes()).height()
}

func (b Bars) notes() []string {
	return append([]string{"Bar: median. Dots: every sample. Rule: from the least to the greatest."}, b.Notes...)
}

func (b Bars) draw(c canvas) {
	h := newHead(b.Title, b.About)
	h.draw(c)
	left, right, highest := 0.0, 0.0, 0.0
	for _, bar := range b.Bars {
		left = max(left, textWidth(bar.Label, normal))
		right = max(right, textWidth(label(bar), normal))
		for _, v := range bar.Values {
			highest = max(highest, v)
		}
	}
	left += margin + 8
	scale := ticks(highest, 6)
	span := max(width-margin-left-right-10, 120)
	at := func(v float64) float64 { return left + span*v/scale[len(scale)-1] }
	top := h.height()
	bottom := top + barStep*float64(len(b.Bars))
	for _, v := range scale {
		c.line(at(v), top-4, at(v), bottom, 1, grid)
		c.text(at(v), bottom+14, Format(v), small, middle)
	}
	for i, bar := range b.Bars {
		y := top + barStep*float64(i) + (barStep-barHeight)/2
		c.text(left-8, y+barHeight-4, bar.Label, normal, end)
		if len(bar.Values) == 0 {
			c.text(left+4, y+barHeight-4, "no sample", small, start)
			continue
		}
		v := slices.Sorted(slices.Values(bar.Values))
		fill := palette[0]
		if bar.Base {
			fill = palette[6]
		}
		fill.A = 0xa0
		c.rect(left, y, at(median(v))-left, barHeight, fill)
		mid := y + barHeight/2
		c.line(at(v[0]), mid, at(v[len(v)-1]), mid, 1.5, ink)
		for _, x := range v {
			c.dot(at(x), mid, 2.5, ink)
		}
		st := normal
		if bar.Alarm {
			st = alarm
		}
		c.text(max(at(v[len(v)-1]), at(median(v)))+8, y+barHeight-4, label(bar), st, start)
	}
	c.line(left, top-4, left, bottom, 1, ink)
	c.text(left, bottom+32, b.Axis, normal, start)
	newFoot(b.notes()).draw(c, bottom+54)
}

func label(b Bar) string {
	if len(b.Values) == 0 {
		return b.Note
	}
	s := Format(median(slices.Sorted(slices.Values(b.Values))))
	if b.Note != "" {
		s += "  " + b.Note
	}
	return s
}

// median of sorted values.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	if n := len(v) / 2; len(v)%2 == 0 {
		return (v[n-1] + v[n]) / 2
	}
	return v[len(v)/2]
}
