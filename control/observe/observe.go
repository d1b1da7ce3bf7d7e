// Package observe turns the workers' events into flows that a person can read,
// keeps the last of them, and hands new ones to whoever follows. One goroutine
// reads the events; a follower that doesn't keep up loses events, never the
// packets or the other followers theirs.
package observe

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Source is where events come from (dataplane.Plane).
type Source interface {
	ReadEvents(ctx context.Context, dst []event.Record) int
}

// Names tells who is behind addresses, endpoints and causes.
type Names interface {
	// Pod returns the pod of a local endpoint or of an address, or "", "".
	Pod(id endpoint.ID, addr packet.Addr) (namespace, name string)
	// Cause returns what a CauseID stands for.
	Cause(id rule.CauseID) rule.Cause
}

// Observer keeps and distributes flows.
type Observer struct {
	source Source
	names  Names

	mu        sync.Mutex // guards what follows
	history   []api.Flow // ring
	next      int        // place of the next flow in history
	total     uint64     // flows ever seen
	followers map[*follower]struct{}
}

// followerBacklog is how many flows a follower may lag behind.
const followerBacklog = 16384

type follower struct {
	flows chan *api.Flow
	lost  uint64
}

// New returns an observer that remembers up to history flows.
func New(source Source, names Names, history int) *Observer {
	return &Observer{source: source, names: names, history: make([]api.Flow, 0, max(history, 1)),
		followers: make(map[*follower]struct{})}
}

// Run reads events until ctx ends.
func (o *Observer) Run(ctx context.Context) {
	recs := make([]event.Record, 256)
	for {
		n := o.source.ReadEvents(ctx, recs)
		if n == 0 {
			return
		}
		for i := range recs[:n] {
			o.add(o.flow(&recs[i]))
		}
	}
}

func (o *Observer) add(f api.Flow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.history) < cap(o.history) {
		o.history = append(o.history, f)
	} else {
		o.history[o.next] = f
	}
	o.next = (o.next + 1) % cap(o.history)
	o.total++
	for fo := range o.followers {
		select {
		case fo.flows <- &f:
		default:
			fo.lost++
		}
	}
}

// Flows implements that of api.Agent.
func (o *Observer) Flows(ctx context.Context, last int, follow bool, opened func(), visit func(*api.Flow) error) error {
	fo := &follower{flows: make(chan *api.Flow, followerBacklog)}
	o.mu.Lock()
	past := o.past(last)
	if follow {
		o.followers[fo] = struct{}{}
	}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		delete(o.followers, fo)
		o.mu.Unlock()
	}()
	opened()
	for i := range past {
		if err := visit(&past[i]); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	if err := visit(nil); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-fo.flows:
			if err := visit(f); err != nil {
				return err
			}
			if len(fo.flows) == 0 {
				if err := visit(nil); err != nil {
					return err
				}
			}
		}
	}
}

// past copies the last n flows of the history, oldest first.
func (o *Observer) past(n int) []api.Flow {
	n = min(n, len(o.history))
	out := make([]api.Flow, 0, n)
	for i := range n {
		at := (o.next - n + i + 2*cap(o.history)) % cap(o.history)
		out = append(out, o.history[at])
	}
	return out
}

var kinds = [...]string{event.NewFlow: "new", event.Denied: "denied", event.Changed: "changed", event.Ended: "ended"}

var hooks = [...]string{event.FromPod: "from-pod", event.ToPod: "to-pod"}

func (o *Observer) flow(r *event.Record) api.Flow {
	src, dst, sport, dport := r.Key.Tuple(r.Side)
	f := api.Flow{
		Time: time.Unix(0, r.TimeNs).UTC(), Event: kinds[r.Kind], Verdict: "deny", Audit: r.Audit,
		Reply: r.Reply, Hook: hooks[r.Hook], Proto: r.Key.Proto.String(), Reason: r.Reason.String(),
		Generation: r.Generation, Suppressed: r.Suppressed, DurationMs: r.DurationNs / 1e6,
		TCPFlags: flagNames(r.TCPFlags), DecidedBy: []rule.PolicyRef{},
		Packets: [2]uint64{r.Packets[r.Side], r.Packets[r.Side.Other()]},
		Bytes:   [2]uint64{r.Bytes[r.Side], r.Bytes[r.Side.Other()]},
	}
	if r.Allowed {
		f.Verdict = "allow"
	}
	f.Src = o.end(r.Src, src, sport)
	f.Dst = o.end(r.Dst, dst, dport)
	for _, id := range [2]rule.CauseID{r.Egress, r.Ingress} {
		if id == rule.NoCause {
			continue
		}
		c := o.names.Cause(id)
		f.DecidedBy = append(f.DecidedBy, c.Refs...)
		if f.Text == "" {
			f.Text = c.Text
		}
	}
	if !r.Allowed && r.Ingress != rule.NoCause && r.Egress != rule.NoCause {
		// The egress side allowed it: the denial is the ingress side's alone.
		c := o.names.Cause(r.Ingress)
		f.DecidedBy, f.Text = append([]rule.PolicyRef{}, c.Refs...), c.Text
	}
	return f
}

func (o *Observer) end(id endpoint.ID, addr packet.Addr, port uint16) api.End {
	e := api.End{Addr: addr.Netip(), Port: port}
	e.Namespace, e.Pod = o.names.Pod(id, addr)
	return e
}

var tcpFlagNames = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

func flagNames(flags uint8) string {
	s := ""
	for i, name := range tcpFlagNames {
		if flags&(1<<i) != 0 {
			if s != "" {
				s += ","
			}
			s += name
		}
	}
	return s
}
