package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// settle acts on the classifier's answer for one packet.
func (w *worker) settle(snap *snapshot, j *judgement) {
	p, h := &w.b.pkts[j.pkt], &w.b.hdrs[j.pkt]
	o := w.outcome(snap, j)
	if p.from != nil {
		w.settleUplink(snap, j, &o)
		return
	}
	if p.ref != flow.NoRef && !w.flows.Holds(p.ref, &p.key) {
		// Its entry gave way to another flow of this burst, or was found void.
		p.ref = flow.NoRef
		if j.stale { // the flow was judged, not the packet
			w.query(snap, int(j.pkt), p.side, mayOpen)
			return
		}
	}
	if p.ref == flow.NoRef {
		w.admittedMeanwhile(p)
		if p.ref != flow.NoRef {
			w.known(snap, int(j.pkt))
			return
		}
	}
	if p.ref == flow.NoRef && w.b.inserted {
		// An earlier packet of this burst may have opened the flow.
		if p.ref = w.flows.Find(&p.key); p.ref != flow.NoRef {
			w.joined(snap, j, &o)
			return
		}
	}
	switch {
	case p.ref == flow.NoRef:
		w.enter(snap, p, h, j, &o)
	case j.fresh:
		w.restart(snap, p, h, j, &o)
	case j.stale && !snap.current(w.flows.At(p.ref)):
		w.rejudge(snap, p, h, j, &o)
	case j.stale:
		// An earlier packet of this burst has renewed the flow.
		w.known(snap, int(j.pkt))
	default:
		w.aside(snap, p, h, &o)
	}
}

// joined settles a packet whose flow was opened by an earlier one of the same
// burst.
func (w *worker) joined(snap *snapshot, j *judgement, o *outcome) {
	p, h := &w.b.pkts[j.pkt], &w.b.hdrs[j.pkt]
	e := w.flows.At(p.ref)
	opening := h.TCPFlags&(packet.TCPSyn|packet.TCPAck) == packet.TCPSyn
	if byInitiator := p.side == e.Initiator; !againstFlow(h, byInitiator) && !oddEcho(h) && (byInitiator || !opening) {
		if w.counted(p, e) {
			w.flows.Track(p.ref, p.side, h.TCPFlags, int(p.length), w.nowNs)
		}
		w.onward(p, h, e)
		return
	}
	w.aside(snap, p, h, o)
}

// aside judges a packet that runs against its flow on its own merits, without
// touching the flow.
func (w *worker) aside(snap *snapshot, p *pkt, h *packet.Header, o *outcome) {
	if !o.allowed {
		w.refuse(snap, p, h, o)
		return
	}
	w.onward(p, h, w.flows.At(p.ref))
}

// enter enters a new flow, or denies it.
func (w *worker) enter(snap *snapshot, p *pkt, h *packet.Header, j *judgement, o *outcome) {
	if !o.allowed {
		w.refuse(snap, p, h, o)
		return
	}
	if opensNone(h) {
		w.pass(p, h)
		return
	}
	var evicted flow.Entry
	ref, ok := w.flows.Insert(&p.key, p.hash, w.nowNs, &evicted)
	if evicted.State != flow.Free {
		w.evicted(&evicted)
	}
	if !ok {
		w.deny(snap, p, h, stat.FlowTableFull, nil)
		return
	}
	w.b.inserted = true
	p.ref = ref
	w.counts.Add(stat.FlowsNew, 1)
	w.admit(snap, p, h, j, o)
}

// restart turns a closed entry into the new flow that a packet opens.
func (w *worker) restart(snap *snapshot, p *pkt, h *packet.Header, j *judgement, o *outcome) {
	if !o.allowed {
		w.forget(p.ref)
		p.ref = flow.NoRef
		w.refuse(snap, p, h, o)
		return
	}
	e := w.flows.At(p.ref)
	w.offload.leave(w, e)
	w.reportEnd(e)
	w.uncut(e)
	w.flows.Restart(p.ref, j.initiator, w.nowNs)
	w.counts.Add(stat.FlowsNew, 1)
	w.admit(snap, p, h, j, o)
}

// admit fills in the entry of a flow that was just allowed, and sends the
// packet that opened it on.
func (w *worker) admit(snap *snapshot, p *pkt, h *packet.Header, j *judgement, o *outcome) {
	e := w.flows.At(p.ref)
	e.Initiator = j.initiator
	w.bind(snap, e, j, o)
	e.Flags &^= flow.NoShortcut | underway
	if p.hook == event.ToPod {
		// The stack had it before: it may be translated on the way.
		e.Flags |= flow.NoShortcut
	} else if h.Proto == packet.ProtoTCP && !h.Opening() || snap.endpoint(p.slot).answers.has(h.Proto) {
		e.Flags |= underway
	}
	w.flows.Track(p.ref, p.side, h.TCPFlags, int(p.length), w.nowNs)
	w.report(snap, p, h, e, event.NewFlow, o)
	if w.offload.enter(w, p.ref, e); e.Flags&flow.Offloaded == 0 {
		w.offload.pardon(w, &e.Key)
	}
	if j.initiator == p.side {
		w.noteAsked(p)
	}
	if j.initiator == p.side && !j.service && e.Flags&underway == 0 { // divert doesn't know of Services
		w.offload.teach(w, p, e, snap.generation)
	}
	if p.from != nil {
		w.hand(p, e)
		return
	}
	w.onward(p, h, e)
}

// bind notes who and what admitted a flow.
func (w *worker) bind(snap *snapshot, e *flow.Entry, j *judgement, o *outcome) {
	src, dst := j.initiator, j.initiator.Other()
	e.Slot[src], e.Slot[dst] = j.src, j.dst
	e.Gen = [2]uint32{}
	if j.src != endpoint.None {
		e.Gen[src] = snap.endpoint(j.src).gen
	}
	if j.dst != endpoint.None {
		e.Gen[dst] = snap.endpoint(j.dst).gen
	}
	e.Egress, e.Ingress = o.egress, o.ingress
	e.Flags &^= flow.Audit | flow.Log | lookup
	if o.audit {
		e.Flags |= flow.Audit
	}
	if o.log {
		e.Flags |= flow.Log
	}
	if snap.listened(&e.Key, j.initiator, j.src) {
		e.Flags |= lookup
	}
}

// rejudge renews the verdict of a live flow whose endpoints' rules changed.
func (w *worker) rejudge(snap *snapshot, p *pkt, h *packet.Header, j *judgement, o *outcome) {
	e := w.flows.At(p.ref)
	w.counts.Add(stat.FlowsRejudged, 1)
	was := e.Flags&cut == 0
	changed := was != o.allowed || e.Egress != o.egress || e.Ingress != o.ingress
	w.bind(snap, e, j, o)
	if !o.allowed {
		e.Flags |= cut
		w.offload.leave(w, e)
		if was {
			w.report(snap, p, h, e, event.Changed, o)
		}
		w.deny(snap, p, h, o.reason, e)
		return
	}
	w.uncut(e)
	if changed {
		w.report(snap, p, h, e, event.Changed, o)
	}
	w.offload.renew(w, p.ref, e)
	if againstFlow(h, p.side == e.Initiator) || oddEcho(h) {
		w.query(snap, int(j.pkt), p.side, mayAlone)
		return
	}
	w.follow(snap, int(j.pkt), e)
}

// refuse drops a packet that no live flow covers and policy denies.
func (w *worker) refuse(snap *snapshot, p *pkt, h *packet.Header, o *outcome) {
	if h.Frag == packet.FragFirst {
		w.frags.Forget(h)
	}
	w.drop(p, o.reason)
	w.countDenied(p)
	w.offload.deny(w, snap, p, h)
	w.reportDenied(snap, p, h, o, false)
}

// deny drops a packet for a reason other than a fresh judgement. e is its cut
// flow, if there is one.
func (w *worker) deny(snap *snapshot, p *pkt, h *packet.Header, r stat.Reason, e *flow.Entry) {
	o, reply := outcome{reason: r}, false
	if h.Frag == packet.FragFirst {
		w.frags.Forget(h)
	}
	if e != nil {
		o.egress, o.ingress = e.Egress, e.Ingress
		reply = p.side != e.Initiator
		e.LastSeenNs = w.nowNs // it stays for as long as anybody goes on
		w.offload.denyFlow(w, p, e)
	}
	w.drop(p, r)
	w.countDenied(p)
	w.reportDenied(snap, p, h, &o, reply)
}

func (w *worker) countDenied(p *pkt) {
	if p.hook == event.FromPod {
		w.counts.Add(stat.EgressDeniedPackets, 1)
		w.counts.Add(stat.EgressDeniedBytes, uint64(p.length))
		return
	}
	w.counts.Add(stat.IngressDeniedPackets, 1)
	w.counts.Add(stat.IngressDeniedBytes, uint64(p.length))
}

// forget removes a flow, from the kernel's caches as well.
func (w *worker) forget(ref flow.Ref) {
	e := w.flows.At(ref)
	w.offload.leave(w, e)
	w.reportEnd(e)
	w.uncut(e)
	w.flows.Remove(ref)
	w.counts.Add(stat.FlowsEnded, 1)
}

// uncut ends the cut of a flow, if there is one: a successor would adopt it from the
// kernel's cache of denied flows.
func (w *worker) uncut(e *flow.Entry) {
	if e.Flags&cut == 0 {
		return
	}
	e.Flags &^= cut
	if w.cfg.Offload {
		w.offload.probe = e.Key
		xdpprog.DeleteDenied(w.objs, &w.offload.probe)
	}
}

// evicted deals with a flow that gave way to a new one.
func (w *worker) evicted(e *flow.Entry) {
	w.offload.leave(w, e)
	w.reportEnd(e)
	w.uncut(e)
	w.counts.Add(stat.FlowsEvicted, 1)
	w.counts.Add(stat.FlowsEnded, 1)
}
