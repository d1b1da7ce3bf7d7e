package scenario

import (
	"math"
	"slices"
)

// Median returns the median of the values, NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	if len(v)%2 == 1 {
		return v[mid]
	}
	return (v[mid-1] + v[mid]) / 2
}

// Spread returns half the range of the values as a share of their median: the
// ± of the tables. It is 0 for a single value and for values that are all 0.
func Spread(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	half := (slices.Max(values) - slices.Min(values)) / 2
	if half == 0 {
		return 0
	}
	return half / math.Abs(Median(values))
}

// Ratio compares two systems by pairs: the runs of both under one number were
// made one soon after the other, so that drift of the machine cancels out.
type Ratio struct {
	Median, Min, Max float64 // of the pairs' ratios
	Pairs            int
}

// Compare pairs the values of each run that both have. Pairs whose base is 0
// say nothing.
func Compare(values, base map[int]float64) Ratio {
	var ratios []float64
	for run, v := range values {
		if b, ok := base[run]; ok && b != 0 {
			ratios = append(ratios, v/b)
		}
	}
	if len(ratios) == 0 {
		return Ratio{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	return Ratio{Median: Median(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios), Pairs: len(ratios)}
}

// enough pairs for a difference to be more than chance.
const enough = 4

// Clear reports whether the difference is larger than its spread: every pair
// says the same of which is the greater, and there are enough of them that
// chance would say so in 1 of 8 cases at most.
func (r Ratio) Clear() bool {
	return r.Pairs >= enough && (r.Min > 1 || r.Max < 1)
}
