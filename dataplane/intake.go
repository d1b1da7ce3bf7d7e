package dataplane

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// A worker judges what uplink_steer gives it of a NIC's queue, before the host's
// stack has spent anything on it, and either drops it or has it go on at the
// NIC's ingress as if it had just been received. The stack then routes, tracks
// and translates it as ever; never is a packet brought into a pod past the
// host's conntrack, whose view of a flow would miss a direction. At the pod's
// link the flow is in the kernel's cache by then.
//
// Which queue a packet comes by is the NIC's choice, not that of divert. A worker
// that does not own the flow judges the packet all the same, by the rules alone,
// but keeps nothing of it: an allowed one is judged once more at the pod's link,
// by the owner. What is in doubt goes on, since it is judged there.

// intake is a worker's end of one queue of an uplink.
type intake struct {
	q       *uplinkQueue
	sock    *xsk.Socket // nil: not open
	retryNs int64
	sampled int64 // when the kernel's counters were read
}

// intakes are the queues of uplinks that a worker serves.
type intakes struct {
	plan *atomic.Pointer[[]*uplinkQueue] // shared, written by Plane
	have *[]*uplinkQueue                 // the plan that open stands for
	open []intake
	// short: the UMEM has no frames for all of them, a larger one is needed.
	short bool
}

// intakeRetry is how soon a queue is bound anew that could not be bound.
const intakeRetry = int64(200e6)

// planned lists the queues that the worker is to serve.
func (w *worker) planned() (plan *[]*uplinkQueue, mine []*uplinkQueue) {
	if w.intakes.plan == nil {
		return nil, nil
	}
	if plan = w.intakes.plan.Load(); plan == nil {
		return nil, nil
	}
	for _, q := range *plan {
		if q.worker == w.id {
			mine = append(mine, q)
		}
	}
	return plan, mine
}

// frames is how many frames the worker's UMEM needs.
func (w *worker) frames() int {
	n := w.cfg.Frames + w.maxHeard*w.cfg.podFill()
	if w.intakes.plan == nil {
		return n
	}
	if plan := w.intakes.plan.Load(); plan != nil {
		for _, q := range *plan {
			if q.worker == w.id {
				n += w.cfg.Frames
			}
		}
	}
	return n
}

// tendIntakes opens and closes sockets as the plan says, one a turn: binding may
// have a driver reset the queue.
func (w *worker) tendIntakes() {
	t := &w.intakes
	if plan, mine := w.planned(); plan != t.have {
		w.closeIntakes()
		t.have = plan
		for _, q := range mine {
			t.open = append(t.open, intake{q: q})
		}
	}
	for i := range t.open {
		in := &t.open[i]
		if in.sock != nil {
			in.sample(w.nowNs)
			continue
		}
		if w.nowNs < in.retryNs {
			continue
		}
		if t.short = w.frames() > w.umem.Frames(); t.short {
			return
		}
		in.retryNs = w.nowNs + intakeRetry
		w.openIntake(in)
		return
	}
}

func (in *intake) sample(nowNs int64) {
	if nowNs-in.sampled < sampleEveryNs {
		return
	}
	in.sampled = nowNs
	if s, err := in.sock.Stats(); err == nil {
		in.q.lost.Store(s.RxDropped + s.RxRingFull)
	}
}

// openIntake binds a queue: in zero-copy mode where the driver has it, else in
// copy mode, and says which and why.
func (w *worker) openIntake(in *intake) {
	cfg := xsk.Default(in.q.nic.Ifindex, uint32(in.q.queue))
	half := uint32(w.cfg.Frames / 2)
	cfg.RxSize, cfg.FillSize, cfg.TxSize, cfg.CompletionSize = half, half, 0, half
	cfg.Apart, cfg.BindTimeout = true, -1
	cfg.Mode = xsk.ZeroCopy
	sock, refused := w.umem.Open(cfg)
	err := refused
	if err != nil && !passing(err) {
		cfg.Mode = xsk.Copy
		sock, err = w.umem.Open(cfg)
	}
	if err == nil {
		err = w.objs.SetUplinkSocket(in.q.at, sock.FD())
	}
	if err != nil {
		if sock != nil {
			_ = sock.Close()
		}
		in.q.failed(err)
		return
	}
	in.sock, w.poller = sock, nil
	sock.Refill()
	sock.Wake()
	in.q.bound(sock.Mode(), refused)
	w.log.Info("serving queue of uplink", "iface", in.q.nic.Name, "queue", in.q.queue,
		"mode", sock.Mode().String(), "zerocopyRefused", refused)
}

// passing reports whether an error says nothing of the driver: an earlier socket
// is being given back, or the NIC is down.
func passing(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENETDOWN) }

func (w *worker) closeIntakes() {
	t := &w.intakes
	for i := range t.open {
		w.closeIntake(&t.open[i])
	}
	t.open, t.have, t.short = nil, nil, false
}

func (w *worker) closeIntake(in *intake) {
	if in.sock == nil {
		return
	}
	if err := in.sock.Close(); err != nil {
		w.log.Warn("close socket of uplink", "iface", in.q.nic.Name, "err", err)
	}
	in.sock, w.poller = nil, nil
	in.q.failed(errClosed)
}

// takeIn serves a burst of each uplink's queue.
func (w *worker) takeIn(snap *snapshot) int {
	n := 0
	for i := range w.intakes.open {
		in := &w.intakes.open[i]
		if in.sock == nil {
			continue
		}
		if got := w.receive(in.sock); got > 0 {
			for k := range got {
				w.b.pkts[k].from = in.q
			}
			w.process(snap)
			w.transmit(snap)
			in.q.packets.Add(uint64(got))
			n += got
		}
		in.sock.Refill()
		in.sock.Wake()
	}
	return n
}

// dropDead closes sockets of uplinks that have gone.
func (w *worker) dropDead() {
	for i := range w.intakes.open {
		if in := &w.intakes.open[i]; in.sock != nil && in.sock.Probe() == xsk.Dead {
			w.log.Warn("uplink lost", "iface", in.q.nic.Name, "queue", in.q.queue, "err", in.sock.Err())
			w.closeIntake(in)
		}
	}
}

// parseUplink fills in packet i, of an uplink, and finds the pod that it is for.
func (w *worker) parseUplink(snap *snapshot, i int) progress {
	p, h := &w.b.pkts[i], &w.b.hdrs[i]
	p.hook, p.verb = event.ToPod, verbResume
	if packet.ParseLen(p.frame, int(p.length), h) != stat.OK || h.Tags > 0 || h.Class.Link() ||
		h.Frag != packet.FragNone || h.ICMPError {
		return dropped // goes on
	}
	p.slot = snap.addrs.lookup(h.Dst)
	if p.slot == endpoint.None || snap.endpoint(p.slot).gen == 0 || h.Src == h.Dst {
		return dropped
	}
	if !snap.outside(h.Src) {
		return dropped
	}
	p.side = h.KeyTo(&p.key)
	return parsed
}

// outside reports whether a packet that comes by an uplink may have an address
// for its source. The host refuses what claims to come from itself, forwards
// nothing that is of the link, and its reverse path filter knows better where a
// pod of this node is. A flow that such a packet opened would be answered.
func (s *snapshot) outside(a packet.Addr) bool {
	return a.ValidSource() && !a.IsLinkLocal() &&
		s.addrs.lookup(a) == endpoint.None && s.host.lookup(a) == endpoint.None
}

// routeUplink decides what can be decided without the classifier.
func (w *worker) routeUplink(snap *snapshot, i int) {
	p, h := &w.b.pkts[i], &w.b.hdrs[i]
	if p.ref == flow.NoRef {
		w.query(snap, i, p.side, mayOpen)
		return
	}
	e := w.flows.At(p.ref)
	if e.State != flow.Free && e.Flags&cut != 0 && snap.current(e) && e.Slot[p.side.Other()] == p.slot {
		w.deny(snap, p, h, stat.Policy, e)
	}
}

// settleUplink acts on the classifier's answer for a packet of an uplink.
func (w *worker) settleUplink(snap *snapshot, j *judgement, o *outcome) {
	p, h := &w.b.pkts[j.pkt], &w.b.hdrs[j.pkt]
	if !o.allowed {
		w.refuse(snap, p, h, o)
		return
	}
	if !w.owns(&p.key) || w.flows.Find(&p.key) != flow.NoRef {
		return // goes on
	}
	if w.admittedMeanwhile(p); p.ref != flow.NoRef {
		return
	}
	w.enter(snap, p, h, j, o)
}

// hand lets the packet that opened a flow go on to the pod's link, where it is
// counted.
func (w *worker) hand(p *pkt, e *flow.Entry) {
	if e.Packets[p.side] > 0 {
		e.Packets[p.side]--
		e.Bytes[p.side] -= uint64(p.length)
	}
	p.verb = verbResume
}

// noteAsked notes, before the packet leaves, that a pod opens a flow: what comes
// back by an uplink may be a reply that the host translates.
func (w *worker) noteAsked(p *pkt) {
	if len(w.cfg.Uplinks) == 0 || p.hook != event.FromPod {
		return
	}
	_, _, sport, _ := p.key.Tuple(p.side)
	w.objs.NoteAskedFrom(uint32(p.slot), sport)
}

// owns reports whether the flow of a key is this worker's.
func (w *worker) owns(k *packet.Key) bool {
	if w.cfg.Workers == 1 {
		return true
	}
	key := xdpprog.FlowKey{A: xdpprog.Addr(k.A), B: xdpprog.Addr(k.B), APort: k.APort, BPort: k.BPort, Proto: uint8(k.Proto)}
	return int(xdpprog.Owner(&key, w.objs.Seed(), uint32(w.cfg.Workers))) == w.id
}
