// Package observe turns the workers' events into flows that name who and why,
// and keeps the last of them in a ring that any number of readers follow. One
// goroutine, Run's, reads the events and resolves names, some 200 ns an event;
// a reader that doesn't keep up loses events, and learns how many, but never
// costs the packets or other readers theirs.
//
// Of what is generated, everything is either read or counted as lost: in the
// workers' rings, for all readers (a Flow with Lost set stands where events are
// missing), or in the history, for the one reader that was too slow.
package observe

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/control/observe/history"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Source is where events come from (dataplane.Plane).
type Source interface {
	ReadEvents(ctx context.Context, dst []event.Record) int
	LostEvents() uint64
	SetInterest(event.Interest)
	StartCapture(snapLen int, want event.Interest) error
	StopCapture()
	ReadPackets(visit func(rec *event.Record, length int, data []byte)) (lost uint64)
}

// Names tells who is behind addresses, endpoints and causes.
type Names interface {
	// End returns who is behind a local endpoint, or an address. There is one
	// call at a time.
	End(id endpoint.ID, addr packet.Addr) *End
	// Cause returns what a CauseID stands for.
	Cause(id rule.CauseID) rule.Cause
}

// Observer keeps and distributes flows.
type Observer struct {
	source  Source
	names   Names
	ring    *history.Ring[Flow]
	started time.Time
	tag     uint64

	tap func([]Flow) // or nil

	// Run's.
	lost uint64 // as last reported
	next uint64 // Before of the next flow

	naming sync.Mutex    // guards calls of names, and causes
	causes []*rule.Cause // by CauseID, as they were when last asked for
	seen   atomic.Uint64 // sightings of flows ever
	read   atomic.Uint64 // events ever
	missed atomic.Uint64 // sightings that readers were too slow for
	recent rate

	mu       sync.Mutex // guards what follows
	base     event.Interest
	wants    map[*event.Interest]struct{} // of readers
	capture  chan struct{}                // holds a token while nobody captures
	snapshot map[string]time.Time         // namespaces, when last seen
}

// New returns an observer that remembers up to size events. keep says which
// events it wants when nobody else wants any.
func New(source Source, names Names, size int, keep event.Interest) *Observer {
	o := &Observer{source: source, names: names, ring: history.New[Flow](size), started: time.Now(), tag: rand.Uint64(),
		base: keep, wants: map[*event.Interest]struct{}{}, capture: make(chan struct{}, 1),
		snapshot: map[string]time.Time{}}
	o.capture <- struct{}{}
	source.SetInterest(keep)
	return o
}

// Tap has f called with all flows, batch by batch, before readers get them. It
// belongs before Run; f is on the way of all events and must be quick.
func (o *Observer) Tap(f func([]Flow)) { o.tap = f }

// batch is how many events Run takes at a time.
const batch = 256

// Run reads events until ctx ends.
func (o *Observer) Run(ctx context.Context) {
	recs := make([]event.Record, batch)
	flows := make([]Flow, 0, batch+1)
	for {
		n := o.source.ReadEvents(ctx, recs)
		if n == 0 {
			return
		}
		// Rings are read one after the other: within a batch, time orders them.
		if byTime := func(a, b event.Record) int { return int(a.TimeNs - b.TimeNs) }; !slices.IsSortedFunc(recs[:n], byTime) {
			slices.SortStableFunc(recs[:n], byTime)
		}
		flows = flows[:0]
		if lost := o.source.LostEvents(); lost != o.lost {
			f := Flow{Lost: lost - o.lost, Before: o.next, Record: event.Record{TimeNs: recs[0].TimeNs}}
			o.lost, o.next = lost, f.After()
			flows = append(flows, f)
		}
		seen := uint64(0)
		o.naming.Lock()
		for i := range recs[:n] {
			flows = append(flows, Flow{Record: recs[i], Before: o.next})
			f := &flows[len(flows)-1]
			o.resolve(f)
			o.next = f.After()
			seen += uint64(f.nViews)
		}
		o.naming.Unlock()
		if o.tap != nil {
			o.tap(flows)
		}
		o.ring.Append(flows...)
		o.seen.Add(seen)
		o.read.Add(uint64(n))
		o.recent.add(recs[n-1].TimeNs, seen)
		o.noteNamespaces(flows)
	}
}

// resolve completes a flow that has nothing yet but its record.
func (o *Observer) resolve(f *Flow) {
	if f.Kind == event.Changed && f.Reply {
		// A verdict is the flow's, whichever end's packet asked for it.
		f.Side, f.Reply = f.Side.Other(), false
		f.Record.Src, f.Record.Dst = f.Record.Dst, f.Record.Src
	}
	src, dst, _, _ := f.Key.Tuple(f.Side)
	f.Src, f.Dst = o.names.End(f.Record.Src, src), o.names.End(f.Record.Dst, dst)
	f.Egress, f.Ingress = o.cause(f.Record.Egress), o.cause(f.Record.Ingress)
	f.settle()
}

// mostCauses bounds what cause remembers.
const mostCauses = 1 << 16

// cause returns what a CauseID stands for, which stays the same pointer as long as
// it is the same cause: so that flows are small, and what is derived from a cause
// can be kept by it.
func (o *Observer) cause(id rule.CauseID) *rule.Cause {
	now := o.names.Cause(id)
	if int(id) >= mostCauses {
		return keep(now)
	}
	if int(id) >= len(o.causes) {
		o.causes = append(o.causes, make([]*rule.Cause, int(id)+1-len(o.causes))...)
	}
	if c := o.causes[id]; c != nil && c.Text == now.Text && len(c.Refs) == len(now.Refs) &&
		(len(c.Refs) == 0 || &c.Refs[0] == &now.Refs[0]) {
		return c
	}
	o.causes[id] = keep(now)
	return o.causes[id]
}

func keep(c rule.Cause) *rule.Cause { return &c }

// namespaceTTL is for how long a namespace counts as seen, as Hubble has it.
const namespaceTTL = time.Hour

func (o *Observer) noteNamespaces(flows []Flow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var last [2]*End // what was noted, by side: most flows of a batch are alike
	for i := range flows {
		for side, e := range [2]*End{flows[i].Src, flows[i].Dst} {
			if e == last[side] {
				continue
			}
			if last[side] = e; e != nil && e.Namespace != "" {
				o.snapshot[e.Namespace] = time.Unix(0, flows[i].TimeNs)
			}
		}
	}
}

// Namespaces returns those that had flows in the last hour, sorted.
func (o *Observer) Namespaces() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []string
	for ns, at := range o.snapshot {
		if time.Since(at) > namespaceTTL {
			delete(o.snapshot, ns)
			continue
		}
		names = append(names, ns)
	}
	slices.Sort(names)
	return names
}

// Stats is the state of the history.
type Stats struct {
	Held, Cap  uint64 // events
	Seen, Lost uint64 // ever
	Read       uint64 // events taken from the workers, ever
	Missed     uint64 // by readers, as their Next said
	PerSecond  float64
	Started    time.Time
}

// Stats describes the history.
func (o *Observer) Stats() Stats {
	oldest, next := o.ring.Bounds()
	return Stats{Held: next - oldest, Cap: uint64(o.ring.Cap()), Seen: o.seen.Load(),
		Read: o.read.Load(), Missed: o.missed.Load(), Lost: o.source.LostEvents(), PerSecond: o.recent.perSecond(time.Now()), Started: o.started}
}

// Tag tells this observer's events from those of another one, as that of the same
// node before a restart.
func (o *Observer) Tag() uint64 { return o.tag }

// Started returns when the first event can have been.
func (o *Observer) Started() time.Time { return o.started }

// Want asks the workers for events beyond those that the history keeps, until
// the returned function is called.
func (o *Observer) Want(i event.Interest) (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := &i
	o.wants[key] = struct{}{}
	o.tell()
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.wants, key)
		o.tell()
	}
}

func (o *Observer) tell() {
	all := o.base
	for w := range o.wants {
		all |= *w
	}
	o.source.SetInterest(all)
}
