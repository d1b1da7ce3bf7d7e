package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-net/sluice/bench/traffic"
)

// rfc2544 searches the highest rate at which at most 0.1 % is lost, and then
// measures the latency at 50 % and 90 % of it. Frames carry numbers, by which
// loss is found where they arrive, and the time at which they were due.
func rfc2544(b blast) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		w, l, err := b.prepare(ctx, s)
		if err != nil {
			return nil, err
		}
		t := &trials{s: s, w: w, blast: traffic.Blast{Client: w.out, Ifindex: w.outIndex, Via: b.via, Load: l}}
		best, generator, n, err := DefaultSearch().Run(func(rate float64) (Trial, error) {
			r, _, err := t.run(ctx, rate, d/4)
			return r, err
		})
		if err != nil {
			return nil, err
		}
		if generator {
			s.limit = sharedLimit
		}
		ms := []Metric{
			{Name: "throughput", Unit: "Mpps", Value: best.Rate / 1e6, Better: Higher},
			{Name: "loss", Unit: "%", Value: 100 * best.Loss},
			{Name: "trials", Unit: "trials", Value: float64(n)},
		}
		for _, share := range []float64{0.5, 0.9} {
			r, seen, err := t.run(ctx, share*best.Rate, d)
			if err != nil {
				return nil, fmt.Errorf("latency at %g %%: %w", 100*share, err)
			}
			for _, q := range []float64{0.5, 0.99, 0.999} {
				ms = append(ms, Metric{
					Name: fmt.Sprintf("p%g@%g%%", 100*q, 100*share), Unit: "µs",
					Value: float64(seen.Latency.Quantile(q)) / 1e3, Better: Lower,
				})
			}
			ms = append(ms, Metric{Name: fmt.Sprintf("loss@%g%%", 100*share), Unit: "%", Value: 100 * r.Loss})
		}
		return ms, nil
	}
}

// sharedLimit is what a report says where all that was sent came through.
const sharedLimit = "nothing was lost at the generator's full rate, which shares a core with the system"

// trials sends at one rate after the other over the same stage.
type trials struct {
	s     *Stage
	w     wire
	blast traffic.Blast
	epoch uint16
}

// run sends at a rate for a while and tells what arrived.
func (t *trials) run(ctx context.Context, rate float64, d time.Duration) (r Trial, seen traffic.Track, err error) {
	t.epoch++
	var tracker *traffic.Tracker
	err = t.w.inside(func() (err error) {
		tracker, err = traffic.NewTracker(t.w.inIndex, t.epoch)
		return err
	})
	if err != nil {
		return r, seen, err
	}
	defer func() { err = errors.Join(err, tracker.Close()) }()
	b := t.blast
	b.Rate, b.Epoch = rate, t.epoch
	began := time.Now()
	f, err := b.Start(ctx)
	if err != nil {
		return r, seen, err
	}
	wait := sleep(ctx, d)
	if err := errors.Join(wait, f.Stop()); err != nil {
		return r, seen, err
	}
	span := time.Since(began).Seconds()
	if err := drain(ctx, tracker.Received, f.Sent()); err != nil {
		return r, seen, err
	}
	if seen, err = tracker.Track(); err != nil {
		return r, seen, err
	}
	sent := f.Sent()
	if seen.Next > sent || seen.Received > sent {
		return r, seen, fmt.Errorf("%d packets up to number %d came of %d: some came twice", seen.Received, seen.Next, sent)
	}
	r = Trial{Rate: rate, Sent: float64(sent) / span, Received: float64(seen.Received) / span}
	if sent > 0 {
		r.Loss = 1 - float64(seen.Received)/float64(sent)
	}
	// A generator that fell behind did not offer the rate at all.
	if rate > 0 && r.Sent < 0.97*rate {
		r.Loss = max(r.Loss, 1-r.Sent/rate)
	}
	return r, seen, nil
}

// What is on its way gets this long after the last that arrived; RFC 2544 gives
// it 2 s in all.
const (
	quiet      = 50 * time.Millisecond
	drainLimit = 2 * time.Second
)

// drain waits until all has arrived, or nothing does any more.
func drain(ctx context.Context, received func() (uint64, error), sent uint64) error {
	end, moved, last := time.Now().Add(drainLimit), time.Now(), uint64(0)
	for {
		n, err := received()
		if err != nil {
			return err
		}
		if n != last {
			last, moved = n, time.Now()
		}
		if n >= sent || time.Since(moved) > quiet || time.Now().After(end) {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}
