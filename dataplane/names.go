package dataplane

import (
	"context"
	"net/netip"
	"sync"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// SetLearners says which pods learn names: their conversations with resolvers
// are handed to ReadLookups from now on. It is to be called before the rules
// that name domains are published.
func (p *Plane) SetLearners(learns func(endpoint.ID) bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var begun []endpoint.ID
	changed := false
	for i := range p.slots {
		s, id := &p.slots[i], endpoint.ID(i)
		now := s.used && learns(id)
		if now == s.learns {
			continue
		}
		s.learns, changed = now, true
		if now && s.ready && p.table != nil {
			// What the kernel's caches have of its conversations must miss.
			s.advance()
			begun = append(begun, id)
		}
	}
	if changed {
		p.refresh()
	}
	return p.putSlots(begun)
}

func (p *Plane) pokeHeard() {
	select {
	case p.heard <- struct{}{}:
	default:
	}
}

// ReadLookups calls visit with each packet of conversations that SetLearners
// asked for, until ctx ends; what visit is given is valid until it returns. One
// goroutine may call it.
func (p *Plane) ReadLookups(ctx context.Context, visit func(*event.Lookup)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.heard:
		}
		for _, w := range p.workers {
			w.listener.ring.Read(visit)
		}
	}
}

// Release has a held frame go on. It never blocks: a worker that is too far
// behind sends the frame when its time is up.
func (p *Plane) Release(t event.Ticket) {
	if t.Number == 0 || int(t.Worker) >= len(p.workers) {
		return
	}
	l := &p.workers[t.Worker].listener
	select {
	case l.released <- t.Number:
		l.bell.ring()
	default:
	}
}

// census asks a worker which of some addresses live flows have as an end.
type census struct {
	of     map[packet.Addr]struct{}
	cursor int
	found  []packet.Addr
	done   chan struct{} // closed when found is complete
}

// Live returns those of the addresses that live flows of this node's pods have
// as an end. It is false if a worker didn't answer in time.
func (p *Plane) Live(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]struct{}, bool) {
	of := make(map[packet.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		of[packet.AddrFrom(a)] = struct{}{}
	}
	var mu sync.Mutex
	live, all := make(map[netip.Addr]struct{}), true
	var wg sync.WaitGroup
	for _, w := range p.workers {
		wg.Go(func() {
			c := &census{of: of, done: make(chan struct{})}
			select {
			case w.asked <- c:
			case <-ctx.Done():
			}
			select {
			case <-c.done:
				mu.Lock()
				defer mu.Unlock()
				for _, a := range c.found {
					live[a.Netip()] = struct{}{}
				}
			case <-ctx.Done():
				mu.Lock()
				defer mu.Unlock()
				all = false
			}
		})
	}
	wg.Wait()
	return live, all
}

// censusScan is how many entries a worker looks at between two bursts.
const censusScan = 2048

// answer works on what the worker is asked.
func (w *worker) answer() {
	if w.census == nil {
		select {
		case w.census = <-w.asked:
		default:
			return
		}
	}
	c := w.census
	more := w.flows.Scan(&c.cursor, censusScan, func(e *flow.Entry) {
		if e.State == flow.Closed || e.Flags&cut != 0 {
			return
		}
		for s, a := range [2]packet.Addr{e.Key.A, e.Key.B} {
			if _, asked := c.of[a]; asked && e.Slot[1-s] != endpoint.None {
				c.found = append(c.found, a)
			}
		}
	})
	if !more {
		w.census = nil
		close(c.done)
	}
}
