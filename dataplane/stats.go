package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// WorkerStats is the state of one worker.
type WorkerStats struct {
	Port   string // link that its socket is bound to
	Mode   string // how frames travel: copy or zerocopy
	Alive  bool
	Flows  int
	Counts stat.Snapshot
}

// Stats is the state of the dataplane.
type Stats struct {
	Workers  []WorkerStats
	Drops    [stat.NumReasons]uint64     // workers and programs together
	Programs [xdpprog.NumCounters]uint64 // what the programs did with the rest
	Lost     uint64                      // events that found no room
	TCX      bool                        // attached by tcx links, else by clsact filters
}

// Stats reads all counters.
func (p *Plane) Stats() (Stats, error) {
	s := Stats{TCX: !p.noTCX.Load()}
	for _, w := range p.workers {
		ws := WorkerStats{
			Port: w.port.Load().(string), Mode: w.mode.Load().(string),
			Alive: w.alive.Load(), Flows: int(w.live.Load()), Counts: w.counts.Snapshot(),
		}
		for r, n := range ws.Counts.Drops {
			s.Drops[r] += n
		}
		s.Lost += w.events.Lost() + w.denies.Lost()
		s.Workers = append(s.Workers, ws)
	}
	drops, err := p.objs.Drops()
	if err != nil {
		return s, err
	}
	for r, n := range drops {
		s.Drops[r] += n
	}
	s.Programs, err = p.objs.Counters()
	return s, err
}
