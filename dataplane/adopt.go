package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// adoptFlows fills the workers' tables with the flows that the kernel's caches
// hold since an earlier agent: allowed ones go on, judged anew in their own
// direction with the first rules, and cut ones stay cut.
func (p *Plane) adoptFlows() error {
	if !p.objs.Adopted() {
		return nil
	}
	n := 0
	err := p.objs.EachFlow(func(k *xdpprog.FlowKey, v *xdpprog.FlowValue) {
		w, key := p.owner(k), keyFrom(k)
		if w.flows.Find(&key) != flow.NoRef {
			return // read twice, because divert writes meanwhile
		}
		ref, ok := w.adopt(k, v.Slot, v.Gen, v.Initiator, int64(v.LastSeenNs))
		if !ok {
			w.offload.remove(w, &key) // there is no room for it here
			return
		}
		e := w.flows.At(ref)
		e.Flags |= flow.Offloaded
		if v.Flags&xdpprog.FlowToPod != 0 {
			e.Flags |= flow.NoShortcut
		} else if v.Flags&xdpprog.FlowShortcut == 0 {
			e.Flags |= underway
		}
		w.offload.flow = *v
		w.offload.merge(w, ref, e, false)
		n++
	})
	if err != nil {
		return err
	}
	defer func() {
		for _, w := range p.workers {
			w.offload.delete(w)
		}
	}()
	err = p.objs.EachDenied(func(k *xdpprog.FlowKey, v *xdpprog.DenyValue) {
		if v.Sides != bothSides {
			return
		}
		w := p.owner(k)
		if ref, ok := w.adopt(k, v.Slot, v.Gen, v.Initiator, int64(v.SinceNs)); ok {
			// Nothing says that it wasn't translated, should it be allowed again.
			w.flows.At(ref).Flags |= cut | flow.NoShortcut
		}
	})
	p.log.Info("adopted flows", "flows", n)
	return err
}

func (p *Plane) owner(k *xdpprog.FlowKey) *worker {
	return p.workers[xdpprog.Owner(k, p.objs.Seed(), uint32(len(p.workers)))]
}

func (w *worker) adopt(k *xdpprog.FlowKey, slots, gens [2]uint32, initiator uint8, seenNs int64) (flow.Ref, bool) {
	key := keyFrom(k)
	if w.flows.Find(&key) != flow.NoRef {
		return flow.NoRef, false
	}
	var evicted flow.Entry
	ref, ok := w.flows.Insert(&key, w.flows.Hash(&key), seenNs, &evicted)
	if evicted.Flags&flow.Offloaded != 0 {
		w.offload.remove(w, &evicted.Key)
	}
	if !ok {
		return ref, false
	}
	e := w.flows.At(ref)
	e.Initiator = packet.Side(initiator & 1)
	e.Slot = [2]endpoint.ID{endpoint.ID(slots[0]), endpoint.ID(slots[1])}
	e.Gen = gens
	return ref, true
}
