package dataplane

import (
	"time"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// Rules see a flow's ends, protocol and destination port, never its source
// port. So when a client opens its second flow to the same server and port, the
// worker tells divert, which from then on admits such flows by itself, as long
// as both ends' rules stay what they are, and leaves a note. First packets of
// busy pairs never wait for userspace; one-time pairs never cost a map entry.

// early marks the entry of a flow that a packet asked for before its note came.
const early flow.Flags = 1 << 14

// noted marks the entry of a flow whose own note has come. Notes come in order, so
// what they say of its ports from then on is no earlier flow's.
const noted flow.Flags = 1 << 12

// refusedFor is for how long, after a flow was taken out of the cache because the
// table had no room for it, a note may be older than that.
const refusedFor = int64(10 * time.Second)

// pairs remembers which pairs opened a flow lately. Two pairs that share a
// place take turns; that costs them the short way, nothing else.
type pairs struct {
	seen []uint64 // hash of the pair, its lowest bit set once divert knows it
}

const pairSlots = 1 << 12

func (t *pairs) init() { t.seen = make([]uint64, pairSlots) }

// pairKey is the key of all flows from one end to a port of another. The ports
// of echo flows are no ports.
func pairKey(k *packet.Key, from packet.Side) packet.Key {
	src, dst, _, dport := k.Tuple(from)
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 {
		dport = 0
	}
	return packet.Key{A: src, B: dst, BPort: dport, Proto: k.Proto}
}

// known reports whether divert admits flows like this one.
func (t *pairs) known(w *worker, k *packet.Key, from packet.Side) bool {
	pk := pairKey(k, from)
	h := w.flows.Hash(&pk)
	return t.seen[h>>32%pairSlots] == h|1
}

// again notes that a pair opened a flow and reports whether it is the time to
// tell divert: the second one.
func (t *pairs) again(w *worker, k *packet.Key, from packet.Side) bool {
	pk := pairKey(k, from)
	h := w.flows.Hash(&pk)
	slot := &t.seen[h>>32%pairSlots]
	if *slot|1 != h|1 {
		*slot = h &^ 1
		return false
	}
	*slot = h | 1
	return true
}

// teach tells divert to admit flows like the one that was just entered.
func (o *offloader) teach(w *worker, p *pkt, e *flow.Entry, generation uint64) {
	if !w.cfg.Offload || !cacheable(&e.Key) || e.Flags&lookup != 0 || o.nAdmits == len(o.admits) || !w.pairs.again(w, &e.Key, e.Initiator) {
		return
	}
	pk := pairKey(&e.Key, e.Initiator)
	src, dst := e.Initiator, e.Initiator.Other()
	v := xdpprog.AdmitValue{
		Slot:   [2]uint32{uint32(e.Slot[src]), uint32(e.Slot[dst])},
		Gen:    [2]uint32{e.Gen[src], e.Gen[dst]},
		Egress: uint32(e.Egress), Ingress: uint32(e.Ingress), Generation: generation,
		Flags: w.cacheFlags(e),
	}
	if e.Flags&flow.Audit != 0 {
		v.Flags |= xdpprog.FlowAudit
	}
	if e.Flags&flow.Log != 0 {
		v.Flags |= xdpprog.FlowLog
	}
	o.admitK[o.nAdmits] = xdpprog.AdmitKey{
		Src: xdpprog.Addr(pk.A), Dst: xdpprog.Addr(pk.B), DPort: pk.BPort,
		Proto: uint8(pk.Proto), Hook: uint8(p.hook),
	}
	o.admits[o.nAdmits] = v
	o.nAdmits++
}

// cacheFlags are a flow's flags in the kernel's cache.
func (w *worker) cacheFlags(e *flow.Entry) uint8 {
	switch {
	case e.Flags&flow.NoShortcut != 0:
		return xdpprog.FlowToPod
	case w.cfg.Shortcut && e.Flags&underway == 0 && e.Slot[0] != endpoint.None && e.Slot[1] != endpoint.None:
		return xdpprog.FlowShortcut
	}
	return 0
}

// started enters a flow that divert admitted.
func (w *worker) started(n *xdpprog.Note) {
	key := keyFrom(&n.Key)
	ref := w.flows.Find(&key)
	switch {
	case ref != flow.NoRef && w.flows.At(ref).Flags&early != 0: // closed by now, maybe
	case ref == flow.NoRef || w.flows.At(ref).State == flow.Closed:
		if w.refusedMeanwhile(&key) {
			return
		}
		ref = w.enterCached(&key, ref, packet.Side(n.Initiator&1), n.Slot, n.Gen)
		if ref == flow.NoRef {
			return
		}
	default:
		w.claim(ref) // its cache was full before, or this is a later flow between the same ports
		return
	}
	e := w.flows.At(ref)
	e.Flags = e.Flags&^early | noted
	e.Egress, e.Ingress = rule.CauseID(n.Egress), rule.CauseID(n.Ingress)
	w.cachedFlags(e, n.Flags)
	packets := e.Packets // the kernel has counted this one
	w.flows.Track(ref, e.Initiator, n.TCPFlags, 0, w.nowNs)
	e.Packets = packets
	w.hit(&outcome{allowed: true, audit: e.Flags&flow.Audit != 0, egress: e.Egress, ingress: e.Ingress}, 1)
	rec := w.next(w.events, event.NewFlow, true)
	if rec == nil {
		return
	}
	rec.Clear()
	w.ofEntry(rec, e, event.Hook(n.Hook))
	rec.TCPFlags, rec.Generation = n.TCPFlags, n.Generation
	w.events.Commit()
}

// refusedMeanwhile reports whether a flow that divert admitted is not in the kernel's
// cache any more, as a packet of it came up when the table was full.
func (w *worker) refusedMeanwhile(key *packet.Key) bool {
	if w.nowNs-w.refused >= refusedFor {
		return false
	}
	w.offload.delete(w)
	w.offload.probe = *key
	return !xdpprog.LookupFlow(w.objs, &w.offload.probe, &w.offload.flow)
}

// claim notes that the kernel's cache has a flow which was not entered there by the
// worker, so that it leaves the cache when it ends.
func (w *worker) claim(ref flow.Ref) {
	e := w.flows.At(ref)
	w.offload.probe = e.Key
	if e.Flags&flow.Offloaded == 0 && xdpprog.LookupFlow(w.objs, &w.offload.probe, &w.offload.flow) {
		e.Flags |= flow.Offloaded
	}
}

// enterCached makes an entry for a flow that is in the kernel's cache; ref is
// its closed predecessor, if there is one. Without room the flow leaves the
// cache again, and is judged as the table allows.
func (w *worker) enterCached(key *packet.Key, ref flow.Ref, initiator packet.Side, slots, gens [2]uint32) flow.Ref {
	if ref != flow.NoRef {
		w.reportEnd(w.flows.At(ref))
		w.uncut(w.flows.At(ref))
		w.flows.Restart(ref, initiator, w.nowNs)
	} else {
		var evicted flow.Entry
		var ok bool
		ref, ok = w.flows.Insert(key, w.flows.Hash(key), w.nowNs, &evicted)
		if evicted.State != flow.Free {
			w.evicted(&evicted)
		}
		if !ok {
			w.offload.remove(w, key)
			w.refused = w.nowNs
			return flow.NoRef
		}
	}
	e := w.flows.At(ref)
	e.Initiator = initiator
	e.Slot = [2]endpoint.ID{endpoint.ID(slots[0]), endpoint.ID(slots[1])}
	e.Gen = gens
	e.Flags |= flow.Offloaded
	w.counts.Add(stat.FlowsNew, 1)
	return ref
}

func (w *worker) cachedFlags(e *flow.Entry, flags uint8) {
	if flags&xdpprog.FlowToPod != 0 {
		e.Flags |= flow.NoShortcut
	}
	if flags&xdpprog.FlowAudit != 0 {
		e.Flags |= flow.Audit
	}
	if flags&xdpprog.FlowLog != 0 {
		e.Flags |= flow.Log
	}
}

// admittedMeanwhile looks whether divert admitted the flow of a packet that
// came up, and its note is still on the way: without it a reply would be judged
// as a flow of its own.
func (w *worker) admittedMeanwhile(p *pkt) {
	if !w.cfg.Offload || !w.pairs.known(w, &p.key, p.side) && !w.pairs.known(w, &p.key, p.side.Other()) {
		return
	}
	// An earlier packet of this burst may have asked.
	if p.ref = w.flows.Find(&p.key); p.ref != flow.NoRef {
		return
	}
	w.offload.probe = p.key
	v := &w.offload.flow
	if !xdpprog.LookupFlow(w.objs, &w.offload.probe, v) {
		return
	}
	mine := p.side
	if p.hook == event.ToPod {
		mine = mine.Other()
	}
	if endpoint.ID(v.Slot[mine]) != p.slot {
		w.offload.remove(w, &p.key) // of a pod that had the address before
		return
	}
	p.ref = w.enterCached(&p.key, flow.NoRef, packet.Side(v.Initiator&1), v.Slot, v.Gen)
	if p.ref != flow.NoRef {
		e := w.flows.At(p.ref)
		w.cachedFlags(e, v.Flags)
		e.Flags |= early
		w.offload.merge(w, p.ref, e, false)
	}
}
