package control

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// Flows implements api.Agent.
func (a *Agent) Flows(ctx context.Context, last int, follow bool, opened func(), visit func(*api.Flow) error) error {
	return a.observer.Flows(ctx, last, follow, opened, func(f *api.Flow) error {
		if f != nil {
			f.Node = a.cfg.NodeName
		}
		return visit(f)
	})
}

// Status implements api.Agent.
func (a *Agent) Status(maps bool) (api.Status, error) {
	stats, err := a.plane.Stats()
	if err != nil {
		return api.Status{}, err
	}
	src := a.source.State()
	a.mu.Lock()
	loop := a.status
	a.mu.Unlock()
	s := api.Status{
		Node: a.cfg.NodeName, PID: os.Getpid(), Started: a.started, Hubble: a.cfg.Hubble.Socket,
		Offload: a.cfg.Offload, FailOpen: a.cfg.FailOpen,
		Source: src.Name, Synced: src.Synced,
		Generation: loop.generation, Published: loop.published, Digest: loop.digest, Pending: loop.pending,
		Endpoints: len(a.plane.Endpoints()), Drops: map[string]uint64{}, Notes: src.Notes,
		Ready: loop.ready && len(loop.pending) == 0,
		Modes: map[string]string{"attach": "tcx", "xdp": "native"},
	}
	if !stats.TCX {
		s.Modes["attach"] = "clsact"
	}
	if loop.err != nil {
		s.Notes = append(slices.Clone(s.Notes), "last changes not applied: "+loop.err.Error())
	}
	if note := a.lookups.learner.Note(); note != "" {
		s.Notes = append(slices.Clone(s.Notes), note)
	}
	for i := range stats.Workers {
		w := worker(i, &stats.Workers[i])
		s.Ready = s.Ready && w.Alive
		s.Flows, s.FlowsMax = s.Flows+w.Flows, s.FlowsMax+w.FlowsMax
		s.Workers = append(s.Workers, w)
		s.Modes["umem"] = w.Mode
	}
	for _, u := range stats.Uplinks {
		x := api.Uplink{Name: u.Name, State: string(u.State), Reason: u.Reason, Mode: u.Mode, Note: u.Note, Queues: []api.UplinkQueue{}}
		for _, q := range u.Queues {
			x.Queues = append(x.Queues, api.UplinkQueue(q))
		}
		s.Uplinks = append(s.Uplinks, x)
		if u.State != dataplane.UplinkOn {
			s.Notes = append(s.Notes, "uplink "+u.Name+" is "+string(u.State)+": "+u.Reason)
		}
	}
	for r, n := range stats.Drops {
		if n > 0 {
			s.Drops[stat.Reason(r).String()] = n
		}
	}
	if n := a.services.guard.Drops(); n > 0 {
		s.Drops["service-backend"] = n
	}
	if s.Services = loop.services; s.Services.Closed > 0 {
		s.Notes = append(slices.Clone(s.Notes), fmt.Sprintf("%d calls of Services are closed, though pods may reach some of their backends: %s", s.Services.Closed, s.Services.Reason))
	}
	if s.Services.Silent = a.silent(); s.Services.Silent != "" && s.Services.Guarded > 0 {
		s.Notes = append(slices.Clone(s.Notes), "what the host drops of calls of Services is counted and has no events: "+s.Services.Silent)
	}
	s.Programs = map[string]uint64{}
	for c, n := range stats.Programs {
		s.Programs[xdpprog.Counter(c).String()] = n
	}
	s.Rejected = rejections(src.Rejections)
	s.Watches, s.StaleMs = watches(src.Watches)
	a.store.Read(func(v store.View) {
		s.Objects.Namespaces, s.Objects.Pods, s.Objects.Nodes, s.Objects.Policies, s.Objects.Identities = v.Counts()
	})
	held := a.observer.Stats()
	s.Events = api.Events{Written: stats.Written, Lost: stats.Lost, Missed: held.Missed, Held: held.Held, HeldMax: held.Cap}
	s.HeapBytes, s.Goroutines = heap(), runtime.NumGoroutine()
	if maps {
		err = a.kernelStatus(&s)
	}
	return s, err
}

// kernelStatus adds what has to be read from the kernel, map by map.
func (a *Agent) kernelStatus(s *api.Status) error {
	maps, err := a.plane.Maps()
	if err != nil {
		return err
	}
	for _, m := range maps {
		s.Maps = append(s.Maps, api.Map{Name: m.Name, Type: m.Type, Entries: m.Entries, Max: int(m.Max),
			Used: float64(m.Entries) / float64(max(m.Max, 1)), Evicts: m.Evicts})
	}
	programs, err := a.plane.Programs()
	for _, p := range programs {
		s.Loaded = append(s.Loaded, api.Program(p))
	}
	return err
}

func worker(id int, w *dataplane.WorkerStats) api.Worker {
	x := api.Worker{
		ID: id, Port: w.Port, Mode: w.Mode, Alive: w.Alive, BeatAgeMs: w.BeatAge.Milliseconds(),
		Packets: w.Counts.Counts[stat.RxPackets], Bytes: w.Counts.Counts[stat.RxBytes],
		Flows: w.Flows, FlowsMax: w.FlowsCap, HugePages: w.Huge, PodLinks: w.PodLinks,
		RingDropped: w.Rings.RxDropped + w.Rings.RxRingFull, FillEmpty: w.Rings.RxFillRingEmpty, LostEvents: w.Lost + w.LostDeny,
	}
	if w.CPU >= 0 {
		x.CPU = &w.CPU
	}
	return x
}

// watches describes what a source follows, and for how long, at worst, it has
// not been in step with something that it once knew, or has never known.
func watches(in []WatchState) (out []api.Watch, staleMs int64) {
	for _, w := range in {
		out = append(out, api.Watch{Resource: w.Resource, Synced: w.Synced, Healthy: w.Healthy, Current: w.Current, Heard: w.Heard,
			Version: w.Version, Objects: w.Objects, Error: w.Err})
		if !w.Healthy && !w.Current.IsZero() {
			staleMs = max(staleMs, 1, time.Since(w.Current).Milliseconds())
		}
	}
	return out, staleMs
}

// heap returns the bytes of live and not yet collected objects.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func rejections(in []policy.Rejection) []api.Rejection {
	var out []api.Rejection
	for _, r := range in {
		out = append(out, api.Rejection{Object: r.Object, Source: r.Source, Field: r.Field, Reason: r.Reason, Effect: r.Effect})
	}
	return out
}

// Endpoints implements api.Agent.
func (a *Agent) Endpoints() []api.Endpoint {
	out := []api.Endpoint{}
	for _, e := range a.plane.Endpoints() {
		x := api.Endpoint{
			ID: uint32(e.ID), Namespace: e.Namespace, Pod: e.Name, Addresses: e.Addrs,
			Link: e.Link.Name, MAC: net.HardwareAddr(e.Link.MAC[:]).String(),
			Generation: a.plane.Generation(e.ID), State: "enforced",
		}
		if x.Generation == 0 {
			x.State = "isolated"
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y api.Endpoint) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod))
	})
	a.store.Read(func(v store.View) {
		known := map[*store.Identity][2]api.Selected{}
		for i := range out {
			e := &out[i]
			id := v.PodIdentity(store.Key{Namespace: e.Namespace, Name: e.Pod})
			both, ok := known[id]
			if !ok {
				both = selected(v, id)
				known[id] = both
			}
			e.Ingress, e.Egress = both[rule.Ingress], both[rule.Egress]
		}
	})
	return out
}

// selected returns what selects the pods of an identity, by direction. A pod
// that is not known is isolated.
func selected(v store.View, id *store.Identity) (out [2]api.Selected) {
	var policies []*policy.Policy
	if id != nil {
		policies = resolve.Selecting(v, id)
	}
	for d := range out {
		s := api.Selected{Policies: []api.PolicyKey{}, Isolated: id == nil}
		for _, p := range policies {
			section := resolve.Section(p, rule.Direction(d))
			if !section.Applies {
				continue
			}
			if key := keyOf(p.Origin); !slices.Contains(s.Policies, key) {
				s.Policies = append(s.Policies, key)
			}
			s.Isolated = s.Isolated || section.Default == policy.Deny && !p.Staged && !v.Audit(p)
		}
		out[d] = s
	}
	return out
}
