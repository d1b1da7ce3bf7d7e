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
		cost, err := traffic.TrackerCost(l)
		if err != nil {
			return nil, err
		}
		t := &trials{s: s, w: w, blast: traffic.Blast{Client: w.out, Ifindex: w.outIndex, Via: b.via, Load: l}}
		found, err := DefaultSearch().Run(func(rate float64) (Trial, error) {
			r, _, err := t.run(ctx, rate, trialTime(rate, d))
			return r, err
		})
		if err != nil {
			return nil, err
		}
		s.limit = found.limit(cost)
		ms := []Metric{
			{Name: "throughput", Unit: "Mpps", Value: found.Rate / 1e6, Better: Higher},
			{Name: "loss", Unit: "%", Value: 100 * found.Loss},
			{Name: "counted", Unit: "trials", Value: float64(found.Trials)},
			{Name: "disturbed", Unit: "of them", Value: float64(found.Forced)},
			{Name: "void", Unit: "trials", Value: float64(found.Void)},
			{Name: "sink", Unit: "ns/packet", Value: float64(cost.Nanoseconds())},
		}
		for _, share := range []float64{0.5, 0.9} {
			r, seen, err := t.undisturbed(ctx, share*found.Rate, d)
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

// What a report says where the system was not what held the rate down.
const (
	sharedLimit = "nothing was lost at the generator's full rate, which shares a core with the system"
	sinkLimit   = "the sink was the limit"
	forcedLimit = "the machine was too busy with other things, so that disturbed trials counted"
)

// limit is that, if there is something to say. cost is the sink's, a packet.
func (f Found) limit(cost time.Duration) string {
	switch {
	case f.Rate*cost.Seconds() > nearCeiling:
		return sinkLimit
	case f.Forced > 0:
		return forcedLimit
	case f.Generator:
		return sharedLimit
	}
	return ""
}

// Every trial begins with some time and ends with some packets that nobody counts:
// caches, rings and clocks are warm then, and what a forwarder holds back until there
// is more is pushed out.
const (
	trialWarmup = 40 * time.Millisecond
	trialTrail  = 256
)

// trialPackets are enough that one of them is less than may be lost.
const trialPackets = 4000

// trialTime is how long a trial at a rate lasts in a measurement of d: a quarter of
// it, or as long as it takes to send enough packets, twice of it at most. RFC 2544
// wants 60 s, which no ten minutes hold.
func trialTime(rate float64, d time.Duration) time.Duration {
	if rate <= 0 {
		return d / 4
	}
	return max(d/4, min(2*d, time.Duration(trialPackets/rate*1e9)))
}

// trials sends at one rate after the other over the same stage.
type trials struct {
	s     *Stage
	w     wire
	blast traffic.Blast
	epoch uint16
}

// undisturbed makes a trial, and once more if something was in its way.
func (t *trials) undisturbed(ctx context.Context, rate float64, d time.Duration) (r Trial, seen traffic.Track, err error) {
	for range 2 {
		if r, seen, err = t.run(ctx, rate, max(d, trialTime(rate, d))); err != nil || r.Void == "" {
			break
		}
	}
	return r, seen, err
}

// run sends at a rate for a while and tells what arrived.
func (t *trials) run(ctx context.Context, rate float64, d time.Duration) (r Trial, seen traffic.Track, err error) {
	t.epoch++
	var tracker *traffic.Tracker
	err = t.w.inside(func() (err error) {
		tracker, err = traffic.NewTracker(t.w.inIndex, t.s.family(), t.epoch)
		return err
	})
	if err != nil {
		return r, seen, err
	}
	defer func() { err = errors.Join(err, tracker.Close()) }()
	b := t.blast
	b.Rate, b.Epoch, b.Warmup, b.Trail = rate, t.epoch, trialWarmup, trialTrail
	watch, err := startWatch()
	if err != nil {
		return r, seen, err
	}
	f, err := b.Start(ctx)
	if err != nil {
		return r, seen, err
	}
	wait := sleep(ctx, trialWarmup+d)
	if err := errors.Join(wait, f.Stop()); err != nil {
		return r, seen, err
	}
	sent, span := f.Sent(), f.Elapsed().Seconds()
	if err := drain(ctx, tracker.Received, sent); err != nil {
		return r, seen, err
	}
	disturbed, err := watch.disturbed()
	if err != nil {
		return r, seen, err
	}
	if seen, err = tracker.Track(); err != nil {
		return r, seen, err
	}
	if seen.Next > sent || seen.Received > sent {
		return r, seen, fmt.Errorf("%d packets up to number %d came of %d: some came twice", seen.Received, seen.Next, sent)
	}
	r = Trial{Rate: rate, Void: disturbed}
	if sent > 0 && span > 0 {
		r.Sent, r.Received = float64(sent)/span, float64(seen.Received)/span
		r.Loss = 1 - float64(seen.Received)/float64(sent)
	}
	if late := f.Lag(); late.Seconds()*rate > lateBurst {
		r.Void = fmt.Sprintf("the generator was held up for %v, and sent what was due at once", late.Round(10*time.Microsecond))
	}
	return r, seen, nil
}

// lateBurst is how many packets may be due at once when a generator goes on that
// was held up: what every ring holds.
const lateBurst = 256

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
