package dataplane

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-net/sluice/dataplane/event"
)

// eventPause is how long ReadEvents leaves the workers in peace after it has
// emptied their rings: to wake a reader costs a worker a system call.
const eventPause = 2 * time.Millisecond

// ReadEvents moves events of all workers into dst, denies first, and waits for
// some until ctx ends. One goroutine may call it.
func (p *Plane) ReadEvents(ctx context.Context, dst []event.Record) int {
	for paused := false; ctx.Err() == nil; {
		n := 0
		for _, w := range p.workers {
			n += w.denies.Read(dst[n:])
		}
		n += p.dropped.ring.Read(dst[n:])
		for _, w := range p.workers {
			n += w.events.Read(dst[n:])
		}
		if n > 0 {
			return n
		}
		if !paused {
			paused = true
			time.Sleep(eventPause)
			continue
		}
		quiet := p.dropped.ring.Arm()
		for _, w := range p.workers {
			quiet = w.denies.Arm() && w.events.Arm() && quiet
		}
		if !quiet {
			continue
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
		}
	}
	return 0
}

// SetInterest says which events the workers generate from now on; at first it
// is all of them.
func (p *Plane) SetInterest(i event.Interest) { p.interest.Store(uint32(i)) }

// LostEvents returns how many events found no room in the workers' rings, up to
// the last burst of each, or in that of what the host drops.
func (p *Plane) LostEvents() (n uint64) {
	n = p.dropped.ring.Lost() + p.dropped.unread.Load()
	for _, w := range p.workers {
		n += w.events.Lost() + w.denies.Lost()
	}
	return n
}

// capturePackets is how many packets a worker's capture holds, denied and allowed
// ones.
const capturePackets = 512

// StartCapture has the workers copy the packets that an event is about, denied
// ones whose event is suppressed, and, if Passed ones are wanted, all other packets
// of allowed flows that they see, up to snapLen bytes of each from the IP header on,
// of the kinds that want asks for. What the kernel judges by its caches is not seen:
// with offload, most of what is allowed. While denied packets are captured, none
// enter the cache of denials. There is one capture at a time: a second call replaces the first
// one's rings.
func (p *Plane) StartCapture(snapLen int, want event.Interest) error {
	for _, w := range p.workers {
		r, err := event.NewCapture(capturePackets, snapLen, want)
		if err != nil {
			return fmt.Errorf("capture packets: %w", err)
		}
		w.capture.Store(r)
	}
	return nil
}

// StopCapture ends what StartCapture began.
func (p *Plane) StopCapture() {
	for _, w := range p.workers {
		w.capture.Store(nil)
	}
}

// ReadPackets calls visit with what was captured since the last call; data is
// valid until visit returns. lost counts those that found no room since the
// capture began. One goroutine may call it.
func (p *Plane) ReadPackets(visit func(rec *event.Record, length int, data []byte)) (lost uint64) {
	for _, w := range p.workers {
		if r := w.capture.Load(); r != nil {
			r.Read(visit)
			lost += r.Lost()
		}
	}
	return lost
}
