package control

import (
	"cmp"
	"context"
	"net"
	"os"
	"slices"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// Flows implements api.Agent.
func (a *Agent) Flows(ctx context.Context, last int, follow bool, opened func(), visit func(*api.Flow) error) error {
	return a.observer.Flows(ctx, last, follow, opened, visit)
}

// Status implements api.Agent.
func (a *Agent) Status() (api.Status, error) {
	stats, err := a.plane.Stats()
	if err != nil {
		return api.Status{}, err
	}
	src := a.source.State()
	a.mu.Lock()
	loop := a.status
	a.mu.Unlock()
	s := api.Status{
		Node: a.cfg.NodeName, PID: os.Getpid(), Started: a.started,
		Offload: a.cfg.Offload, FailOpen: a.cfg.FailOpen,
		Generation: loop.generation, Digest: loop.digest, Pending: loop.pending,
		Endpoints: len(a.plane.Endpoints()), Drops: map[string]uint64{}, Notes: src.Notes,
		Ready: loop.ready && len(loop.pending) == 0,
		Modes: map[string]string{"attach": "tcx", "xdp": "native"},
	}
	if !stats.TCX {
		s.Modes["attach"] = "clsact"
	}
	if loop.err != nil {
		s.Notes = append(s.Notes, "last changes not applied: "+loop.err.Error())
	}
	for i, w := range stats.Workers {
		s.Ready = s.Ready && w.Alive
		s.Flows += w.Flows
		s.Workers = append(s.Workers, api.Worker{
			ID: i, Port: w.Port, Mode: w.Mode, Alive: w.Alive,
			Packets: w.Counts.Counts[stat.RxPackets], Bytes: w.Counts.Counts[stat.RxBytes],
		})
		s.Modes["umem"] = w.Mode
	}
	for r, n := range stats.Drops {
		if n > 0 {
			s.Drops[stat.Reason(r).String()] = n
		}
	}
	s.Programs = map[string]uint64{}
	for c, n := range stats.Programs {
		s.Programs[xdpprog.Counter(c).String()] = n
	}
	s.Rejected = rejections(src.Rejections)
	return s, nil
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
	return out
}
