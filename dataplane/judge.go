package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// cut marks the entry of a flow that was allowed once and is denied now. It
// stays, so that packets of either end are judged in the flow's own direction
// and a reply can't pass for a new flow of the other end.
const cut flow.Flags = 1 << 15

// underway marks the entry of a flow that began unseen, maybe: of TCP without a SYN, of
// others if a Service's backend is what was heard first. Around the stack its answers
// would miss the host's conntrack, and reach the client untranslated.
const underway flow.Flags = 1 << 11

// ICMP types that open a flow, and their answers (RFC 792, RFC 4443).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// route decides what can be decided without the classifier, and queues the
// rest for it.
func (w *worker) route(snap *snapshot, i int) {
	b := &w.b
	p, h := &b.pkts[i], &b.hdrs[i]
	own := snap.endpoint(p.slot)
	if p.from != nil {
		w.routeUplink(snap, i)
		return
	}
	if own.gen == 0 {
		w.deny(snap, p, h, stat.NotReady, nil)
		return
	}
	if p.hook == event.FromPod && !own.owns(h.Src) {
		w.deny(snap, p, h, stat.SpoofedAddress, nil)
		return
	}
	if discovers(p, h) {
		if snap.host.lookup(h.Dst) == endpoint.None {
			w.deny(snap, p, h, stat.Malformed, nil)
		} else {
			w.pass(p, h)
		}
		return
	}
	if p.hook == event.ToPod && !own.hears(h.Dst) {
		// A bridge carries a frame by its MAC, and rules go by addresses.
		w.deny(snap, p, h, stat.Misdirected, nil)
		return
	}
	if h.Src == h.Dst {
		// What a pod sends itself never leaves it; what a Service leads back to it
		// comes from the node.
		w.deny(snap, p, h, stat.SpoofedAddress, nil)
		return
	}
	if h.ICMPError {
		w.routeError(snap, p, h, own)
		return
	}
	if p.ref != flow.NoRef {
		w.known(snap, i)
		return
	}
	w.query(snap, i, p.side, mayOpen)
}

// discovers reports whether a packet is a pod's neighbour discovery that a router might
// forward. It is for the node or for nobody: it would carry what it is addressed to.
func discovers(p *pkt, h *packet.Header) bool {
	return p.hook == event.FromPod && (h.Class == packet.ClassNeighbourSolicitation || h.Class == packet.ClassNeighbourAdvertisement)
}

// known handles a packet of a flow that has an entry.
func (w *worker) known(snap *snapshot, i int) {
	p, h := &w.b.pkts[i], &w.b.hdrs[i]
	e := w.flows.At(p.ref)
	mine := p.side
	if p.hook == event.ToPod {
		mine = mine.Other()
	}
	current := snap.current(e)
	switch {
	case e.State == flow.Free:
		// An earlier packet of this burst found it void.
		p.ref = flow.NoRef
		w.query(snap, i, p.side, mayOpen)
	case e.Slot[mine] != p.slot || !current && (snap.replaced(e, mine) || snap.moved(e, mine.Other())):
		// An address is another pod's since: not this flow.
		w.forget(p.ref)
		p.ref = flow.NoRef
		w.query(snap, i, p.side, mayOpen)
	case !current:
		w.query(snap, i, e.Initiator, mayGoOn)
	case e.Flags&cut != 0:
		w.deny(snap, p, h, stat.Policy, e)
	case againstFlow(h, p.side == e.Initiator) || oddEcho(h):
		w.query(snap, i, p.side, mayAlone)
	default:
		w.follow(snap, i, e)
	}
}

// againstFlow reports whether an ICMP echo runs against its flow's direction:
// a request of the side that answers, or an answer of the one that asks.
func againstFlow(h *packet.Header, byInitiator bool) bool {
	switch h.Proto {
	case packet.ProtoICMP:
		return h.ICMPType == echoRequest4 && !byInitiator || h.ICMPType == echoReply4 && byInitiator
	case packet.ProtoICMPv6:
		return h.ICMPType == echoRequest6 && !byInitiator || h.ICMPType == echoReply6 && byInitiator
	}
	return false
}

// opensNone reports whether a packet opens no flow though it may pass: an answer to an
// ICMP echo, since asking is another thing to rules, and an odd one.
func opensNone(h *packet.Header) bool {
	return h.Proto == packet.ProtoICMP && h.ICMPType == echoReply4 || h.Proto == packet.ProtoICMPv6 && h.ICMPType == echoReply6 || oddEcho(h)
}

// oddEcho reports whether a packet is an ICMP echo with a code, which rules may see.
func oddEcho(h *packet.Header) bool {
	if h.ICMPCode == 0 {
		return false
	}
	switch h.Proto {
	case packet.ProtoICMP:
		return h.ICMPType == echoRequest4 || h.ICMPType == echoReply4
	case packet.ProtoICMPv6:
		return h.ICMPType == echoRequest6 || h.ICMPType == echoReply6
	}
	return false
}

// current reports whether both ends' rules are those that admitted the flow.
func (s *snapshot) current(e *flow.Entry) bool {
	return (e.Slot[0] == endpoint.None || s.endpoint(e.Slot[0]).gen == e.Gen[0]) &&
		(e.Slot[1] == endpoint.None || s.endpoint(e.Slot[1]).gen == e.Gen[1])
}

// moved reports whether the address of an end is another pod's than it was.
func (s *snapshot) moved(e *flow.Entry, end packet.Side) bool {
	addr, _, _, _ := e.Key.Tuple(end)
	return s.addrs.lookup(addr) != e.Slot[end] || s.replaced(e, end)
}

// replaced reports whether another pod has the slot of an end since.
func (s *snapshot) replaced(e *flow.Entry, end packet.Side) bool {
	slot := e.Slot[end]
	return slot != endpoint.None && int32(e.Gen[end]-s.endpoint(slot).born) < 0
}

// follow takes a packet along the live flow that it belongs to.
func (w *worker) follow(snap *snapshot, i int, e *flow.Entry) {
	p, h := &w.b.pkts[i], &w.b.hdrs[i]
	if p.hook == event.ToPod && e.Slot[p.side] != endpoint.None && w.cacheFlags(e) == xdpprog.FlowShortcut {
		// It came by the stack though its pod goes around, so it is translated.
		e.Flags |= flow.NoShortcut
		w.offload.renew(w, p.ref, e)
	}
	if !w.counted(p, e) {
		w.onward(p, h, e)
		return
	}
	if e.Flags&flow.Offloaded != 0 && h.TCPFlags&(packet.TCPSyn|packet.TCPAck) == packet.TCPSyn {
		// Ports used again: divert may know of an end whose note is under way.
		w.catchUp(p.ref, ^uint8(0))
	}
	switch w.flows.Track(p.ref, p.side, h.TCPFlags, int(p.length), w.nowNs) {
	case flow.Restart:
		w.query(snap, i, p.side, mayOpen)
		return
	case flow.Invalid:
		w.query(snap, i, p.side, mayAlone)
		return
	}
	w.counts.Add(stat.FlowHits, 1)
	switch {
	case e.State == flow.Closed:
		w.offload.leave(w, e)
	case e.Flags&flow.Offloaded == 0:
		w.offload.enter(w, p.ref, e)
	}
	w.onward(p, h, e)
}

// counted reports whether this hook is the one where the flow's packets of
// this side are accounted: from-pod, or to-pod for what from-pod never sees.
func (w *worker) counted(p *pkt, e *flow.Entry) bool {
	return p.hook == event.FromPod || e.Slot[p.side] == endpoint.None || e.Flags&flow.NoShortcut != 0
}

// onward sends an allowed packet of a flow on.
func (w *worker) onward(p *pkt, h *packet.Header, e *flow.Entry) {
	if p.hook == event.FromPod {
		w.counts.Add(stat.EgressAllowedPackets, 1)
		w.counts.Add(stat.EgressAllowedBytes, uint64(p.length))
	} else {
		w.counts.Add(stat.IngressAllowedPackets, 1)
		w.counts.Add(stat.IngressAllowedBytes, uint64(p.length))
	}
	if e.Flags&flow.Audit != 0 {
		w.counts.Add(stat.AuditPackets, 1)
	}
	if h.Frag == packet.FragFirst {
		w.frags.Learn(h, w.nowNs)
	}
	if w.capture.Load() != nil {
		w.copyPassed(p, h, e)
	}
	w.allow(p, h, e.Slot[p.side.Other()], e.Flags&(flow.NoShortcut|underway) == 0 && w.cfg.Shortcut)
}

// pass sends on a packet that has no flow.
func (w *worker) pass(p *pkt, h *packet.Header) {
	if h.Frag == packet.FragFirst {
		w.frags.Learn(h, w.nowNs)
	}
	w.allow(p, h, endpoint.None, false)
}

// routeError judges an ICMP error: it goes on only to the sender of a packet
// of a live flow that it quotes.
func (w *worker) routeError(snap *snapshot, p *pkt, h *packet.Header, own *local) {
	if p.ref != flow.NoRef {
		e := w.flows.At(p.ref)
		mine := p.side // quoted destination's: the error's own sender, if a pod
		plausible := h.Dst == h.Inner.Src
		if p.hook == event.ToPod {
			mine = mine.Other()
			plausible = plausible && own.owns(h.Dst)
		} else {
			plausible = plausible && own.owns(h.Inner.Dst)
		}
		if plausible && e.Slot[mine] == p.slot && e.Flags&cut == 0 && snap.current(e) {
			w.onward(p, h, e)
			return
		}
	}
	w.deny(snap, p, h, stat.ICMPUnrelated, nil)
}

// question is what the classifier is asked about a packet.
type question uint8

const (
	mayOpen  question = iota // a flow, with it
	mayGoOn                  // the flow that it belongs to
	mayAlone                 // pass, beside its flow
)

// query queues a packet for the classifier, to be judged as if its flow had
// been opened by side initiator.
func (w *worker) query(snap *snapshot, i int, initiator packet.Side, what question) {
	b := &w.b
	p, h := &b.pkts[i], &b.hdrs[i]
	if len(b.pending) == len(b.judged) {
		w.deny(snap, p, h, stat.NotReady, nil) // no chain of events is known that leads here
		return
	}
	w.counts.Add(stat.FlowMisses, 1)
	src, dst, _, dport := p.key.Tuple(initiator)
	j := judgement{
		pkt: uint8(i), initiator: initiator, fresh: what == mayOpen, stale: what == mayGoOn, egress: -1, ingress: -1,
		src: snap.addrs.lookup(src), dst: snap.addrs.lookup(dst),
	}
	// The link that the packet was seen on says more than its address.
	if (p.hook == event.FromPod) == (initiator == p.side) {
		j.src = p.slot
	} else {
		j.dst = p.slot
	}
	port := w.rulePort(h, p, what == mayGoOn, dport)
	if j.src != j.dst {
		if j.src != endpoint.None {
			l := snap.endpoint(j.src)
			j.notReady = l.gen == 0
			if svc := snap.services.lookup(dst, p.key.Proto, port); len(svc.to) > 0 && j.dst == endpoint.None {
				j.service, j.toService = true, w.service.ask(snap, j.src, src, svc, p.key.Proto)
			} else {
				j.egress = w.ask(classify.Query{Row: l.egress, Remote: dst, Proto: p.key.Proto, Port: port})
			}
		}
		if j.dst != endpoint.None {
			l := snap.endpoint(j.dst)
			j.notReady = j.notReady || l.gen == 0
			j.ingress = w.ask(classify.Query{Row: l.ingress, Remote: src, Proto: p.key.Proto, Port: port})
		}
	}
	b.pending = append(b.pending, j)
}

// rulePort returns the port that rules see: the initiator's packets' destination. Of
// ICMP it is the type and code of the packet, or of what opened its flow.
func (w *worker) rulePort(h *packet.Header, p *pkt, ofFlow bool, dport uint16) uint16 {
	switch {
	case p.key.Proto != packet.ProtoICMP && p.key.Proto != packet.ProtoICMPv6:
		return dport
	case !ofFlow:
		return h.ClassifyPort()
	case p.key.APort != p.key.BPort:
		return dport // of a query that is no echo, see packet.Header
	case p.key.Proto == packet.ProtoICMP:
		return echoRequest4 << 8
	}
	return echoRequest6 << 8
}

func (w *worker) ask(q classify.Query) int16 {
	b := &w.b
	b.queries[b.nQueries] = q
	b.nQueries++
	return int16(b.nQueries - 1)
}

// outcome is what the classifier said of both ends.
type outcome struct {
	allowed, audit, log bool
	auditEgress         bool // the egress side's deny is an audit
	auditIngress        bool
	reason              stat.Reason
	egress, ingress     rule.CauseID
}

func (w *worker) outcome(snap *snapshot, j *judgement) outcome {
	o := outcome{allowed: true}
	if j.notReady {
		return outcome{reason: stat.NotReady}
	}
	if j.egress >= 0 || j.service {
		v := j.toService
		if !j.service {
			v = w.b.verdicts[j.egress]
		}
		o.egress = snap.table.Cause(v)
		o.allowed, o.audit, o.log = v.Allowed(), v.Audit(), v.Log()
		o.auditEgress = v.Audit()
	}
	if j.ingress >= 0 && o.allowed {
		v := w.b.verdicts[j.ingress]
		o.ingress = snap.table.Cause(v)
		o.allowed, o.audit, o.log = v.Allowed(), o.audit || v.Audit(), o.log || v.Log()
		o.auditIngress = v.Audit()
	}
	if !o.allowed {
		o.reason = stat.Policy
	}
	return o
}
