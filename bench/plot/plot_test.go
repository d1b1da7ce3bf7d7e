package plot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/bench/golden"
	"github.com/sluice-net/sluice/bench/plot"
)

func figures() map[string]plot.Figure {
	return map[string]plot.Figure{
		"bars": plot.Bars{
			Title: "udp-small: received", About: "small packets & <tags>, one flow", Axis: "received, Mpps (higher is better)",
			Bars: []plot.Bar{
				{Label: "kernel", Values: []float64{0.28, 0.31, 0.29}, Base: true},
				{Label: "sluice", Values: []float64{0.62, 0.59, 0.7, 0.6}, Note: "2.07×"},
				{Label: "fast", Values: []float64{1.9}, Note: "the generator was the limit", Alarm: true},
				{Label: "absent"},
			},
			Notes: []string{"A test."},
		},
		"lines": plot.Lines{
			Title: "policies: received by policies", XAxis: "policies (logarithmic)", YAxis: "Mpps", LogX: true,
			Series: []plot.Series{
				{Name: "linear", Points: []plot.Point{{1, []float64{1}}, {100, []float64{0.7, 0.72}}, {10000, []float64{0.01}}}},
				{Name: "flat", Points: []plot.Point{{1, []float64{1}}, {10000, []float64{0.99, 1.01}}}},
			},
		},
		"stacks": plot.Stacks{
			Title: "policies: where the time goes", Axis: "share of the busy time",
			Stacks: []plot.Stack{
				{Label: "kernel", Parts: []plot.Part{{"IP stack", 0.6}, {"copies & sums", 0.3}, {plot.Rest, 0.1}}},
				{Label: "sluice", Parts: []plot.Part{{"BPF", 0.5}, {"IP stack", 0.49}, {"copies & sums", 0.01}}},
				{Label: "none"},
			},
			Notes: []string{"A test."},
		},
	}
}

func TestSVGIsGolden(t *testing.T) {
	for name, f := range figures() {
		t.Run(name, func(t *testing.T) {
			got := golden.Check(t, name+".svg", func(out io.Writer) error { return plot.SVG(out, f) })
			for d := xml.NewDecoder(bytes.NewReader(got)); ; {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("not well-formed: %v", err)
				}
			}
		})
	}
}

// A longer bar has more of its colour in the image, too.
func TestPNGShowsTheValues(t *testing.T) {
	blue := func(value float64) (n int) {
		img := raster(t, plot.Bars{Bars: []plot.Bar{{Values: []float64{value}}, {Values: []float64{100}, Base: true}}})
		b := img.Bounds()
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for x := b.Min.X; x < b.Max.X; x++ {
				if r, _, bl, _ := img.At(x, y).RGBA(); bl > r+0x4000 {
					n++
				}
			}
		}
		return n
	}
	short, long := blue(25), blue(75)
	if short == 0 || long < short*5/2 || long > short*7/2 {
		t.Errorf("25 is %d pixels, 75 is %d", short, long)
	}
}

func TestPNGHasTheSizeOfTheSVG(t *testing.T) {
	for name, f := range figures() {
		var svg bytes.Buffer
		if err := plot.SVG(&svg, f); err != nil {
			t.Fatal(err)
		}
		var head struct {
			Width  float64 `xml:"width,attr"`
			Height float64 `xml:"height,attr"`
		}
		if err := xml.Unmarshal(svg.Bytes(), &head); err != nil {
			t.Fatal(err)
		}
		b := raster(t, f).Bounds()
		if b.Dx() != int(head.Width*plot.Scale) || b.Dy() != int(head.Height*plot.Scale) {
			t.Errorf("%s: image of %v for %v × %v points", name, b, head.Width, head.Height)
		}
	}
}

func raster(t *testing.T, f plot.Figure) image.Image {
	t.Helper()
	var b bytes.Buffer
	if err := plot.PNG(&b, f); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Nothing to show is no reason to fail: a run may have been interrupted.
func TestEmptyFigures(t *testing.T) {
	for _, f := range []plot.Figure{plot.Bars{}, plot.Lines{}, plot.Lines{Series: []plot.Series{{Name: "x"}}},
		plot.Bars{Bars: []plot.Bar{{Label: "zero", Values: []float64{0, 0}}}},
		plot.Stacks{},
		plot.Lines{Series: []plot.Series{{Name: "one", Points: []plot.Point{{X: 5, Values: []float64{0}}}}}}} {
		var b bytes.Buffer
		if err := plot.SVG(&b, f); err != nil || strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%+v: %v\n%s", f, err, b.String())
		}
		raster(t, f)
	}
}

// What is too much for the colours goes to the rest: nothing is lost of a whole.
func TestStacksAreWhole(t *testing.T) {
	var parts []plot.Part
	for i := range 20 {
		parts = append(parts, plot.Part{Name: fmt.Sprint("part ", i), Share: 0.05})
	}
	var b bytes.Buffer
	if err := plot.SVG(&b, plot.Stacks{Stacks: []plot.Stack{{Label: "many", Parts: parts}}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), ">40<") { // 8 of 20 have no colour of their own
		t.Errorf("got\n%s", b.String())
	}
}

func TestFormat(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.5: "0.5", 0.001234: "0.00123", 12.345: "12.3", 999: "999", 8567: "8567", 12345: "12.3k", 2.5e6: "2.5M", 3e9: "3G"} {
		if got := plot.Format(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
