package scenario_test

import (
	"math"
	"testing"

	"github.com/sluice-net/sluice/bench/scenario"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{0, 0, 100}, 0},
	} {
		in := append([]float64{}, c.in...)
		if got := scenario.Median(in); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.in, got, c.want)
		}
		for i := range in {
			if in[i] != c.in[i] {
				t.Errorf("median changed its input to %v", in)
			}
		}
	}
	if !math.IsNaN(scenario.Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{nil, 0},
		{[]float64{7}, 0},
		{[]float64{0, 0}, 0},
		{[]float64{9, 10, 11}, 0.1},
		{[]float64{10, 10, 14}, 0.2},
		{[]float64{0, 0, 5}, math.Inf(1)},
	} {
		if got := scenario.Spread(c.in); got != c.want {
			t.Errorf("spread of %v: got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	base := map[int]float64{0: 10, 1: 20, 2: 10, 3: 40, 4: 10}
	for _, c := range []struct {
		name   string
		values map[int]float64
		median float64
		pairs  int
		clear  bool
	}{
		{"twice, though both drift", map[int]float64{0: 20, 1: 40, 2: 20, 3: 80, 4: 20}, 2, 5, true},
		{"half", map[int]float64{0: 5, 1: 10, 2: 5, 3: 20, 4: 6}, 0.5, 5, true},
		{"equal", base, 1, 5, false},
		{"once the other way", map[int]float64{0: 20, 1: 40, 2: 20, 3: 80, 4: 9}, 2, 5, false},
		{"too few pairs", map[int]float64{0: 20, 1: 40, 2: 20}, 2, 3, false},
		{"no pair", map[int]float64{7: 1}, math.NaN(), 0, false},
		{"nothing", nil, math.NaN(), 0, false},
	} {
		got := scenario.Compare(c.values, base)
		same := got.Median == c.median || math.IsNaN(got.Median) && math.IsNaN(c.median)
		if !same || got.Pairs != c.pairs || got.Clear() != c.clear {
			t.Errorf("%s: got %+v, clear %v; want median %v, %d pairs, clear %v",
				c.name, got, got.Clear(), c.median, c.pairs, c.clear)
		}
	}
	if got := scenario.Compare(map[int]float64{0: 1}, map[int]float64{0: 0}); got.Pairs != 0 {
		t.Errorf("a base of 0 made a pair: %+v", got)
	}
}
