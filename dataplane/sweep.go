package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// sweepBudget is how many flows may expire in one sweep, every 5 ms. It looks at
// so many entries that it has seen all of them after sweepRound sweeps, half a
// second, but not at more than sweepScan: 800,000 a second.
const (
	sweepBudget = 128
	sweepScan   = 4096
	sweepRound  = 100
)

// sweep removes flows that have been idle for too long. The packets of an
// offloaded flow don't pass here: the kernel is asked when it last saw one.
func (w *worker) sweep() {
	n := w.flows.Sweep(w.nowNs, min(sweepScan, w.flows.Used()/sweepRound+1), w.due[:])
	for _, ref := range w.due[:n] {
		e := w.flows.At(ref)
		if e.Flags&flow.Offloaded != 0 {
			w.offload.probe = e.Key
			if xdpprog.LookupFlow(w.objs, &w.offload.probe, &w.offload.flow) {
				w.offload.merge(w, ref, e, false)
				if w.flows.Deadline(e) > w.nowNs {
					continue
				}
			}
		}
		w.forget(ref)
	}
	if n > 0 {
		w.offload.flush(w)
	}
	w.reportSuppressed()
}

// purgeScan is how many entries a turn of 5 ms looks at for those of pods that have
// gone, unless it has removed sweepBudget before: a full table of the default size takes
// 1.3 s of a worker that is awake.
const purgeScan = 512

// purge removes the flows of pods that have gone, or takes the next step of that: else
// a successor of the agent would find them in the kernel's cache and take them for
// those of who has the slot and the address then.
func (w *worker) purge(snap *snapshot) {
	if w.purging == 0 && snap.released == w.purged {
		return
	}
	if w.purging == 0 {
		w.purging, w.purgeAt = snap.released, 0
	}
	const step = 32
	removed := 0
	for looked := 0; looked < purgeScan && removed < sweepBudget; looked += step {
		if !w.flows.Scan(&w.purgeAt, step, func(e *flow.Entry) {
			if snap.replaced(e, packet.SideA) || snap.replaced(e, packet.SideB) {
				w.forget(w.flows.Find(&e.Key))
				removed++
			}
		}) {
			w.purged, w.purging = w.purging, 0
			return
		}
	}
}

// ended moves a flow on of which divert saw a FIN or RST go by. Once it is over the
// kernel forgets it, and divert can open the next one between the same ports by
// itself: a client that makes connection after connection comes back to its ports
// within seconds. What is still to come of the old one takes the way of a miss.
func (w *worker) ended(end *xdpprog.Note) {
	key := keyFrom(&end.Key)
	ref := w.flows.Find(&key)
	if ref == flow.NoRef {
		return
	}
	e := w.flows.At(ref)
	switch {
	case e.Flags&flow.Offloaded == 0:
	case e.Flags&noted != 0 && (e.State != flow.SynSent || end.TCPFlags&packet.TCPSyn != 0):
		if end.TCPFlags&packet.TCPSyn != 0 { // the handshake, which nobody told of
			w.handshaken(ref)
		}
		w.closing(ref, end.Ended)
	default:
		w.catchUp(ref, end.Ended)
	}
	if e.State == flow.Closed {
		w.offload.leave(w, e)
	}
}

// handshaken moves a flow on by an answer that the kernel has seen, and by that of
// the initiator to it.
func (w *worker) handshaken(ref flow.Ref) {
	e := w.flows.At(ref)
	packets := e.Packets
	w.flows.Track(ref, e.Initiator.Other(), packet.TCPSyn|packet.TCPAck, 0, w.nowNs)
	w.flows.Track(ref, e.Initiator, packet.TCPAck, 0, w.nowNs)
	e.Packets = packets
}

// catchUp moves an offloaded flow on by those of the bits that hold for the
// cache's present entry: the ports may be in use again since a note was left.
func (w *worker) catchUp(ref flow.Ref, bits uint8) {
	e := w.flows.At(ref)
	w.offload.probe = e.Key
	if !xdpprog.LookupFlow(w.objs, &w.offload.probe, &w.offload.flow) {
		return
	}
	w.offload.merge(w, ref, e, false)
	w.closing(ref, bits&w.offload.flow.Ended)
}

// closing moves a flow on by what the kernel has seen of its end.
func (w *worker) closing(ref flow.Ref, bits uint8) {
	e := w.flows.At(ref)
	packets := e.Packets
	if bits&xdpprog.EndedFinA != 0 {
		w.flows.Track(ref, packet.SideA, packet.TCPFin|packet.TCPAck, 0, w.nowNs)
	}
	if bits&xdpprog.EndedFinB != 0 {
		w.flows.Track(ref, packet.SideB, packet.TCPFin|packet.TCPAck, 0, w.nowNs)
	}
	if bits&xdpprog.EndedRst != 0 {
		w.flows.Track(ref, e.Initiator.Other(), packet.TCPRst, 0, w.nowNs)
	}
	e.Packets = packets
}

func keyFrom(k *xdpprog.FlowKey) packet.Key {
	return packet.Key{
		A: packet.Addr(k.A), B: packet.Addr(k.B),
		APort: k.APort, BPort: k.BPort, Proto: packet.Proto(k.Proto),
	}
}
