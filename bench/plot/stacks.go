package plot

import (
	"fmt"
	"image/color"
	"slices"
	"strings"
)

// Stacks shows of what things are made: a bar of the whole width a thing, cut into
// its parts. A part has the same colour in all bars.
type Stacks struct {
	Title, About string
	Axis         string
	Stacks       []Stack
	Notes        []string
}

// Stack is one of the things.
type Stack struct {
	Label string
	Parts []Part
}

// Part is a share of a thing.
type Part struct {
	Name  string
	Share float64 // of 1
}

// manyParts is how many parts have a colour of their own; the smaller ones are one.
const manyParts = 12

// Rest is the name of what has no colour of its own.
const Rest = "rest"

const swatch = 11.0

// names are the parts in the order of the bars: by what they are in all stacks.
func (s Stacks) names() []string {
	sums := map[string]float64{}
	var names []string
	for _, st := range s.Stacks {
		for _, p := range st.Parts {
			if _, ok := sums[p.Name]; !ok {
				names = append(names, p.Name)
			}
			sums[p.Name] += p.Share
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == Rest })
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case sums[a] > sums[b]:
			return -1
		case sums[a] < sums[b]:
			return 1
		}
		return strings.Compare(a, b)
	})
	return names[:min(len(names), manyParts)]
}

// legend is lines of names, each with the place of its swatch.
func (s Stacks) legend() (lines [][]string) {
	x := 0.0
	for _, name := range append(s.names(), Rest) {
		w := textWidth(name, small) + swatch + 22
		if len(lines) == 0 || x+w > width-2*margin {
			lines, x = append(lines, nil), 0
		}
		at := len(lines) - 1
		lines[at] = append(lines[at], name)
		x += w
	}
	return lines
}

func (s Stacks) notes() []string { return s.Notes }

func (s Stacks) size() (float64, float64) {
	return width, newHead(s.Title, s.About).height() + lineHeight*float64(len(s.legend())) + 12 +
		barStep*float64(len(s.Stacks)) + 44 + newFoot(s.notes()).height()
}

// shade is the colour of a part: the palette's, then the same ones lighter.
func shade(i int) color.RGBA {
	c := palette[i%len(palette)]
	if i >= len(palette) {
		c = color.RGBA{c.R/2 + 127, c.G/2 + 127, c.B/2 + 127, 255}
	}
	return c
}

func (s Stacks) draw(c canvas) {
	h := newHead(s.Title, s.About)
	h.draw(c)
	names := s.names()
	colour := func(name string) color.RGBA {
		if at := slices.Index(names, name); at >= 0 {
			return shade(at)
		}
		return grid
	}
	top := h.height() + 2
	for _, line := range s.legend() {
		x := margin
		for _, name := range line {
			c.rect(x, top-swatch+2, swatch, swatch, colour(name))
			c.text(x+swatch+4, top+1, name, small, start)
			x += textWidth(name, small) + swatch + 22
		}
		top += lineHeight
	}
	top += 2
	left := 0.0
	for _, st := range s.Stacks {
		left = max(left, textWidth(st.Label, normal))
	}
	left += margin + 8
	span := width - margin - left
	bottom := top + barStep*float64(len(s.Stacks))
	for i := range 5 {
		x := left + span*float64(i)/4
		c.line(x, top-2, x, bottom, 1, grid)
		at := middle
		if i == 4 {
			at = end
		}
		c.text(x, bottom+14, fmt.Sprintf("%d %%", 25*i), small, at)
	}
	for i, st := range s.Stacks {
		y := top + barStep*float64(i) + (barStep-barHeight)/2
		c.text(left-8, y+barHeight-4, st.Label, normal, end)
		x := left
		for _, name := range append(slices.Clone(names), Rest) {
			share := 0.0
			for _, p := range st.Parts {
				if p.Name == name || name == Rest && !slices.Contains(names, p.Name) {
					share += p.Share
				}
			}
			if share <= 0 {
				continue
			}
			w := span * share
			fill := colour(name)
			c.rect(x, y, w, barHeight, fill)
			if text := fmt.Sprintf("%.0f", 100*share); textWidth(text, small) < w-4 {
				c.text(x+w/2, y+barHeight-4, text, style{11, false, readable(fill)}, middle)
			}
			x += w
		}
	}
	c.line(left, top-2, left, bottom, 1, ink)
	c.text(left, bottom+32, s.Axis, normal, start)
	newFoot(s.notes()).draw(c, bottom+54)
}

// readable is a colour for text on another.
func readable(c color.RGBA) color.RGBA {
	if 299*int(c.R)+587*int(c.G)+114*int(c.B) > 140*1000 {
		return ink
	}
	return paper
}
