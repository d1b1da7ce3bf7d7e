package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// maxKicks bounds the system calls that one burst's transmission may take.
const maxKicks = 16

// transmit sends the descriptors of allowed packets back into the steering
// port, with a tag that tells deliver where to take them, and gives the frames
// of dropped ones back.
func (w *worker) transmit(snap *snapshot) {
	b := &w.b
	nOut, nGone := 0, 0
	for i := range b.n {
		p := &b.pkts[i]
		descs := b.descs[p.desc : p.desc+p.descs]
		if p.verb == verbDrop {
			nGone += copy(b.gone[nGone:], descs)
			continue
		}
		w.address(snap, p, &b.hdrs[i])
		nOut += copy(b.out[nOut:], descs)
		w.counts.Add(stat.TxPackets, 1)
		w.counts.Add(stat.TxBytes, uint64(p.length))
	}
	w.umem.FreeDescs(b.gone[:nGone])
	if nOut == 0 {
		return
	}
	w.send(b.out[:nOut])
}

// address writes a frame's Ethernet header for the way down.
func (w *worker) address(snap *snapshot, p *pkt, h *packet.Header) {
	switch {
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
		xdpprog.PutTag(p.frame, xdpprog.VerbShortcut, uint8(w.id), uint32(p.to))
	case p.hook == event.FromPod:
		xdpprog.PutTag(p.frame, xdpprog.VerbResumeFromPod, uint8(w.id), uint32(p.slot))
	default:
		xdpprog.PutTag(p.frame, xdpprog.VerbResumeToPod, uint8(w.id), uint32(p.slot))
	}
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
