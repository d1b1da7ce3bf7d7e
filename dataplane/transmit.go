package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// maxKicks bounds the system calls that one burst's transmission may take.
const maxKicks = 16

// transmit sends the frames of allowed packets on: straight into a pod where
// there is a way, else back into the steering port with a tag that tells
// deliver where to take them. The frames of dropped ones are free again.
func (w *worker) transmit(snap *snapshot) {
	b := &w.b
	nOut, nGone := 0, 0
	b.direct = b.directs[:0]
	for i := range b.n {
		p := &b.pkts[i]
		descs := b.descs[p.desc : p.desc+p.descs]
		if w.maxHeard > 0 && p.hook == event.FromPod && !p.bare {
			w.wishToHear(p.slot)
		}
		if p.verb == verbDrop {
			nGone += copy(b.gone[nGone:], descs)
			continue
		}
		if p.verb == verbHold {
			continue
		}
		w.counts.Add(stat.TxPackets, 1)
		w.counts.Add(stat.TxBytes, uint64(p.length))
		d, slot := w.address(snap, p, &b.hdrs[i])
		if d == nil {
			nOut += copy(b.out[nOut:], descs)
			continue
		}
		w.queue(d, slot, descs)
	}
	w.umem.FreeDescs(b.gone[:nGone])
	for _, slot := range b.direct {
		if d := &w.direct[slot]; d.used {
			w.kick(d, slot)
		}
	}
	if nOut > 0 {
		w.send(b.out[:nOut])
	}
}

// address writes a frame's Ethernet header for its way down, and returns the
// direct way into the pod of slot if it takes that.
func (w *worker) address(snap *snapshot, p *pkt, h *packet.Header) (d *direct, slot endpoint.ID) {
	switch {
	case p.from != nil:
		xdpprog.PutTag(p.frame, xdpprog.VerbResumeUplink, uint8(w.id), uint32(p.from.nic.Ifindex))
		return nil, endpoint.None
	case p.verb == verbShortcut:
		to, from := snap.endpoint(p.to), snap.endpoint(p.slot)
		// On the way up the frame's own destination MAC moved to the source.
		src := p.frame[6:12]
		if [6]byte(src) == to.mac {
			copy(src, from.mac[:]) // bridged: unchanged
		} else {
			copy(src, to.hostMAC[:]) // routed
			packet.DecrementTTL(p.frame, h)
		}
		return w.into(p, p.to, to, xdpprog.VerbShortcut)
	case p.hook == event.ToPod:
		return w.into(p, p.slot, snap.endpoint(p.slot), xdpprog.VerbResumeToPod)
	}
	xdpprog.PutTag(p.frame, xdpprog.VerbResumeFromPod, uint8(w.id), uint32(p.slot))
	return nil, p.slot
}

// into writes the destination of a frame that goes into a pod.
func (w *worker) into(p *pkt, slot endpoint.ID, l *local, v xdpprog.Verb) (*direct, endpoint.ID) {
	d := w.directTo(slot, l, int(p.descs))
	if d == nil {
		xdpprog.PutTag(p.frame, v, uint8(w.id), uint32(slot))
		return nil, slot
	}
	copy(p.frame[:6], l.mac[:])
	return d, slot
}

// send puts all of descs on the ring, or none, and has the kernel send them.
func (w *worker) send(descs []xsk.Desc) {
	s := w.sock
	s.Reclaim()
	for tries := 0; s.Unsent()+len(descs) > w.cfg.Frames/2; tries++ {
		if tries == maxKicks {
			w.umem.FreeDescs(descs)
			for i := range descs {
				if descs[i].Options&xsk.PktContd == 0 {
					w.counts.Drop(stat.TxFull)
				}
			}
			return
		}
		s.Kick()
		s.Reclaim()
	}
	s.Send(descs)
	for range maxKicks {
		switch s.Kick() {
		case xsk.Again:
			s.Reclaim()
			continue
		case xsk.OK:
		default:
			w.counts.Add(stat.WakeupErrors, 1)
		}
		break
	}
	s.Reclaim()
}
