package dataplane

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

const (
	sidesA    uint8 = 1 << 0 // of DenyValue.Sides
	sidesB    uint8 = 1 << 1
	bothSides       = sidesA | sidesB
)

// offloader collects what a burst changes in the kernel's caches and writes it
// with one system call a map, before the burst's packets are sent.
type offloader struct {
	keys     [burstSize]packet.Key
	values   [burstSize]xdpprog.FlowValue
	refs     [burstSize]flow.Ref
	held     [burstSize]bool // an earlier version of it is in the cache
	n        int
	gone     [2 * burstSize]packet.Key
	nGone    int
	deniedK  [burstSize]packet.Key
	denied   [burstSize]xdpprog.DenyValue
	nDenied  int
	admitK   [burstSize]xdpprog.AdmitKey
	admits   [burstSize]xdpprog.AdmitValue
	nAdmits  int
	probe    packet.Key
	flow     xdpprog.FlowValue // result of a look-up
	lastDeny xdpprog.DenyValue // likewise
	lately   [1 << 12]uint64   // hashes of what was denied
}

// deniedLately is where the hash of a flow is, if it was denied, and none of those
// that share the place was after it.
func (o *offloader) deniedLately(hash uint64) *uint64 {
	return &o.lately[hash>>32%uint64(len(o.lately))]
}

// cacheable reports whether divert can find the flow's key by itself.
func cacheable(k *packet.Key) bool {
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 {
		return k.APort == k.BPort // echo
	}
	return true
}

// enter puts an allowed flow into the kernel's cache, with the burst's flush.
func (o *offloader) enter(w *worker, ref flow.Ref, e *flow.Entry) {
	if !w.cfg.Offload || !cacheable(&e.Key) || e.State == flow.Closed || e.Flags&lookup != 0 || o.n == len(o.keys) {
		return
	}
	o.keys[o.n], o.values[o.n], o.refs[o.n], o.held[o.n] = e.Key, w.cacheValue(e), ref, false
	o.n++
	e.Flags |= flow.Offloaded
}

// cacheValue is a flow as it is written into the kernel's cache.
func (w *worker) cacheValue(e *flow.Entry) xdpprog.FlowValue {
	return xdpprog.FlowValue{
		Slot:       [2]uint32{uint32(e.Slot[0]), uint32(e.Slot[1])},
		Gen:        e.Gen,
		Initiator:  uint8(e.Initiator),
		Flags:      w.cacheFlags(e),
		TCPFlags:   e.TCPFlags,
		LastSeenNs: uint64(w.nowNs),
	}
}

// renew writes a flow anew, keeping what the kernel counted.
func (o *offloader) renew(w *worker, ref flow.Ref, e *flow.Entry) {
	if e.Flags&lookup != 0 || e.State == flow.Closed {
		o.leave(w, e)
		return
	}
	if at := o.pending(&e.Key); at >= 0 { // what is in the cache has been absorbed
		o.values[at] = w.cacheValue(e)
		return
	}
	held := e.Flags&flow.Offloaded != 0
	if held {
		o.absorb(w, ref, e)
		e.Flags &^= flow.Offloaded
	}
	o.enter(w, ref, e)
	if at := o.n - 1; at >= 0 && o.refs[at] == ref {
		o.held[at] = held
	}
}

// pending returns where a flow is that the burst's flush is to write, or -1. There is
// one of each.
func (o *offloader) pending(k *packet.Key) int {
	for i := range o.n {
		if o.keys[i] == *k {
			return i
		}
	}
	return -1
}

// absorb brings an entry up to date with what the kernel saw of its flow;
// false if the kernel knows nothing of it. The kernel's counters start again
// with the next enter.
func (o *offloader) absorb(w *worker, ref flow.Ref, e *flow.Entry) bool {
	o.probe = e.Key
	if !xdpprog.LookupFlow(w.objs, &o.probe, &o.flow) {
		return false
	}
	o.merge(w, ref, e, true)
	return true
}

// merge brings an entry up to date with o.flow; counters only if they start
// again afterwards.
func (o *offloader) merge(w *worker, ref flow.Ref, e *flow.Entry, counters bool) {
	v := &o.flow
	if seen := int64(v.LastSeenNs); seen > e.LastSeenNs {
		e.LastSeenNs = seen
	}
	if v.Flags&xdpprog.FlowToPod != 0 {
		e.Flags |= flow.NoShortcut // as divert found
	}
	packets, bytes, last := e.Packets, e.Bytes, e.LastSeenNs
	answer, ask := e.Initiator.Other(), e.Initiator
	if v.Packets[answer] > 0 {
		w.flows.Track(ref, answer, v.TCPFlags[answer]&(packet.TCPSyn|packet.TCPAck), 0, last)
	}
	if v.Packets[ask] > 0 {
		w.flows.Track(ref, ask, packet.TCPAck, 0, last)
	}
	e.Packets, e.Bytes = packets, bytes
	if counters {
		for s := range v.Packets {
			e.Packets[s] += v.Packets[s]
			e.Bytes[s] += v.Bytes[s]
		}
	}
	for s := range v.TCPFlags {
		e.TCPFlags[s] |= v.TCPFlags[s]
	}
}

// leave takes a flow out of the kernel's cache, and what was counted there with it.
func (o *offloader) leave(w *worker, e *flow.Entry) {
	if e.Flags&flow.Offloaded == 0 {
		return
	}
	e.Flags &^= flow.Offloaded
	// A pending entry of the same flow must not be written after this.
	at := o.pending(&e.Key)
	if at >= 0 {
		o.n--
		o.keys[at], o.values[at], o.refs[at], o.held[at] = o.keys[o.n], o.values[o.n], o.refs[o.n], o.held[o.n]
	}
	o.probe = e.Key
	if !xdpprog.TakeFlow(w.objs, &o.probe, &o.flow) {
		return
	}
	w.counts.Add(stat.CacheDeletes, 1)
	if at >= 0 {
		return // that one was to be replaced, and has been absorbed
	}
	for s := range o.flow.Packets {
		e.Packets[s] += o.flow.Packets[s]
		e.Bytes[s] += o.flow.Bytes[s]
		e.TCPFlags[s] |= o.flow.TCPFlags[s]
	}
}

// remove deletes a key from the kernel's cache, with the burst's flush.
func (o *offloader) remove(w *worker, k *packet.Key) {
	if o.nGone == len(o.gone) {
		o.delete(w)
	}
	o.gone[o.nGone] = *k
	o.nGone++
}

// deny remembers in the kernel what one side of a flow may not send.
func (o *offloader) deny(w *worker, snap *snapshot, p *pkt, h *packet.Header) {
	if h.Frag != packet.FragNone || p.reason != stat.Policy || opensNone(h) {
		return
	}
	var v xdpprog.DenyValue
	for s, a := range [2]packet.Addr{p.key.A, p.key.B} {
		slot := snap.addrs.lookup(a)
		v.Slot[s] = uint32(slot)
		if slot != endpoint.None {
			v.Gen[s] = snap.endpoint(slot).gen
		}
	}
	mine := p.side
	if p.hook == event.ToPod {
		mine = mine.Other()
	}
	v.Slot[mine], v.Gen[mine] = uint32(p.slot), snap.endpoint(p.slot).gen
	v.Sides, v.Initiator = sidesA<<p.side, uint8(p.side)
	o.remember(w, &p.key, &v)
}

// denyFlow remembers in the kernel that a flow is cut, in both directions.
func (o *offloader) denyFlow(w *worker, p *pkt, e *flow.Entry) {
	v := xdpprog.DenyValue{
		Slot:      [2]uint32{uint32(e.Slot[0]), uint32(e.Slot[1])},
		Gen:       e.Gen,
		Sides:     bothSides,
		Initiator: uint8(e.Initiator),
	}
	o.remember(w, &p.key, &v)
}

func (o *offloader) remember(w *worker, k *packet.Key, v *xdpprog.DenyValue) {
	if !w.cfg.Offload || !cacheable(k) || o.nDenied == len(o.denied) {
		return
	}
	if c := w.capture.Load(); c != nil && c.Interest()&event.WantDenied != 0 {
		return // so that whoever captures sees each of them
	}
	v.SinceNs = uint64(w.nowNs)
	o.deniedK[o.nDenied], o.denied[o.nDenied] = *k, *v
	o.nDenied++
	hash := w.flows.Hash(k)
	*o.deniedLately(hash) = hash
}

// pardon forgets that one side of a flow may not send: the other one has opened it
// since. The cache, where divert looks first, doesn't have the flow.
func (o *offloader) pardon(w *worker, k *packet.Key) {
	if !w.cfg.Offload {
		return
	}
	for i := 0; i < o.nDenied; i++ {
		if o.deniedK[i] == *k {
			o.nDenied--
			o.deniedK[i], o.denied[i] = o.deniedK[o.nDenied], o.denied[o.nDenied]
			i--
		}
	}
	o.probe = *k
	xdpprog.DeleteDenied(w.objs, &o.probe)
}

// flush writes what the burst collected.
func (o *offloader) flush(w *worker) {
	if o.nGone > 0 {
		o.delete(w)
	}
	if o.n > 0 {
		o.write(w)
	}
	if o.nAdmits > 0 {
		if n, err := xdpprog.UpdateAdmits(w.objs, o.admitK[:o.nAdmits], o.admits[:o.nAdmits]); err != nil {
			w.counts.Add(stat.CacheErrors, uint64(o.nAdmits-n))
		}
		o.nAdmits = 0
	}
	if o.nDenied > 0 {
		if n, err := xdpprog.UpdateDenied(w.objs, o.deniedK[:o.nDenied], o.denied[:o.nDenied]); err != nil {
			w.counts.Add(stat.CacheErrors, uint64(o.nDenied-n))
		}
		o.nDenied = 0
	}
}

// write puts the collected flows into the cache. The kernel stops at the first that
// finds no room; then those of the others that have a place there are written. The
// rest go on through the worker.
func (o *offloader) write(w *worker) {
	for at := 0; at < o.n; {
		n, err := xdpprog.UpdateFlows(w.objs, o.keys[at:o.n], o.values[at:o.n])
		w.counts.Add(stat.CacheWrites, uint64(n))
		if at += n; err == nil {
			break
		}
		for first := at; at < o.n && (at == first || !o.held[at]); at++ {
			w.counts.Add(stat.CacheErrors, 1)
			w.flows.At(o.refs[at]).Flags &^= flow.Offloaded
			if hash := w.flows.Hash(&o.keys[at]); *o.deniedLately(hash) == hash {
				o.pardon(w, &o.keys[at]) // a system call, which most flows of a flood are spared
			}
			if o.held[at] {
				o.remove(w, &o.keys[at])
			}
		}
	}
	o.n = 0
	if o.nGone > 0 {
		o.delete(w)
	}
}

// delete removes the collected keys; absent ones are none of its business.
func (o *offloader) delete(w *worker) {
	for at := 0; at < o.nGone; {
		n, err := xdpprog.DeleteFlows(w.objs, o.gone[at:o.nGone])
		w.counts.Add(stat.CacheDeletes, uint64(n))
		at += n
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) {
			w.counts.Add(stat.CacheErrors, 1)
		}
		at++
	}
	o.nGone = 0
}
