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
		f, err := scenario.DefaultSearch().Run(device(capacity, 2e6))
		if err != nil || f.Generator || f.Void != 0 || f.Forced != 0 {
			t.Fatalf("capacity %g: %+v, %v", capacity, f, err)
		}
		// 0.1 % may be lost.
		if f.Rate > capacity*1.002 || f.Rate < capacity*0.95 || f.Loss > 0.001 {
			t.Errorf("capacity %g: found %g with %g lost", capacity, f.Rate, f.Loss)
		}
		if f.Trials > scenario.DefaultSearch().Trials {
			t.Errorf("capacity %g: %d trials", capacity, f.Trials)
		}
	}
}

func TestSearchSaysThatTheGeneratorIsTheLimit(t *testing.T) {
	f, err := scenario.DefaultSearch().Run(device(3e6, 2e6))
	if err != nil || !f.Generator || f.Rate != 2e6 || f.Trials != 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	// One that reaches less of a rate than without one: what it reached is no
	// limit of the device.
	full := device(3e6, 2e6)
	f, err = scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		r, _ := full(rate)
		switch {
		case rate == 0:
			r.Loss = 0.5
		case rate > 1e6:
			r.Sent = 1e6
		}
		return r, nil
	})
	if err != nil || !f.Generator || f.Rate > 1.04e6 || f.Rate < 0.95e6 {
		t.Errorf("a generator that falls behind: %+v, %v", f, err)
	}
}

// One hiccup of the machine is no answer; two are.
func TestSearchVerifiesLoss(t *testing.T) {
	calls := 0
	d := device(1e6, 2e6)
	f, err := scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		r, _ := d(rate)
		if calls++; calls%2 == 1 { // the first try at each rate
			r.Loss = max(r.Loss, 0.5)
		}
		return r, nil
	})
	if err != nil || f.Rate < 0.8e6 {
		t.Errorf("got %+v, %v", f, err)
	}
}

// busy is a device on a machine where something else has a CPU during n of 10
// trials, with loss at any rate, and says so.
func busy(n int, d func(float64) (scenario.Trial, error)) (func(float64) (scenario.Trial, error), *int) {
	calls := 0
	return func(rate float64) (scenario.Trial, error) {
		r, err := d(rate)
		if calls++; calls*7%10 < n {
			r.Loss, r.Void = max(r.Loss, 0.2), "other processes used 0.7 CPUs"
		}
		return r, err
	}, &calls
}

// Loss that others are to blame for does not lower the rate.
func TestSearchDoesNotCountVoidTrials(t *testing.T) {
	trial, calls := busy(4, device(200e3, 2e6))
	f, err := scenario.DefaultSearch().Run(trial)
	if err != nil || f.Rate < 190e3 || f.Rate > 201e3 || f.Void == 0 || f.Forced > 0 || f.Trials+f.Void != *calls {
		t.Errorf("got %+v in %d calls, %v", f, *calls, err)
	}
	// A generator that others held back says so.
	slow, full := 3, device(3e6, 2e6)
	f, err = scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		r, err := full(rate)
		if slow--; slow > 0 {
			r.Sent, r.Received, r.Void = r.Sent/10, r.Sent/10, "of a cat"
		}
		return r, err
	})
	if err != nil || f.Rate != 2e6 || !f.Generator || f.Void != 2 || f.Forced != 0 {
		t.Errorf("got %+v, %v", f, err)
	}
	// One that sent nothing the next time says nothing of the first.
	slow = 0
	f, err = scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		r, err := full(rate)
		r.Void = "of a cat"
		if slow++; slow > 1 {
			r.Sent, r.Received = 0, 0
		}
		return r, err
	})
	if err != nil || f.Rate != 2e6 || !f.Generator || f.Forced == 0 {
		t.Errorf("got %+v, %v", f, err)
	}
	// Little loss passes, whoever was there.
	d := device(200e3, 2e6)
	f, err = scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		r, err := d(rate)
		r.Void = "always"
		return r, err
	})
	if err != nil || f.Rate < 190e3 || f.Rate > 201e3 {
		t.Errorf("got %+v, %v", f, err)
	}
}

// On a machine that is never free, the search ends, and says what it is worth.
func TestSearchSaysThatTheMachineWasBusy(t *testing.T) {
	trial, calls := busy(9, device(200e3, 2e6))
	s := scenario.DefaultSearch()
	f, err := s.Run(trial)
	if *calls > s.Trials+s.Voids {
		t.Errorf("%d calls", *calls)
	}
	if err == nil && (f.Forced == 0 || f.Why == "") || err != nil && !strings.Contains(err.Error(), "other processes used 0.7 CPUs") {
		t.Errorf("got %+v, %v", f, err)
	}
	trial, _ = busy(10, device(200e3, 2e6))
	if _, err := s.Run(trial); err == nil || !strings.Contains(err.Error(), "other processes used 0.7 CPUs") {
		t.Errorf("got %v", err)
	}
}

func TestSearchGivesUp(t *testing.T) {
	broken := errors.New("cable")
	if _, err := scenario.DefaultSearch().Run(func(float64) (scenario.Trial, error) { return scenario.Trial{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := scenario.DefaultSearch().Run(device(0, 1e6)); err == nil || !strings.Contains(err.Error(), "0.1 %") {
		t.Errorf("nothing passes: %v", err)
	}
	if _, err := scenario.DefaultSearch().Run(device(1, 0)); err == nil {
		t.Error("nothing was sent: no error")
	}
	calls := 0
	f, _ := scenario.DefaultSearch().Run(func(rate float64) (scenario.Trial, error) {
		calls++
		return scenario.Trial{Rate: rate, Sent: max(rate, 1e6), Loss: math.Mod(float64(calls), 2)}, nil
	})
	if f.Trials > scenario.DefaultSearch().Trials || f.Trials != calls {
		t.Errorf("%d trials, %d calls", f.Trials, calls)
	}
}
