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
	slot.hash, slot.lastNs, slot.suppressed = hash, w.nowNs, 0
	w.record(&slot.rec, snap, p, h, o)
	slot.rec.Kind, slot.rec.Suppressed, slot.rec.Reply = event.Denied, suppressed, reply
	w.copyPacket(&slot.rec, p, h)
	w.put(w.denies, &slot.rec)
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
		p.copied = true
	}
}

// copyPassed gives whoever captures a copy of an allowed packet of a flow, at the
// hook where it is accounted, unless it was copied for what it opened or changed.
func (w *worker) copyPassed(p *pkt, h *packet.Header, e *flow.Entry) {
	if p.copied || !w.counted(p, e) {
		return
	}
	rec := event.Record{
		TimeNs: w.wallNs, Key: p.key, Side: p.side, Kind: event.Passed, Hook: p.hook, Allowed: true, Audit: e.Flags&flow.Audit != 0,
		Reply: p.side != e.Initiator, TCPFlags: h.TCPFlags, ICMP: uint16(h.ICMPType)<<8 | uint16(h.ICMPCode),
		Src: e.Slot[p.side], Dst: e.Slot[p.side.Other()], Egress: e.Egress, Ingress: e.Ingress,
	}
	w.copyPacket(&rec, p, h)
}

// report writes an event about a flow that has an entry.
func (w *worker) report(snap *snapshot, p *pkt, h *packet.Header, e *flow.Entry, kind event.Kind, o *outcome) {
	ring := w.events
	if !o.allowed {
		ring = w.denies
	} else {
		w.hit(o, 1)
	}
	reply := p.side != e.Initiator
	if w.capture.Load() != nil {
		var rec event.Record
		w.record(&rec, snap, p, h, o)
		rec.Kind, rec.Reply = kind, reply
		w.copyPacket(&rec, p, h)
	}
	if rec := w.next(ring, kind, o.allowed); rec != nil {
		w.record(rec, snap, p, h, o)
		rec.Kind, rec.Reply = kind, reply
		ring.Commit()
	}
}

// record writes all of a record but for what tells kinds apart.
func (w *worker) record(rec *event.Record, snap *snapshot, p *pkt, h *packet.Header, o *outcome) {
	from, to, _, _ := p.key.Tuple(p.side)
	src, dst := p.slot, p.slot
	if p.hook == event.FromPod {
		dst = snap.addrs.lookup(to)
	} else {
		src = snap.addrs.lookup(from)
	}
	rec.Clear()
	rec.TimeNs, rec.Key, rec.Side, rec.Hook = w.wallNs, p.key, p.side, p.hook
	rec.Src, rec.Dst, rec.Generation = src, dst, snap.generation
	rec.Allowed, rec.Reason, rec.Egress, rec.Ingress = o.allowed, o.reason, o.egress, o.ingress
	rec.Audit, rec.AuditEgress, rec.AuditIngress = o.audit, o.auditEgress, o.auditIngress
	rec.TCPFlags, rec.ICMP = h.TCPFlags, uint16(h.ICMPType)<<8|uint16(h.ICMPCode)
}

// reportEnd writes an Ended event for a flow that leaves the table.
func (w *worker) reportEnd(e *flow.Entry) {
	if e.Flags&cut != 0 {
		return
	}
	rec := w.next(w.events, event.Ended, true)
	if rec == nil {
		return
	}
	hook := event.FromPod
	if e.Slot[e.Initiator] == endpoint.None {
		hook = event.ToPod
	}
	rec.Clear()
	w.ofEntry(rec, e, hook)
	rec.Kind, rec.TCPFlags = event.Ended, e.TCPFlags[0]|e.TCPFlags[1]
	rec.Packets, rec.Bytes, rec.DurationNs = e.Packets, e.Bytes, e.LastSeenNs-e.CreatedNs
	w.events.Commit()
}

// ofEntry writes what an allowed flow's entry says of it.
func (w *worker) ofEntry(rec *event.Record, e *flow.Entry, hook event.Hook) {
	rec.TimeNs, rec.Key, rec.Side, rec.Hook, rec.Allowed = w.wallNs, e.Key, e.Initiator, hook, true
	rec.Src, rec.Dst = e.Slot[e.Initiator], e.Slot[e.Initiator.Other()]
	rec.Audit, rec.Egress, rec.Ingress = e.Flags&flow.Audit != 0, e.Egress, e.Ingress
}

// next returns a ring's record to write, or nil if nobody wants such records or
// there is no room, which is counted. What is not wanted is not made either.
func (w *worker) next(r *event.Ring, kind event.Kind, allowed bool) *event.Record {
	if !event.Interest(w.interest.Load()).WantsKind(kind, allowed) {
		return nil
	}
	rec := r.Next()
	if rec == nil {
		w.counts.Add(stat.EventsLost, 1)
	}
	return rec
}

func (w *worker) put(r *event.Ring, rec *event.Record) {
	if event.Interest(w.interest.Load()).Wants(rec) && !r.Put(rec) {
		w.counts.Add(stat.EventsLost, 1)
	}
}
