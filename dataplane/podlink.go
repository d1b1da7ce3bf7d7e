package dataplane

import (
	"time"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// Without offload all that pods send comes up to a worker, and the steering
// port costs the sender's core one more veth hop. So pods that send are heard
// on their own links: the direct socket there receives as well, ahead of divert
// (xdpprog.PodXDP). It holds frames of the UMEM, so only so many pods are heard
// at a time; the others, and what is not plain TCP or UDP, come by the port.
//
// The price: while XDP is on its link, a pod has no TSO (veth_fix_features in
// drivers/net/veth.c), and its checksums come unfinished.

// quietNs is how long a pod may be silent before another takes its place.
const quietNs = int64(time.Second)

// heard is how many pods a worker hears at a time.
func (c *Config) heard() int {
	if c.Offload {
		return 0
	}
	return c.PodLinks
}

// podFill is how many frames wait on the link of a pod that is heard: enough
// for what a TCP sender sends at once.
func (c *Config) podFill() int { return c.Frames / 4 }

// takePods takes a burst from the link of each pod that is heard.
func (w *worker) takePods(snap *snapshot) (n int) {
	for i := 0; i < len(w.hearing); i++ {
		d := &w.direct[w.hearing[i]]
		got := w.receive(d.sock)
		if got == 0 {
			continue
		}
		d.heardNs = w.nowNs
		for k := range got {
			w.b.pkts[k].bare = true
		}
		w.process(snap)
		w.finish()
		w.listen(snap)
		w.transmit(snap)
		n += got
	}
	return n
}

// finish completes the checksums of what goes on.
func (w *worker) finish() {
	b := &w.b
	for i := range b.n {
		p, h := &b.pkts[i], &b.hdrs[i]
		if p.verb == verbDrop || !packet.Unfinished(p.frame, h) {
			continue
		}
		rest := b.rest[:p.descs-1]
		for k := range rest {
			d := b.descs[int(p.desc)+1+k]
			rest[k] = w.umem.Bytes(d.Addr, d.Len)
		}
		if !packet.FinishChecksum(p.frame, h, rest...) {
			w.drop(p, stat.Truncated)
		}
	}
}

// wishToHear makes a note that a pod's packets come by the port, if that can be
// changed.
func (w *worker) wishToHear(slot endpoint.ID) {
	if w.wanted != endpoint.None || int(slot) >= len(w.direct) || int(slot)%w.cfg.Workers != w.id {
		return
	}
	if d := &w.direct[slot]; !d.hears && d.deaf == 0 && w.nowNs >= d.retryNs && w.roomToHear() {
		w.wanted = slot
	}
}

// roomToHear reports whether one more pod can be heard, maybe in the place of
// one that is silent.
func (w *worker) roomToHear() bool {
	return len(w.hearing) < w.maxHeard || w.quietest() != nil
}

// quietest returns the pod that has been silent for longest, nil if none has
// been for long.
func (w *worker) quietest() (q *direct) {
	since := w.nowNs - quietNs
	for _, slot := range w.hearing {
		if d := &w.direct[slot]; d.heardNs < since {
			q, since = d, d.heardNs
		}
	}
	return q
}

// hear has the direct socket of a pod receive. A link that can't take the
// program, as it has another or too few queues, is left as it is.
func (w *worker) hear(d *direct, slot endpoint.ID) error {
	d.sock.Refill()
	if err := w.attach(xdpprog.PodXDP, d.ifindex); err != nil {
		return err
	}
	d.hears, d.heardNs = true, w.nowNs
	w.hearing, w.poller = append(w.hearing, slot), nil
	w.heard.Store(int64(len(w.hearing)))
	return w.objs.SetPodSocket(uint32(slot), d.sock.FD())
}

// unhear takes the program off a pod's link again; what the pod sends then goes
// by the port. Frames that wait in the ring are lost with the socket.
func (w *worker) unhear(d *direct) {
	d.hears, w.poller = false, nil
	if s, err := d.sock.Stats(); err == nil {
		w.rings.left = addRings(w.rings.left, s)
	}
	for i, slot := range w.hearing {
		if &w.direct[slot] == d {
			w.hearing = append(w.hearing[:i], w.hearing[i+1:]...)
			break
		}
	}
	w.heard.Store(int64(len(w.hearing)))
	if err := w.objs.Detach(xdpprog.PodXDP, d.ifindex); err != nil {
		w.log.Warn("leave pod's link", "err", err)
	}
}

// hearingStats adds up what the kernel dropped on the pods' links.
func (w *worker) hearingStats() (sum xsk.Stats) {
	for _, slot := range w.hearing {
		if s, err := w.direct[slot].sock.Stats(); err == nil {
			sum = addRings(sum, s)
		}
	}
	return sum
}
