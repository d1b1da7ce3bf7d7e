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
//
// A frame that was sent comes back when its receiver is done with it, and a pod
// may be in no hurry: its administrator can have it keep packets in a queue. So a
// pod may have only some of the frames on their way to it, and all pods together
// no more than a quarter of them. What is beyond that goes by the port, whose
// frames come back at once whatever becomes of them.

// Ring sizes of a direct socket: a few bursts. The fill ring is there because
// the kernel wants one.
const (
	directTx   = 512
	directFill = 64
)

// directRetry is how long a link is left alone that couldn't be bound: another
// socket has it, or had it a moment ago.
const directRetry = int64(100 * time.Millisecond)

// kickAgain is how often the kernel is asked to send what it did not take.
const kickAgain = int64(time.Millisecond)

// direct is a worker's way straight into one pod.
type direct struct {
	sock    *xsk.Socket
	ifindex int
	used    bool // holds descriptors of this burst that were not kicked
	waits   bool // is among worker.waiting
	out     int  // descriptors that were sent and have not come back

	kickedNs int64 // when it last was
	retryNs  int64

	hears   bool  // receives as well
	heardNs int64 // when it last did
	deaf    int   // link that can't be heard on
}

// directTo returns the way into a pod for some descriptors, or nil: by the port,
// then. It makes a note to open one.
func (w *worker) directTo(slot endpoint.ID, l *local, descs int) *direct {
	if int(slot) >= len(w.direct) || int(slot)%w.cfg.Workers != w.id {
		return nil
	}
	d := &w.direct[slot]
	if d.sock != nil && d.ifindex == l.ifindex {
		if w.roomFor(d, descs) {
			return d
		}
		if d.used || w.nowNs-d.kickedNs > kickAgain {
			w.kick(d, slot)
		} else {
			w.takeBack(d)
		}
		if d.sock != nil && w.roomFor(d, descs) {
			return d
		}
		return nil
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
	w.inPods -= d.out
	d.sock, d.used, d.out = nil, false, 0
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

// roomFor reports whether a pod may have descriptors more on their way.
func (w *worker) roomFor(d *direct, descs int) bool {
	return d.out+descs <= w.cfg.podOut() && w.inPods+descs <= w.cfg.Frames/4
}

// podOut is how many descriptors may be on their way to one pod.
func (c *Config) podOut() int { return min(directTx, max(c.Frames/16, burstSize)) }

// takeBack takes back the frames that a pod is done with.
func (w *worker) takeBack(d *direct) {
	w.inPods -= d.out
	d.sock.Reclaim()
	d.out = d.sock.Unsent()
	w.inPods += d.out
}

// queue puts a packet's descriptors, for which there is room, on a direct socket.
func (w *worker) queue(d *direct, slot endpoint.ID, descs []xsk.Desc) {
	d.sock.Send(descs)
	d.out += len(descs)
	w.inPods += len(descs)
	if !d.used {
		d.used = true
		w.b.direct = append(w.b.direct, slot)
	}
}

// goOn has the kernel send what it did not take when it was asked, and takes back what
// pods are done with: nothing else may come for them.
func (w *worker) goOn() {
	list := w.waiting
	w.waiting = list[:0] // kick puts back what has been read
	for _, slot := range list {
		d := &w.direct[slot]
		d.waits = false
		if d.sock != nil {
			w.kick(d, slot)
		}
	}
}

// kick has the kernel send what a direct socket holds.
func (w *worker) kick(d *direct, slot endpoint.ID) {
	d.used, d.kickedNs = false, w.nowNs
	pending := d.sock.Pending()
	for range maxKicks {
		switch d.sock.Kick() {
		case xsk.Again:
			left := d.sock.Pending()
			if d.sock.Reclaim() > 0 || left < pending {
				pending = left
				continue
			}
			// The kernel takes no more while the pod holds so much.
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
	w.takeBack(d)
	if d.out > 0 && !d.waits {
		d.waits = true
		w.waiting = append(w.waiting, slot)
	}
}
