package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// hostDrops makes events of packets that the host has dropped where it had
// translated the call of a Service: what the workers saw of it was allowed, as one
// that may lead to an allowed backend. All but unread and hits' sums belongs to the
// goroutine that calls HostDropped.
type hostDrops struct {
	plane   *Plane
	ring    *event.Ring
	hits    stat.Hits
	unread  atomic.Uint64 // dropped ones that nobody came to look at
	reports map[droppedKey]*droppedReport
}

type droppedKey struct {
	packet.Key
	side packet.Side
}

// droppedReport is a packet that an event was made of, as denyReport is.
type droppedReport struct {
	at         time.Time // of the event
	suppressed uint32    // packets since then
	rec        event.Record
}

const (
	dropRing    = 1 << 10
	dropReports = 1 << 12 // flows; others have an event a packet
)

func (d *hostDrops) init(p *Plane) (err error) {
	d.plane, d.reports = p, map[droppedKey]*droppedReport{}
	d.ring, err = event.NewRing(dropRing, p.poke)
	return err
}

// HostDropped tells of a packet that the host has dropped where it had translated
// it, given by its first bytes from the IP header on: by an event like those of
// denied packets, one a flow and Config.DenyReport. One goroutine may call it and
// FlushDropped.
func (p *Plane) HostDropped(first []byte) {
	d := &p.dropped
	var h packet.Header
	if r := packet.ParseIP(first, &h); r != stat.OK || h.ICMPError || h.Frag == packet.FragLater || h.Class != packet.ClassIP {
		return // it goes with a flow that is told of
	}
	now := time.Now()
	var k droppedKey
	k.Key, k.side = h.Key()
	x := d.reports[k]
	if x != nil && now.Sub(x.at) < p.cfg.DenyReport {
		x.suppressed++
		x.rec.TimeNs = now.UnixNano()
		d.hit(&x.rec)
		return
	}
	if x == nil {
		x = &droppedReport{}
		if len(d.reports) < dropReports {
			d.reports[k] = x
		}
	}
	d.judge(p.snap.Load(), &k, &h, &x.rec)
	x.rec.TimeNs, x.rec.Suppressed = now.UnixNano(), x.suppressed
	x.at, x.suppressed = now, 0
	d.hit(&x.rec)
	d.put(&x.rec)
}

// FlushDropped shows readers what HostDropped has told, and tells what was left out
// of flows that fell silent. It should be called about once a second. unread is how
// many dropped packets could not be handed to HostDropped since the last time.
func (p *Plane) FlushDropped(unread uint64) {
	d := &p.dropped
	d.unread.Add(unread)
	for k, x := range d.reports {
		if time.Since(x.at) < p.cfg.DenyReport {
			continue
		}
		if x.suppressed > 0 {
			x.rec.Suppressed = x.suppressed - 1
			d.put(&x.rec)
		}
		delete(d.reports, k)
	}
	d.hits.Flush()
}

func (d *hostDrops) hit(rec *event.Record) {
	d.hits.Count(0, uint32(rec.Egress), stat.Denied, 1, rec.TimeNs)
}

func (d *hostDrops) put(rec *event.Record) {
	if event.Interest(d.plane.interest.Load()).Wants(rec) {
		d.ring.Put(rec)
		d.ring.Flush()
	}
}

// judge finds out who sent a dropped packet, and whose rules deny it. Packets of
// both directions are dropped: it is the pod that opened the flow that may not.
//
// Rules may allow by now what was dropped a moment ago, or a backend that the host
// knows and the agent does not yet. Then nobody denies it: it was too early.
func (d *hostDrops) judge(snap *snapshot, k *droppedKey, h *packet.Header, rec *event.Record) {
	src, dst := snap.addrs.lookup(h.Src), snap.addrs.lookup(h.Dst)
	*rec = event.Record{Key: k.Key, Side: k.side, Kind: event.Denied, Hook: event.InHost, Src: src, Dst: dst,
		Generation: snap.generation, Reason: stat.NotReady, TCPFlags: h.TCPFlags}
	rec.Egress = snap.denies(src, h.Dst, h.Proto, h.ClassifyPort())
	if rec.Egress == rule.NoCause && dst != endpoint.None {
		rec.Egress = snap.denies(dst, h.Src, h.Proto, h.SrcPort)
		rec.Reply = rec.Egress != rule.NoCause || src == endpoint.None
	}
	if rec.Egress != rule.NoCause {
		rec.Reason = stat.Policy
	}
}

// denies returns why a pod may not open a flow to an address, or NoCause if it
// may or there are no rules for it.
func (s *snapshot) denies(from endpoint.ID, to packet.Addr, proto packet.Proto, port uint16) rule.CauseID {
	if l := s.endpoint(from); l.gen != 0 {
		q := [1]classify.Query{{Row: l.egress, Remote: to, Proto: proto, Port: port}}
		var v [1]classify.Verdict
		s.table.Classify(q[:], v[:])
		if !v[0].Allowed() {
			return s.table.Cause(v[0])
		}
	}
	return rule.NoCause
}
