package scenario

import (
	"fmt"

	"github.com/sluice-net/sluice/bench/traffic"
)

// Search finds the highest rate that a system forwards with little loss, as
// RFC 2544 (26.1) has it, by halving the range in which it must be.
//
// Not all loss is the system's. A trial that loses too much while something
// outside of the system was in its way is void: it is made again, as if it had not
// been, and only when too many were void do they count. A trial that loses too much
// with nothing in its way is made once more before it counts (ETSI GS NFV-TST 009,
// binary search with loss verification). A trial that loses little passes, whatever
// was in its way.
type Search struct {
	Loss       float64 // share of packets that may be lost
	Resolution float64 // the search ends when the range is this share of its top
	Trials     int     // that count, at most
	Voids      int     // that don't, at most
}

// DefaultSearch allows 0.1 % loss and finds the rate to 3 %.
func DefaultSearch() Search { return Search{Loss: 0.001, Resolution: 0.03, Trials: 16, Voids: 12} }

// Trial is what came of one rate.
type Trial struct {
	Rate     float64 // packets a second that were to be sent
	Sent     float64 // that were
	Received float64
	Loss     float64 // share of what was sent
	// Void says what was in the way outside of the system; empty: nothing.
	Void string
}

// short reports whether the generator did not reach the rate.
func (t Trial) short() bool { return t.Sent < 0.97*t.Rate }

// Found is what a search came to.
type Found struct {
	Trial // the one of the highest rate that passed
	// Generator says that no more could be sent: nothing was lost of it.
	Generator bool
	Trials    int    // that counted
	Void      int    // that were void
	Forced    int    // of Trials: counted, though they were void, because too many were
	Why       string // the last void one was
}

// Run searches. The first trial is at rate 0, which stands for as fast as the
// generator can: what it sends is the top of the range. If that is not lost, the
// generator is the limit.
func (s Search) Run(trial func(rate float64) (Trial, error)) (f Found, err error) {
	top, passed, err := s.try(&f, 0, trial)
	if err != nil {
		return f, err
	}
	for n := 0; passed && top.Void != "" && n < topTries; n++ {
		// Nothing was lost of what a generator sent that others held back.
		f.Why = top.Void
		f.Void++
		again, ok, err := s.try(&f, 0, trial)
		if err != nil {
			return f, err
		}
		if again.Sent > top.Sent || again.Sent > 0 && again.Void == "" {
			top, passed = again, ok
		}
	}
	if top.Sent <= 0 {
		return f, fmt.Errorf("search: the generator: %w", traffic.ErrNothing)
	}
	if passed {
		if top.Void != "" {
			f.Forced++
		}
		top.Rate = top.Sent
		f.Trial, f.Generator = top, true
		return f, nil
	}
	low, high := 0.0, top.Sent
	// What arrives of too much is a good guess, from a little below.
	next := min(0.95*top.Received, 0.9*high)
	for high-low > s.Resolution*high && f.Trials < s.Trials {
		if next <= low || next >= high {
			next = (low + high) / 2
		}
		t, passed, err := s.try(&f, next, trial)
		switch {
		case err != nil:
			return f, err
		case passed:
			low, f.Trial = next, t
		default:
			high, f.Generator = next, t.short()
		}
		next = (low + high) / 2
	}
	if f.Rate == 0 {
		err = fmt.Errorf("search: more than %g %% is lost at %.0f packets/s, and at all higher rates, in %d trials", 100*s.Loss, high, f.Trials)
		if f.Void > 0 {
			err = fmt.Errorf("%w; %d more were void, the last one because %s", err, f.Void, f.Why)
		}
		return f, err
	}
	return f, nil
}

// topTries is how often the generator's full rate is tried again because something
// else held the generator back.
const topTries = 3

// try makes trials at one rate until one says something.
func (s Search) try(f *Found, rate float64, trial func(rate float64) (Trial, error)) (t Trial, passed bool, err error) {
	for counted := 0; ; {
		if t, err = trial(rate); err != nil {
			return t, false, err
		}
		if t.Loss <= s.Loss && !t.short() && t.Sent > 0 {
			f.Trials++
			return t, true, nil
		}
		if t.Void != "" {
			if f.Why = t.Void; f.Void < s.Voids {
				f.Void++
				continue
			}
			f.Forced++
		}
		f.Trials++
		if counted++; counted > 1 || f.Trials >= s.Trials {
			return t, false, nil
		}
	}
}
