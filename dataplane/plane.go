// Package dataplane moves frames: workers take them from AF_XDP sockets,
// judge them by the published rules and send them on or drop them, and keep
// the kernel's flow cache in step.
//
// A worker owns one queue with its socket, its UMEM and its flow table; both
// directions of a flow reach the same worker, so nothing that packets need is
// shared but the snapshot of the rules, which is immutable and loaded once a
// burst. A UMEM a worker, rather than one for all, costs the same memory and
// makes a worker the unit of failure: a steering port that is deleted takes no
// other queue's frames with it.
//
// No packet allocates, locks, or calls anything through an interface. The
// methods of Plane are for one or more control goroutines.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// Filters attaches programs as clsact filters where the kernel has no tcx.
type Filters interface {
	Attach(p xdpprog.Point, ifindex, progFD int) error
	Detach(p xdpprog.Point, ifindex int) error
	// Attached reports whether a filter that Attach has put there is there.
	Attached(p xdpprog.Point, ifindex int) bool
}

// Plane is the dataplane of one node.
type Plane struct {
	cfg     Config
	log     *slog.Logger
	objs    *xdpprog.Objects
	filters Filters
	workers []*worker
	snap    atomic.Pointer[snapshot]
	wake    chan struct{}
	heard   chan struct{} // a worker has overheard something
	seed    uint64
	clock   clock
	// putEndpoint writes a slot into the kernel's map: that of objs, but for tests.
	putEndpoint func(slot uint32, e xdpprog.Endpoint) error
	noTCX       atomic.Bool // the kernel has no tcx, or is to be treated so
	// interest is an event.Interest, read by the workers.
	interest atomic.Uint32
	uplinks  uplinks
	dropped  hostDrops
	turns    linkTurns // at the programs of pods' links; taken before mu

	mu       sync.Mutex // guards what follows, and the kernel's endpoint maps
	released int        // how many endpoints have gone
	slots    []slot
	byLink   map[int]endpoint.ID
	free     []endpoint.ID // oldest first, so that a slot rests before it is used again
	table    *classify.Table

	host      addrTable // see snapshot
	services  serviceTable
	answering map[packet.Addr]protocols // backends of services
}

// New loads the programs, adopts what an earlier agent left pinned and builds
// the workers. Nothing is enforced or diverted before Run and Attach.
func New(cfg Config, filters Filters, log *slog.Logger) (*Plane, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("dataplane configuration: %w", err)
	}
	objs, replaced, err := xdpprog.Load(cfg.programs())
	if err != nil {
		return nil, err
	}
	for _, name := range replaced {
		log.Warn("pinned map did not fit and was replaced: it has another size or other fields", "map", name)
	}
	p := &Plane{
		cfg: cfg, log: log, objs: objs, putEndpoint: objs.PutEndpoint, filters: filters, seed: rand.Uint64(),
		byLink: make(map[int]endpoint.ID), wake: make(chan struct{}, 1), heard: make(chan struct{}, 1), clock: newClock(),
	}
	if err := p.dropped.init(p); err != nil {
		return nil, errors.Join(err, objs.Close())
	}
	p.host = newHostTable(p.seed, nil)
	p.noTCX.Store(cfg.Clsact)
	p.interest.Store(uint32(event.WantAll))
	p.snap.Store(&snapshot{local: make([]local, 1), addrs: newAddrTable(p.seed, nil), host: p.host})
	for i := range cfg.Workers {
		w, err := newWorker(i, &p.cfg, objs, &p.snap, log, p.poke)
		if err == nil {
			w.attach, w.interest, w.intakes.plan = p.attach, &p.interest, &p.uplinks.plan
			w.listener.poke = p.pokeHeard
		}
		if err != nil {
			return nil, errors.Join(err, objs.Close())
		}
		p.workers = append(p.workers, w)
	}
	if err := errors.Join(p.adoptSlots(), p.adoptFlows()); err != nil {
		return nil, errors.Join(fmt.Errorf("adopt pinned state: %w", err), objs.Close())
	}
	return p, nil
}

// Adopted reports whether state of an earlier agent was found.
func (p *Plane) Adopted() bool { return p.objs.Adopted() }

func (p *Plane) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run serves the queues until ctx ends. Programs and maps stay in the kernel.
func (p *Plane) Run(ctx context.Context, ports Ports) error {
	notes, err := p.objs.Notes()
	if err != nil {
		return err
	}
	if err := p.dropUplinks(); err != nil {
		p.log.Warn("leave earlier uplinks", "err", err)
	}
	p.planUplinks(ports)
	var wg sync.WaitGroup
	if len(p.cfg.Uplinks) > 0 {
		wg.Go(func() { p.tendUplinks(ctx, ports) })
	}
	ports = &turnPorts{Ports: ports}
	for _, w := range p.workers {
		wg.Go(func() { w.run(ctx, ports) })
	}
	wg.Go(func() { p.tendPorts(ctx, ports) })
	wg.Go(func() { p.routeNotes(ctx, notes) })
	wg.Wait()
	return notes.Close()
}

// turnPorts has those who ensure ports take turns.
type turnPorts struct {
	Ports
	mu sync.Mutex
}

func (p *turnPorts) Ensure(worker, mtu int) (Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Ports.Ensure(worker, mtu)
}

// portsEvery is how often the steering ports are looked at.
const portsEvery = 500 * time.Millisecond

// tendPorts makes steering ports anew that are not whole, as after somebody has set an
// end of one down, which no socket tells. Their workers find that theirs have gone.
func (p *Plane) tendPorts(ctx context.Context, ports Ports) {
	for tick := time.NewTicker(portsEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		for i, w := range p.workers {
			if !w.alive.Load() {
				continue // it is at it
			}
			whole, err := ports.Whole(i, p.cfg.portMTU())
			if err == nil && !whole {
				_, err = ports.Ensure(i, p.cfg.portMTU())
			}
			if err != nil && ctx.Err() == nil {
				p.log.Warn("look at steering port", "worker", i, "err", err)
			}
		}
	}
}

// Close releases the agent's hold of programs and maps, after Run.
func (p *Plane) Close() error {
	errs := []error{p.objs.Close()}
	for _, w := range p.workers {
		errs = append(errs, w.listener.bell.close())
	}
	return errors.Join(errs...)
}

// routeNotes hands what divert tells to the workers that own the flows. A
// worker that doesn't keep up holds it back; then the ring runs full and divert
// leaves new flows to the workers.
func (p *Plane) routeNotes(ctx context.Context, notes *xdpprog.Notes) {
	buf := make([]xdpprog.Note, noteBatch)
	lists := make([][]xdpprog.Note, len(p.workers)) // to be handed over
	patience := idleMs * time.Millisecond
	for ctx.Err() == nil {
		n, err := notes.Read(buf, patience)
		if err != nil {
			p.log.Warn("read notes of divert", "err", err)
			time.Sleep(idleMs * time.Millisecond)
		}
		patience = idleMs * time.Millisecond
		if n > 0 {
			patience = busyMs * time.Millisecond
		}
		for i := range buf[:n] {
			if at := int(buf[i].Worker); at < len(lists) {
				lists[at] = append(lists[at], buf[i])
			}
		}
		for at, w := range p.workers {
			if len(lists[at]) == 0 {
				continue
			}
			w.inbox <- lists[at] // has room for all that there are
			select {
			case lists[at] = <-w.read:
			case <-ctx.Done():
				return
			}
		}
	}
}
