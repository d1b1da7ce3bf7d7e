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
// flood of one of them is one event a period, with a count. Of two flows that
// share a place the newer one gets it; the older one's count is reported then.
type reportTable struct {
	slots []denyReport
	next  int // where reportSuppressed goes on
}

type denyReport struct {
	hash       uint64
	lastNs     int64  // when it was reported, CLOCK_MONOTONIC
	suppressed uint32 // packets since then
	rec        event.Record
}

const (
	reportSlots = 1 << 12
	reportScan  = 64 // places that a sweep looks at: each one every third of a second
)

func (t *reportTable) init() { t.slots = make([]denyReport, reportSlots) }

// reportDenied writes a Denied event, unless one of the same flow and side was
// written a moment ago.
func (w *worker) reportDenied(snap *snapshot, p *pkt, h *packet.Header, o *outcome, reply bool) {
	w.hit(o, 1)
	hash := p.hash ^ uint64(p.side)<<1 | 1
	slot := &w.reports.slots[hash>>32%reportSlots]
	if slot.hash == hash && w.nowNs-slot.lastNs < int64(w.cfg.DenyReport) {
		slot.suppressed++
		slot.rec.TimeNs = w.wallNs
		w.copyPacket(&slot.rec, p, h)
		return
	}
	suppressed := uint32(0)
	if slot.hash == hash {
		kernel := w.deniedInKernel(slot)
		w.hit(o, uint64(kernel))
		suppressed = slot.suppressed + kernel
	} else if slot.suppressed > 0 {
		w.putSuppressed(slot, slot.suppressed)
	}
	rec := w.record(snap, p, h, o)
	rec.Kind, rec.Suppressed, rec.Reply = event.Denied, suppressed, reply
	*slot = denyReport{hash: hash, lastNs: w.nowNs, rec: rec}
	w.copyPacket(&rec, p, h)
	w.put(w.denies, &rec)
}

// deniedInKernel returns how many packets of a reported flow divert has dropped
// since. A cut flow's count covers both of its sides: its initiator has it.
func (w *worker) deniedInKernel(slot *denyReport) uint32 {
	w.offload.probe = slot.rec.Key
	d := &w.offload.lastDeny
	if !w.cfg.Offload || slot.rec.Reason != stat.Policy || !xdpprog.LookupDenied(w.objs, &w.offload.probe, d) ||
		d.Sides == bothSides && d.Initiator != uint8(slot.rec.Side) || d.Sides>>slot.rec.Side&1 == 0 {
		return 0
	}
	return uint32(d.Packets)
}

// putSuppressed writes an event for the last of n packets that had none.
func (w *worker) putSuppressed(slot *denyReport, n uint32) {
	slot.rec.Suppressed = n - 1
	w.put(w.denies, &slot.rec)
}

// reportSuppressed tells of denied flows that fell silent what was left out of
// them. It looks at a few places at a time.
func (w *worker) reportSuppressed() {
	t := &w.reports
	for range reportScan {
		slot := &t.slots[t.next]
		t.next = (t.next + 1) % reportSlots
		if slot.hash == 0 || w.nowNs-slot.lastNs < int64(w.cfg.DenyReport) {
			continue
		}
		kernel := w.deniedInKernel(slot)
		w.hit(&outcome{reason: slot.rec.Reason, egress: slot.rec.Egress, ingress: slot.rec.Ingress}, uint64(kernel))
		if n := slot.suppressed + kernel; n > 0 {
			w.putSuppressed(slot, n)
		}
		slot.hash, slot.suppressed = 0, 0
	}
}

// copyPacket gives whoever captures a copy of a packet.
func (w *worker) copyPacket(rec *event.Record, p *pkt, h *packet.Header) {
	if c := w.capture.Load(); c != nil && c.Interest().Wants(rec) && int(h.L3) <= len(p.frame) {
		c.Put(rec, int(p.length)-int(h.L3), p.frame[h.L3:])
	}
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
	w.copyPacket(&rec, p, h)
	w.put(ring, &rec)
}

func (w *worker) record(snap *snapshot, p *pkt, h *packet.Header, o *outcome) event.Record {
	src, dst, _, _ := p.key.Tuple(p.side)
	rec := event.Record{
		TimeNs: w.wallNs, Key: p.key, Side: p.side, Hook: p.hook, Allowed: o.allowed,
		Audit: o.audit, AuditEgress: o.auditEgress, AuditIngress: o.auditIngress,
		Reason: o.reason, TCPFlags: h.TCPFlags, ICMP: uint16(h.ICMPType)<<8 | uint16(h.ICMPCode),
		Egress: o.egress, Ingress: o.ingress, Generation: snap.generation,
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
	if event.Interest(w.interest.Load()).Wants(rec) && !r.Put(rec) {
		w.counts.Add(stat.EventsLost, 1)
	}
}
