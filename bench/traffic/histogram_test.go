package traffic_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/bench/traffic"
)

func TestHistogramQuantiles(t *testing.T) {
	shapes := map[string]func(*rand.Rand) time.Duration{
		"small":       func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(300)) },
		"latencies":   func(r *rand.Rand) time.Duration { return time.Duration(20_000 + r.ExpFloat64()*50_000) },
		"any":         func(r *rand.Rand) time.Duration { return time.Duration(r.Int64() >> r.IntN(63)) },
		"one value":   func(*rand.Rand) time.Duration { return 12_345_678 },
		"powers of 2": func(r *rand.Rand) time.Duration { return 1 << r.IntN(63) },
	}
	for name, next := range shapes {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var h traffic.Histogram
			exact := make([]time.Duration, 10_000)
			for i := range exact {
				exact[i] = next(r)
				h.Record(exact[i])
			}
			slices.Sort(exact)
			for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
				want := exact[max(int(q*float64(len(exact))+0.999999)-1, 0)]
				got := h.Quantile(q)
				if got < want || float64(got) > float64(want)*(1+1.0/128) {
					t.Errorf("quantile %v: got %d, want %d to 0.8 %% more", q, got, want)
				}
			}
			if got := h.Quantile(1); got != exact[len(exact)-1] {
				t.Errorf("maximum: got %d, want %d", got, exact[len(exact)-1])
			}
		})
	}
}

func TestHistogramMergeIsRecordingBoth(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var a, b, both traffic.Histogram
	for range 5000 {
		d := time.Duration(r.ExpFloat64() * 1e6)
		both.Record(d)
		if r.IntN(3) == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Merge(&b)
	if a != both {
		t.Error("merged histogram differs from one that recorded everything")
	}
}

func TestHistogramEdges(t *testing.T) {
	var h traffic.Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Count() != 0 {
		t.Error("an empty histogram has values")
	}
	h.Record(-5)
	if h.Count() != 1 || h.Quantile(1) != 0 {
		t.Error("a negative duration does not count as 0")
	}
	h.Record(1<<63 - 1)
	if got := h.Quantile(1); got != 1<<63-1 {
		t.Errorf("largest duration: got %d", got)
	}
}

func TestHistogramRecordsWithoutAllocation(t *testing.T) {
	h := &traffic.Histogram{}
	if n := testing.AllocsPerRun(100, func() { h.Record(12345) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
