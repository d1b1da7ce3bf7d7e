package scenario_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/bench/scenario"
)

// device forwards up to a rate and loses the rest; its generator has a limit.
func device(capacity, generator float64) func(float64) (scenario.Trial, error) {
	return func(rate float64) (scenario.Trial, error) {
		t := scenario.Trial{Rate: rate, Sent: rate}
		if rate == 0 || rate > generator {
			t.Sent = generator
		}
		t.Received = min(t.Sent, capacity)
		t.Loss = 1 - t.Received/t.Sent
		return t, nil
	}
}

func TestSearchFindsTheRate(t *testing.T) {
	for _, capacity := range []float64{3e3, 123456, 999e3, 1.9e6} {
		best, generator, trials, err := scenario.DefaultSearch().Run(device(capacity, 2e6))
		if err != nil || generator {
			t.Fatalf("capacity %g: generator %v, %v", capacity, generator, err)
		}
		// 0.1 % may be lost.
		if best.Rate > capacity*1.002 || best.Rate < capacity*0.95 || best.Loss > 0.001 {
			t.Errorf("capacity %g: found %g with %g lost", capacity, best.Rate, best.Loss)
		}
		if trials > 14 {
			t.Errorf("capacity %g: %d trials", capacity, trials)
		}
	}
}

func TestSearchSaysThatTheGeneratorIsTheLimit(t *testing.T) {
	best, generator, trials, err := scenario.DefaultSearch().Run(device(3e6, 2e6))
	if err != nil || !generator || best.Rate != 2e6 || trials != 1 {
		t.Errorf("got %+v, generator %v, %d trials, %v", best, generator, trials, err)
	}
}

// One hiccup of the machine is no answer; two are.
func TestSearchVerifiesLoss(t *testing.T) {
	calls := 0
	d := device(1e6, 2e6)
	best, _, _, err := scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		r, _ := d(rate)
		if calls++; calls%2 == 0 { // the first try at each rate
			r.Loss = max(r.Loss, 0.5)
		}
		return r, nil
	})
	if err != nil || best.Rate < 0.8e6 {
		t.Errorf("got %+v, %v", best, err)
	}
}

func TestSearchGivesUp(t *testing.T) {
	broken := errors.New("cable")
	if _, _, _, err := scenario.DefaultSearch().Run(func(float64) (scenario.Trial, error) { return scenario.Trial{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, _, _, err := scenario.DefaultSearch().Run(device(0, 1e6)); err == nil || !strings.Contains(err.Error(), "0.1 %") {
		t.Errorf("nothing passes: %v", err)
	}
	if _, _, _, err := scenario.DefaultSearch().Run(device(1, 0)); err == nil {
		t.Error("nothing was sent: no error")
	}
	calls := 0
	_, _, trials, _ := scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		calls++
		return scenario.Trial{Rate: rate, Sent: max(rate, 1e6), Loss: math.Mod(float64(calls), 2)}, nil
	})
	if trials > 14 || trials != calls {
		t.Errorf("%d trials, %d calls", trials, calls)
	}
}
