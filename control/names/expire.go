package names

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-net/sluice/dataplane/event"
)

// Plane is what the Learner asks of the dataplane.
type Plane interface {
	// ReadLookups calls visit with each packet of pods that learn, until ctx ends.
	ReadLookups(ctx context.Context, visit func(*event.Lookup))
	// Live returns those addresses that live flows have as an end; false if that
	// could not be found out.
	Live(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]struct{}, bool)
}

const (
	expireEvery   = 2 * time.Second
	expireWithin  = 5 * time.Second
	orphanedFor   = time.Minute // what a pod that is gone has taught stays for so long
	saveSoon      = 100 * time.Millisecond
	saveRestTimes = 20 // of what saving takes, it rests
)

// Run learns until ctx ends.
func (l *Learner) Run(ctx context.Context, plane Plane) error {
	var wg sync.WaitGroup
	wg.Go(func() { plane.ReadLookups(ctx, l.Hear) })
	wg.Go(func() { l.save(ctx) })
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			l.Expire(ctx, plane)
		}
	}
	wg.Wait()
	return nil
}

// Expire drops what is over and no connection uses.
func (l *Learner) Expire(ctx context.Context, plane Plane) {
	now := l.now() // for what is over later, nobody is asked
	over := l.over(now)
	if len(over) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, expireWithin)
	defer cancel()
	live, ok := plane.Live(ctx, over)
	if !ok {
		return // it is looked at again
	}
	l.mu.Lock()
	dropped := false
	for pod, r := range l.records {
		for _, e := range r.entries {
			if !r.over(e, now) {
				continue
			}
			if _, used := live[e.Addr]; used {
				e.InUse = true
				continue
			}
			l.drop(r, e)
			dropped = true
		}
		if len(r.entries) == 0 {
			delete(l.records, pod)
		}
	}
	l.mu.Unlock()
	if dropped {
		poke(l.wake)
		poke(l.unsaved)
	}
}

// over returns the addresses whose time is up.
func (l *Learner) over(now time.Time) (out []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		for _, e := range r.entries {
			if r.over(e, now) {
				out = append(out, e.Addr)
			}
		}
	}
	return out
}

func (r *record) over(e *Entry, now time.Time) bool {
	return !e.Until.After(now) || !r.orphaned.IsZero() && now.Sub(r.orphaned) > orphanedFor
}
