package dataplane

import (
	"time"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
)

// A frame on its way into a pod needn't go back through the steering port: a
// socket that only sends, on the pod's own link and the worker's UMEM, puts it
// there with one hop less, past the link's egress hook. There is one for each
// pod that packets went to lately, opened when the first of them have gone the
// long way. A link has one queue, which one UMEM can use: with several workers
// each pod is served directly by one of them, by the others through the port.

// Ring sizes of a direct socket: a few bursts. The fill ring is there because
// the kernel wants one.
const (
	directTx   = 512
	directFill = 64
)

// directRetry is how long a link is left alone that couldn't be bound: another
// socket has it, or had it a moment ago.
const directRetry = int64(100 * time.Millisecond)

// direct is a worker's way straight into one pod.
type direct struct {
	sock    *xsk.Socket
	ifindex int
	used    bool // holds descriptors of this burst that were not kicked
	retryNs int64

	hears   bool  // receives as well
	heardNs int64 // when it last did
	deaf    int   // link that can't be heard on
}

// directTo returns the way into a pod, or nil: by the port, then. It makes a
// note to open one.
func (w *worker) directTo(slot endpoint.ID, l *local) *direct {
	if int(slot) >= len(w.direct) || int(slot)%w.cfg.Workers != w.id {
		return nil
	}
	d := &w.direct[slot]
	if d.sock != nil && d.ifindex == l.ifindex {
		return d
	}
	if w.wanted == endpoint.None && w.nowNs >= d.retryNs {
		w.wanted = slot
	}
	return nil
}

// openWanted opens one direct socket, or closes one whose link is another's
// now. A system call or two, and not for every packet: between bursts.
func (w *worker) openWanted(snap *snapshot) {
	slot := w.wanted
	if slot == endpoint.None {
		return
	}
	w.wanted = endpoint.None
	d, l := &w.direct[slot], snap.endpoint(slot)
	w.closeDirect(d)
	d.retryNs = w.nowNs + directRetry
	if d.deaf != l.ifindex {
		d.deaf = 0
	}
	if l.ifindex == 0 {
		return
	}
	hear := w.maxHeard > 0 && d.deaf == 0 && w.roomToHear()
	if hear && len(w.hearing) == w.maxHeard {
		w.closeDirect(w.quietest())
	}
	cfg := xsk.Default(l.ifindex, 0)
	cfg.RxSize, cfg.FillSize, cfg.TxSize, cfg.CompletionSize = 0, directFill, directTx, directTx
	if hear {
		fill := uint32(w.cfg.podFill())
		cfg.RxSize, cfg.FillSize = fill, fill
	}
	cfg.MultiBuffer = w.sock.Config().MultiBuffer
	cfg.TxBudget = burstSize
	cfg.Mode = xsk.Copy
	cfg.BindTimeout = -1
	sock, err := w.umem.Open(cfg)
	if err != nil {
		w.log.Debug("no direct way into pod", "endpoint", slot, "err", err)
		return
	}
	d.sock, d.ifindex = sock, l.ifindex
	if !hear {
		return
	}
	if err := w.hear(d, slot); err != nil {
		w.log.Debug("pod is not heard on its link", "endpoint", slot, "err", err)
		w.closeDirect(d)
		d.deaf = l.ifindex
	}
}

func (w *worker) closeDirect(d *direct) {
	if d.sock == nil {
		return
	}
	if d.hears {
		w.unhear(d)
	}
	if err := d.sock.Close(); err != nil {
		w.log.Warn("close socket on pod's link", "err", err)
	}
	d.sock, d.used = nil, false
}

// closeStale closes sockets on links that are no pod's any more, a few a turn.
func (w *worker) closeStale(snap *snapshot) {
	for range 16 {
		if w.stale++; w.stale >= len(w.direct) {
			w.stale = 0
		}
		if d := &w.direct[w.stale]; d.sock != nil && snap.endpoint(endpoint.ID(w.stale)).ifindex != d.ifindex {
			w.closeDirect(d)
		}
	}
}

// queue puts a packet's descriptors on a direct socket; false if there is no
// room for all of them.
func (w *worker) queue(d *direct, slot endpoint.ID, descs []xsk.Desc) bool {
	if d.sock.Unsent()+len(descs) > directTx {
		w.kick(d)
		if d.sock == nil || d.sock.Unsent()+len(descs) > directTx {
			return false
		}
	}
	d.sock.Send(descs)
	if !d.used {
		d.used = true
		w.b.direct = append(w.b.direct, slot)
	}
	return true
}

// kick has the kernel send what a direct socket holds.
func (w *worker) kick(d *direct) {
	d.used = false
	for range maxKicks {
		switch d.sock.Kick() {
		case xsk.Again:
			d.sock.Reclaim()
			continue
		case xsk.Dead:
			w.counts.Add(stat.WakeupErrors, 1)
			w.closeDirect(d)
			d.retryNs = w.nowNs + directRetry
			return
		case xsk.OK:
		default:
			w.counts.Add(stat.WakeupErrors, 1)
		}
		break
	}
	d.sock.Reclaim()
}
