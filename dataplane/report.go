package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// reportTable remembers which denied flows were reported lately, so that a
// flood of one of them is one event a period, with a count. Two flows that
// share a place only cost each other's counts an event more.
type reportTable struct {
	slots []denyReport
}

type denyReport struct {
	hash       uint64
	lastNs     int64
	suppressed uint32
}

const reportSlots = 1 << 12

func (t *reportTable) init() { t.slots = make([]denyReport, reportSlots) }

// reportDenied writes a Denied event, unless one of the same flow and side was
// written a moment ago.
func (w *worker) reportDenied(snap *snapshot, p *pkt, h *packet.Header, o *outcome) {
	w.hit(o, 1)
	hash := p.hash ^ uint64(p.side)<<1 | 1
	slot := &w.reports.slots[hash>>32%reportSlots]
	suppressed := uint32(0)
	if slot.hash == hash {
		if w.nowNs-slot.lastNs < int64(w.cfg.DenyReport) {
			slot.suppressed++
			return
		}
		suppressed = slot.suppressed
		w.offload.probe = p.key
		if w.cfg.Offload && xdpprog.LookupDenied(w.objs, &w.offload.probe, &w.offload.lastDeny) {
			suppressed += uint32(w.offload.lastDeny.Packets)
			w.hit(o, w.offload.lastDeny.Packets)
		}
	}
	*slot = denyReport{hash: hash, lastNs: w.nowNs}
	rec := w.record(snap, p, h, o)
	rec.Kind, rec.Suppressed = event.Denied, suppressed
	w.put(w.denies, &rec)
}

// report writes an event about a flow that has an entry.
func (w *worker) report(snap *snapshot, p *pkt, h *packet.Header, e *flow.Entry, kind event.Kind, o *outcome) {
	rec := w.record(snap, p, h, o)
	rec.Kind, rec.Reply = kind, p.side != e.Initiator
	ring := w.events
	if !o.allowed {
		ring = w.denies
	} else {
		w.hit(o, 1)
	}
	w.put(ring, &rec)
}

func (w *worker) record(snap *snapshot, p *pkt, h *packet.Header, o *outcome) event.Record {
	src, dst, _, _ := p.key.Tuple(p.side)
	rec := event.Record{
		TimeNs: w.wallNs, Key: p.key, Side: p.side, Hook: p.hook, Allowed: o.allowed,
		Audit: o.audit, Reason: o.reason, TCPFlags: h.TCPFlags, Egress: o.egress,
		Ingress: o.ingress, Generation: snap.generation,
		Src: snap.addrs.lookup(src), Dst: snap.addrs.lookup(dst),
	}
	if p.hook == event.FromPod {
		rec.Src = p.slot
	} else {
		rec.Dst = p.slot
	}
	return rec
}

// reportEnd writes an Ended event for a flow that leaves the table.
func (w *worker) reportEnd(e *flow.Entry) {
	if e.Flags&cut != 0 {
		return
	}
	rec := event.Record{
		TimeNs: w.wallNs, Key: e.Key, Side: e.Initiator, Kind: event.Ended, Allowed: true,
		Audit: e.Flags&flow.Audit != 0, Reason: stat.OK,
		TCPFlags: e.TCPFlags[0] | e.TCPFlags[1],
		Src:      e.Slot[e.Initiator], Dst: e.Slot[e.Initiator.Other()],
		Egress: e.Egress, Ingress: e.Ingress,
		Packets: e.Packets, Bytes: e.Bytes, DurationNs: e.LastSeenNs - e.CreatedNs,
	}
	if rec.Src == endpoint.None {
		rec.Hook = event.ToPod
	}
	w.put(w.events, &rec)
}

func (w *worker) put(r *event.Ring, rec *event.Record) {
	if !r.Put(rec) {
		w.counts.Add(stat.EventsLost, 1)
	}
}
