package scenario

import (
	"errors"
	"fmt"
)

// Search finds the highest rate that a system forwards with little loss, as
// RFC 2544 (26.1) has it, by halving the range in which it must be. A trial
// that loses too much is made once more before it counts: on a machine that is
// shared, some loss is the machine's (ETSI GS NFV-TST 009, binary search with
// loss verification).
type Search struct {
	Loss       float64 // share of packets that may be lost
	Resolution float64 // the search ends when the range is this share of its top
	Trials     int     // at most
}

// DefaultSearch allows 0.1 % loss and finds the rate to 3 %.
func DefaultSearch() Search { return Search{Loss: 0.001, Resolution: 0.03, Trials: 14} }

// Trial is what came of one rate.
type Trial struct {
	Rate     float64 // packets a second that were to be sent
	Sent     float64 // that were
	Received float64
	Loss     float64 // share
}

// Run searches. The first trial is at rate 0, which stands for as fast as the
// generator can: what it sends is the top of the range. If that is not lost, the
// generator is the limit.
func (s Search) Run(trial func(rate float64) (Trial, error)) (best Trial, generator bool, trials int, err error) {
	once := func(rate float64) (Trial, error) {
		trials++
		return trial(rate)
	}
	top, err := once(0)
	if err != nil {
		return best, false, trials, err
	}
	if top.Sent <= 0 {
		return best, false, trials, errors.New("search: the generator sent nothing")
	}
	if top.Loss <= s.Loss {
		top.Rate = top.Sent
		return top, true, trials, nil
	}
	low, high := 0.0, top.Sent
	// What arrives of too much is a good guess, from a little below.
	next := min(0.95*top.Received, 0.9*high)
	for high-low > s.Resolution*high && trials < s.Trials {
		if next <= low || next >= high {
			next = (low + high) / 2
		}
		t, err := once(next)
		if err == nil && t.Loss > s.Loss && trials < s.Trials {
			t, err = once(next)
		}
		switch {
		case err != nil:
			return best, false, trials, err
		case t.Loss > s.Loss:
			high = next
		default:
			low, best = next, t
		}
		next = (low + high) / 2
	}
	if best.Rate == 0 {
		return best, false, trials, fmt.Errorf("search: more than %g %% is lost at %.0f packets/s, and at all higher rates", 100*s.Loss, high)
	}
	return best, false, trials, nil
}
