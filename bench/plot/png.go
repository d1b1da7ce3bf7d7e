package plot

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// Scale is how many pixels a point has each way.
const Scale = 2

// PNG writes a figure as an image.
func PNG(out io.Writer, f Figure) error {
	w, h := f.size()
	img := image.NewRGBA(image.Rect(0, 0, int(w*Scale), int(h*Scale)))
	draw.Draw(img, img.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	f.draw(&raster{img})
	if err := png.Encode(out, img); err != nil {
		return fmt.Errorf("encode plot: %w", err)
	}
	return nil
}

type raster struct{ img *image.RGBA }

// fill fills a polygon, given in points. Only the part of the image that it
// covers is touched.
func (r *raster) fill(c color.RGBA, points ...float64) {
	x0, y0, x1, y1 := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for i := 0; i+1 < len(points); i += 2 {
		x0, x1 = min(x0, points[i]), max(x1, points[i])
		y0, y1 = min(y0, points[i+1]), max(y1, points[i+1])
	}
	box := image.Rect(int(math.Floor(x0*Scale)), int(math.Floor(y0*Scale)), int(math.Ceil(x1*Scale)), int(math.Ceil(y1*Scale)))
	v := vector.NewRasterizer(box.Dx(), box.Dy())
	for i := 0; i+1 < len(points); i += 2 {
		x, y := float32(points[i]*Scale-float64(box.Min.X)), float32(points[i+1]*Scale-float64(box.Min.Y))
		if i == 0 {
			v.MoveTo(x, y)
		} else {
			v.LineTo(x, y)
		}
	}
	v.ClosePath()
	v.Draw(r.img, box, image.NewUniform(color.NRGBA(c)), image.Point{})
}

func (r *raster) rect(x, y, w, h float64, c color.RGBA) {
	r.fill(c, x, y, x+w, y, x+w, y+h, x, y+h)
}

func (r *raster) line(x1, y1, x2, y2, width float64, c color.RGBA) {
	n := math.Hypot(x2-x1, y2-y1)
	if n == 0 {
		return
	}
	dx, dy := (y2-y1)/n*width/2, (x1-x2)/n*width/2
	r.fill(c, x1+dx, y1+dy, x2+dx, y2+dy, x2-dx, y2-dy, x1-dx, y1-dy)
}

func (r *raster) dot(x, y, radius float64, c color.RGBA) {
	const corners = 24
	var p []float64
	for i := range corners {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		p = append(p, x+radius*cos, y+radius*sin)
	}
	r.fill(c, p...)
}

func (r *raster) text(x, y float64, s string, st style, at anchor) {
	switch at {
	case middle:
		x -= textWidth(s, st) / 2
	case end:
		x -= textWidth(s, st)
	}
	d := font.Drawer{
		Dst: r.img, Src: image.NewUniform(color.NRGBA(st.c)), Face: face(st.size*Scale, st.bold),
		Dot: fixed.Point26_6{X: fixed.Int26_6(x * Scale * 64), Y: fixed.Int26_6(y * Scale * 64)},
	}
	d.DrawString(s)
}

type faceKey struct {
	size float64
	bold bool
}

var faces = map[faceKey]font.Face{}

// face returns the Go font in a size. Neither it nor what it returns is safe for
// concurrent use: figures are drawn one at a time.
func face(size float64, bold bool) font.Face {
	key := faceKey{size, bold}
	if f := faces[key]; f != nil {
		return f
	}
	ttf := goregular.TTF
	if bold {
		ttf = gobold.TTF
	}
	parsed, err := opentype.Parse(ttf)
	if err != nil {
		panic(err) // the font is part of the binary
	}
	f, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		panic(err)
	}
	faces[key] = f
	return f
}

// textWidth is how wide a text is, in points.
func textWidth(s string, st style) float64 {
	return float64(font.MeasureString(face(st.size, st.bold), s)) / 64
}
