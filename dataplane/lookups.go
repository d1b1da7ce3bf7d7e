package dataplane

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
)

// Pods whose policies name domains learn addresses from the answers of their
// resolvers. Their conversations on port 53 never enter the kernel's caches, so
// that each packet of them comes by here. The worker doesn't read them: it hands
// a copy to whoever does, holds an answer back, and goes on with other packets;
// the answer follows when it is released, so that the rules know its addresses
// before the pod does, or when its time is up.

// portDNS is the port of resolvers (RFC 1035, section 4.2).
const portDNS = 53

// lookup marks the entry of a conversation with a resolver that is listened to.
const lookup flow.Flags = 1 << 13

// maxHeld bounds the frames that a worker holds back, of some thousand.
const maxHeld = burstSize

// held is an answer that waits for its release.
type held struct {
	number uint64
	dueNs  int64
	due    bool
	pkt    pkt
	hdr    packet.Header
	descs  [4]xsk.Desc
}

// listener is a worker's part in learning names.
type listener struct {
	ring   *event.LookupRing
	poke   func() // tells the reader of all rings
	told   bool   // in this burst
	parts  [4][]byte
	number uint64 // last given out
	waits  [maxHeld]held
	n      int // of waits

	released chan uint64 // numbers
	bell     bell
}

// bell ends a worker's sleep. Ring is anyone's.
type bell struct {
	mu sync.Mutex
	fd int // eventfd, -1 if there is none
}

func (b *bell) open() (err error) {
	b.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		b.fd = -1
	}
	return err
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd >= 0 {
		// It fails only if it has rung 2^64 times unheard.
		_, _ = unix.Write(b.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// hush makes the bell silent again.
func (b *bell) hush() {
	var buf [8]byte
	_, _ = unix.Read(b.fd, buf[:]) // EAGAIN if it has not rung
}

func (b *bell) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fd := b.fd
	b.fd = -1
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

func (l *listener) init(poke func()) error {
	l.ring, l.poke = event.NewLookupRing(), poke
	l.released = make(chan uint64, 4*maxHeld)
	return l.bell.open()
}

// listened reports whether a flow is a conversation to listen to: one that a
// pod that learns names has begun with a resolver.
func (s *snapshot) listened(k *packet.Key, initiator packet.Side, from endpoint.ID) bool {
	_, _, _, dport := k.Tuple(initiator)
	return dport == portDNS && (k.Proto == packet.ProtoUDP || k.Proto == packet.ProtoTCP) && s.endpoint(from).learns
}

// listen hands on what pods that learn names and their resolvers say to each
// other, and holds answers back.
func (w *worker) listen(snap *snapshot) {
	if !snap.learning {
		return
	}
	b := &w.b
	w.listener.told = false
	for i := range b.n {
		p := &b.pkts[i]
		if p.verb != verbDrop && (p.key.APort == portDNS || p.key.BPort == portDNS) {
			w.overhear(snap, i)
		}
	}
	if w.listener.told {
		w.listener.poke()
	}
}

// overhear looks at one packet that has a resolver's port.
func (w *worker) overhear(snap *snapshot, i int) {
	p, h := &w.b.pkts[i], &w.b.hdrs[i]
	if h.ICMPError || h.Frag == packet.FragLater || h.Proto != packet.ProtoUDP && h.Proto != packet.ProtoTCP {
		return
	}
	if p.ref == flow.NoRef || !w.flows.Holds(p.ref, &p.key) || w.flows.At(p.ref).Flags&lookup == 0 {
		return // what a pod says in a conversation that another began is no question
	}
	to := p.slot
	if p.verb == verbShortcut {
		to = p.to
	}
	l := event.Lookup{Key: p.key, Side: p.side, TimeNs: w.wallNs, TCPFlags: h.TCPFlags, Whole: h.Frag == packet.FragNone}
	_, _, sport, dport := p.key.Tuple(p.side)
	switch {
	case p.hook == event.FromPod && dport == portDNS && snap.endpoint(p.slot).learns:
		l.Pod = p.slot
	case (p.hook == event.ToPod || p.verb == verbShortcut) && sport == portDNS && snap.endpoint(to).learns:
		l.Pod, l.Answer = to, true
	default:
		return
	}
	parts, ok := w.payload(p, h, &l.Seq)
	if !ok {
		return
	}
	ln := &w.listener
	empty := len(parts) == 0
	if empty && h.TCPFlags&(packet.TCPSyn|packet.TCPFin|packet.TCPRst) == 0 {
		return // a bare acknowledgement
	}
	hold := l.Answer && !empty && ln.n < maxHeld && int(p.descs) <= len(ln.waits[0].descs) && !ln.ring.Full(l.Pod)
	if hold {
		l.Held = event.Ticket{Worker: uint16(w.id), Number: ln.number + 1}
	} else if l.Answer && !empty {
		w.counts.Add(stat.LookupsUnheld, 1)
	}
	if !ln.ring.Put(&l, parts...) {
		return
	}
	ln.told = true
	if hold {
		w.hold(p, h)
	}
}

// payload returns what a packet carries beyond its transport header, in the
// listener's scratch, and of TCP its place in the stream. It is false if the
// frame's first descriptor doesn't hold the header.
func (w *worker) payload(p *pkt, h *packet.Header, seq *uint32) ([][]byte, bool) {
	at := int(h.L4) + 8
	if h.Proto == packet.ProtoTCP {
		var ok bool
		if *seq, at, ok = packet.TCPSegment(p.frame, h); !ok {
			return nil, false
		}
	}
	end := int(h.L3) + int(h.IPLen)
	parts := w.listener.parts[:0]
	for i := range min(int(p.descs), cap(parts)) {
		d := &w.b.descs[int(p.desc)+i]
		chunk := w.umem.Bytes(d.Addr, d.Len)
		if n := min(len(chunk), end); at < n {
			parts = append(parts, chunk[max(at, 0):n])
		}
		at, end = max(at-len(chunk), 0), end-len(chunk)
	}
	return parts, true
}

// hold keeps a packet's frame until it is released.
func (w *worker) hold(p *pkt, h *packet.Header) {
	ln := &w.listener
	ln.number++
	x := &ln.waits[ln.n]
	ln.n++
	x.number, x.dueNs, x.due = ln.number, w.nowNs+int64(w.cfg.AnswerHold), false
	x.pkt, x.hdr = *p, *h
	copy(x.descs[:], w.b.descs[p.desc:p.desc+p.descs])
	p.verb = verbHold
	w.counts.Add(stat.LookupsHeld, 1)
}

// sendReleased sends those of the held frames on that are released, or whose
// time is up. It uses the burst's room, between two bursts.
func (w *worker) sendReleased() {
	ln := &w.listener
	if ln.n == 0 {
		return
	}
	due := w.noteReleased()
	for i := range ln.waits[:ln.n] {
		if x := &ln.waits[i]; !x.due && x.dueNs <= w.nowNs {
			x.due, due = true, true
			w.counts.Add(stat.LookupsLate, 1)
		}
	}
	if !due {
		return
	}
	snap := w.snap.Load() // not older than the release
	b := &w.b
	b.n, b.nDescs = 0, 0
	left := 0
	for i := range ln.waits[:ln.n] {
		x := &ln.waits[i]
		if !x.due {
			if left != i {
				ln.waits[left] = *x
			}
			left++
			continue
		}
		p := &b.pkts[b.n]
		*p, b.hdrs[b.n] = x.pkt, x.hdr
		p.desc = uint16(b.nDescs)
		b.nDescs += copy(b.descs[b.nDescs:], x.descs[:p.descs])
		b.n++
		if !w.stillThere(snap, p, &x.hdr) {
			w.drop(p, stat.NotReady)
		}
	}
	ln.n = left
	w.transmit(snap)
}

// noteReleased marks the frames that have been released.
func (w *worker) noteReleased() (any bool) {
	ln := &w.listener
	for {
		select {
		case number := <-ln.released:
			for i := range ln.waits[:ln.n] {
				if ln.waits[i].number == number {
					ln.waits[i].due, any = true, true
				}
			}
			continue
		default:
		}
		return any
	}
}

// stillThere reports whether both ends of a held frame are what they were.
func (w *worker) stillThere(snap *snapshot, p *pkt, h *packet.Header) bool {
	to := p.slot
	if p.verb == verbShortcut {
		to = p.to
	}
	own, at := snap.endpoint(to), snap.endpoint(p.slot)
	return own.gen != 0 && at.gen != 0 && own.owns(h.Dst)
}
