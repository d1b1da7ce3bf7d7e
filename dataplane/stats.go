package dataplane

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// WorkerStats is the state of one worker.
type WorkerStats struct {
	Port     string // link that its socket is bound to
	Mode     string // how frames travel: copy or zerocopy
	Alive    bool   // serves its queue, and has shown so within the heartbeat timeout
	BeatAge  time.Duration
	Flows    int
	FlowsCap int
	Counts   stat.Snapshot
	Rings    xsk.Stats // of its AF_XDP sockets so far, up to a second old
	Huge     bool      // the UMEM is of huge pages
	PodLinks int       // pods that are heard on their own links now
	CPU      int       // that it is tied to, or -1
	Lost     uint64    // events that found no room in the ring
	LostDeny uint64    // likewise in that of denies
}

// Stats is the state of the dataplane.
type Stats struct {
	Workers  []WorkerStats
	Drops    [stat.NumReasons]uint64             // workers and programs together
	Programs [xdpprog.NumCounters]uint64         // what the programs did with the rest
	Kernel   [xdpprog.NumTraffic]xdpprog.Traffic // judged by the caches, without a worker
	Lost     uint64                              // events that found no room
	Written  uint64                              // and those that did
	TCX      bool                                // attached by tcx links, else by clsact filters
	Uplinks  []UplinkStats
}

// Stats reads all counters.
func (p *Plane) Stats() (Stats, error) {
	s := Stats{TCX: !p.noTCX.Load(), Uplinks: p.uplinks.stats(),
		Lost: p.dropped.ring.Lost() + p.dropped.unread.Load(), Written: p.dropped.ring.Written()}
	now, _ := p.clock.now()
	for i, w := range p.workers {
		ws := WorkerStats{
			Port: w.port.Load().(string), Mode: w.mode.Load().(string),
			Alive: w.alive.Load(), Flows: int(w.live.Load()), FlowsCap: p.cfg.Flow.Capacity,
			Counts: w.counts.Snapshot(), Rings: w.rings.stats(), Huge: w.rings.huge.Load(), PodLinks: int(w.heard.Load()), CPU: int(w.cpu.Load()),
			Lost: w.events.Lost(), LostDeny: w.denies.Lost(),
		}
		if ws.Alive {
			ws.BeatAge = time.Duration(max(now-p.objs.LastBeat(i), 0))
			ws.Alive = ws.BeatAge < p.cfg.HeartbeatTimeout
		}
		for r, n := range ws.Counts.Drops {
			s.Drops[r] += n
		}
		s.Lost += ws.Lost + ws.LostDeny
		s.Written += w.events.Written() + w.denies.Written()
		s.Workers = append(s.Workers, ws)
	}
	drops, err := p.objs.Drops()
	if err != nil {
		return s, err
	}
	for r, n := range drops {
		s.Drops[r] += n
	}
	if s.Programs, err = p.objs.Counters(); err != nil {
		return s, err
	}
	s.Kernel, err = p.objs.Traffic()
	return s, err
}

// Beats returns how long ago each worker that has its socket and its rules last
// gave a sign of life.
func (p *Plane) Beats() map[int]time.Duration {
	now, _ := p.clock.now()
	ages := make(map[int]time.Duration, len(p.workers))
	for i, w := range p.workers {
		if w.alive.Load() {
			ages[i] = time.Duration(max(now-p.objs.LastBeat(i), 0))
		}
	}
	return ages
}

// Config returns what the dataplane was built with.
func (p *Plane) Config() Config { return p.cfg }

// Hits calls visit with each cause that gave a verdict since the dataplane was
// built, and the sum over the workers and what the host drops, in no order.
func (p *Plane) Hits(visit func(rule.CauseID, stat.Hit)) {
	sums := make(map[uint32]stat.Hit)
	add := func(id uint32, h stat.Hit) {
		sum := sums[id]
		sum.Add(h)
		sums[id] = sum
	}
	for _, w := range p.workers {
		w.hits.Each(add)
	}
	p.dropped.hits.Each(add)
	for id, h := range sums {
		visit(rule.CauseID(id), h)
	}
}

// Maps reads the sizes of the programs' maps and counts what is in them: some
// ten milliseconds if they are full.
func (p *Plane) Maps() ([]xdpprog.MapUsage, error) { return p.objs.Maps() }

// Programs describes the loaded programs and where they are attached.
func (p *Plane) Programs() ([]xdpprog.ProgramInfo, error) { return p.objs.Programs() }

// hit counts n verdicts for what gave them. A flow that one end's rules allow
// and the other's deny counts for those that deny.
func (w *worker) hit(o *outcome, n uint64) {
	switch {
	case o.allowed:
		kind := stat.Allowed
		if o.audit {
			kind = stat.Audited
		}
		w.hits.Count(0, uint32(o.egress), kind, n, w.wallNs)
		w.hits.Count(1, uint32(o.ingress), kind, n, w.wallNs)
	case o.reason == stat.Policy:
		w.hits.Count(1, uint32(cmp.Or(o.ingress, o.egress)), stat.Denied, n, w.wallNs)
	}
}

// rings are the kernel's counters of a worker's sockets. The worker reads them
// now and then, because it may close its socket at any time.
type rings struct {
	of     *xsk.Socket // whose are the last ones
	before xsk.Stats   // of earlier sockets
	last   xsk.Stats
	left   xsk.Stats // of earlier sockets on pods' links
	nextNs int64

	huge atomic.Bool
	pub  [6]atomic.Uint64 // xsk.Stats, in its order; read by anyone
}

// sampleEveryNs is how old the counters may be.
const sampleEveryNs = int64(500 * time.Millisecond)

func (w *worker) sampleRings() {
	r := &w.rings
	if w.nowNs < r.nextNs && r.of == w.sock {
		return
	}
	r.nextNs = w.nowNs + sampleEveryNs
	if r.of != w.sock {
		r.before, r.last = addRings(r.before, r.last), xsk.Stats{}
		r.of = w.sock
		r.huge.Store(w.umem.HugePages())
	}
	now, err := w.sock.Stats()
	if err != nil {
		return // what was read last stays
	}
	r.last = now
	sum := addRings(addRings(r.before, now), addRings(r.left, w.hearingStats()))
	for i, n := range [6]uint64{sum.RxDropped, sum.RxInvalid, sum.TxInvalid, sum.RxRingFull, sum.RxFillRingEmpty, sum.TxRingEmpty} {
		r.pub[i].Store(n)
	}
}

func (r *rings) stats() xsk.Stats {
	return xsk.Stats{
		RxDropped: r.pub[0].Load(), RxInvalid: r.pub[1].Load(), TxInvalid: r.pub[2].Load(),
		RxRingFull: r.pub[3].Load(), RxFillRingEmpty: r.pub[4].Load(), TxRingEmpty: r.pub[5].Load(),
	}
}

func addRings(a, b xsk.Stats) xsk.Stats {
	return xsk.Stats{
		RxDropped: a.RxDropped + b.RxDropped, RxInvalid: a.RxInvalid + b.RxInvalid, TxInvalid: a.TxInvalid + b.TxInvalid,
		RxRingFull: a.RxRingFull + b.RxRingFull, RxFillRingEmpty: a.RxFillRingEmpty + b.RxFillRingEmpty,
		TxRingEmpty: a.TxRingEmpty + b.TxRingEmpty,
	}
}
